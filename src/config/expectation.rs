//! What a table's rows are expected to be.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AllowedValue;
use super::error::Origin;
use super::pipeline::optional_window;
use super::units::duration;

/// A condition that rows are held against before they are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// Where it stands, for messages.
    #[serde(skip)]
    pub origin: Origin,
    /// Its name, unique in the pipeline; also the reason of rows that it refuses, `expectation:<name>`.
    pub name: String,
    /// What is checked.
    pub check: Check,
    /// The table: `silver.<pipeline>` (when left out) or `gold.<model>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// The columns that are looked at: one, or for `not_null` and `unique` any number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// For `accepted_values`: the values. A row without a value passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<AllowedValue>>,
    /// For `range`: the least value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// For `range`: the greatest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// For `relationship`: the column that must have the value too, as in `gold.dim_users.user_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// For `row_count`: the part by which a day's rows may differ from the day's before, as in `0.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<f64>,
    /// For `freshness`: how far the newest time in the column may lie behind now.
    #[serde(default, with = "optional_window", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub within: Option<Duration>,
    /// For `sql`: a query that gives the rows that break the expectation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// What happens when it does not hold: `warn` notes it, `quarantine` refuses the row on its way into silver,
    /// `fail` stops the run before anything is served.
    #[serde(default)]
    pub severity: Severity,
}

/// What an expectation looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    NotNull,
    Unique,
    AcceptedValues,
    Range,
    Relationship,
    RowCount,
    Freshness,
    Sql,
}

/// What happens when an expectation does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    #[default]
    Warn,
    Quarantine,
    Fail,
}

impl Check {
    /// Every check by the name it has in files.
    pub const ALL: [(&'static str, Check); 8] = [
        ("not_null", Check::NotNull),
        ("unique", Check::Unique),
        ("accepted_values", Check::AcceptedValues),
        ("range", Check::Range),
        ("relationship", Check::Relationship),
        ("row_count", Check::RowCount),
        ("freshness", Check::Freshness),
        ("sql", Check::Sql),
    ];

    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, check)| *check == self).map_or("", |(name, _)| name)
    }
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warn => "warn",
            Severity::Quarantine => "quarantine",
            Severity::Fail => "fail",
        }
    }
}
