//! What a table's log says happened between two versions.

use std::collections::{BTreeMap, HashSet};

use deltalake::logstore::LogStoreRef;
use serde::Deserialize;

use super::BatchError;
use crate::bronze::RETENTION;

/// A data file that entered or left the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangedFile {
    /// Version of the entry.
    pub version: u64,
    /// Path below the table's root, decoded.
    pub path: String,
    /// Values of the partition columns, as they stand in the log.
    pub partition: BTreeMap<String, Option<String>>,
    /// Length in bytes; 0 where the log does not say.
    pub size: u64,
    /// Statistics, JSON, where the log has them.
    pub stats: Option<String>,
}

/// What changed the table's rows after one version, up to another. Compaction, which moves rows between files and
/// changes none, is left out, and so is retention: what a layer no longer keeps, those made from it may keep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub added: Vec<ChangedFile>,
    pub removed: Vec<ChangedFile>,
    /// Paths of all files that an entry took out of the table, compaction included.
    pub taken_out: HashSet<String>,
}

/// The log between two versions, as far as it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogRange {
    Whole(Changes),
    /// This entry is not there any more: the log was cleaned up.
    Gap(u64),
}

/// Reads the entries after `after`, up to and with `until`.
pub async fn changes(store: &LogStoreRef, after: u64, until: u64) -> Result<LogRange, BatchError> {
    let mut changes = Changes::default();
    for version in after + 1..=until {
        let place = || format!("log entry {version} of {}", store.root_url());
        let entry = store.read_commit_entry(version).await.map_err(|e| BatchError::unavailable(place(), e))?;
        let Some(entry) = entry else { return Ok(LogRange::Gap(version)) };
        changes.take(version, &entry).map_err(|e| {
            BatchError::refused(place(), e, "if a power cut damaged it: `boathouse bronze repair-log <pipeline>`")
        })?;
    }
    Ok(LogRange::Whole(changes))
}

/// Paths of the files that some entries took out of the table. Entries that are not there any more are passed over.
pub async fn taken_out(store: &LogStoreRef, versions: &[u64]) -> Result<HashSet<String>, BatchError> {
    let mut changes = Changes::default();
    for version in versions {
        let place = || format!("log entry {version} of {}", store.root_url());
        let entry = store.read_commit_entry(*version).await.map_err(|e| BatchError::unavailable(place(), e))?;
        if let Some(entry) = entry {
            changes.take(*version, &entry).map_err(|e| BatchError::unavailable(place(), e))?;
        }
    }
    Ok(changes.taken_out)
}

#[derive(Deserialize)]
struct Line {
    add: Option<File>,
    remove: Option<File>,
    txn: Option<Txn>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    path: String,
    #[serde(default)]
    partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    size: Option<u64>,
    /// Absent means true, to be safe.
    #[serde(default = "yes")]
    data_change: bool,
    #[serde(default)]
    stats: Option<String>,
}

fn yes() -> bool {
    true
}

impl Changes {
    /// Takes in one entry.
    fn take(&mut self, version: u64, entry: &[u8]) -> Result<(), String> {
        let mut lines = 0;
        let (mut removed, mut for_age) = (Vec::new(), false);
        for line in entry.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()) {
            let line: Line = serde_json::from_slice(line).map_err(|e| format!("is no log entry ({e})"))?;
            lines += 1;
            if let Some(file) = line.add
                && file.data_change
            {
                self.added.push(file.changed(version));
            }
            if let Some(file) = line.remove {
                let (data_change, file) = (file.data_change, file.changed(version));
                self.taken_out.insert(file.path.clone());
                if data_change {
                    removed.push(file);
                }
            }
            for_age |= line.txn.is_some_and(|txn| txn.app_id.ends_with(RETENTION));
        }
        if !for_age {
            self.removed.extend(removed);
        }
        if lines == 0 { Err("is empty, as a power cut leaves it".into()) } else { Ok(()) }
    }
}

impl File {
    fn changed(self, version: u64) -> ChangedFile {
        ChangedFile {
            version,
            path: decoded(&self.path),
            partition: self.partition_values.unwrap_or_default(),
            size: self.size.unwrap_or_default(),
            stats: self.stats,
        }
    }
}

/// Paths stand in the log as parts of a URL.
pub(super) fn decoded(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        match code.and_then(|c| u8::from_str_radix(c, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[&str]) -> Changes {
        let mut changes = Changes::default();
        for (version, entry) in entries.iter().enumerate() {
            changes.take(version as u64 + 1, entry.as_bytes()).unwrap();
        }
        changes
    }

    fn paths(files: &[ChangedFile]) -> Vec<(u64, &str)> {
        files.iter().map(|f| (f.version, f.path.as_str())).collect()
    }

    #[test]
    fn what_changes_rows_is_told_from_what_moves_them() {
        let changes = read(&[
            r#"{"commitInfo":{"operation":"WRITE"}}
{"txn":{"appId":"a","version":1}}
{"add":{"path":"d=1/a","partitionValues":{"d":"1"},"size":5,"modificationTime":1,"dataChange":true,"stats":"{}"}}"#,
            r#"{"add":{"path":"d=1/b","partitionValues":{"d":"1"},"size":6,"modificationTime":1,"dataChange":true}}"#,
            r#"{"remove":{"path":"d=1/a","dataChange":false,"deletionTimestamp":3}}
{"remove":{"path":"d=0/z","dataChange":false,"deletionTimestamp":3}}
{"add":{"path":"d=1/c","partitionValues":{"d":"1"},"size":11,"modificationTime":1,"dataChange":false}}"#,
        ]);
        assert_eq!(paths(&changes.added), [(1, "d=1/a"), (2, "d=1/b")]);
        assert_eq!(changes.added[0].partition["d"].as_deref(), Some("1"));
        assert_eq!(changes.added[0].size, 5);
        assert!(changes.removed.is_empty());
        assert_eq!(changes.taken_out, HashSet::from(["d=1/a".to_string(), "d=0/z".to_string()]));
    }

    #[test]
    fn removed_rows_are_seen_with_their_partition() {
        let changes = read(&[r#"{"remove":{"path":"d=1/a","partitionValues":{"d":null}}}"#]);
        assert_eq!(paths(&changes.removed), [(1, "d=1/a")]);
        assert_eq!(changes.removed[0].partition["d"], None);
    }

    #[test]
    fn what_is_too_old_is_not_taken_for_removed() {
        let of = |id: &str| {
            format!(
                "{{\"txn\":{{\"appId\":\"{id}\",\"version\":20000}}}}\n{{\"remove\":{{\"path\":\"a\",\"dataChange\":true}}}}"
            )
        };
        for id in ["user_events/retention", "boathouse/retention"] {
            let changes = read(&[&of(id)]);
            assert!(changes.removed.is_empty() && changes.taken_out.contains("a"), "{id}");
        }
        assert_eq!(read(&[&of("user_events/t/0/1")]).removed.len(), 1);
    }

    #[test]
    fn damage_is_told() {
        assert!(Changes::default().take(1, b"").is_err());
        assert!(Changes::default().take(1, br#"{"add":{"path":"#).is_err());
    }

    #[test]
    fn paths_are_decoded() {
        assert_eq!(decoded("a%20b=1%3A2/x.parquet"), "a b=1:2/x.parquet");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("a%zz"), "a%zz");
    }
}
