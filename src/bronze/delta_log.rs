//! The log of a Delta table, through delta-rs's log store.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::{CommitOrBytes, LogStoreRef};
use futures::TryStreamExt;
use object_store::path::Path;
use uuid::Uuid;

use super::BronzeError;
use super::durable::{fsync, has_log, local_path};
use super::log::{CommitLog, PutOutcome, TableState};
use crate::failpoint;
use crate::remedy;

/// Longest wait between two tries.
const PAUSE_MAX_MS: u64 = 5_000;

/// How many entries below the newest are looked at for damage on load: more than lie between two checkpoints.
const TAIL: u64 = 500;

/// A table's log in its storage.
#[derive(Clone)]
pub struct DeltaLog {
    store: LogStoreRef,
    /// The table's folder, where it is a local one.
    local: Option<PathBuf>,
    pipeline: String,
}

impl std::fmt::Debug for DeltaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeltaLog").field("table", &self.name()).finish()
    }
}

impl DeltaLog {
    pub fn new(store: LogStoreRef, pipeline: impl Into<String>) -> Self {
        let local = local_path(store.root_url());
        Self { store, local, pipeline: pipeline.into() }
    }

    pub(super) fn store(&self) -> &LogStoreRef {
        &self.store
    }

    pub(super) fn local(&self) -> Option<&PathBuf> {
        self.local.as_ref()
    }

    fn entry_name(version: u64) -> String {
        format!("{version:020}.json")
    }

    /// Loads the newest version, with its files. None if there is no table.
    pub(super) async fn table(&self) -> Result<Option<DeltaTable>, BronzeError> {
        if self.local.as_ref().is_some_and(|root| !has_log(root)) {
            return Ok(None);
        }
        let mut table = DeltaTable::new(self.store.clone());
        match table.load().await {
            Ok(()) => Ok(Some(table)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(e) => {
                self.check_tail(0, None).await?;
                Err(BronzeError::io(format!("table {} cannot be loaded", self.name()), e))
            }
        }
    }

    /// Refuses zero-length entries and gaps among the entries from `from` on, and a newest one below `newest`.
    async fn check_tail(&self, from: u64, newest: Option<u64>) -> Result<(), BronzeError> {
        let folder = Path::from("_delta_log");
        let after = folder.clone().join(format!("{from:020}"));
        let files: Vec<_> = self
            .store
            .object_store(None)
            .list_with_offset(Some(&folder), &after)
            .try_collect()
            .await
            .map_err(|e| BronzeError::io(format!("the log of {} cannot be listed", self.name()), e))?;
        let mut entries: Vec<(u64, u64)> =
            files.iter().filter_map(|f| Some((version_of(f.location.filename()?)?, f.size))).collect();
        entries.sort_unstable();
        let damage = entries
            .iter()
            .find(|(_, size)| *size == 0)
            .map(|(version, _)| format!("log entry {version} is empty, as a power cut leaves it"))
            .or_else(|| {
                let gap = entries.windows(2).find(|w| w[0].0 + 1 != w[1].0)?;
                Some(format!("log entries between {} and {} are missing", gap[0].0, gap[1].0))
            })
            .or_else(|| {
                let newest = newest.filter(|n| entries.last().is_none_or(|(last, _)| last < n))?;
                Some(format!("log entry {newest} is missing"))
            });
        match damage {
            None => Ok(()),
            Some(what) => Err(BronzeError::stopped(what, self.name(), remedy::repair_log(&self.pipeline))),
        }
    }
}

/// The version of a log entry's file name; none for checkpoints and other files.
fn version_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

impl CommitLog for DeltaLog {
    async fn load(&self, ids: &[String]) -> Result<Option<TableState>, BronzeError> {
        let Some(table) = self.table().await? else { return Ok(None) };
        let failed = |e: DeltaTableError| BronzeError::io(format!("table {} cannot be loaded", self.name()), e);
        let state = table.snapshot().map_err(failed)?;
        let version = state.version();
        // A checkpoint may stand for the entry itself once cleanup has taken it, but never within the hour.
        self.check_tail(version.saturating_sub(TAIL), None).await?;
        let mut txns = HashMap::new();
        for id in ids {
            if let Some(at) = state.transaction_version(self.store.as_ref(), id).await.map_err(failed)? {
                txns.insert(id.clone(), at);
            }
        }
        let json = |e: serde_json::Error| BronzeError::io(format!("metadata of {} cannot be read", self.name()), e);
        let metadata = serde_json::to_value(state.metadata()).map_err(json)?;
        let protocol = serde_json::to_value(state.protocol()).map_err(json)?;
        let number = |name: &str| protocol[name].as_i64().unwrap_or(i64::from(i32::MAX)) as i32;
        let configuration = serde_json::from_value(metadata["configuration"].clone()).map_err(json)?;
        Ok(Some(TableState {
            version,
            txns,
            configuration,
            metadata,
            protocol: (number("minReaderVersion"), number("minWriterVersion")),
        }))
    }

    async fn read(&self, version: u64) -> Result<Option<Bytes>, BronzeError> {
        let read = self.store.read_commit_entry(version).await;
        read.map_err(|e| BronzeError::io(format!("log entry {version} of {} cannot be read", self.name()), e))
    }

    async fn put(&self, version: u64, entry: Bytes) -> PutOutcome {
        failpoint::hit("bronze.before_put");
        let written = self.store.write_commit_entry(version, CommitOrBytes::LogBytes(entry), Uuid::new_v4()).await;
        failpoint::hit("bronze.after_put");
        match written {
            Ok(()) => PutOutcome::Landed,
            Err(TransactionError::VersionAlreadyExists(_)) => PutOutcome::Taken,
            Err(e) => PutOutcome::Unknown(e.to_string()),
        }
    }

    async fn sync(&self, version: u64) -> Result<(), BronzeError> {
        let Some(root) = &self.local else { return Ok(()) };
        let folder = root.join("_delta_log");
        fsync(vec![folder.join(Self::entry_name(version)), folder])
            .await
            .map_err(|e| BronzeError::io(format!("log entry {version} cannot be flushed to the disk"), e))
    }

    async fn pause(&self, attempt: u32) {
        let longest = PAUSE_MAX_MS.min(10u64.saturating_mul(1 << attempt.min(20)));
        let jitter = rand::random_range(longest / 2..=longest);
        tokio::time::sleep(Duration::from_millis(jitter)).await;
    }

    fn now(&self) -> Duration {
        // The wall clock goes on while the machine sleeps, which tokio's and std's instants do not. Where it is set
        // back, `saturating_sub` makes knowledge look fresh for that long: an hour of slack against days of retention.
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }

    fn fresh_id(&self) -> String {
        Uuid::new_v4().to_string()
    }

    fn name(&self) -> String {
        self.store.root_url().to_string()
    }
}
