//! Which commit a version of a table is. Versions are numbers: a table that was put back from a backup gives those that
//! were lost to other commits, and after as many of them nothing but their entries tells that. Who makes rows from a
//! version of another table therefore notes, beside its number, a mark of its log entry.

use deltalake::logstore::LogStoreRef;
use sha2::{Digest, Sha256};

use super::BatchError;

/// Noted where the entry could not be read: nothing is known of it.
const UNKNOWN: u64 = 0;

/// A version of a table that others are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marked {
    pub version: u64,
    pub mark: u64,
}

/// The application id under which the mark is noted of the version of a table that was read.
pub fn mark_id(table_id: &str) -> String {
    format!("entry/{table_id}")
}

impl Marked {
    /// What both are the version of, as far as is known; none where they are not of the same.
    pub fn same(self, other: Self) -> Option<Self> {
        let known = |mark: u64| Some(mark).filter(|mark| *mark != UNKNOWN);
        match (known(self.mark), known(other.mark)) {
            (Some(a), Some(b)) if a != b => None,
            (mark, or) => (self.version == other.version)
                .then(|| Self { version: self.version, mark: mark.or(or).unwrap_or(UNKNOWN) }),
        }
    }

    /// A version as its log has it.
    pub async fn read(store: &LogStoreRef, version: u64) -> Result<Self, BatchError> {
        Ok(Self { version, mark: mark(store, version).await?.unwrap_or(UNKNOWN) })
    }
}

/// Whether a version is another commit now than the one whose mark was noted. It is not where that cannot be told: nothing
/// was noted yet, or the entry was cleaned up.
pub async fn replaced(store: &LogStoreRef, version: u64, noted: Option<u64>) -> Result<bool, BatchError> {
    let Some(noted) = noted.filter(|noted| *noted != UNKNOWN) else { return Ok(false) };
    Ok(mark(store, version).await?.is_some_and(|found| found != noted))
}

async fn mark(store: &LogStoreRef, version: u64) -> Result<Option<u64>, BatchError> {
    let entry = store.read_commit_entry(version).await;
    let entry = entry.map_err(|e| {
        BatchError::unavailable(format!("log entry {version} of {} cannot be read", store.root_url()), e)
    })?;
    // 48 bits: every reader of JSON has them exactly.
    let hash = |entry| Sha256::digest(entry).iter().take(6).fold(0, |mark, byte| (mark << 8) | u64::from(*byte));
    Ok(entry.map(|entry| hash(entry).max(UNKNOWN + 1)))
}
