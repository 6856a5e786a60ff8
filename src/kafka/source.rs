//! What a position belongs to.

use std::fmt;
use std::sync::Arc;

/// How an application id ends that bears what somebody has accepted of bad records.
pub const BAD_RECORDS: &str = "/bad_records";

/// One partition of one pipeline's topic. `generation` rises when an operator adopts a topic that was deleted and
/// made anew: the old generation's rows and totals stay.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    pub pipeline: Arc<str>,
    pub topic: Arc<str>,
    pub generation: i32,
    pub partition: i32,
}

impl Source {
    /// The Delta application id whose version is this partition's next offset.
    pub fn txn_id(&self) -> String {
        self.to_string()
    }

    /// The Delta application id whose version is this partition's mark, in microseconds since the epoch.
    pub fn mark_id(&self) -> String {
        format!("{self}/mark")
    }

    /// The Delta application id whose version is the offset below which somebody has accepted whatever is bad.
    pub fn bad_records_id(&self) -> String {
        format!("{self}{BAD_RECORDS}")
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.pipeline, self.topic, self.generation, self.partition)
    }
}
