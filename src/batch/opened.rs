//! Tables that are open. The tasks of a run, and the runs of a daemon, look at the same tables again and again: each look
//! reads what was committed since the last one, not the whole log.
//!
//! That a table is the one that is known is told from its newest known log entry: where that is another one or none, as
//! after a table was made anew or its log was repaired or cleaned up, the table is loaded from nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableError};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::txn::of_entry;

/// Files of all tables that are kept open; their statistics take about a kilobyte each.
const FILES_MAX: usize = 10_000;
/// Versions over which a table's state is carried; then it is made from nothing again. A state that was carried on holds
/// every log entry since it was made, whatever checkpoints have come.
const CARRIED_MAX: u64 = 1000;
/// Entries that are read to bring what a table has noted up to date; more are looked through by the engine.
const ENTRIES_MAX: u64 = 50;

/// The tables that are open, by their addresses.
#[derive(Default)]
pub struct Opened(Mutex<HashMap<String, Known>>);

#[derive(Clone)]
struct Known {
    table: DeltaTable,
    /// The version at which its state was made from nothing.
    made_at: u64,
    /// Its newest log entry.
    entry: ObjectMeta,
    /// What was asked for of its application ids, as of a version.
    noted: HashMap<String, (u64, Option<i64>)>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.known().keys()).finish()
    }
}

impl Opened {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // A panic between two steps leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A table at its newest version.
    pub async fn newest(&self, store: LogStoreRef) -> Result<DeltaTable, DeltaTableError> {
        let address = store.root_url().to_string();
        let known = self.known().get(&address).cloned();
        if let Some(mut known) = known
            && known.table.version().is_some_and(|version| version.saturating_sub(known.made_at) < CARRIED_MAX)
            && entry(&known.table).await?.is_some_and(|found| is_same(&found, &known.entry))
        {
            let before = known.table.version();
            // Whatever is wrong with what is known, a load from nothing tells.
            if known.table.update_incremental(None).await.is_ok() {
                if known.table.version() != before {
                    self.keep(address, known.table.clone(), known.made_at, known.noted).await?;
                }
                return Ok(known.table);
            }
        }
        self.known().remove(&address);
        let mut table = DeltaTable::new(store);
        table.load().await?;
        let made_at = table.version().unwrap_or_default();
        self.keep(address, table.clone(), made_at, HashMap::new()).await?;
        Ok(table)
    }

    async fn keep(
        &self,
        address: String,
        table: DeltaTable,
        made_at: u64,
        noted: HashMap<String, (u64, Option<i64>)>,
    ) -> Result<(), DeltaTableError> {
        // The newest entry may have been cleaned up, a checkpoint standing for it.
        let Some(entry) = entry(&table).await? else {
            self.known().remove(&address);
            return Ok(());
        };
        let mut all = self.known();
        all.insert(address.clone(), Known { table, made_at, entry, noted });
        let files = |known: &Known| known.table.snapshot().map_or(0, |state| state.log_data().num_files());
        let mut total: usize = all.values().map(files).sum();
        if total > FILES_MAX {
            // The largest alone first, else one after the other.
            let mut by_size: Vec<(usize, String)> =
                all.iter().map(|(name, known)| (files(known), name.clone())).collect();
            by_size.sort_unstable();
            while let Some((size, name)) = by_size.pop().filter(|_| total > FILES_MAX) {
                all.remove(&name);
                total -= size;
            }
        }
        Ok(())
    }

    /// What a table has noted under an application id.
    pub async fn noted(&self, table: &DeltaTable, id: &str) -> Result<Option<i64>, DeltaTableError> {
        let state = table.snapshot()?;
        let (address, version) = (table.table_url().to_string(), state.version());
        let known = self.known().get(&address).and_then(|known| known.noted.get(id).copied());
        let noted = match known {
            Some((at, noted)) if at == version => return Ok(noted),
            Some((at, noted)) if at < version && version - at <= ENTRIES_MAX => {
                match noted_since(table, at, version).await? {
                    Some(newer) => {
                        self.bring(&address, at, version, &newer);
                        newer.get(id).copied().or(noted)
                    }
                    // An entry is not there any more.
                    None => state.transaction_version(table.log_store().as_ref(), id).await?,
                }
            }
            _ => state.transaction_version(table.log_store().as_ref(), id).await?,
        };
        if let Some(known) = self.known().get_mut(&address)
            && known.table.version().is_some_and(|newest| newest >= version)
        {
            known.noted.insert(id.to_owned(), (version, noted));
        }
        Ok(noted)
    }

    /// Brings all that is known as of one version to another: the entries between are read once for every id.
    fn bring(&self, address: &str, from: u64, to: u64, newer: &HashMap<String, i64>) {
        if let Some(known) = self.known().get_mut(address)
            && known.table.version().is_some_and(|newest| newest >= to)
        {
            for (id, (at, noted)) in known.noted.iter_mut().filter(|(_, (at, _))| *at == from) {
                (*at, *noted) = (to, newer.get(id).copied().or(*noted));
            }
        }
    }
}

