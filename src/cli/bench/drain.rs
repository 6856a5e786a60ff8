//! The backlog, once through the consume-only loop and once through the whole daemon.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::meter::Meter;
use super::site::{Ends, Site, reached};
use super::viewers::Turns;
use crate::bench::{ConsumeSample, DrainSample};
use crate::servers::Child;
use crate::stop_signal::StopSignal;

/// Between two looks until the first record has come, and later.
const LOOK_EARLY: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(20);
/// A drain slower than this many events a second, after a minute of grace, is broken.
const SLOWEST_PER_SECOND: u64 = 10_000;

/// How long the threads of an ended process may take to be gone.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// What the daemon says when both sinks hold everything.
const DRAINED: &str = "both sinks hold everything that was read";

/// Runs the consume-only loop to its end.
pub(super) fn consume(site: &Site) -> anyhow::Result<ConsumeSample> {
    let output = site.command(&["bench-consume"])?.stdin(Stdio::null()).output().context("cannot run bench-consume")?;
    if !output.status.success() {
        bail!("the consume-only loop failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("bench-consume printed something else than its sample")
}

/// Starts the daemon on the backlog, lets it drain, stops it as soon as it has read everything (so that nothing waits for a
/// flush interval that no further record would end) and measures until both sinks hold everything.
pub(super) async fn drain(
    site: &Site,
    ends: &Ends,
    stop: &StopSignal,
    mut turns: Option<&mut Turns>,
) -> anyhow::Result<DrainSample> {
    let count: u64 = ends.values().map(|end| end.unsigned_abs()).sum();
    let limit = Duration::from_secs(60 + count / SLOWEST_PER_SECOND);
    let started = Instant::now();
    let mut daemon = site.start_daemon()?;
    let mut meter = Meter::new(daemon.pid());
    let (mut first, mut served, mut stopping) = (None, None, false);
    loop {
        if meter.look().is_none_or(|stat| stat.ended) {
            break;
        }
        meter.look_at_threads();
        // It says so before it closes its pages and ends, which is no part of draining.
        if stopping && served.is_none() && daemon.last_lines().contains(DRAINED) {
            served = Some(Instant::now());
        }
        if let Some(status) = site.status().await {
            let now = Instant::now();
            if first.is_none() && status.partitions.iter().any(|p| p.records > 0) {
                first = Some(now);
            }
            if served.is_none() && reached(&status, ends, |p| p.bronze_position.min(p.realtime_position)) {
                served = Some(now);
            }
            // Not before ClickHouse has taken the first totals: until its tables are made there is nothing to drain into.
            let begun = status.partitions.iter().any(|p| p.realtime_position > 0);
            if let Some(turns) = turns.as_mut().filter(|_| begun && !stopping) {
                turns.look(now, status.partitions.iter().map(|p| p.records).sum(), meter.cpu_seconds())?;
            }
            if !stopping && begun && reached(&status, ends, |p| p.position) {
                daemon.signal(libc::SIGTERM);
                stopping = true;
            }
        }
        if stop.asked() {
            bail!("stopped");
        }
        if started.elapsed() > limit {
            bail!(
                "the daemon has not drained {count} events in {limit:?}; its log ends with:\n{}",
                daemon.last_lines()
            );
        }
        tokio::time::sleep(if first.is_none() { LOOK_EARLY } else { LOOK }).await;
    }
    let ended = Instant::now();
    ended_in_order(&mut daemon, stopping).await?;
    // The daemon has said it, if no look saw it.
    let served = served.unwrap_or(ended);
    let first = first.with_context(|| format!("no look at {} saw a record", site.run))?;
    let millions = count as f64 / 1e6;
    let wall_seconds = (served - first).as_secs_f64().max(1e-3);
    let stages = meter.cpu_seconds_by_stage();
    Ok(DrainSample {
        start_to_first_record_seconds: (first - started).as_secs_f64(),
        wall_seconds,
        events_per_second: count as f64 / wall_seconds,
        cpu_seconds: meter.cpu_seconds(),
        cpu_seconds_per_million: meter.cpu_seconds() / millions,
        cpu_seconds_per_million_by_stage: stages.into_iter().map(|(stage, cpu)| (stage, cpu / millions)).collect(),
        peak_rss_bytes: meter.peak_rss_bytes(),
    })
}

async fn ended_in_order(daemon: &mut Child, stopping: bool) -> anyhow::Result<()> {
    // A process whose first thread has ended still has others for a moment.
    let begun = Instant::now();
    while daemon.exited().is_none() && begun.elapsed() < LAST_THREADS {
        tokio::time::sleep(LOOK_EARLY).await;
    }
    match daemon.exited() {
        // An orderly end at the deadline would leave something undrained.
        Some(status) if status.success() && stopping && daemon.last_lines().contains(DRAINED) => Ok(()),
        status => {
            bail!("the daemon did not drain and end in order ({status:?}); its log ends with:\n{}", daemon.last_lines())
        }
    }
}
