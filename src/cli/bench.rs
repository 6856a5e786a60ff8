//! `boathouse bench`: how fast it is on this machine, what it costs, and whether it was right while it was measured.

pub(super) mod batch;
mod batches;
mod beside;
pub(super) mod consume;
mod drain;
mod meter;
mod rate;
mod site;
mod viewers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use self::site::{Site, Wanted};
use self::viewers::Turns;
use super::{Context, Outcome, output};
use crate::bench::{
    BesideConsole, Drains, Load, Machine, RateSample, ReconcileVerdict, Recovery, Report, Turn, Verdict,
};
use crate::kafka::settings;
use crate::producer::sender::{self, Pace};
use crate::producer::topic;
use crate::servers::engine::program_beside_us;
use crate::servers::{Broker, BrokerChoice, BrokerKind};
use crate::stop_signal::StopSignal;

const TOPIC_LIMIT: Duration = Duration::from_secs(60);
/// Event time that the backlog spans.
const SPAN: &str = "1h";

/// Measure it on this machine: throughput, CPU, memory, latency, recovery; every figure with reconcile's verdict.
///
/// Starts a broker and an engine of its own, loads a backlog, drains it in turns through a loop that only consumes and
/// through the whole daemon, then runs at fixed rates and kills the daemon under load.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  boathouse bench --svg bench.svg                                the whole of it, some minutes
  boathouse bench --events 1000000 --rates '' --pairs 5          draining alone
  boathouse bench --pairs 0 --rates 20000 --flush 100ms          latency alone
  boathouse bench --pairs 0 --kills 0 --beside-batch             latency with and without a batch beside it
  boathouse bench --events 20000000 --pairs 8 --rates '' --kills 0 --console-clients 200
                                                                 draining with and without people at the console
  boathouse bench batch                                          the batch: Bronze to silver to gold to ClickHouse")]
pub(crate) struct Args {
    #[command(subcommand)]
    mode: Option<Mode>,

    /// Events of the backlog.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,

    /// Fixed rates, events per second, separated by commas; '' for none.
    #[arg(long, default_value = "5000,20000", value_parser = rates)]
    rates: Numbers,

    /// How long each fixed rate is measured.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    rate_duration: Duration,

    /// `realtime.flush_interval` at fixed rates; several are run one after the other.
    #[arg(long, default_value = "1s,100ms", value_delimiter = ',', value_parser = humantime::parse_duration)]
    flush: Vec<Duration>,

    /// `bronze.flush_interval` in all runs.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    bronze_flush: Duration,

    /// Pairs of consume-only loop and whole daemon; 0 for none.
    #[arg(long, default_value_t = 3)]
    pairs: u32,

    /// Measure each fixed rate twice more behind a backlog: without and with full batches in the same daemon.
    #[arg(long)]
    beside_batch: bool,

    /// Drain each pair's backlog once more, with so many live pages of the console that come and go turn by turn.
    #[arg(long, default_value_t = 0, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(0..=900))]
    console_clients: u16,

    /// SIGKILLs under load, at the last rate.
    #[arg(long, default_value_t = 3)]
    kills: u32,

    /// Write a picture too.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Where the run keeps its data while it lasts (0.6 KB an event); by default the system's folder for temporary files. Where
    /// many files were deleted in the last minutes, ext4 takes long to make new ones, and short flush intervals show it.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// A broker that runs already, instead of one of its own.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Mode {
    Batch(batch::Args),
}

/// What `--rates` says.
#[derive(Debug, Clone)]
struct Numbers(Vec<f64>);

fn rates(text: &str) -> Result<Numbers, String> {
    let one = |rate: &str| match rate.trim().parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err(format!("`{rate}` is no rate: a number greater than 0")),
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    parts.map(one).collect::<Result<_, _>>().map(Numbers)
}

