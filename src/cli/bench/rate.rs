//! A fixed rate: what the daemon costs, and how long an event takes to where it can be queried, seen from outside.
//!
//! Probes are events of a type of their own (`probe-4711`, `probe-4712`, …), sent beside the load by another producer. Realtime
//! counts every value, so each becomes a row of its own in `realtime.events_per_minute`, which a query sees or does not.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::batches;
use super::meter::Meter;
use super::quiet_disk;
use super::site::{Ends, Site, reached};
use crate::bench::{LatencyMs, RateSample};
use crate::cli::clickhouse::Http;
use crate::config::ClickHouse;
use crate::kafka::settings;
use crate::servers::Child;
use crate::servers::engine::program_beside_us;
use crate::stop_signal::StopSignal;
use crate::telemetry::Status;

/// Between two probes. In a minute they are 600, over all partitions: within the cap on combinations per window.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);
/// Between an answer and the next question, of ClickHouse and of the daemon.
const ASK: Duration = Duration::from_millis(10);
/// Load before the first probe, so that start-up is not measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// How long things may take that take seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const PRODUCER_GRACE: Duration = Duration::from_secs(30);

/// What is asked of a run.
pub(super) struct Plan {
    pub rate_per_second: f64,
    pub realtime_flush: Duration,
    pub bronze_flush: Duration,
    pub duration: Duration,
    /// SIGKILLs after the measurement, still under load.
    pub kills: u32,
    /// Whether the daemon runs full batches meanwhile.
    pub batch: bool,
}

/// A probe under way.
struct Probe {
    sent: Instant,
    /// Where it stands in the topic, once the broker has said so.
    place: Option<(i32, i64)>,
    realtime: Option<Duration>,
    bronze: Option<Duration>,
}

/// By number. Shared by the sender and the two that look; no lock is held across a wait.
type Probes = Arc<Mutex<HashMap<u32, Probe>>>;

/// The run; what it measured, and how long each kill took to be caught up with.
pub(super) async fn run(site: &Site, plan: &Plan, stop: &StopSignal) -> anyhow::Result<(RateSample, Vec<f64>)> {
    quiet_disk().await?;
    let mut daemon = site.start_daemon()?;
    let partitions = site.ends()?.len();
    wait(site, &mut daemon, stop, "its partitions", |s| s.partitions.len() == partitions).await?;
    let mut load = start_load(site, plan)?;
    tokio::time::sleep(WARM_UP).await;

    let probes = Probes::default();
    let mut meter = Meter::new(daemon.pid());
    meter.look();
    let (cpu_before, records_before) = (meter.cpu_seconds(), records(site.status().await.as_ref()));
    let begin = Instant::now();
    let sender = send_probes(site, probes.clone(), partitions, plan.duration);
    let limit = plan.duration + plan.bronze_flush + PATIENCE;
    let (sent, realtime, bronze, usage, batches) = tokio::join!(
        sender,
        watch_realtime(site, probes.clone(), begin, plan.duration, limit),
        watch_bronze(site, probes.clone(), begin, plan.duration, limit),
        async {
            while begin.elapsed() < plan.duration && !stop.asked() {
                tokio::time::sleep(ASK).await;
            }
            meter.look();
            (begin.elapsed().as_secs_f64(), records(site.status().await.as_ref()))
        },
        async {
            match plan.batch {
                true => batches::full_batches(site, begin, plan.duration).await.map(Some),
                false => Ok(None),
            }
        }
    );
    if stop.asked() {
        bail!("stopped");
    }
    sent?;
    realtime?;
    bronze?;
    let batch_run_count = batches?;
    daemon.check()?;
    let (seconds, records_after) = usage;
    let mut caught_up = Vec::new();
    let cpu_seconds = meter.cpu_seconds() - cpu_before;
    for _ in 0..plan.kills {
        let (revived, took) = kill(site, daemon, stop).await?;
        daemon = revived;
        caught_up.push(took);
    }
    load.check()?;
    match load.stop(PRODUCER_GRACE) {
        Some(status) if status.success() => {}
        status => bail!("the producer lost records ({status:?}): {}", load.last_lines()),
    }
    site.stop_daemon(daemon)?;
    let found = probes.lock().unwrap_or_else(PoisonError::into_inner);
    let latencies = |of: fn(&Probe) -> Option<Duration>| {
        let samples: Vec<f64> = found.values().filter_map(of).map(|d| d.as_secs_f64() * 1e3).collect();
        LatencyMs::of(&samples).context("no probe was sent: give the run more time")
    };
    let sample = RateSample {
        rate_per_second: plan.rate_per_second,
        realtime_flush_seconds: plan.realtime_flush.as_secs_f64(),
        duration_seconds: seconds,
        consumed_per_second: records_after.saturating_sub(records_before) as f64 / seconds,
        cpu_percent: cpu_seconds / seconds * 100.0,
        peak_rss_bytes: meter.peak_rss_bytes(),
        realtime_latency: latencies(|p| p.realtime)?,
        bronze_latency: latencies(|p| p.bronze)?,
        batch_run_count,
    };
    Ok((sample, caught_up))
}

fn start_load(site: &Site, plan: &Plan) -> anyhow::Result<Child> {
    let mut command = Command::new(program_beside_us("boathouse-producer")?);
    command.args(["--brokers", &site.kafka.brokers, "--topic", &site.topic, "--json", "--quiet", "--seed", "7"]);
    command.args(["--rate", &plan.rate_per_second.to_string()]);
    Ok(Child::spawn("the producer", command, &site.log("producer.log"))?)
}

