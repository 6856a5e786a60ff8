//! The four processes of the demo: started in the order in which they need each other, stopped the other way.

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::look;
use super::settings::{OFTEN, Settings};
use crate::console::{FIRST_USER, Users};
use crate::producer::sender::{self, Pace};
use crate::producer::topic;
use crate::servers::engine::program_beside_us;
use crate::servers::{Broker, BrokerKind, Child, Engine, ports};
use crate::stop_signal::StopSignal;

/// How long after the start the demo's batch runs first.
pub(super) const FIRST_BATCH: Duration = Duration::from_secs(60);
const TOPIC_LIMIT: Duration = Duration::from_secs(60);
const DAEMON_READY_LIMIT: Duration = Duration::from_secs(120);
const PRODUCER_GRACE: Duration = Duration::from_secs(15);
/// Beyond the daemon's own deadline for draining.
const DAEMON_EXTRA_GRACE: Duration = Duration::from_secs(10);

/// What runs.
#[derive(Default)]
pub(super) struct Stack {
    broker: Option<Broker>,
    engine: Option<Engine>,
    daemon: Option<Child>,
    producer: Option<Child>,
    /// The command that asks for the first batch; ends by itself.
    batch: Option<Child>,
    drain_limit: Duration,
}

impl Stack {
    /// Starts everything, in order, or stops half-way with the reason (or without one when asked to stop).
    pub(super) fn start(&mut self, settings: &Settings, stop: &StopSignal, say: impl Fn(&str)) -> anyhow::Result<()> {
        self.drain_limit = settings.config.server.shutdown.deadline + DAEMON_EXTRA_GRACE;
        // All at once, before anything runs.
        Broker::require_port(&settings.choice, settings.kafka_port)?;
        Engine::require_port(settings.clickhouse_port)?;
        ports::require_free("the daemon", settings.metrics_port, "choose another one with --metrics-port")?;
        ports::require_free("the console", settings.console_port, "choose another one with --console-port")?;
        say("Starting the Kafka broker and the ClickHouse engine …");
        // Both are waits; side by side they take as long as the longer one.
        let (broker, engine) = std::thread::scope(|scope| {
            let engine = scope.spawn(|| Engine::start(&settings.data.join("clickhouse"), settings.clickhouse_port));
            let broker = Broker::start(&settings.choice, &settings.data.join("kafka"), settings.kafka_port);
            (broker, engine.join())
        });
        // Keep whichever runs, so that it is stopped in order.
        let engine = engine.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (broker, engine) = match (broker, engine) {
            (Ok(broker), Ok(engine)) => (self.broker.insert(broker), self.engine.insert(engine)),
            (Err(error), Ok(engine)) => {
                self.engine = Some(engine);
                return Err(error.into());
            }
            (Ok(broker), Err(error)) => {
                self.broker = Some(broker);
                return Err(error.into());
            }
            (Err(one), Err(two)) => bail!("{one}\nand {two}"),
        };
        let brokers = broker.address().to_owned();
        let kind = match broker.kind() {
            BrokerKind::Kafka => "Apache Kafka",
            BrokerKind::Tansu => "tansu",
            BrokerKind::External => "not ours",
        };
        say(&format!("  Kafka broker      {brokers}  ({kind})"));
        say(&format!("  ClickHouse        {}", engine.url()));

        let pace = Pace::PerSecond(settings.rate);
        let client = sender::client_config(&brokers, pace, TOPIC_LIMIT, &[]);
        for pipeline in &settings.config.pipelines {
            let found =
                topic::ensure(&client, &pipeline.topic, topic::PARTITIONS, TOPIC_LIMIT, |_| {}, || stop.asked());
            match found {
                Err(topic::TopicError::Stopped) => return Ok(()),
                found => found?,
            };
        }

        self.start_daemon(settings, &brokers, stop)?;
        let password = match Users::first_password(&settings.data) {
            Some(password) => format!("sign in as {FIRST_USER}, password {password}"),
            None => "your name and password as before".to_owned(),
        };
        say(&format!("  console           http://127.0.0.1:{}  ({password})", settings.console_port));
        say(&format!(
            "  daemon            http://127.0.0.1:{0}/status  (also /metrics, /healthz, /readyz)",
            settings.metrics_port
        ));
        if stop.asked() {
            return Ok(());
        }
        let mut command = Command::new(program_beside_us("boathouse-producer")?);
        command.args(["--brokers", &brokers, "--topic", settings.topic()]).args([
            "--rate",
            &settings.rate.to_string(),
            "--users",
            &settings.users.to_string(),
        ]);
        self.producer = Some(Child::spawn("the producer", command, &settings.data.join("producer.log"))?);
        say(&format!("  producer          {} events/s to {}", settings.rate, settings.topic()));
        let cron = settings.config.pipelines.first().map_or(OFTEN, |pipeline| &pipeline.schedule.cron);
        say(&format!(
            "  batch to gold     first in {} s, then by the schedule \"{cron}\"; now: boathouse batch run",
            FIRST_BATCH.as_secs()
        ));
        say(&format!("  data and logs     {}", settings.data.display()));
        say(&format!(
            "\nTry: curl '{}/?query=SELECT+*+FROM+realtime.events_per_minute+ORDER+BY+1+DESC+LIMIT+8'\nCtrl-C stops everything.\n",
            settings.clickhouse_url()
        ));
        Ok(())
    }

