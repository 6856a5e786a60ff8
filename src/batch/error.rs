//! What can go wrong in a batch run, and what the caller does about it.

use datafusion::common::DataFusionError;

use super::yielding::was_cancelled;

/// How the engine names its limit on what it spills.
const SPILL_LIMIT: &str = "max_temp_directory_size";

/// An error of a task. The variant tells the scheduler what to do next; the text tells the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Somebody asked the run to stop.
    #[error("cancelled")]
    Cancelled,
    /// Storage or a server did not do what it was asked; worth another try.
    #[error("{what}: {cause}")]
    Unavailable { what: String, cause: String },
    /// Another attempt would fail alike: a model that is wrong, a table changed by hand, a failed expectation.
    #[error("{what}: {cause}; {remedy}")]
    Refused { what: String, cause: String, remedy: String },
}

impl BatchError {
    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    pub(crate) fn unavailable(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Unavailable { what: what.into(), cause: cause.to_string() }
    }

    /// What the batch engine says; where it lacks memory or room on the disk, what gives it more.
    pub(crate) fn engine(what: impl Into<String>, e: &DataFusionError) -> Self {
        if was_cancelled(e) {
            return Self::Cancelled;
        }
        Self::unavailable(what, lack(e).unwrap_or_else(|| e.strip_backtrace()))
    }

    pub(crate) fn refused(what: impl Into<String>, cause: impl std::fmt::Display, remedy: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), cause: cause.to_string(), remedy: remedy.into() }
    }
}

/// What the batch engine lacks, in the user's terms; none where it is something else that is wrong.
pub(crate) fn lack(e: &DataFusionError) -> Option<String> {
    let cause = e.strip_backtrace();
    // The engine's own error for it is one of writing a file.
    if cause.contains(SPILL_LIMIT) {
        return Some(
            "what does not fit into `batch.memory` would take more room on the disk than `batch.spill_max` allows: \
             raise one of them"
                .into(),
        );
    }
    match e.find_root() {
        DataFusionError::ResourcesExhausted(_) => Some(format!("{cause}; raise `batch.memory`")),
        _ => None,
    }
}
