//! `pipeline.toml`: a pipeline is data, not code.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Expectation;
use super::schedule::Schedule;
use super::units::{ByteSize, duration, optional_duration};

/// One pipeline: a topic, what its events look like, and what is counted of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// The folder's name. Letters, digits and underscores, beginning with a letter.
    #[serde(skip)]
    pub name: String,
    /// The SQL models in the pipeline's folder `gold`, by name.
    #[serde(skip)]
    pub models: Vec<ModelFile>,
    /// The Kafka topic to read.
    pub topic: String,
    /// Where a partition starts that Bronze does not know yet, when the pipeline itself is new: `earliest` or
    /// `latest`. Partitions added later always start at their beginning.
    #[serde(default)]
    pub start_at: StartAt,
    /// The fields of an event, in the order of their Bronze columns.
    #[serde(rename = "field")]
    pub fields: Vec<Field>,
    /// What is counted in tumbling windows and served from ClickHouse.
    #[serde(default, rename = "aggregate")]
    pub aggregates: Vec<Aggregate>,
    /// What rows are held against before they are served. Models have further ones in their headers.
    #[serde(default, rename = "expectation", skip_serializing_if = "Vec::is_empty")]
    pub expectations: Vec<Expectation>,
    #[serde(default)]
    pub bronze: BronzeSettings,
    #[serde(default)]
    pub realtime: RealtimeSettings,
    #[serde(default)]
    pub time: TimeSettings,
    #[serde(default)]
    pub retention: Retention,
    #[serde(default)]
    pub bad_records: BadRecords,
    #[serde(default)]
    pub schedule: Schedule,
}

impl Pipeline {
    /// Index of the field that bears a role. Validation guarantees exactly one per role.
    pub fn role(&self, role: Role) -> Option<usize> {
        self.fields.iter().position(|f| f.role == Some(role))
    }

    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|f| f.name == name)
    }
}

/// A file `gold/<name>.sql` of a pipeline, unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// The file's name without `.sql`.
    pub name: String,
    pub path: Arc<PathBuf>,
    pub text: String,
}

/// Where a new pipeline begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    #[default]
    Earliest,
    Latest,
}

/// One field of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The key in the JSON object and, but for the event time, the name of the Bronze column.
    pub name: String,
    /// The type: `string`, `int` (signed 64 bits), `float`, `bool` or `timestamp`.
    #[serde(rename = "type")]
    pub kind: FieldType,
    /// Whether a record without this field is no event.
    #[serde(default = "yes")]
    pub required: bool,
    /// Values that silver accepts; anything else is refused there. Realtime counts every value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<AllowedValue>>,
    /// What the field is to the platform: `event_id` (a string) or `event_time` (a timestamp). Each is needed once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

fn yes() -> bool {
    true
}

/// A value in a list of allowed values or in a filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AllowedValue {
    Int(i64),
    Text(String),
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    String,
    Int,
    Float,
    Bool,
    Timestamp,
}

/// What a field is to the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    EventId,
    EventTime,
}

/// A count of events per tumbling window and combination of dimensions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// Name of the view in ClickHouse's `realtime` database; unique across pipelines.
    pub name: String,
    /// Name of the column that holds the count.
    pub measure: String,
    /// Length of the window, a multiple of `time.window`; default: `time.window`.
    #[serde(default, with = "optional_window", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "duration::schema")]
    pub window: Option<Duration>,
    /// String fields to group by; each is a column of the view.
    #[serde(default)]
    pub dimensions: Vec<String>,
    /// Count only events whose string field has one of these values: `filter = { event_type = ["login"] }`.
    #[serde(default)]
    pub filter: BTreeMap<String, Vec<String>>,
}

pub(super) mod optional_window {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use super::duration;

    pub fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match d {
            Some(d) => duration::serialize(d, s),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(d).map(Some)
    }
}

