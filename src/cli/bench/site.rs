//! Where one run lives: a topic, an engine, a lakehouse, a group and a configuration of its own.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::bench::{ReconcileVerdict, Verdict};
use crate::cli::kafka;
use crate::config::{Config, Kafka, Loaded, process_env};
use crate::servers::{Child, Engine, ports};
use crate::telemetry::Status;

const PIPELINE_TOML: &str = include_str!("../../../config/pipelines/user_events/pipeline.toml");
/// The shipped gold models.
#[derive(rust_embed::RustEmbed)]
#[folder = "config/pipelines/user_events/gold"]
struct Models;

const TOPIC_LINE: &str = "topic = \"user-events\"";
/// A daemon that answers later than this tells nothing in time.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
const DAEMON_GRACE: Duration = Duration::from_secs(60);

/// What a run is to have.
pub(super) struct Wanted<'a> {
    /// What messages and the verdict call it.
    pub run: String,
    /// All runs' folder.
    pub folder: &'a Path,
    pub brokers: &'a str,
    pub topic: &'a str,
    pub realtime_flush: Duration,
    pub bronze_flush: Duration,
    /// Further variables of the environment, without their first part, as in `("BATCH__MEMORY", "1GiB")`.
    pub settings: Vec<(&'static str, String)>,
}

/// See the file's head. Dropping it stops the engine.
pub(super) struct Site {
    pub run: String,
    pub topic: String,
    pub kafka: Kafka,
    /// What the daemon and the commands of this run are given.
    pub config: Config,
    pub engine: Engine,
    folder: PathBuf,
    overrides: Vec<(String, String)>,
    metrics_port: u16,
    client: reqwest::Client,
}

/// The offset behind each partition's last record.
pub(super) type Ends = BTreeMap<i32, i64>;

impl Site {
    /// Writes the configuration and starts the engine.
    pub fn new(wanted: Wanted<'_>) -> anyhow::Result<Self> {
        // Runs may be the same but for their topic: one flush interval may be measured twice.
        let name = format!("{}-{}", wanted.topic, wanted.run.replace([' ', ',', '/'], "-"));
        let folder = wanted.folder.join(&name);
        let pipeline = folder.join("config/pipelines/user_events");
        fs::create_dir_all(&pipeline).with_context(|| format!("cannot create {}", pipeline.display()))?;
        let (bronze, realtime) = (wanted.bronze_flush.as_millis(), wanted.realtime_flush.as_millis());
        let text = PIPELINE_TOML.replace(TOPIC_LINE, &format!("topic = \"{}\"", wanted.topic))
            + &format!("\n[bronze]\nflush_interval = \"{bronze}ms\"\n[realtime]\nflush_interval = \"{realtime}ms\"\n");
        for (file, text) in [(pipeline.join("pipeline.toml"), text.as_str()), (config_file(&folder), "")] {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        fs::create_dir_all(pipeline.join("gold")).context("cannot make the models' folder")?;
        for name in Models::iter() {
            let model = Models::get(&name).with_context(|| format!("the model {name} is not in this program"))?;
            fs::write(pipeline.join("gold").join(&*name), model.data).context("cannot write a model")?;
        }
        let engine = Engine::start(&folder.join("clickhouse"), 0)?;
        let metrics_port = ports::free();
        let overrides = [
            ("DATA_DIR", folder.join("data").display().to_string()),
            ("PIPELINES__DIR", folder.join("config/pipelines").display().to_string()),
            ("KAFKA__BROKERS", wanted.brokers.to_owned()),
            ("KAFKA__GROUP", name),
            ("LAKEHOUSE__URI", folder.join("lakehouse").display().to_string()),
            ("CLICKHOUSE__URL", engine.url()),
            ("METRICS__LISTEN", format!("127.0.0.1:{metrics_port}")),
            ("CONSOLE__LISTEN", format!("127.0.0.1:{}", ports::free())),
            // The benchmark alone says when a batch runs.
            ("PIPELINE__USER_EVENTS__SCHEDULE__ENABLED", "false".into()),
        ];
        let overrides: Vec<(String, String)> = overrides
            .into_iter()
            .chain(wanted.settings)
            .map(|(key, value)| (format!("BOATHOUSE__{key}"), value))
            .collect();
        let environment = process_env().chain(overrides.clone());
        let config = Loaded::load(Some(&config_file(&folder)), environment)?.config;
        let client = reqwest::Client::builder().timeout(STATUS_LIMIT).no_proxy().build().context("HTTP client")?;
        Ok(Self {
            run: wanted.run,
            topic: wanted.topic.to_owned(),
            kafka: config.server.kafka.clone(),
            config,
            engine,
            folder,
            overrides,
            metrics_port,
            client,
        })
    }

    /// The program that runs now, with this site's configuration.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(env::current_exe().context("cannot find the running program")?);
        command.arg("--config").arg(config_file(&self.folder)).args(arguments);
        command.envs(self.overrides.iter().map(|(key, value)| (key, value)));
        Ok(command)
    }

