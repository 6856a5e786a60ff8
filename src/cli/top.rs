//! `boathouse top`: the overview in a terminal, from the daemon's own account, again and again.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;

use super::output::{self, Grid, count, safe_text};
use super::status;
use super::{Context, Outcome};
use crate::stop_signal::StopSignal;
use crate::telemetry::{SinkCondition, Status};

/// The daemon at a glance, live: rates, lag, freshness, the batch, and what is wrong now; Ctrl-C leaves.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse top
  boathouse top --interval 5s
  boathouse top --once              one look, for scripts; exit code 1 when the daemon is not ready")]
pub(crate) struct Args {
    /// Time between two looks.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,

    /// Look once (rates over one interval) and leave.
    #[arg(long)]
    once: bool,
}

/// One look and when it was.
struct Look {
    at: Instant,
    status: Option<Status>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let listen = config.server.metrics.listen.clone();
        let stop = StopSignal::listen().context("cannot listen for signals")?;
        let screen = std::io::stdout().is_terminal() && !self.once;
        let interval = self.interval.max(Duration::from_millis(100));
        let look = || -> anyhow::Result<Look> {
            let status = context.block_on(status::ask(&listen))?;
            Ok(Look { at: Instant::now(), status })
        };
        let mut before = look()?;
        loop {
            let next = Instant::now() + interval;
            while Instant::now() < next && !stop.asked() {
                context.block_on(async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(())
                })?;
            }
            if stop.asked() {
                return Ok(Outcome::Right);
            }
            let now = look()?;
            let mut out = output::stdout();
            match (&now.status, context.json) {
                (Some(status), true) => writeln!(out, "{}", serde_json::to_string(status)?)?,
                (None, true) => writeln!(out, "{}", serde_json::json!({ "running": false }))?,
                (_, false) => {
                    // Home, and clear to the end: no flicker, and nothing of the look before stays.
                    let clear = if screen { "\x1b[H\x1b[2J" } else { "" };
                    write!(out, "{clear}{}", page(&before, &now, &listen)?)?;
                }
            }
            out.flush()?;
            if self.once {
                let ready = now.status.as_ref().is_some_and(|s| s.readiness.ready);
                return Ok(if ready { Outcome::Right } else { Outcome::Wrong });
            }
            before = now;
        }
    }
}

