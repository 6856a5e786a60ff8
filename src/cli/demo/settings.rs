//! Where everything of the demo is, and what it changes in the configuration that it finds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::DemoCommand;
use crate::config::{Config, DEFAULT_PATHS, Loaded, Schedule, process_env};
use crate::servers::BrokerChoice;

/// The configuration that stands in where none is found, so that the program alone is enough for a demo.
const SERVER_TOML: &str = include_str!("../../../config/boathouse.toml");
const PIPELINE_TOML: &str = include_str!("../../../config/pipelines/user_events/pipeline.toml");
/// When the demo's batch runs.
pub(super) const OFTEN: &str = "*/5 * * * *";

/// Where everything is, decided before anything starts.
pub(super) struct Settings {
    pub(super) config: Config,
    pub(super) config_path: PathBuf,
    pub(super) data: PathBuf,
    pub(super) choice: BrokerChoice,
    pub(super) kafka_port: u16,
    pub(super) clickhouse_port: u16,
    pub(super) metrics_port: u16,
    pub(super) console_port: u16,
    pub(super) rate: f64,
    pub(super) users: u32,
}

impl Settings {
    pub(super) fn new(command: &DemoCommand, config: Option<&Path>) -> anyhow::Result<Self> {
        fs::create_dir_all(&command.data).with_context(|| format!("cannot create {}", command.data.display()))?;
        let data =
            fs::canonicalize(&command.data).with_context(|| format!("cannot resolve {}", command.data.display()))?;
        let config_path = match config {
            Some(path) => path.to_owned(),
            None => match DEFAULT_PATHS.iter().map(Path::new).find(|path| path.exists()) {
                Some(path) => path.to_owned(),
                None => write_default_config(&data)?,
            },
        };
        let choice = BrokerChoice::from_env()?;
        let mut settings = Self {
            config: Loaded::load(Some(&config_path), process_env())?.config,
            config_path,
            choice,
            kafka_port: command.kafka_port,
            clickhouse_port: command.clickhouse_port,
            metrics_port: command.metrics_port,
            console_port: command.console_port,
            rate: command.rate,
            users: command.users,
            data,
        };
        // Once more as the daemon will see it, with the demo's addresses.
        let brokers = format!("127.0.0.1:{}", settings.kafka_port);
        let env = process_env().chain(settings.overrides(&brokers));
        settings.config = Loaded::load(Some(&settings.config_path), env)?.config;
        if settings.config.pipelines.is_empty() {
            bail!(
                "there is no pipeline in {}: the demo has nothing to show",
                settings.config.server.pipelines.dir.display()
            );
        }
        Ok(settings)
    }

    /// What the demo changes in the daemon's configuration.
    pub(super) fn overrides(&self, brokers: &str) -> Vec<(String, String)> {
        // An hour is long for a look: a schedule that nobody has changed comes more often.
        let hourly = Schedule::default().cron;
        let often = self.config.pipelines.iter().filter(|p| p.schedule.cron == hourly || p.schedule.cron == OFTEN);
        let schedules =
            often.map(|p| (format!("PIPELINE__{}__SCHEDULE__CRON", p.name.to_uppercase()), OFTEN.to_owned()));
        let addresses = [
            ("DATA_DIR", self.data.display().to_string()),
            ("KAFKA__BROKERS", brokers.to_owned()),
            ("LAKEHOUSE__URI", self.data.join("lakehouse").display().to_string()),
            ("CLICKHOUSE__URL", self.clickhouse_url()),
            ("METRICS__LISTEN", format!("127.0.0.1:{}", self.metrics_port)),
            ("CONSOLE__LISTEN", format!("127.0.0.1:{}", self.console_port)),
        ];
        let addresses = addresses.into_iter().map(|(key, value)| (key.to_owned(), value));
        addresses.chain(schedules).map(|(key, value)| (format!("BOATHOUSE__{key}"), value)).collect()
    }

    pub(super) fn clickhouse_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.clickhouse_port)
    }

    /// The topic of the first pipeline.
    pub(super) fn topic(&self) -> &str {
        // `new` has refused a configuration without pipelines.
        self.config.pipelines.first().map_or("user-events", |pipeline| &pipeline.topic)
    }
}

fn write_default_config(data: &Path) -> anyhow::Result<PathBuf> {
    let path = data.join("config/boathouse.toml");
    let pipeline = data.join("config/pipelines/user_events/pipeline.toml");
    for (file, text) in [(&pipeline, PIPELINE_TOML), (&path, SERVER_TOML)] {
        if !file.exists() {
            let folder = file.parent().unwrap_or(data);
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(file, text))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(path)
}
