//! Taking a damaged tail off a table's log: what a power cut leaves where the file system had not flushed yet. The
//! positions go back with the rows that were in it, so that its records are read from Kafka again.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::BronzeError;
use super::entry::read_entry;
use super::table::open_log;

/// Where damaged files are put, below the table's root; no Delta reader looks into it.
const ASIDE: &str = "_damaged_log";

/// The damaged tail of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedTail {
    /// The first version that is lost.
    pub from: u64,
    /// What is wrong with it.
    pub what: String,
    /// The files of the tail, below the table's root: log entries from there on, and checkpoints that stand for them.
    pub files: Vec<String>,
}

/// Finds the damaged tail of a pipeline's Bronze log; none if the log is sound from its oldest entry on.
pub async fn damaged_tail(lakehouse_uri: &str, pipeline: &str) -> Result<Option<DamagedTail>, BronzeError> {
    let log = open_log(lakehouse_uri, pipeline)?;
    find(log.store().object_store(None).as_ref()).await
}

/// Moves the damaged tail aside, newest file first, so that a stop in between leaves a shorter tail. No daemon may be
/// writing to the table meanwhile.
pub async fn repair_log(lakehouse_uri: &str, pipeline: &str) -> Result<Option<DamagedTail>, BronzeError> {
    let log = open_log(lakehouse_uri, pipeline)?;
    let store = log.store().object_store(None);
    let Some(tail) = find(store.as_ref()).await? else { return Ok(None) };
    for file in tail.files.iter().rev() {
        let from = Path::from(file.as_str());
        let to = Path::from(ASIDE).join(from.filename().unwrap_or_default());
        let moved = store.rename(&from, &to).await;
        moved.map_err(|e| BronzeError::io(format!("{file} cannot be moved to {ASIDE}"), e))?;
    }
    Ok(Some(tail))
}

async fn find(store: &dyn ObjectStore) -> Result<Option<DamagedTail>, BronzeError> {
    let failed = |e: object_store::Error| BronzeError::io("the log cannot be read", e);
    let listed: Vec<_> = store.list(Some(&Path::from("_delta_log"))).try_collect().await.map_err(failed)?;
    let mut files: Vec<(u64, Path)> =
        listed.into_iter().filter_map(|f| Some((version(f.location.filename()?)?, f.location))).collect();
    files.sort();
    let mut before: Option<u64> = None;
    let mut damage: Option<(u64, String)> = None;
    for (version, path) in files.iter().filter(|(_, path)| path.as_ref().ends_with(".json")) {
        if let Some(before) = before.filter(|b| b + 1 != *version) {
            damage = Some((before + 1, format!("log entry {} is missing", before + 1)));
            break;
        }
        let entry = store.get(path).await.map_err(failed)?.bytes().await.map_err(failed)?;
        if let Err(what) = read_entry(&entry) {
            damage = Some((*version, format!("log entry {version} {what}")));
            break;
        }
        before = Some(*version);
    }
    let Some((from, what)) = damage else { return Ok(None) };
    let mut files: Vec<String> =
        files.into_iter().filter(|(version, _)| *version >= from).map(|(_, path)| path.to_string()).collect();
    // A hint to a checkpoint that goes is a hint no more; without one, readers list the log.
    let hint = Path::from("_delta_log/_last_checkpoint");
    if store.head(&hint).await.is_ok() {
        files.push(hint.to_string());
    }
    Ok(Some(DamagedTail { from, what, files }))
}

/// The version in the name of a log entry or a checkpoint.
fn version(name: &str) -> Option<u64> {
    let (digits, rest) = name.split_at_checked(20)?;
    (rest.starts_with('.') && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}