impl Args {
    pub fn run(mut self, context: &Context) -> anyhow::Result<Outcome> {
        if let Some(Mode::Batch(args)) = self.mode.take() {
            return args.run(context);
        }
        let stop = StopSignal::listen().context("cannot listen for signals")?;
        let (name, folder) = own_folder("boathouse-bench", self.data.as_deref())?;
        let load_average = load_average();
        let choice = match &self.brokers {
            Some(address) => BrokerChoice::External(address.clone()),
            None => BrokerChoice::from_env()?,
        };
        say("starting a broker");
        let outcome = Broker::start(&choice, &folder.join("kafka"), 0).map_err(Into::into).and_then(|mut broker| {
            let run = Run { args: &self, stop: &stop, folder: &folder, name: &name, broker: &broker, load_average };
            let report = context.block_on(run.everything());
            if broker.kind() == BrokerKind::External {
                context.block_on(run.delete_topics())?;
            }
            broker.stop();
            report
        });
        let report = match outcome {
            Ok(report) => report,
            Err(error) => {
                eprintln!("boathouse bench: logs and data are kept in {}", folder.display());
                return Err(error);
            }
        };
        if report.right {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        } else {
            eprintln!("boathouse bench: logs and data are kept in {}", folder.display());
        }
        let svg = self.svg.as_deref().map(|file| (file, report.svg()));
        conclude(context, &report, &report.text(), svg, report.right)
    }
}

