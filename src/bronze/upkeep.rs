//! Upkeep of the table's log, off the hot path and from its own, freshly loaded state. One owner at a time: the daemon
//! that holds partition 0. Two at once would only do the work twice.

use std::time::{Duration, Instant};

use deltalake::checkpoints::{cleanup_metadata, create_checkpoint};
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableError};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;

use super::durable::{fsync, local_path};
use super::{BronzeError, Table};
use crate::failpoint;

/// When a checkpoint is due: loading a table costs what was committed since the last one.
pub const CHECKPOINT_EVERY: u64 = 50;

/// What upkeep does.
#[derive(Debug, Clone)]
pub struct Upkeep {
    /// Commits since the last checkpoint that make the next one due.
    pub checkpoint_every: u64,
    /// Whether log entries older than the table's log retention (Delta's default: 30 days) are removed. Leave it out
    /// after a jump of the clock.
    pub clean_log: bool,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { checkpoint_every: CHECKPOINT_EVERY, clean_log: true }
    }
}

/// What upkeep has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The newest version that was seen.
    pub version: u64,
    /// The version of the checkpoint that was made.
    pub checkpoint: Option<u64>,
    /// Log files removed.
    pub cleaned: usize,
    pub elapsed: Duration,
}

/// Looks after the table once: a checkpoint if one is due, and then the log. Costs one listing where nothing is due.
pub async fn run_once(table: &Table, upkeep: &Upkeep) -> Result<Done, BronzeError> {
    look_after(table.log().store(), upkeep).await
}

/// As [`run_once`], of any table.
pub(crate) async fn look_after(log: &LogStoreRef, upkeep: &Upkeep) -> Result<Done, BronzeError> {
    let begun = Instant::now();
    let store = log.object_store(None);
    let before = last_checkpoint(store.as_ref()).await?;
    let failed = |e| BronzeError::io(format!("upkeep of {} failed", log.root_url()), e);
    let newest = log.get_latest_version(before.unwrap_or(0)).await.map_err(failed)?;
    let done = |checkpoint, cleaned| Done { version: newest, checkpoint, cleaned, elapsed: begun.elapsed() };
    if newest + 1 - before.map_or(0, |v| v + 1) < upkeep.checkpoint_every.max(1) {
        return Ok(done(None, 0));
    }
    let mut loaded = DeltaTable::new(log.clone());
    match loaded.load().await {
        Ok(()) => {}
        Err(DeltaTableError::NotATable(_)) => return Ok(done(None, 0)),
        Err(e) => return Err(failed(e)),
    }
    let version = make_checkpoint(&loaded).await?;
    let cleaned = match upkeep.clean_log {
        true => cleanup_metadata(&loaded, None).await.map_err(failed)?,
        false => 0,
    };
    Ok(Done { version, ..done(Some(version), cleaned) })
}

/// Makes a checkpoint of a loaded table, durably; its version.
pub(crate) async fn make_checkpoint(loaded: &DeltaTable) -> Result<u64, BronzeError> {
    let failed = |e| BronzeError::io(format!("upkeep of {} failed", loaded.table_url()), e);
    let version = loaded.snapshot().map_err(failed)?.version();
    failpoint::hit("bronze.before_checkpoint");
    create_checkpoint(loaded, None).await.map_err(failed)?;
    failpoint::hit("bronze.after_checkpoint");
    if let Some(root) = local_path(loaded.table_url()) {
        // Before any entry that the checkpoint stands for may go.
        let folder = root.join("_delta_log");
        let checkpoint = folder.join(format!("{version:020}.checkpoint.parquet"));
        let files = [checkpoint, folder.join("_last_checkpoint"), folder];
        let files = files.into_iter().filter(|f| f.exists()).collect();
        fsync(files).await.map_err(|e| BronzeError::io("a checkpoint cannot be flushed to the disk", e))?;
    }
    Ok(version)
}

#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
}

/// The version of the last checkpoint; none where there is none or the hint cannot be read.
async fn last_checkpoint(store: &dyn ObjectStore) -> Result<Option<u64>, BronzeError> {
    let failed = |e: object_store::Error| BronzeError::io("the hint to the last checkpoint cannot be read", e);
    match store.get(&Path::from("_delta_log/_last_checkpoint")).await {
        Ok(found) => {
            let bytes = found.bytes().await.map_err(failed)?;
            Ok(serde_json::from_slice::<LastCheckpoint>(&bytes).ok().map(|c| c.version))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}
