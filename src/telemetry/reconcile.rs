//! What the board knows of the comparison of every layer with the one that it is made from.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The comparison of this instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReconcileState {
    pub running: bool,
    /// The newest one that came to its end, also before this instance started.
    pub last: Option<Reconciled>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconciled {
    pub ended: DateTime<Utc>,
    pub seconds: f64,
    /// `same`, `different`, `not_yet_run` or `not_checked`.
    pub verdict: String,
    pub layers: Vec<LayerDifference>,
}

/// One layer of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDifference {
    pub pipeline: String,
    /// `bronze`, `realtime`, `silver`, `gold` or `clickhouse_gold`.
    pub layer: String,
    /// Rows that are missing, unknown or different; at least one where it differs at all.
    pub rows: u64,
}
