//! `boathouse.toml`: where the servers are and where the daemon keeps its own things.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schedule::History;
use super::units::{ByteSize, duration, optional_duration};

/// The server's configuration, `boathouse.toml`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Folder for what the daemon itself must remember: its group instance id and its lock. Relative paths count
    /// from the working directory.
    pub data_dir: PathBuf,
    pub kafka: Kafka,
    pub lakehouse: Lakehouse,
    pub clickhouse: ClickHouse,
    pub metrics: Metrics,
    pub console: Console,
    pub pipelines: Pipelines,
    pub memory: Memory,
    pub batch: Batch,
    pub upkeep: Upkeep,
    pub reconcile: Reconcile,
    pub history: History,
    pub log: Log,
    pub shutdown: Shutdown,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/boathouse".into(),
            kafka: Kafka::default(),
            lakehouse: Lakehouse::default(),
            clickhouse: ClickHouse::default(),
            metrics: Metrics::default(),
            console: Console::default(),
            pipelines: Pipelines::default(),
            memory: Memory::default(),
            batch: Batch::default(),
            upkeep: Upkeep::default(),
            reconcile: Reconcile::default(),
            history: History::default(),
            log: Log::default(),
            shutdown: Shutdown::default(),
        }
    }
}

/// The Kafka cluster.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// Bootstrap servers, `host:port`, separated by commas.
    pub brokers: String,
    /// First part of the consumer group's name; the group of a pipeline is `{group}.{pipeline}`.
    pub group: String,
    /// How long a partition may have records to be read and not move before its client is made anew: a consumer can be
    /// alive and not consume.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub stuck_after: Duration,
    /// Whether the instance has a lasting name in its group (`group.instance.id`, kept in `data_dir`): one that is started
    /// again within the session timeout then finds its partitions as they were. Off for a broker that does not know such
    /// members, or never lets go of one that died.
    pub static_membership: bool,
    /// Any other librdkafka setting by its own name, such as `security.protocol`. Settings that exactly-once
    /// delivery depends on cannot be changed here.
    #[schemars(extend("x-dotted" = true))]
    pub properties: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            group: "boathouse".into(),
            stuck_after: Duration::from_secs(90),
            static_membership: true,
            properties: BTreeMap::new(),
        }
    }
}

/// Shows which properties are set, not what they hold: some are passwords.
impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties: Vec<&String> = self.properties.keys().collect();
        let mut f = f.debug_struct("Kafka");
        f.field("brokers", &self.brokers).field("group", &self.group).field("stuck_after", &self.stuck_after);
        f.field("static_membership", &self.static_membership).field("properties", &properties).finish()
    }
}

/// Where the Delta tables live.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lakehouse {
    /// A folder, or a bucket of a store that speaks S3, as `s3://bucket/path`; tables are below it as
    /// `bronze/<pipeline>`. The store must know conditional writes (`If-None-Match`).
    pub uri: String,
    /// Settings of the object store by their own names, such as `aws_region`, `aws_endpoint`, `aws_access_key_id`,
    /// `aws_secret_access_key`, `aws_allow_http`. The usual variables of the environment (`AWS_REGION` …), web
    /// identities and instance roles are taken where nothing is set here. Better no secrets in a file:
    /// `BOATHOUSE__LAKEHOUSE__OPTIONS__AWS_SECRET_ACCESS_KEY`.
    pub options: BTreeMap<String, String>,
}

impl Default for Lakehouse {
    fn default() -> Self {
        Self { uri: "/data/lakehouse".into(), options: BTreeMap::new() }
    }
}

/// Shows which options are set, not what they hold: some are secrets.
impl fmt::Debug for Lakehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<&String> = self.options.keys().collect();
        f.debug_struct("Lakehouse").field("uri", &self.uri).field("options", &options).finish()
    }
}

/// The ClickHouse server, by its HTTP interface.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClickHouse {
    /// HTTP address.
    pub url: String,
    /// User name.
    pub user: String,
    /// Password; better given by `password_file` or `BOATHOUSE__CLICKHOUSE__PASSWORD`.
    pub password: Secret,
    /// File that holds the password, for secrets mounted as files.
    pub password_file: Option<PathBuf>,
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8123".into(),
            user: "default".into(),
            password: Secret::default(),
            password_file: None,
        }
    }
}

/// A value that never shows in a log, an error or a dump.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = "secret"))]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that hands it to a client.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(if self.0.is_empty() { "" } else { "***" })
    }
}

/// The listener for Prometheus and health checks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub listen: String,
    /// How long something may stand still, fail or be away before `/readyz` says so. For a sink this comes on top of its
    /// flush interval.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub not_ready_after: Duration,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".into(), not_ready_after: Duration::from_secs(60) }
    }
}

