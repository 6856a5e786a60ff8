//! Which commit brought data files into a table.

use chrono::{DateTime, TimeDelta, Utc};
use deltalake::logstore::LogStoreRef;
use serde_json::Value;

use super::super::BatchError;
use super::CommitRef;

/// By how much the clocks of two instances may differ.
const CLOCKS: TimeDelta = TimeDelta::minutes(1);
/// Entries that are read from the instant on before the whole log is.
const ENTRIES_NEAR: u64 = 300;

/// The newest commit, at or before a version, that added one of these files (paths below the table's root); none where
/// the log is cleaned up so far. Reads the log from its end, and before that, of files whose rows were taken at an instant,
/// the entries that were written right after it: a log may be long.
pub async fn commit_of(
    log: &LogStoreRef,
    version: u64,
    files: &[String],
    taken_at: Option<DateTime<Utc>>,
) -> Result<Option<CommitRef>, BatchError> {
    let names: Vec<&str> = files.iter().filter_map(|f| f.rsplit('/').next()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    // Names of data files are of their own, so that no line need be parsed to see that it is another's.
    let adds = |line: &str| line.starts_with("{\"add\"") && names.iter().any(|name| line.contains(name));
    if let Some(at) = taken_at {
        let first = first_after(log, version, at - CLOCKS).await?;
        for version in first..=version.min(first + ENTRIES_NEAR) {
            let Some(text) = entry(log, version).await? else { continue };
            if text.lines().any(adds) {
                return Ok(Some(described(version, &text)));
            }
        }
    }
    for version in (0..=version).rev() {
        let Some(text) = entry(log, version).await? else { return Ok(None) };
        if text.lines().any(adds) {
            return Ok(Some(described(version, &text)));
        }
    }
    Ok(None)
}

/// The first version that was committed at or after an instant, as far as its entries say; one that is cleaned up is
/// earlier.
async fn first_after(log: &LogStoreRef, newest: u64, at: DateTime<Utc>) -> Result<u64, BatchError> {
    let (mut least, mut greatest) = (0, newest);
    while least < greatest {
        let middle = least + (greatest - least) / 2;
        let committed = entry(log, middle).await?.and_then(|text| described(middle, &text).at);
        if committed.is_some_and(|committed| committed >= at) {
            greatest = middle;
        } else {
            least = middle + 1;
        }
    }
    Ok(least)
}

pub(super) async fn entry(log: &LogStoreRef, version: u64) -> Result<Option<String>, BatchError> {
    let read = log.read_commit_entry(version).await;
    let read = read
        .map_err(|e| BatchError::unavailable(format!("log entry {version} of {} cannot be read", log.root_url()), e))?;
    Ok(read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

pub(super) fn described(version: u64, entry: &str) -> CommitRef {
    let info = entry.lines().find(|line| line.starts_with("{\"commitInfo\""));
    let info: Value = info.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let info = &info["commitInfo"];
    CommitRef {
        version,
        at: info["timestamp"].as_i64().and_then(DateTime::from_timestamp_millis),
        operation: info["operation"].as_str().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_says_when_and_how() {
        let commit =
            described(7, "{\"add\":{}}\n{\"commitInfo\":{\"timestamp\":1770388200000,\"operation\":\"OPTIMIZE\"}}");
        assert_eq!((commit.version, commit.operation.as_str()), (7, "OPTIMIZE"));
        assert_eq!(commit.at.map(|at| at.to_rfc3339()).as_deref(), Some("2026-02-06T14:30:00+00:00"));
        assert_eq!(described(1, "").at, None);
    }
}