/// The whole page as text.
fn page(before: &Look, now: &Look, listen: &str) -> anyhow::Result<String> {
    let mut page = String::new();
    let Some(status) = &now.status else {
        writeln!(page, "No daemon answers at {listen} (metrics.listen).\n\nStart it: boathouse run")?;
        return Ok(page);
    };
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
    let earlier = before.status.as_ref();
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds as u64));
    let ready = if status.readiness.ready { "ready" } else { "NOT READY" };
    writeln!(page, "Boathouse {}  {}  {ready}  up {uptime}", status.version, status.phase.as_str())?;
    let mib = |bytes: u64| bytes >> 20;
    let cpu = earlier.and_then(|e| Some((status.memory.cpu_seconds? - e.memory.cpu_seconds?) / seconds * 100.0));
    writeln!(
        page,
        "buffers {} of {} MiB  resident {} MiB  CPU {:.0} %",
        mib(status.memory.used_bytes),
        mib(status.memory.budget_bytes),
        mib(status.memory.resident_bytes.unwrap_or(0)),
        cpu.unwrap_or(0.0).max(0.0)
    )?;
    let waiting = status::mailboxes(&status.actors).unwrap_or_else(|| "empty".into());
    writeln!(page, "mailboxes: {waiting}")?;
    let rate = |records: u64, earlier: Option<u64>| {
        earlier.map_or(0.0, |e| records.saturating_sub(e) as f64 / seconds).round() as u64
    };
    let (mut total_rate, mut total_lag) = (0, 0);
    let header = [
        "partition",
        "phase",
        "records/s",
        "lag",
        "to bronze",
        "to realtime",
        "watermark",
        "late",
        "future",
        "unparsed",
    ];
    let mut grid = Grid::new(&header);
    for p in &status.partitions {
        let same = |e: &&crate::telemetry::PartitionStatus| {
            (&e.pipeline, &e.topic, e.generation, e.partition) == (&p.pipeline, &p.topic, p.generation, p.partition)
        };
        let then = earlier.and_then(|e| e.partitions.iter().find(same)).map(|e| e.records);
        let per_second = rate(p.records, then);
        total_rate += per_second;
        total_lag += p.lag_records.unwrap_or(0);
        grid.row([
            format!("{}/{}", p.pipeline, p.partition),
            p.phase.as_str().to_owned(),
            count(per_second),
            p.lag_records.map_or_else(|| "–".into(), count),
            count((p.position - p.bronze_position).max(0)),
            count((p.position - p.realtime_position).max(0)),
            p.watermark_delay_seconds.map_or_else(|| "–".into(), |s| format!("{s:.0} s behind")),
            count(p.late_records),
            count(p.future_records),
            count(p.unparsed_records),
        ]);
    }
    writeln!(page, "{} records/s  lag {}\n", count(total_rate), count(total_lag))?;
    page.push_str(&text(&grid)?);

    let mut grid = Grid::new(&["batch", "state", "last run", "outcome", "silver", "gold", "clickhouse", "next"]);
    for batch in &status.batches {
        let state = &batch.state;
        let doing = match (&state.running, state.paused) {
            (Some(running), _) => running.task.clone().unwrap_or_else(|| "running".into()),
            (None, Some(_)) => "paused".into(),
            (None, None) if state.late => "LATE".into(),
            (None, None) => "waits".into(),
        };
        let age = |at: Option<chrono::DateTime<Utc>>| {
            at.map_or_else(|| "–".to_owned(), |at| format!("{} s", (Utc::now() - at).num_seconds().max(0)))
        };
        let last = state.last.as_ref();
        grid.row([
            batch.pipeline.clone(),
            doing,
            last.map_or_else(|| "–".into(), |l| l.ended.format("%H:%M:%S").to_string()),
            last.map_or_else(|| "–".into(), |l| l.outcome.clone()),
            age(state.fresh.silver),
            age(state.fresh.gold),
            age(state.fresh.clickhouse),
            state.next_slot.map_or_else(|| "–".into(), |at| at.format("%H:%M:%S").to_string()),
        ]);
    }
    if !status.batches.is_empty() {
        writeln!(page)?;
        page.push_str(&text(&grid)?);
    }
    page.push_str(&troubles(status)?);
    Ok(page)
}

/// What is wrong now, and what to do.
fn troubles(status: &Status) -> anyhow::Result<String> {
    let mut lines: Vec<String> = status.readiness.reasons.iter().map(|r| safe_text(r)).collect();
    for sink in &status.sinks {
        if let SinkCondition::Retrying { error } | SinkCondition::Refused { error } = &sink.condition {
            lines.push(format!("{}: {}", sink.name, safe_text(error)));
        }
    }
    for actor in status.actors.iter().filter(|a| a.restarts > 0) {
        let failure = actor.last_failure.as_deref().unwrap_or("unknown");
        lines.push(format!("{} {} restarted {} times: {}", actor.kind, actor.name, actor.restarts, safe_text(failure)));
    }
    for batch in &status.batches {
        if let Some(error) = batch.state.last.as_ref().and_then(|l| l.error.as_ref()) {
            lines.push(format!("batch of {}: {}", batch.pipeline, safe_text(error)));
        }
    }
    let mut page = String::from("\n");
    if lines.is_empty() {
        writeln!(page, "Nothing is wrong.")?;
    }
    for line in lines {
        writeln!(page, "! {line}")?;
    }
    Ok(page)
}

fn text(grid: &Grid) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    grid.write(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
