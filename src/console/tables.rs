//! The lakehouse's tables, opened once and brought up to date by what was committed since: opening each from nothing for
//! every look is what makes pages slow.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{Mutex as Turn, Semaphore};

use crate::batch::upkeep::{Commit, TableSummary, commit, summarize};
use crate::batch::{Lake, Layer};
use crate::cli::lake::{Open, tables_at};
use crate::config::Server;

/// A state that was carried over a checkpoint stays slow and large: after so many versions it is made from nothing.
const CARRIED_MAX: u64 = 20;
/// Tables that are looked at at the same time. Reading a log holds a thread that waits for others: were all of them held,
/// none would be left to wait for.
const AT_ONCE: usize = 4;
/// Tables that are kept open, and for how long without a look.
const KEPT_MAX: usize = 64;
const UNUSED_MAX: Duration = Duration::from_secs(15 * 60);

/// What is known of a table at a version.
#[derive(Debug, Clone)]
pub struct Known {
    pub summary: TableSummary,
    /// Name and type.
    pub columns: Arc<[(String, String)]>,
}

/// A table that is kept open.
struct Kept {
    table: DeltaTable,
    /// The version at which its state was made from nothing.
    made_at: u64,
    known: Option<Known>,
    /// Log entries that were read, by version: they never change.
    commits: HashMap<u64, Commit>,
}

struct Place {
    used: Instant,
    kept: Arc<Turn<Option<Kept>>>,
}

/// The tables. Clones share them.
#[derive(Clone)]
pub struct Tables {
    server: Arc<Server>,
    lake: Arc<OnceLock<Lake>>,
    room: Arc<Semaphore>,
    places: Arc<Mutex<HashMap<(Layer, String), Place>>>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

/// Layer and name of a table such as `silver.user_events`; no path leads out of the lakehouse.
pub fn parts(table: &str) -> Option<(Layer, &str)> {
    let (layer, name) = table.split_once('.')?;
    let layer = Layer::named(layer)?;
    let fine = !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    fine.then_some((layer, name))
}

impl Tables {
    pub fn new(server: Arc<Server>) -> Self {
        Self { server, lake: Arc::default(), room: Arc::new(Semaphore::new(AT_ONCE)), places: Arc::default() }
    }

    /// Where the tables are, for what knows its way about them: it keeps open what it has looked at.
    pub fn lake(&self) -> anyhow::Result<&Lake> {
        match self.lake.get() {
            Some(lake) => Ok(lake),
            None => {
                let lake = Lake::new(&self.server)?;
                Ok(self.lake.get_or_init(|| lake))
            }
        }
    }

