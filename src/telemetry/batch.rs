//! What the board knows of a pipeline's batch.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// The batch of one pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchState {
    /// Whether the schedule starts runs.
    pub enabled: bool,
    /// Since when somebody has paused it.
    pub paused: Option<DateTime<Utc>>,
    pub next_slot: Option<DateTime<Utc>>,
    /// The run that this instance is at.
    pub running: Option<BatchRunning>,
    /// The newest run that came to its end, on this instance or before it started.
    pub last: Option<BatchEnded>,
    pub last_success: Option<DateTime<Utc>>,
    /// Whether the newest slot has no success although its deadline has passed.
    pub late: bool,
    /// Since when each layer has had nothing new: what came before is in it. None before its first success.
    pub fresh: Freshness,
    /// Why the history cannot be read; none while it can.
    pub history_error: Option<String>,
    #[serde(default)]
    pub upkeep: UpkeepState,
}

/// The upkeep of a pipeline's tables.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UpkeepState {
    pub next_slot: Option<DateTime<Utc>>,
    /// The newest upkeep that came to its end, on this instance or before it started.
    pub last: Option<BatchEnded>,
    pub last_success: Option<DateTime<Utc>>,
    /// What the tables hold, as of the last look, some minutes ago at most.
    pub tables: Vec<TableState>,
}

/// What a table holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableState {
    /// As `bronze.user_events`.
    pub table: String,
    pub version: u64,
    pub files: u64,
    /// Files below 8 MiB.
    pub files_small: u64,
    pub bytes: u64,
    pub rows: u64,
    /// Entries that its log holds.
    pub log_entries: u64,
}

/// A run under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchRunning {
    pub run_id: String,
    pub task: Option<String>,
    pub since: DateTime<Utc>,
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchEnded {
    pub run_id: String,
    /// `succeeded`, `skipped`, `failed` or `cancelled`.
    pub outcome: String,
    pub ended: DateTime<Utc>,
    pub error: Option<String>,
}

/// Per layer the moment up to which it holds its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    pub silver: Option<DateTime<Utc>>,
    pub gold: Option<DateTime<Utc>>,
    pub clickhouse: Option<DateTime<Utc>>,
}

impl Freshness {
    /// The layers with their names.
    pub fn layers(&self) -> [(&'static str, Option<DateTime<Utc>>); 3] {
        [("silver", self.silver), ("gold", self.gold), ("clickhouse", self.clickhouse)]
    }
}

/// The batch of one pipeline, as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchStatus {
    pub pipeline: String,
    #[serde(flatten)]
    pub state: BatchState,
}
