//! Upkeep of the lakehouse's tables: what they hold, merging small files, taking files away that nobody needs.
//!
//! Merging moves rows and changes none, so that neither Bronze's writer nor a batch run mistakes it for something else.
//! It commits through delta-rs's conflict check; where it meets another commit it is the one that tries again later.

use chrono::{DateTime, NaiveDate, Utc};
use deltalake::operations::optimize::OptimizeType;
use deltalake::operations::vacuum::VacuumMode;

use deltalake::{DeltaTable, DeltaTableError, FilterOp, FilterValue};
use serde::Serialize;
use serde_json::Value;

use super::{BatchError, Lake, Layer};
use crate::bronze::PARTITION_COLUMN;

/// Files below this are small: a reader's cost is in opening them.
pub const SMALL_FILE_BYTES: u64 = 8 << 20;

/// Days for which a file that left a table stays in storage, for readers that still have it open.
pub const VACUUM_DAYS: i64 = 7;

/// What a table holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    pub version: u64,
    pub files: usize,
    /// Files below [`SMALL_FILE_BYTES`].
    pub files_small: usize,
    pub bytes: u64,
    pub rows: u64,
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

/// What merging has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merged {
    pub files_before: u64,
    pub files_after: u64,
}

/// Looks at a table; none where there is none.
pub async fn summary(lake: &Lake, layer: Layer, name: &str) -> Result<Option<TableSummary>, BatchError> {
    let Some(table) = lake.open(layer, name).await? else { return Ok(None) };
    let state = table.snapshot().map_err(|e| failed(layer, name, e))?;
    let mut summary = TableSummary { version: state.version(), files: 0, files_small: 0, bytes: 0, rows: 0 };
    for file in state.log_data().iter() {
        let size = file.size() as u64;
        summary.files += 1;
        summary.files_small += usize::from(size < SMALL_FILE_BYTES);
        summary.bytes += size;
        summary.rows += file.num_records().unwrap_or_default() as u64;
    }
    Ok(Some(summary))
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

fn commit(version: u64, entry: &[u8]) -> Commit {
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

/// Merges a table's small files. Of Bronze only dates before `today`: the stream still writes to that one.
pub async fn optimize(lake: &Lake, layer: Layer, name: &str, today: NaiveDate) -> Result<Merged, BatchError> {
    let table = existing(lake, layer, name).await?;
    let today = today.to_string();
    let closed = [(PARTITION_COLUMN, FilterOp::Lt, FilterValue::Scalar(today.as_str()))];
    let filters = if layer == Layer::Bronze { &closed[..] } else { &[] };
    let done = table.optimize().with_type(OptimizeType::Compact).with_filters(filters).await;
    let (_, metrics) = done.map_err(|e| failed(layer, name, e))?;
    Ok(Merged { files_before: metrics.num_files_removed, files_after: metrics.num_files_added })
}

/// Takes the files out of storage that left the table more than [`VACUUM_DAYS`] ago; with `dry_run` only names them.
/// Files that the log does not name are left alone: one may be on the way into the table.
pub async fn vacuum(lake: &Lake, layer: Layer, name: &str, dry_run: bool) -> Result<Vec<String>, BatchError> {
    let table = existing(lake, layer, name).await?;
    let vacuum = table
        .vacuum()
        .with_mode(VacuumMode::Lite)
        .with_retention_period(chrono::Duration::days(VACUUM_DAYS))
        .with_dry_run(dry_run);
    let (_, metrics) = vacuum.await.map_err(|e| failed(layer, name, e))?;
    Ok(metrics.files_deleted)
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
