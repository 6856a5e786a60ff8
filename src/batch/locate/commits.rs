//! Which commit brought data files into a table.

use chrono::DateTime;
use deltalake::logstore::LogStoreRef;
use serde_json::Value;

use super::super::BatchError;
use super::CommitRef;

/// The newest commit, at or before a version, that added one of these files (paths below the table's root); none where
/// the log is cleaned up so far. Reads the log from its end.
pub async fn commit_of(log: &LogStoreRef, version: u64, files: &[String]) -> Result<Option<CommitRef>, BatchError> {
    let names: Vec<&str> = files.iter().filter_map(|f| f.rsplit('/').next()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    for version in (0..=version).rev() {
        let entry = log.read_commit_entry(version).await.map_err(|e| {
            BatchError::unavailable(format!("log entry {version} of {} cannot be read", log.root_url()), e)
        })?;
        let Some(entry) = entry else { return Ok(None) };
        let text = String::from_utf8_lossy(&entry);
        // Names of data files are of their own, so that no line need be parsed to see that it is another's.
        let adds = |line: &&str| line.starts_with("{\"add\"") && names.iter().any(|name| line.contains(name));
        if text.lines().any(|line| adds(&line)) {
            return Ok(Some(described(version, &text)));
        }
    }
    Ok(None)
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