/// The web console and the API.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Address of the console and of `/api/v1`; an empty text switches both off.
    pub listen: String,
    /// A session ends after this time without a request.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub session_idle: Duration,
    /// File with the certificate chain (PEM); with it the console speaks HTTPS alone.
    pub tls_certificate: Option<PathBuf>,
    /// File with the certificate's private key (PEM).
    pub tls_key: Option<PathBuf>,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8082".into(),
            session_idle: Duration::from_secs(12 * 3600),
            tls_certificate: None,
            tls_key: None,
        }
    }
}

/// Where pipelines are defined.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pipelines {
    /// Folder with one folder per pipeline, each with a `pipeline.toml`; relative paths count from the folder of
    /// the configuration file.
    pub dir: PathBuf,
}

impl Default for Pipelines {
    fn default() -> Self {
        Self { dir: "pipelines".into() }
    }
}

/// The one memory budget that everything is cut from: the stream's buffers, and what the batch may hold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Bytes that records may hold between Kafka and the sinks: librdkafka's queues, batches in hand, Bronze files
    /// being written, window totals not yet served.
    pub budget: ByteSize,
    /// The whole: `memory.budget` for the stream and `batch.memory` for the batch must fit into it. Left out, it is what
    /// these two add up to.
    pub total: Option<ByteSize>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { budget: ByteSize::mib(64), total: None }
    }
}

/// The hourly runs from Bronze to gold.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Bytes that batch work may hold, of all pipelines together, before it spills to `batch.spill_dir` or goes over its
    /// input in more passes.
    pub memory: ByteSize,
    /// Threads that batch work runs on, at a lower priority than the stream's.
    pub threads: u32,
    /// Folder for what does not fit into `batch.memory`; `{data_dir}` stands for the data folder.
    pub spill_dir: String,
    /// Bytes that may lie there; work that needs more fails.
    pub spill_max: ByteSize,
    /// How long the history keeps runs with their tasks and log lines; `forever` for no limit.
    #[serde(with = "optional_duration")]
    #[schemars(schema_with = "optional_duration::schema")]
    pub history_retention: Option<Duration>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            memory: ByteSize::mib(512),
            threads: 2,
            spill_dir: "{data_dir}/spill".into(),
            spill_max: ByteSize::mib(50 << 10),
            history_retention: Some(Duration::from_secs(90 * 24 * 3600)),
        }
    }
}

impl Server {
    /// The folder for what does not fit into memory.
    pub fn spill_dir(&self) -> PathBuf {
        self.batch.spill_dir.replace("{data_dir}", &self.data_dir.to_string_lossy()).into()
    }

    /// The whole memory budget, in bytes.
    pub fn memory_total(&self) -> u64 {
        self.memory.total.map_or(self.memory.budget.0.saturating_add(self.batch.memory.0), |total| total.0)
    }
}

/// Upkeep of the tables: retention, merging small files, checkpoints and old log entries, deleting what nobody needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upkeep {
    /// Whether slots start upkeep by themselves; by hand (`boathouse tables upkeep`) it runs either way.
    pub enabled: bool,
    /// The slots: minute, hour, day of month, month, day of week. With a sixth field the first one is seconds.
    pub cron: String,
    /// The time zone that `cron` is meant in, as in `Europe/Berlin`.
    pub timezone: String,
    /// Bytes of a merged file, about. Files of closed hours and dates that are smaller than half of it are merged.
    pub file_size: ByteSize,
    /// How long merging one table may take at a time; the next slot goes on.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub merge_time: Duration,
    /// How long a file that has left its table is kept for whoever still reads it; 7 to 30 days.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub vacuum_after: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            enabled: true,
            cron: "35 * * * *".into(),
            timezone: "UTC".into(),
            file_size: ByteSize::mib(128),
            merge_time: Duration::from_secs(600),
            vacuum_after: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// The daemon's own comparison of every layer with the one that it is made from, as `boathouse reconcile` does it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reconcile {
    /// Whether slots start it by themselves; by hand (the console's page) it runs either way. It reads the whole topic
    /// and all of Bronze: choose a quiet hour.
    pub enabled: bool,
    /// The slots: minute, hour, day of month, month, day of week. With a sixth field the first one is seconds.
    pub cron: String,
    /// The time zone that `cron` is meant in, as in `Europe/Berlin`.
    pub timezone: String,
}

impl Default for Reconcile {
    fn default() -> Self {
        Self { enabled: false, cron: "15 3 * * *".into(), timezone: "UTC".into() }
    }
}

/// Logs, on standard error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `human` or `json`.
    pub format: LogFormat,
    /// What to log, in the form of `RUST_LOG`, such as `info,boathouse=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: "info,buoyant_kernel=off".into() }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

/// Stopping.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long SIGTERM may drain what is in hand before the daemon leaves all the same. What was not drained is read
    /// again at the next start.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(30) }
    }
}
