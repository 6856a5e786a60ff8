//! Taking files out of storage that no reader and no commit can need any more.
//!
//! A file may go once it has been out of the table for the time that readers are given, or has lain there for that long
//! and belongs to no version: its commit never came, and no commit comes so late (the ledger drops what is older than an
//! hour, a run is stopped at its time limit). The table's state says which files have left it in the last seven days; of
//! those that left it earlier its log says so, which is kept for thirty.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Serialize;

use crate::batch::changes::{decoded, taken_out};
use crate::batch::{BatchError, Lake, Layer, TaskContext};

/// How long a checkpoint knows of a file that it has left the table, by Delta's default.
const TOMBSTONES: TimeDelta = TimeDelta::days(7);
/// Clocks of storage and writers may differ by less.
const SLACK: TimeDelta = TimeDelta::days(1);

/// A file that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unneeded {
    /// Path below the table's root.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// Finds, and deletes unless `dry_run`, the files of a table that have not been needed for `keep`.
pub async fn vacuum(
    lake: &Lake,
    layer: Layer,
    name: &str,
    keep: Duration,
    dry_run: bool,
    context: &TaskContext,
) -> Result<Vec<Unneeded>, BatchError> {
    let failed =
        |e: &dyn std::fmt::Display| BatchError::unavailable(format!("files of {layer}.{name} cannot be deleted"), e);
    if !lake.may_exist(layer, name) {
        return Ok(Vec::new());
    }
    let before = Utc::now() - TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
    // Storage first: what is listed and committed before the table is loaded is then seen to belong to it.
    let store = lake.log_store(layer, name)?.object_store(None);
    let listed: Vec<_> = store.list(None).try_collect().await.map_err(|e| failed(&e))?;
    let Some(table) = lake.open(layer, name).await? else { return Ok(Vec::new()) };
    let state = table.snapshot().map_err(|e| failed(&e))?;
    let mut needed: HashSet<String> =
        state.log_data().iter().map(|file| file.object_store_path().to_string()).collect();
    let log_store = table.log_store();
    let mut left = state.all_tombstones(log_store.as_ref());
    while let Some(file) = left.try_next().await.map_err(|e| failed(&e))? {
        // One without a time left at a time that nobody knows.
        let lately = file.deletion_timestamp().is_none_or(|ms| ms >= before.timestamp_millis());
        if lately {
            needed.insert(decoded(&file.path()));
        }
    }
    drop(left);
    // Entries whose removals no checkpoint may know any more.
    let known = Utc::now() - TOMBSTONES + SLACK;
    let earlier: Vec<u64> = listed
        .iter()
        .filter(|file| is_old(file.last_modified, known) && !is_old(file.last_modified, before - SLACK))
        .filter_map(|file| entry_of(&file.location))
        .collect();
    let mut unneeded: Vec<Unneeded> = listed
        .into_iter()
        .filter(|file| is_data(&file.location) && is_old(file.last_modified, before))
        .map(|file| Unneeded { path: file.location.to_string(), bytes: file.size })
        .filter(|file| !needed.contains(&decoded(&file.path)) && !needed.contains(&file.path))
        .collect();
    if !unneeded.is_empty() && keep > TOMBSTONES.to_std().unwrap_or_default() {
        let left = taken_out(&log_store, &earlier).await?;
        unneeded.retain(|file| !left.contains(&decoded(&file.path)) && !left.contains(&file.path));
    }
    unneeded.sort_by(|a, b| a.path.cmp(&b.path));
    if !dry_run {
        for file in &unneeded {
            context.check()?;
            match store.delete(&Path::from_iter(file.path.split('/'))).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(failed(&e)),
            }
        }
    }
    Ok(unneeded)
}

/// The version of a log entry; none for any other file.
fn entry_of(path: &Path) -> Option<u64> {
    path.as_ref().strip_prefix("_delta_log/")?.strip_suffix(".json").filter(|name| name.len() == 20)?.parse().ok()
}

/// Whether a file is a data file: not of the log, nor put aside by somebody.
fn is_data(path: &Path) -> bool {
    let hidden = path.parts().any(|part| {
        let part = part.as_ref();
        // Partition folders may begin so, too: `_date=…`.
        part.starts_with('.') || (part.starts_with('_') && !part.contains('='))
    });
    !hidden && path.as_ref().ends_with(".parquet")
}

fn is_old(modified: DateTime<Utc>, before: DateTime<Utc>) -> bool {
    modified < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_files_are_looked_at() {
        let is = |path: &str| is_data(&Path::from(path));
        assert!(is("part-1.parquet") && is("d=2026-02-06/part-1.parquet") && is("_d=1/a.parquet"));
        for other in
            ["_delta_log/00000000000000000010.checkpoint.parquet", "_damaged_log/a.parquet", "a.txt", ".a/b.parquet"]
        {
            assert!(!is(other), "{other}");
        }
    }
}