    fn places<T>(&self, work: impl FnOnce(&mut HashMap<(Layer, String), Place>) -> T) -> T {
        work(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets go of tables that nobody has looked at for long.
    pub fn forget_unused(&self) {
        self.places(|places| places.retain(|_, place| place.used.elapsed() < UNUSED_MAX));
    }

    fn place(&self, layer: Layer, name: &str) -> Arc<Turn<Option<Kept>>> {
        self.places(|places| {
            let key = (layer, name.to_owned());
            if places.len() >= KEPT_MAX && !places.contains_key(&key) {
                let oldest = places.iter().min_by_key(|(_, place)| place.used).map(|(key, _)| key.clone());
                oldest.and_then(|oldest| places.remove(&oldest));
            }
            let place = places.entry(key).or_insert_with(|| Place { used: Instant::now(), kept: Arc::default() });
            place.used = Instant::now();
            place.kept.clone()
        })
    }

    /// Names of the tables that are there.
    pub fn names(&self) -> anyhow::Result<Vec<String>> {
        tables_at(&self.server.lakehouse.uri)
    }

    /// What is known of every table, at their newest versions.
    pub async fn all(&self) -> anyhow::Result<Vec<(String, Known)>> {
        let lake = self.lake()?;
        let looks = self.names()?.into_iter().filter_map(|table| {
            let (layer, name) = parts(&table)?;
            let name = name.to_owned();
            Some(async move { Ok::<_, anyhow::Error>((self.look(lake, layer, &name).await?, table)) })
        });
        let found: Vec<_> = futures::stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().filter_map(|(known, table)| Some((table, known?))).collect())
    }

    /// What is known of a table, and its newest log entries, newest first; none where there is no such table.
    pub async fn one(&self, table: &str, commits: u64) -> anyhow::Result<Option<(Known, Vec<Commit>)>> {
        let Some((layer, name)) = parts(table) else { return Ok(None) };
        let Some(known) = self.look(self.lake()?, layer, name).await? else { return Ok(None) };
        let place = self.place(layer, name);
        let mut kept = place.lock().await;
        let commits = match &mut *kept {
            Some(kept) => newest_commits(&kept.table.log_store(), known.summary.version, commits, &mut kept.commits)
                .await
                .with_context(|| format!("the log of {table} cannot be read"))?,
            None => Vec::new(),
        };
        Ok(Some((known, commits)))
    }

    async fn look(&self, lake: &Lake, layer: Layer, name: &str) -> anyhow::Result<Option<Known>> {
        let place = self.place(layer, name);
        let mut kept = place.lock().await;
        // The room is never closed.
        let _turn = self.room.acquire().await.ok();
        bring_up_to_date(&mut kept, lake, layer, name).await?;
        let Some(kept) = &mut *kept else { return Ok(None) };
        let version = kept.table.version();
        if let Some(known) = kept.known.as_ref().filter(|known| Some(known.summary.version) == version) {
            return Ok(Some(known.clone()));
        }
        let known = know(&kept.table).await.with_context(|| format!("table {layer}.{name} cannot be read"))?;
        Ok(Some(kept.known.insert(known).clone()))
    }
}

#[async_trait]
impl Open for Tables {
    async fn open(&self, layer: &str, name: &str) -> anyhow::Result<Option<DeltaTable>> {
        let Some(layer) = Layer::named(layer) else { return Ok(None) };
        let place = self.place(layer, name);
        let mut kept = place.lock().await;
        let _turn = self.room.acquire().await.ok();
        bring_up_to_date(&mut kept, self.lake()?, layer, name).await?;
        Ok(kept.as_ref().map(|kept| kept.table.clone()))
    }
}

/// Takes in what was committed since, or opens the table anew where that is quicker or all that helps.
async fn bring_up_to_date(kept: &mut Option<Kept>, lake: &Lake, layer: Layer, name: &str) -> anyhow::Result<()> {
    if kept.is_some() && !lake.may_exist(layer, name) {
        *kept = None;
    }
    if let Some(open) = kept
        && let Ok(newest) = open.table.get_latest_version().await
    {
        if open.table.version() == Some(newest) {
            return Ok(());
        }
        let carried = newest.saturating_sub(open.made_at);
        // One that cannot be carried on, as of a table that was made anew, is opened below.
        if carried <= CARRIED_MAX && open.table.update_incremental(None).await.is_ok() {
            return Ok(());
        }
    }
    let commits = kept.take().map(|kept| kept.commits).unwrap_or_default();
    if !lake.may_exist(layer, name) {
        return Ok(());
    }
    // From nothing: what the lakehouse itself keeps open is carried on.
    let mut table = DeltaTable::new(lake.log_store(layer, name)?);
    match table.load().await {
        Ok(()) => {
            let made_at = table.version().unwrap_or_default();
            *kept = Some(Kept { table, made_at, known: None, commits });
            Ok(())
        }
        Err(DeltaTableError::NotATable(_)) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("table {layer}.{name} cannot be loaded")),
    }
}

async fn know(table: &DeltaTable) -> anyhow::Result<Known> {
    let summary = summarize(table).await?;
    let schema = table.snapshot()?.snapshot().arrow_schema();
    let columns = schema.fields().iter().map(|f| (f.name().clone(), f.data_type().to_string())).collect();
    Ok(Known { summary, columns })
}

/// The newest entries of a log, newest first, as far as it is there. Those that were read before are in `read`.
async fn newest_commits(
    log: &LogStoreRef,
    newest: u64,
    limit: u64,
    read: &mut HashMap<u64, Commit>,
) -> anyhow::Result<Vec<Commit>> {
    let wanted = (newest + 1).saturating_sub(limit)..=newest;
    read.retain(|version, _| wanted.contains(version));
    let mut commits = Vec::new();
    for version in wanted.rev() {
        if let Some(known) = read.get(&version) {
            commits.push(known.clone());
            continue;
        }
        let Some(entry) = log.read_commit_entry(version).await? else { break };
        let commit = commit(version, &entry);
        read.insert(version, commit.clone());
        commits.push(commit);
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_lakehouse() {
        assert_eq!(parts("silver.user_events"), Some((Layer::Silver, "user_events")));
        for bad in ["user_events", "silver.", "silver.../bronze/x", "iron.x", "silver.a/b", "silver.a b", "gold.a;b"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_nobody_looks_at_is_let_go() {
        let tables = Tables::new(Arc::new(Server::default()));
        for n in 0..KEPT_MAX + 3 {
            tables.place(Layer::Gold, &format!("t{n}"));
        }
        assert_eq!(tables.places(|places| places.len()), KEPT_MAX);
        tables.forget_unused();
        assert_eq!(tables.places(|places| places.len()), KEPT_MAX, "all were looked at just now");
    }
}
