//! Commits that take files out of a table beside a writer that does not wait: Bronze's stream, a batch run.
//!
//! The rule is the ledger's: a known version moves only by reading each entry in between, and the entry after it is put
//! if absent. An entry is moved over if it leaves alone what the commit was planned on: none of the files to be taken
//! out is gone, metadata and protocol are as they were. Else the commit yields, and upkeep plans again another time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltalake::DeltaTableError;
use deltalake::logstore::LogStoreRef;
use serde::Deserialize;

use crate::batch::BatchError;
use crate::batch::changes::decoded;
use crate::batch::entry::put;
use crate::batch::target::Landing;

/// How long a plan holds: long before log cleanup may free a version that has been taken since.
const PLAN_AGE_MAX: Duration = Duration::from_secs(1800);
/// Puts whose answer does not come.
const UNKNOWN_MAX: u32 = 8;
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A plan, and since when it holds.
#[derive(Debug, Clone)]
pub struct Planned {
    pub store: LogStoreRef,
    /// As `bronze.user_events`.
    pub name: String,
    /// The version that it was made from.
    pub version: u64,
    pub at: Instant,
}

/// Puts `entry`, which takes the files `removed` out of the table, behind whatever others have committed meanwhile.
pub async fn commit(planned: &Planned, entry: Bytes, removed: &HashSet<String>) -> Result<Landing, BatchError> {
    let Planned { store, name, .. } = planned;
    let failed = |e: &dyn std::fmt::Display| BatchError::unavailable(format!("{name} cannot be committed"), e);
    let mut known = planned.version;
    let (mut unknown, mut last) = (0, String::new());
    while unknown < UNKNOWN_MAX {
        if planned.at.elapsed() > PLAN_AGE_MAX {
            return Ok(Landing::Overtaken);
        }
        let newest = match store.get_latest_version(known).await {
            Ok(newest) => newest,
            // The known version is no longer there, or the table is not.
            Err(DeltaTableError::InvalidVersion(_)) => return Ok(Landing::Overtaken),
            Err(e) => return Err(failed(&e)),
        };
        while known < newest {
            let found = store.read_commit_entry(known + 1).await.map_err(|e| failed(&e))?;
            match found {
                Some(found) if found == entry => return Ok(Landing::Landed(known + 1)),
                Some(found) if leaves_alone(&found, removed) => known += 1,
                _ => return Ok(Landing::Overtaken),
            }
        }
        match put(store, known + 1, &entry).await {
            Ok(true) => return Ok(Landing::Landed(known + 1)),
            Ok(false) => continue,
            Err(e) => last = e,
        }
        // An error says nothing about whether it landed: the next look at the log does.
        unknown += 1;
        let longest = PAUSE_MAX.min(Duration::from_millis(20 << unknown));
        tokio::time::sleep(longest.mul_f64(rand::random_range(0.5..1.0))).await;
    }
    Err(failed(&last))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    meta_data: Option<serde::de::IgnoredAny>,
    protocol: Option<serde::de::IgnoredAny>,
    add: Option<File>,
    remove: Option<File>,
}

#[derive(Deserialize)]
struct File {
    path: String,
}

/// Whether another's entry does nothing to what was planned. One that cannot be read is taken for one that does.
fn leaves_alone(entry: &[u8], removed: &HashSet<String>) -> bool {
    let mut lines = entry.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()).peekable();
    lines.peek().is_some()
        && lines.all(|line| match serde_json::from_slice::<Line>(line) {
            Ok(line) => {
                let touches = |file: &Option<File>| file.as_ref().is_some_and(|f| removed.contains(&decoded(&f.path)));
                line.meta_data.is_none() && line.protocol.is_none() && !touches(&line.add) && !touches(&line.remove)
            }
            Err(_) => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_moved_over() {
        let removed = HashSet::from(["d=1/a".to_string()]);
        let over = |entry: &str| leaves_alone(entry.as_bytes(), &removed);
        assert!(over(
            "{\"commitInfo\":{}}\n{\"txn\":{\"appId\":\"p/t/0/1\",\"version\":7}}\n{\"add\":{\"path\":\"d=1/b\"}}\n"
        ));
        assert!(over("{\"remove\":{\"path\":\"d=2/a\"}}\n"));
        assert!(!over("{\"remove\":{\"path\":\"d=1/a\",\"dataChange\":false}}\n"), "somebody else has merged it");
        assert!(!over("{\"remove\":{\"path\":\"d%3D1/a\"}}\n"));
        assert!(!over("{\"add\":{\"path\":\"d=1/a\"}}\n"), "it was rewritten, with a deletion vector");
        assert!(!over("{\"metaData\":{\"id\":\"x\"}}\n"));
        assert!(!over("{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7}}\n"));
        assert!(!over(""), "a damaged entry");
        assert!(!over("{\"add\":"));
    }
}
