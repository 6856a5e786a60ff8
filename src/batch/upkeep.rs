//! Upkeep of the lakehouse's tables: what they hold, merging small files, checkpoints and old log entries, taking files
//! away that nobody needs.
//!
//! Merging moves rows and changes none, so that neither Bronze's writer nor a batch run mistakes it for something else.
//! Where upkeep meets another's commit it is the one that yields.

mod clock;
mod commit;
mod merge;
mod plan;
pub(crate) mod retention;
pub mod tasks;
mod vacuum;

use std::time::Duration;

use chrono::{DateTime, Utc};
use deltalake::{DeltaTable, DeltaTableError};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;
use serde_json::Value;

pub use clock::Clock;
pub use merge::{Merged, Merging, merge};
pub use retention::apply_retention;
pub use vacuum::{Unneeded, vacuum};

use super::{BatchError, Lake, Layer};
use crate::config::Pipeline;

/// Files below this are small: a reader's cost is in opening them.
pub const SMALL_FILE_BYTES: u64 = 8 << 20;

/// How long a file that left a table stays in storage at least, for readers that still have it open.
pub const VACUUM_AFTER_MIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a table holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    pub version: u64,
    pub files: usize,
    /// Files below [`SMALL_FILE_BYTES`].
    pub files_small: usize,
    pub bytes: u64,
    pub rows: u64,
    /// Entries that its log holds: a reader goes through those since the last checkpoint, cleanup takes old ones.
    pub log_entries: usize,
}

/// One entry of a table's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Commit {
    pub version: u64,
    /// When it was committed; none where the entry does not say.
    pub at: Option<DateTime<Utc>>,
    pub operation: String,
    pub files_added: usize,
    pub files_removed: usize,
    pub rows_added: u64,
}

/// Looks at a table; none where there is none.
pub async fn summary(lake: &Lake, layer: Layer, name: &str) -> Result<Option<TableSummary>, BatchError> {
    let Some(table) = lake.open(layer, name).await? else { return Ok(None) };
    Ok(Some(summarize(&table).await.map_err(|e| failed(layer, name, e))?))
}

/// What a loaded table holds.
pub(crate) async fn summarize(table: &DeltaTable) -> Result<TableSummary, DeltaTableError> {
    let state = table.snapshot()?;
    let mut summary =
        TableSummary { version: state.version(), files: 0, files_small: 0, bytes: 0, rows: 0, log_entries: 0 };
    for file in state.log_data().iter() {
        let size = file.size() as u64;
        summary.files += 1;
        summary.files_small += usize::from(size < SMALL_FILE_BYTES);
        summary.bytes += size;
        summary.rows += file.num_records().unwrap_or_default() as u64;
    }
    let store = table.log_store().object_store(None);
    let mut log = store.list(Some(&Path::from("_delta_log")));
    while let Some(file) = log.try_next().await? {
        summary.log_entries += usize::from(file.location.as_ref().ends_with(".json"));
    }
    Ok(summary)
}

/// What the tables of a pipeline hold, those that are there, by their names such as `bronze.user_events`.
pub async fn tables(lake: &Lake, pipeline: &Pipeline) -> Result<Vec<(String, TableSummary)>, BatchError> {
    let mut found = Vec::new();
    for (layer, name) in tasks::tables_of(pipeline) {
        if let Some(summary) = summary(lake, layer, &name).await? {
            found.push((format!("{layer}.{name}"), summary));
        }
    }
    Ok(found)
}

/// The newest entries of a table's log, newest first, as far as the log is there.
pub async fn history(lake: &Lake, layer: Layer, name: &str, limit: u64) -> Result<Vec<Commit>, BatchError> {
    let table = existing(lake, layer, name).await?;
    let newest = table.version().unwrap_or_default();
    let store = table.log_store();
    let mut commits = Vec::new();
    for version in (0..=newest).rev().take(limit as usize) {
        let entry = store.read_commit_entry(version).await.map_err(|e| failed(layer, name, e))?;
        let Some(entry) = entry else { break };
        commits.push(commit(version, &entry));
    }
    Ok(commits)
}

/// What an entry of a log says.
pub(crate) fn commit(version: u64, entry: &[u8]) -> Commit {
    let mut commit =
        Commit { version, at: None, operation: String::new(), files_added: 0, files_removed: 0, rows_added: 0 };
    for line in entry.split(|b| *b == b'\n') {
        let Ok(line) = serde_json::from_slice::<Value>(line) else { continue };
        if let Some(info) = line.get("commitInfo") {
            commit.at = info["timestamp"].as_i64().and_then(DateTime::from_timestamp_millis);
            commit.operation = info["operation"].as_str().unwrap_or_default().into();
        }
        if let Some(add) = line.get("add") {
            commit.files_added += 1;
            let stats: Option<Value> = add["stats"].as_str().and_then(|s| serde_json::from_str(s).ok());
            commit.rows_added += stats.and_then(|s| s["numRecords"].as_u64()).unwrap_or_default();
        }
        commit.files_removed += usize::from(line.get("remove").is_some());
    }
    commit
}

async fn existing(lake: &Lake, layer: Layer, name: &str) -> Result<DeltaTable, BatchError> {
    lake.open(layer, name).await?.ok_or_else(|| {
        BatchError::refused(
            format!("{layer}.{name}"),
            "there is no such table",
            "`boathouse tables` lists the ones there are",
        )
    })
}

fn failed(layer: Layer, name: &str, cause: DeltaTableError) -> BatchError {
    BatchError::unavailable(format!("table {layer}.{name}"), cause)
}
