//! One entry of the table's log: the actions that Boathouse writes, and what it looks for in others' entries. Pure.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema::PARTITION_COLUMN;
use crate::kafka::BAD_RECORDS;

/// What follows the pipeline's name in the application id under which retention takes old dates out of Bronze. Its
/// version is the first day, counted from 1970, that is there whole. (A topic of this name would stand between two more
/// slashes.)
pub(crate) const RETENTION: &str = "/retention";

/// A data file in the table's storage, ready to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddFile {
    /// Path below the table's root.
    pub path: String,
    /// Value of the partition column, `YYYY-MM-DD`.
    pub ingestion_date: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was written, milliseconds since the epoch.
    pub modified_ms: i64,
    pub rows: usize,
    /// Statistics, JSON.
    pub stats: String,
}

/// Writes the lines of an entry. Every entry has an id of its own, so that equal bytes are the same entry.
#[derive(Debug)]
pub struct EntryWriter {
    lines: Vec<Value>,
}

impl EntryWriter {
    /// Begins an entry; `id` must be unique, `now_ms` is the wall clock in milliseconds since the epoch.
    pub fn new(operation: &str, parameters: Value, blind_append: bool, id: &str, now_ms: i64) -> Self {
        let info = json!({"commitInfo": {
            "timestamp": now_ms,
            "operation": operation,
            "operationParameters": parameters,
            "isBlindAppend": blind_append,
            "engineInfo": concat!("boathouse/", env!("CARGO_PKG_VERSION")),
            "txnId": id,
        }});
        Self { lines: vec![info] }
    }

    /// The newest version of an application id.
    pub fn txn(&mut self, id: &str, version: i64) {
        self.lines.push(json!({"txn": {"appId": id, "version": version}}));
    }

    pub fn add(&mut self, file: &AddFile) {
        self.lines.push(json!({"add": {
            "path": file.path,
            "partitionValues": {PARTITION_COLUMN: file.ingestion_date},
            "size": file.size,
            "modificationTime": file.modified_ms,
            "dataChange": true,
            "stats": file.stats,
        }}));
    }

    /// Any other action, as it stands in the log.
    pub fn action(&mut self, action: Value) {
        self.lines.push(action);
    }

    pub fn finish(self) -> Bytes {
        let mut text = String::new();
        for line in self.lines {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text.into()
    }
}

/// What an entry of anybody's did to the things that Boathouse watches.
#[derive(Debug, Default, PartialEq)]
pub struct EntryEffects {
    /// Application ids and their new versions.
    pub txns: Vec<(String, i64)>,
    /// The table's configuration, if the entry has metadata.
    pub configuration: Option<HashMap<String, String>>,
    /// (reader, writer) protocol versions, if the entry changes the protocol.
    pub protocol: Option<(i32, i32)>,
    /// Whether it takes rows away (a `remove` with `dataChange`).
    pub removes_rows: bool,
    /// Whether it brings rows (an `add` with `dataChange`).
    pub adds_rows: bool,
}

impl EntryEffects {
    /// Whether it is a commit of a pipeline's own: it moves one of its application ids, which others do not know.
    pub fn is_of(&self, pipeline: &str) -> bool {
        self.txns.iter().any(|(id, _)| id.strip_prefix(pipeline).is_some_and(|rest| rest.starts_with('/')))
    }

    /// Whether it moves a position or a mark of the pipeline: whoever does so has read every entry below. Retention,
    /// which takes old rows out under an application id of the pipeline, has not.
    pub fn is_of_stream(&self, pipeline: &str) -> bool {
        let of = |id: &str| id.strip_prefix(pipeline).is_some_and(|rest| rest.starts_with('/') && rest != RETENTION);
        self.txns.iter().any(|(id, _)| of(id))
    }

