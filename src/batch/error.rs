//! What can go wrong in a batch run, and what the caller does about it.

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

    pub(crate) fn refused(what: impl Into<String>, cause: impl std::fmt::Display, remedy: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), cause: cause.to_string(), remedy: remedy.into() }
    }
}
