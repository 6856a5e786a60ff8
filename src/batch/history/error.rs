//! Why the history did not do what it was asked.

/// An error of the history's database.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("the history {address} failed while {what}: {cause}; is the database up, and is history.url right?")]
    Unavailable { address: String, what: &'static str, cause: sqlx::Error },
    #[error(
        "the history {address} was written by a newer version of this program (schema {found}, this one knows {known}); \
         run the newer version, or give this one a history.url of its own"
    )]
    Newer { address: String, found: i64, known: i64 },
    #[error(
        "the history {address} holds `{value}` as {of}, which this program does not write; was it changed by hand?"
    )]
    Foreign { address: String, of: &'static str, value: String },
}

impl HistoryError {
    pub(super) fn new(address: &str, what: &'static str, cause: sqlx::Error) -> Self {
        Self::Unavailable { address: address.to_owned(), what, cause }
    }
}