    /// Starts the daemon without waiting for anything.
    pub fn start_daemon(&self) -> anyhow::Result<Child> {
        Ok(Child::spawn("the daemon", self.command(&["run"])?, &self.folder.join("boathouse.log"))?)
    }

    /// Stops it and fails unless it drained and ended in order.
    pub fn stop_daemon(&self, mut daemon: Child) -> anyhow::Result<()> {
        match daemon.stop(DAEMON_GRACE) {
            Some(status) if status.success() => Ok(()),
            status => {
                bail!("the daemon did not stop in order ({status:?}); its log ends with:\n{}", daemon.last_lines())
            }
        }
    }

    /// Where all of it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A log file of this run.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the daemon says of itself; none while it does not answer.
    pub async fn status(&self) -> Option<Status> {
        let url = format!("http://127.0.0.1:{}/status", self.metrics_port);
        self.client.get(url).send().await.ok()?.json().await.ok()
    }

    /// How far the topic reaches now.
    pub fn ends(&self) -> anyhow::Result<Ends> {
        let consumer = kafka::consumer(&self.kafka)?;
        let partitions = kafka::partitions(&self.kafka, &self.topic)?
            .with_context(|| format!("the topic {} is gone", self.topic))?;
        let end = |partition| Ok((partition, kafka::watermarks(&consumer, &self.topic, partition)?.1));
        partitions.into_iter().map(end).collect()
    }

    /// Compares Kafka, Bronze and ClickHouse; the daemon has stopped.
    pub fn reconcile(&self) -> anyhow::Result<ReconcileVerdict> {
        let output = self
            .command(&["--json", "reconcile"])?
            .stdin(Stdio::null())
            .output()
            .context("cannot run `boathouse reconcile`")?;
        let verdict = match output.status.code() {
            Some(0) => Verdict::Same,
            Some(1) => Verdict::Different,
            _ => bail!(
                "`boathouse reconcile` could not check {}: {}{}",
                self.run,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            ),
        };
        if verdict == Verdict::Different {
            eprintln!("{}: {}", self.run, String::from_utf8_lossy(&output.stdout));
        }
        Ok(ReconcileVerdict { run: self.run.clone(), verdict })
    }
}

fn config_file(folder: &Path) -> PathBuf {
    folder.join("config/boathouse.toml")
}

/// Whether every partition that has an end has come to it, by one of its positions.
pub(super) fn reached(
    status: &Status,
    ends: &Ends,
    position: impl Fn(&crate::telemetry::PartitionStatus) -> i64,
) -> bool {
    ends.iter()
        .filter(|(_, end)| **end > 0)
        .all(|(partition, end)| status.partitions.iter().any(|p| p.partition == *partition && position(p) >= *end))
}