/// How Bronze is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BronzeSettings {
    /// Longest time that a record waits for its commit.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub flush_interval: Duration,
    /// Encoded bytes at which a file is committed before the interval has passed.
    pub flush_bytes: ByteSize,
    /// Whether the raw bytes are kept: `when_needed` (the columns alone could not give the same JSON value back) or
    /// `always`.
    pub keep_payload: KeepPayload,
    /// Commits after which the table's log gets a checkpoint, so that loading the table stays quick.
    pub checkpoint_commits: u32,
}

impl Default for BronzeSettings {
    fn default() -> Self {
        Self {
            flush_interval: Duration::from_secs(30),
            flush_bytes: ByteSize::mib(32),
            keep_payload: KeepPayload::WhenNeeded,
            checkpoint_commits: 50,
        }
    }
}

/// When Bronze keeps a record's raw bytes beside its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepPayload {
    WhenNeeded,
    Always,
}

/// How realtime windows are served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RealtimeSettings {
    /// How often changed totals are written to ClickHouse.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub flush_interval: Duration,
    /// Combinations of dimension values that one window of one partition keeps, first come; later ones are counted
    /// under `__other__`.
    pub max_combinations: u32,
}

impl Default for RealtimeSettings {
    fn default() -> Self {
        Self { flush_interval: Duration::from_secs(1), max_combinations: 1000 }
    }
}

/// Event time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeSettings {
    /// Length of the base tumbling window.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub window: Duration,
    /// How far events of one partition are out of order: the watermark is the greatest event time less this.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub bound: Duration,
    /// How long a window still counts records after the watermark has passed its end.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub allowed_lateness: Duration,
    /// How far an event's time may lie beyond its Kafka timestamp before it is taken for a wrong clock.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub future_guard: Duration,
    /// How long a partition must have had nothing new before it no longer holds back `complete`.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub idle_after: Duration,
}

impl Default for TimeSettings {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            bound: Duration::from_secs(30),
            allowed_lateness: Duration::from_secs(600),
            future_guard: Duration::from_secs(300),
            idle_after: Duration::from_secs(60),
        }
    }
}

/// When a partition stops for bad records, which it never does by default: what is no event lands in Bronze among the
/// others, as a dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BadRecords {
    /// The share, 0 up to but not including 1, of the records that a partition has read last which may be no events or have a
    /// clock that is ahead. With one more it stops loudly until somebody decides; the others go on. Without it nothing stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_share: Option<f64>,
    /// How many records that a partition has read last are looked at. Before there are so many, the missing ones count as good.
    pub of_last: u32,
}

impl Default for BadRecords {
    fn default() -> Self {
        Self { stop_share: None, of_last: 10_000 }
    }
}

/// How long each layer keeps its rows; `forever` for no limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Bronze, by the date on which a record was taken from Kafka; by whole dates, once silver has read them. At least
    /// `retention.realtime` and two days, since windows are counted again from Bronze; keep it above the topic's own
    /// retention, or `boathouse reconcile` reports what Kafka has and Bronze has not any more.
    #[serde(with = "optional_duration")]
    #[schemars(schema_with = "optional_duration::schema")]
    pub bronze: Option<Duration>,
    /// Silver, by event date, once gold has read it; and refused rows, by ingestion date. Rows of earlier events that
    /// come later are left alone.
    #[serde(with = "optional_duration")]
    #[schemars(schema_with = "optional_duration::schema")]
    pub silver: Option<Duration>,
    /// Gold's models by date, in Delta and in ClickHouse; at least as long as silver, from which dates would come back.
    #[serde(with = "optional_duration")]
    #[schemars(schema_with = "optional_duration::schema")]
    pub gold: Option<Duration>,
    /// Realtime windows in ClickHouse, by window start; dropped by whole days.
    #[serde(with = "optional_duration")]
    #[schemars(schema_with = "optional_duration::schema")]
    pub realtime: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { bronze: None, silver: None, gold: None, realtime: Some(Duration::from_secs(30 * 24 * 3600)) }
    }
}
