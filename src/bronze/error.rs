//! What can go wrong in this room, and what the caller does about it.

use crate::kafka::Source;

/// An error of Bronze. The variant tells the caller what to do next; the text tells the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BronzeError {
    /// Another instance has moved a partition that this one holds. Drop every buffer and acquire again.
    #[error("table version {version} moved {id}, which this instance holds: another instance owns it now")]
    Fenced { version: u64, id: String },
    /// What this instance knows of the table is too old to commit on. Drop every buffer and acquire again.
    #[error("{what}; the known table version is dropped, partitions are acquired again")]
    Expired { what: String },
    /// Somebody has put this instance's own settings in force anew, under a fresh epoch: an operator's choice, which moves
    /// positions or marks. Drop every buffer, open the table again and acquire under the new epoch.
    #[error("an operator's choice at table version {version} put the settings in force anew (epoch {epoch})")]
    Renewed { version: u64, epoch: String },
    /// Somebody has accepted bad records of a partition, at this instance or at another. Drop every buffer and acquire again:
    /// a partition that had stopped for them is read on.
    #[error("bad records were accepted at table version {version}")]
    Accepted { version: u64 },
    /// Something that must not be skipped silently. Stay down until an operator has decided.
    #[error("{what}, in {place}; {remedy}")]
    Stopped { what: String, place: String, remedy: String },
    /// The caller broke the protocol: a bug, never an operator's concern.
    #[error("{what} ({source_name})")]
    Misuse { what: &'static str, source_name: String },
    /// The table's storage did not do what it was asked; worth another try.
    #[error("{what}: {cause}")]
    Io { what: String, cause: String },
    /// A file could not be encoded or decoded.
    #[error("{what}: {cause}")]
    Parquet { what: String, cause: String },
}

impl BronzeError {
    /// Whether the caller should drop its buffers and acquire its partitions again.
    pub fn reacquire(&self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::Expired { .. } | Self::Renewed { .. } | Self::Accepted { .. })
    }

    /// Whether the daemon must stay down until an operator has decided.
    pub fn is_loud_stop(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::Misuse { .. })
    }

    pub(crate) fn io(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        let mut cause = cause.to_string();
        if let Some(hint) = hint(&cause) {
            cause = format!("{cause}; {hint}");
        }
        Self::Io { what: what.into(), cause }
    }

    pub(crate) fn parquet(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Parquet { what: what.into(), cause: cause.to_string() }
    }

    pub(crate) fn misuse(what: &'static str, source: &Source) -> Self {
        Self::Misuse { what, source_name: source.to_string() }
    }

    pub(crate) fn stopped(what: impl Into<String>, place: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Stopped { what: what.into(), place: place.into(), remedy: remedy.into() }
    }
}

/// What resolves a fault of the storage that does not heal by itself.
fn hint(cause: &str) -> Option<&'static str> {
    const FULL: &str = "the disk is full: make room, and it goes on by itself; nothing is lost";
    const DENIED: &str = "let the daemon write to the lakehouse, and it goes on by itself; nothing is lost";
    const NO_FOLDER: &str =
        "a file lies where a folder belongs: take it away, and it goes on by itself; nothing is lost";
    [
        ("No space left", FULL),
        ("Disk quota exceeded", FULL),
        ("Permission denied", DENIED),
        ("Read-only file system", DENIED),
        ("Operation not permitted", DENIED),
        ("Not a directory", NO_FOLDER),
    ]
    .into_iter()
    .find_map(|(text, hint)| (cause.contains(text) && !cause.contains(hint)).then_some(hint))
}