/// A folder that no other run has, in `data` or the system's folder for temporary files, and its name.
fn own_folder(prefix: &str, data: Option<&Path>) -> anyhow::Result<(String, PathBuf)> {
    let parent = data.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let name = format!("{prefix}-{since}-{}", std::process::id());
    let folder = parent.join(&name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok((name, fs::canonicalize(&folder)?))
}

/// Writes the picture, where one is wanted, and the report, as JSON or as text.
fn conclude(
    context: &Context,
    report: &impl serde::Serialize,
    text: &str,
    svg: Option<(&Path, String)>,
    right: bool,
) -> anyhow::Result<Outcome> {
    if let Some((file, svg)) = svg {
        fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if context.json {
        output::json(report)?;
    } else {
        let mut out = output::stdout();
        std::io::Write::write_all(&mut out, text.as_bytes())?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(if right { Outcome::Right } else { Outcome::Wrong })
}

struct Run<'a> {
    args: &'a Args,
    stop: &'a StopSignal,
    folder: &'a Path,
    /// First part of the topics' names.
    name: &'a str,
    broker: &'a Broker,
    load_average: Option<f64>,
}

impl Run<'_> {
    async fn everything(&self) -> anyhow::Result<Report> {
        let mut verdicts = Vec::new();
        let (load, drains, beside_console) = self.drains(&mut verdicts).await?;
        let (rates, recovery) = self.rates(&mut verdicts).await?;
        let beside_batch = match self.args.beside_batch {
            true => beside::measure(self, &mut verdicts).await?,
            false => Vec::new(),
        };
        let right = !verdicts.is_empty() && verdicts.iter().all(|v| v.verdict == Verdict::Same);
        Ok(Report {
            version: env!("CARGO_PKG_VERSION").into(),
            machine: machine(self.load_average, &format!("{:?}", self.broker.kind())),
            load,
            bronze_flush_seconds: self.args.bronze_flush.as_secs_f64(),
            drains,
            rates,
            beside_batch,
            beside_console,
            recovery,
            reconcile: verdicts,
            right,
        })
    }

    async fn drains(
        &self,
        verdicts: &mut Vec<ReconcileVerdict>,
    ) -> anyhow::Result<(Load, Drains, Option<BesideConsole>)> {
        let topic = format!("{}-backlog", self.name);
        let mut load = Load { event_count: 0, partition_count: 0, mean_record_bytes: 0.0, produced_per_second: 0.0 };
        let (mut consumed, mut drained, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 1..=self.args.pairs {
            if pair == 1 {
                say(&format!("loading {} events", self.args.events));
                load.produced_per_second = self.produce_backlog(&topic)?;
            }
            let flush = self.args.flush.first().copied().unwrap_or(Duration::from_secs(1));
            let ends = {
                // Its engine ends here: one that is left over would run beside the next drain.
                let site = self.site(format!("drain {pair}"), &topic, flush)?;
                let ends = site.ends()?;
                // Each goes first every other time: whoever follows finds the broker's pages warm, and the machine changes.
                if pair % 2 == 1 {
                    consumed.push(self.consume(&site, pair).await?);
                    drained.push(self.drain_reconciled(&site, &ends, pair, None, verdicts).await?);
                } else {
                    drained.push(self.drain_reconciled(&site, &ends, pair, None, verdicts).await?);
                    consumed.push(self.consume(&site, pair).await?);
                }
                ends
            };
            if self.args.console_clients > 0 {
                watched.push(self.drain_watched(&topic, flush, pair, verdicts).await?);
            }
            (load.event_count, load.partition_count) = (ends.values().map(|e| e.unsigned_abs()).sum(), ends.len());
        }
        if let Some(one) = consumed.first() {
            load.mean_record_bytes = one.byte_count as f64 / one.record_count as f64;
        }
        let beside = self.beside_console(watched)?;
        Ok((load, Drains::of(consumed, drained), beside))
    }

    /// What live pages cost, of the turns of each drain and the bytes that the pages took.
    fn beside_console(&self, watched: Vec<(Vec<Turn>, u64)>) -> anyhow::Result<Option<BesideConsole>> {
        if watched.is_empty() {
            return Ok(None);
        }
        let (turns, bytes): (Vec<_>, Vec<u64>) = watched.into_iter().unzip();
        let beside = BesideConsole::of(self.args.console_clients.into(), turns, bytes.iter().sum());
        let events = self.args.events;
        Ok(Some(beside.with_context(|| {
            format!("{events} events were drained before live pages had come and gone: ask for more with --events")
        })?))
    }

    async fn drain_reconciled(
        &self,
        site: &Site,
        ends: &site::Ends,
        pair: u32,
        turns: Option<&mut Turns>,
        verdicts: &mut Vec<ReconcileVerdict>,
    ) -> anyhow::Result<crate::bench::DrainSample> {
        self.go_on()?;
        quiet_disk().await?;
        let sample = drain::drain(site, ends, self.stop, turns).await?;
        say(&format!(
            "pair {pair}: whole daemon {:.0} events/s, {:.3} CPU s per million, peak {} MiB",
            sample.events_per_second,
            sample.cpu_seconds_per_million,
            sample.peak_rss_bytes >> 20
        ));
        say("reconciling");
        verdicts.push(site.reconcile()?);
        Ok(sample)
    }

    async fn drain_watched(
        &self,
        topic: &str,
        flush: Duration,
        pair: u32,
        verdicts: &mut Vec<ReconcileVerdict>,
    ) -> anyhow::Result<(Vec<Turn>, u64)> {
        let site = self.site(format!("drain {pair} beside the console"), topic, flush)?;
        let ends = site.ends()?;
        // A drain begins faster than it goes on: its first turn is one of live pages every other time.
        let mut turns = Turns::new(&site, self.args.console_clients.into(), pair % 2 == 1)?;
        self.drain_reconciled(&site, &ends, pair, Some(&mut turns), verdicts).await?;
        let (turns, bytes) = turns.end();
        say(&format!(
            "pair {pair}: {} turns of live pages and none; the pages took {} MB",
            turns.len(),
            bytes / 1_000_000
        ));
        Ok((turns, bytes))
    }

    async fn consume(&self, site: &Site, pair: u32) -> anyhow::Result<crate::bench::ConsumeSample> {
        self.go_on()?;
        quiet_disk().await?;
        let sample = drain::consume(site)?;
        say(&format!(
            "pair {pair}: consume only {:.0} events/s, {:.3} CPU s per million",
            sample.events_per_second, sample.cpu_seconds_per_million
        ));
        Ok(sample)
    }

    /// Flush intervals and rates, in the order in which they are measured.
    fn rate_runs(&self) -> Vec<(Duration, f64)> {
        let rates = &self.args.rates.0;
        self.args.flush.iter().flat_map(|flush| rates.iter().map(move |rate| (*flush, *rate))).collect()
    }

    async fn rates(&self, verdicts: &mut Vec<ReconcileVerdict>) -> anyhow::Result<(Vec<RateSample>, Option<Recovery>)> {
        let runs = self.rate_runs();
        let (mut samples, mut recovery) = (Vec::new(), None);
        for (number, &(flush, rate)) in runs.iter().enumerate() {
            self.go_on()?;
            let topic = format!("{}-rate-{number}", self.name);
            self.ensure(&topic)?;
            let run = format!("{rate} events/s, flush {}", humantime::format_duration(flush));
            say(&format!("{run}: measuring for {:?}", self.args.rate_duration));
            let site = self.site(run, &topic, flush)?;
            let plan = rate::Plan {
                rate_per_second: rate,
                realtime_flush: flush,
                bronze_flush: self.args.bronze_flush,
                duration: self.args.rate_duration,
                kills: if number + 1 == runs.len() { self.args.kills } else { 0 },
                batch: false,
            };
            let (sample, caught_up) = rate::run(&site, &plan, self.stop).await?;
            say(&format!(
                "realtime p99 {:.0} ms, Bronze p99 {:.0} ms; reconciling",
                sample.realtime_latency.p99_ms, sample.bronze_latency.p99_ms
            ));
            recovery = Recovery::of(rate, caught_up).or(recovery);
            samples.push(sample);
            verdicts.push(site.reconcile()?);
        }
        Ok((samples, recovery))
    }

    fn site(&self, run: String, topic: &str, realtime_flush: Duration) -> anyhow::Result<Site> {
        Site::new(Wanted {
            run,
            folder: self.folder,
            brokers: self.broker.address(),
            topic,
            realtime_flush,
            bronze_flush: self.args.bronze_flush,
            settings: Vec::new(),
        })
    }

    fn ensure(&self, topic: &str) -> anyhow::Result<()> {
        let client = sender::client_config(self.broker.address(), Pace::Max, TOPIC_LIMIT, &[]);
        topic::ensure(&client, topic, topic::PARTITIONS, TOPIC_LIMIT, |_| {}, || self.stop.asked())?;
        Ok(())
    }

    /// Records a second.
    fn produce_backlog(&self, topic: &str) -> anyhow::Result<f64> {
        let count = self.args.events.to_string();
        let output = Command::new(program_beside_us("boathouse-producer")?)
            .args(["--brokers", self.broker.address(), "--topic", topic, "--count", &count, "--max-rate"])
            .args(["--span", SPAN, "--seed", "42", "--json", "--quiet"])
            .stdin(Stdio::null())
            .output()
            .context("cannot run boathouse-producer")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("the producer failed: {text}{}", String::from_utf8_lossy(&output.stderr));
        }
        let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .with_context(|| format!("the producer's summary is no JSON: {text}"))?;
        summary["delivered_per_second"].as_f64().context("the producer's summary has no `delivered_per_second`")
    }

    /// On a broker of others nothing is left behind.
    async fn delete_topics(&self) -> anyhow::Result<()> {
        let kafka = crate::config::Kafka { brokers: self.broker.address().into(), ..Default::default() };
        let admin: AdminClient<DefaultClientContext> = settings::client(&kafka).create()?;
        let metadata = admin.inner().fetch_metadata(None, TOPIC_LIMIT)?;
        let ours: Vec<&str> =
            metadata.topics().iter().map(|t| t.name()).filter(|topic| topic.starts_with(self.name)).collect();
        if !ours.is_empty() {
            for deleted in admin.delete_topics(&ours, &AdminOptions::new()).await? {
                deleted.map_err(|(topic, code)| anyhow::anyhow!("the topic {topic} could not be deleted: {code}"))?;
            }
        }
        Ok(())
    }

    fn go_on(&self) -> anyhow::Result<()> {
        if self.stop.asked() {
            bail!("stopped");
        }
        Ok(())
    }
}

/// Waits until the disk has what was written before: else it would be written beside what is measured next, and more of it
/// beside what follows a drain than beside what follows a mere reading.
async fn quiet_disk() -> anyhow::Result<()> {
    // SAFETY: sync takes nothing and cannot fail.
    tokio::task::spawn_blocking(|| unsafe { libc::sync() }).await.context("the disk was not waited for")
}

fn machine(load_average: Option<f64>, broker: &str) -> Machine {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    Machine {
        cpu_count: std::thread::available_parallelism().map_or(1, usize::from),
        cpu_model: model.map(|(_, model)| model.trim().to_owned()),
        load_average,
        broker: broker.to_owned(),
    }
}

fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Progress, for whoever waits.
fn say(line: &str) {
    eprintln!("bench: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_or_none() {
        assert_eq!(rates("5000, 20000").unwrap().0, [5000.0, 20000.0]);
        assert!(rates("").unwrap().0.is_empty());
        for wrong in ["0", "-1", "fast", "1,,x", "inf"] {
            assert!(rates(wrong).is_err(), "{wrong}");
        }
    }
}