/// Records consumed by the daemon so far.
fn records(status: Option<&Status>) -> u64 {
    status.map_or(0, |s| s.partitions.iter().map(|p| p.records).sum())
}

async fn send_probes(site: &Site, probes: Probes, partitions: usize, duration: Duration) -> anyhow::Result<()> {
    let mut config = settings::client(&site.kafka);
    config.set("linger.ms", "0").set("enable.idempotence", "true");
    let producer: FutureProducer = config.create()?;
    let begin = Instant::now();
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    let mut deliveries = tokio::task::JoinSet::new();
    // By the clock: an earlier measurement's probes may be served still.
    let first = (chrono::Utc::now().timestamp().rem_euclid(1_000_000) * 1000) as u32;
    for number in first.. {
        ticks.tick().await;
        if begin.elapsed() >= duration {
            break;
        }
        let time = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S");
        let value = format!(
            "{{\"event_id\":\"{}\",\"user_id\":1,\"event_type\":\"probe-{number}\",\"page\":\"/probe\",\
             \"timestamp\":\"{time}\",\"source\":\"web\"}}",
            uuid::Uuid::new_v4()
        );
        let probe = Probe { sent: Instant::now(), place: None, realtime: None, bronze: None };
        lock(&probes).insert(number, probe);
        let (producer, probes, topic) = (producer.clone(), probes.clone(), site.topic.clone());
        deliveries.spawn(async move {
            // The topic has few partitions.
            let partition = (number as usize % partitions) as i32;
            let record = FutureRecord::<str, str>::to(&topic).partition(partition).payload(&value);
            let delivered = producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
            if let Some(probe) = lock(&probes).get_mut(&number) {
                probe.place = Some((delivered.partition, delivered.offset));
            }
            Ok::<(), rdkafka::error::KafkaError>(())
        });
    }
    while let Some(done) = deliveries.join_next().await {
        done.context("a probe's task ended")?.context("a probe could not be sent")?;
    }
    Ok(())
}

/// Asks ClickHouse again and again, until it has shown every probe.
async fn watch_realtime(
    site: &Site,
    probes: Probes,
    begin: Instant,
    duration: Duration,
    limit: Duration,
) -> anyhow::Result<()> {
    let http = Http::new(&ClickHouse { url: site.engine.url(), ..ClickHouse::default() })?;
    let query = "SELECT event_type FROM realtime.events_per_minute \
                 WHERE event_type LIKE 'probe-%' AND window_start > now() - INTERVAL 3 MINUTE";
    loop {
        let answer = http.run(query, "TSV").await?.text().await.context("ClickHouse's answer broke off")?;
        let now = Instant::now();
        let open = {
            let mut probes = lock(&probes);
            for number in answer.lines().filter_map(|line| line.strip_prefix("probe-")?.parse().ok()) {
                if let Some(probe) = probes.get_mut(&number) {
                    probe.realtime.get_or_insert(now - probe.sent);
                }
            }
            probes.values().filter(|p| p.realtime.is_none()).count()
        };
        if open == 0 && begin.elapsed() > duration + PROBE_INTERVAL {
            return Ok(());
        }
        if begin.elapsed() > limit {
            bail!("{open} probes never appeared in realtime.events_per_minute");
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Asks the daemon again and again, until Bronze's positions are past every probe.
async fn watch_bronze(
    site: &Site,
    probes: Probes,
    begin: Instant,
    duration: Duration,
    limit: Duration,
) -> anyhow::Result<()> {
    loop {
        let status = site.status().await;
        let now = Instant::now();
        let positions: HashMap<i32, i64> =
            status.iter().flat_map(|s| &s.partitions).map(|p| (p.partition, p.bronze_position)).collect();
        let open = {
            let mut probes = lock(&probes);
            let mut open = 0;
            for probe in probes.values_mut().filter(|p| p.bronze.is_none()) {
                match probe.place {
                    Some((partition, offset)) if positions.get(&partition).is_some_and(|p| *p > offset) => {
                        probe.bronze = Some(now - probe.sent);
                    }
                    _ => open += 1,
                }
            }
            open
        };
        if open == 0 && begin.elapsed() > duration + PROBE_INTERVAL {
            return Ok(());
        }
        if begin.elapsed() > limit {
            bail!("{open} probes never came to Bronze");
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Kills the daemon and starts it again at once; the new one, and the seconds until ClickHouse held what the topic held then.
async fn kill(site: &Site, mut daemon: Child, stop: &StopSignal) -> anyhow::Result<(Child, f64)> {
    daemon.kill();
    let begin = Instant::now();
    let mut daemon = site.start_daemon()?;
    let ends: Ends = site.ends()?;
    wait(site, &mut daemon, stop, "it to catch up after a kill", |s| reached(s, &ends, |p| p.realtime_position))
        .await?;
    Ok((daemon, begin.elapsed().as_secs_f64()))
}

async fn wait(
    site: &Site,
    daemon: &mut Child,
    stop: &StopSignal,
    what: &str,
    ready: impl Fn(&Status) -> bool,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        daemon.check()?;
        if site.status().await.is_some_and(|status| ready(&status)) {
            return Ok(());
        }
        if stop.asked() {
            bail!("stopped");
        }
        if begin.elapsed() > PATIENCE {
            bail!("the daemon keeps us waiting for {what}; its log ends with:\n{}", daemon.last_lines());
        }
        tokio::time::sleep(ASK).await;
    }
}

fn lock(probes: &Probes) -> std::sync::MutexGuard<'_, HashMap<u32, Probe>> {
    probes.lock().unwrap_or_else(PoisonError::into_inner)
}