/// The newest entry of a table's log; none where it is not there.
async fn entry(table: &DeltaTable) -> Result<Option<ObjectMeta>, DeltaTableError> {
    let path = Path::from(format!("_delta_log/{:020}.json", table.version().unwrap_or_default()));
    match table.log_store().object_store(None).head(&path).await {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn is_same(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    (a.size, a.last_modified, &a.e_tag) == (b.size, b.last_modified, &b.e_tag)
}

/// What the entries between two versions have noted, by application id; none where one of them is not there any more.
async fn noted_since(
    table: &DeltaTable,
    after: u64,
    until: u64,
) -> Result<Option<HashMap<String, i64>>, DeltaTableError> {
    let mut noted = HashMap::new();
    for version in after + 1..=until {
        let Some(entry) = table.log_store().read_commit_entry(version).await? else { return Ok(None) };
        let Some(txns) = of_entry(&entry) else { return Ok(None) };
        noted.extend(txns.into_iter().map(|txn| (txn.app_id, txn.version)));
    }
    Ok(Some(noted))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use deltalake::logstore::LogStoreRef;
    use serde_json::{Value, json};

    use crate::batch::entry::{checkpoint, put};
    use crate::batch::{Lake, Layer};

    fn entry(actions: &[Value]) -> Bytes {
        actions.iter().map(|action| format!("{action}\n")).collect::<String>().into()
    }

    fn txn(id: &str, version: i64) -> Value {
        json!({"txn": {"appId": id, "version": version}})
    }

    /// A table's first entry.
    async fn create(store: &LogStoreRef, id: &str) {
        let schema = json!({"type": "struct", "fields": [
            {"name": "n", "type": "long", "nullable": true, "metadata": {}},
        ]});
        let actions = [
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
            json!({"metaData": {
                "id": id, "format": {"provider": "parquet", "options": {}}, "schemaString": schema.to_string(),
                "partitionColumns": [], "configuration": {}, "createdTime": 1,
            }}),
        ];
        assert!(put(store, 0, &entry(&actions)).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_committed_later_is_seen_and_another_table_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gold/t");
        let lake = Lake::at(folder.path().to_str().unwrap(), 1 << 20, folder.path().join("spill")).unwrap();
        let store = lake.log_store(Layer::Gold, "t").unwrap();
        let open = async || lake.open(Layer::Gold, "t").await.unwrap().map(|t| (t.version(), t));
        assert!(open().await.is_none());
        create(&store, "00000000-0000-0000-0000-000000000001").await;
        let (version, table) = open().await.unwrap();
        assert_eq!(version, Some(0));
        assert_eq!(lake.noted(&table, "a").await.unwrap(), None);

        for version in 1..=3 {
            assert!(put(&store, version, &entry(&[txn("a", version as i64 * 10), txn("b", 7)])).await.unwrap());
            let (found, table) = open().await.unwrap();
            assert_eq!(found, Some(version));
            assert_eq!(lake.noted(&table, "a").await.unwrap(), Some(version as i64 * 10));
        }
        let (_, newest) = open().await.unwrap();
        assert_eq!(lake.noted(&newest, "b").await.unwrap(), Some(7), "asked for the first time");
        // One that was opened before stays what it was.
        assert_eq!(table.version(), Some(0));
        assert_eq!(lake.noted(&table, "b").await.unwrap(), None);
        // A checkpoint stands for entries that are cleaned up.
        checkpoint(&lake, Layer::Gold, "t", 3, usize::MAX).await;
        for version in 0..=3 {
            std::fs::remove_file(path.join(format!("_delta_log/{version:020}.json"))).unwrap();
        }
        let (found, table) = open().await.unwrap();
        assert_eq!((found, lake.noted(&table, "a").await.unwrap()), (Some(3), Some(30)));

        // Another table in its place, with as many versions; one with fewer; none.
        for (id, versions) in [(2, 4), (3, 1)] {
            let id = format!("00000000-0000-0000-0000-00000000000{id}");
            std::fs::remove_dir_all(&path).unwrap();
            create(&store, &id).await;
            for version in 1..versions {
                assert!(put(&store, version, &entry(&[txn("a", 1)])).await.unwrap());
            }
            let (found, table) = open().await.unwrap();
            assert_eq!(found, Some(versions - 1));
            assert_eq!(table.snapshot().unwrap().metadata().id(), id);
            assert_eq!(lake.noted(&table, "a").await.unwrap(), (versions > 1).then_some(1));
            assert!(put(&store, versions, &entry(&[txn("b", 2)])).await.unwrap());
            let (found, table) = open().await.unwrap();
            assert_eq!((found, lake.noted(&table, "b").await.unwrap()), (Some(versions), Some(2)));
        }
        std::fs::remove_dir_all(&path).unwrap();
        assert!(open().await.is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_are_read_once_for_all_that_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap(), 1 << 20, folder.path().join("spill")).unwrap();
        let store = lake.log_store(Layer::Gold, "t").unwrap();
        create(&store, "00000000-0000-0000-0000-000000000001").await;
        let open = async || lake.open(Layer::Gold, "t").await.unwrap().unwrap();
        let noted = async |table, id| lake.noted(table, id).await.unwrap();
        assert!(put(&store, 1, &entry(&[txn("a", 1), txn("b", 1), txn("c", 1)])).await.unwrap());
        let table = open().await;
        for id in ["a", "b", "c"] {
            assert_eq!(noted(&table, id).await, Some(1));
        }
        assert!(put(&store, 2, &entry(&[txn("a", 2), txn("b", 2)])).await.unwrap());
        assert!(put(&store, 3, &entry(&[txn("b", 3)])).await.unwrap());
        let table = open().await;
        assert_eq!(noted(&table, "a").await, Some(2));
        // What is asked for next needs none of them.
        std::fs::remove_dir_all(folder.path().join("gold/t/_delta_log")).unwrap();
        assert_eq!((noted(&table, "b").await, noted(&table, "c").await), (Some(3), Some(1)));
    }
}
