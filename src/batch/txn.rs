//! What log entries note under application ids: how far a table has read another, how far a backfill has come.

use serde::Deserialize;

/// An application id and its newest version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
}

#[derive(Deserialize)]
struct Line {
    txn: Option<Txn>,
}

/// What an entry notes, in its order; none where it is no entry of a log.
pub fn of_entry(entry: &[u8]) -> Option<Vec<Txn>> {
    let lines = entry.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let read: Result<Vec<Line>, _> = lines.map(serde_json::from_slice).collect();
    Some(read.ok()?.into_iter().filter_map(|line| line.txn).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_what_is_no_entry_is_told() {
        let entry = b"{\"add\":{\"path\":\"a\"}}\n{\"txn\":{\"appId\":\"a\",\"version\":3,\"lastUpdated\":1}}\n\n";
        assert_eq!(of_entry(entry), Some(vec![Txn { app_id: "a".into(), version: 3 }]));
        assert_eq!(of_entry(b""), Some(Vec::new()));
        assert_eq!(of_entry(b"{\"txn\":"), None);
    }
}