    fn start_daemon(&mut self, settings: &Settings, brokers: &str, stop: &StopSignal) -> anyhow::Result<()> {
        let program = env::current_exe().context("cannot find the running program")?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&settings.config_path).envs(settings.overrides(brokers));
        let daemon = self.daemon.insert(Child::spawn("the daemon", command, &settings.data.join("boathouse.log"))?);
        let begin = Instant::now();
        // Up is enough: whether it is ready, the view shows.
        daemon
            .wait_ready(DAEMON_READY_LIMIT, || stop.asked() || look::is_up(settings.metrics_port))
            .with_context(|| format!("the daemon is not up after {:.0} s", begin.elapsed().as_secs_f64()))
    }

    /// Asks the daemon for a first batch, so that nobody waits for the schedule to see gold.
    pub(super) fn first_batch(&mut self, settings: &Settings) -> anyhow::Result<()> {
        let program = env::current_exe().context("cannot find the running program")?;
        let mut command = Command::new(program);
        let brokers = format!("127.0.0.1:{}", settings.kafka_port);
        command.args(["batch", "run", "--config"]).arg(&settings.config_path).envs(settings.overrides(&brokers));
        self.batch = Some(Child::spawn("the first batch", command, &settings.data.join("batch.log"))?);
        Ok(())
    }

    /// An error that names the first part that has died, with its log's last lines.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let broker = self.broker.as_mut().and_then(Broker::child);
        let engine = self.engine.as_mut().and_then(Engine::child);
        // The servers first: when one dies, the others follow.
        for child in [broker, engine, self.daemon.as_mut(), self.producer.as_mut()].into_iter().flatten() {
            child.check()?;
        }
        Ok(())
    }

    /// Stops everything in order: no new events, the daemon drains, then the servers under it. False when a
    /// part had to be killed or ended with an error.
    pub(super) fn stop(mut self, say: impl Fn(&str)) -> bool {
        let mut clean = true;
        let mut one = |name: &str, running: bool, stop: &mut dyn FnMut() -> Option<std::process::ExitStatus>| {
            if !running {
                return;
            }
            let begin = Instant::now();
            let status = stop();
            let took = begin.elapsed().as_secs_f64();
            match status {
                Some(status) if !was_killed(status) => say(&format!("stopped: {name} ({took:.1} s)")),
                Some(status) => {
                    say(&format!("{name} did not stop in an orderly way ({status}, {took:.1} s)"));
                    clean = false;
                }
                None => {}
            }
        };
        let (producer, daemon) = (self.producer.as_mut(), self.daemon.as_mut());
        let drain_limit = self.drain_limit;
        if let Some(producer) = producer {
            one("producer", producer.exited().is_none(), &mut || producer.stop(PRODUCER_GRACE));
        }
        if let Some(daemon) = daemon {
            one("daemon", daemon.exited().is_none(), &mut || daemon.stop(drain_limit));
        }
        if let Some(engine) = self.engine.as_mut() {
            let runs = engine.child().is_some_and(|child| child.exited().is_none());
            one("ClickHouse engine", runs, &mut || engine.stop());
        }
        if let Some(broker) = self.broker.as_mut() {
            let runs = broker.child().is_some_and(|child| child.exited().is_none());
            one("Kafka broker", runs, &mut || broker.stop());
        }
        clean
    }
}

/// Killed for taking too long, or ended by a crash. A program that does not handle SIGTERM ends by it (143 is
/// Java's way to say so).
fn was_killed(status: std::process::ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    !(status.success() || status.signal() == Some(libc::SIGTERM) || status.code() == Some(128 + libc::SIGTERM))
}
