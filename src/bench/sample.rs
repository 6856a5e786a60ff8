//! What one drain of the backlog was measured to be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One drain of the backlog through the whole daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainSample {
    /// From the start of the process to the first record consumed.
    pub start_to_first_record_seconds: f64,
    /// From the first record consumed until Bronze and ClickHouse hold everything.
    pub wall_seconds: f64,
    pub events_per_second: f64,
    /// Of the whole process from its start to its end.
    pub cpu_seconds: f64,
    pub cpu_seconds_per_million: f64,
    /// By groups of threads; what threads burnt after the last look at them stands under `unattributed`.
    pub cpu_seconds_per_million_by_stage: BTreeMap<String, f64>,
    pub peak_rss_bytes: u64,
}