    /// Whether somebody accepts bad records of the pipeline with it.
    pub fn accepts_bad_records(&self, pipeline: &str) -> bool {
        self.is_of(pipeline) && self.txns.iter().any(|(id, _)| id.ends_with(BAD_RECORDS))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    txn: Option<Txn>,
    meta_data: Option<MetaData>,
    protocol: Option<Protocol>,
    remove: Option<File>,
    add: Option<File>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

#[derive(Deserialize)]
struct MetaData {
    #[serde(default)]
    configuration: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protocol {
    min_reader_version: i32,
    min_writer_version: i32,
}

/// A file that comes or goes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    /// Absent means true, to be safe.
    #[serde(default = "yes")]
    data_change: bool,
}

fn yes() -> bool {
    true
}

/// Reads an entry; the error says what is wrong with it. An entry without any action is damaged: no writer makes one,
/// a power cut does.
pub fn read_entry(bytes: &[u8]) -> Result<EntryEffects, String> {
    let mut effects = EntryEffects::default();
    let mut actions = 0;
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()) {
        let line: Line = serde_json::from_slice(line).map_err(|e| format!("is not a log entry ({e})"))?;
        actions += 1;
        effects.txns.extend(line.txn.map(|t| (t.app_id, t.version)));
        if let Some(metadata) = line.meta_data {
            effects.configuration = Some(metadata.configuration);
        }
        if let Some(p) = line.protocol {
            effects.protocol = Some((p.min_reader_version, p.min_writer_version));
        }
        effects.removes_rows |= line.remove.is_some_and(|file| file.data_change);
        effects.adds_rows |= line.add.is_some_and(|file| file.data_change);
    }
    match actions {
        0 => Err("is empty, as a power cut leaves it".into()),
        _ => Ok(effects),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut entry = EntryWriter::new("WRITE", json!({"mode": "Append"}), true, "id", 1);
        entry.txn("p/t/0/1", 7);
        entry.txn("p/t/0/1/mark", -5);
        entry.add(&AddFile {
            path: "ingestion_date=2026-02-06/part-1.parquet".into(),
            ingestion_date: "2026-02-06".into(),
            size: 10,
            modified_ms: 1,
            rows: 3,
            stats: "{}".into(),
        });
        let effects = read_entry(&entry.finish()).unwrap();
        assert_eq!(effects.txns, [("p/t/0/1".into(), 7), ("p/t/0/1/mark".into(), -5)]);
        assert!(!effects.removes_rows && effects.configuration.is_none() && effects.protocol.is_none());
        assert!(effects.is_of_stream("p") && !effects.is_of_stream("pp"));
        assert!(effects.adds_rows && effects.is_of("p") && !effects.is_of("p/t/0/12") && !effects.is_of("pp"));
    }

    #[test]
    fn others_entries_are_seen_for_what_they_do() {
        let entry = br#"{"remove":{"path":"a","dataChange":false}}
{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":[]}}
{"metaData":{"id":"x","configuration":{"boathouse.epoch":"e"}}}
"#;
        let effects = read_entry(entry).unwrap();
        assert!(!effects.removes_rows);
        assert_eq!(effects.protocol, Some((3, 7)));
        assert_eq!(effects.configuration.unwrap()["boathouse.epoch"], "e");
        assert!(read_entry(br#"{"remove":{"path":"a"}}"#).unwrap().removes_rows);
        assert!(read_entry(br#"{"remove":{"path":"a","dataChange":true}}"#).unwrap().removes_rows);
    }

    #[test]
    fn retention_is_ours_and_vouches_for_nothing_below_it() {
        let entry = b"{\"txn\":{\"appId\":\"p/retention\",\"version\":20000}}\n{\"remove\":{\"path\":\"a\"}}\n";
        let effects = read_entry(entry).unwrap();
        assert!(effects.removes_rows && effects.is_of("p") && !effects.is_of_stream("p"));
        let entry = b"{\"txn\":{\"appId\":\"p/retention/0/1\",\"version\":7}}\n";
        assert!(read_entry(entry).unwrap().is_of_stream("p"), "a topic named retention");
    }

    #[test]
    fn damage_is_told() {
        assert!(read_entry(b"").is_err());
        assert!(read_entry(b"\n").is_err());
        assert!(read_entry(br#"{"txn":{"appId":"a","#).is_err());
    }
}
