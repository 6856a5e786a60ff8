//! `boathouse status`: what the daemon says of itself, or, where none answers, what the tables say.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::bronze::Snapshot;
use super::clickhouse::Http;
use super::kafka;
use super::output::{self, Grid, count, safe_text};
use super::{Context, Outcome};
use crate::config::{Config, Pipeline};
use crate::kafka::Source;
use crate::telemetry::{ActorStatus, BatchStatus, PartitionPhase, SinkCondition, Status};

/// Is the daemon healthy, and how far behind is it; exit code 1 if it is not ready or does not run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks the daemon at metrics.listen. Where none answers, positions are read from the tables and compared with Kafka.

Examples:
  boathouse status
  boathouse status --json | jq '.partitions[] | {partition, lag_records}'
  boathouse status --json | jq '.actors[] | {kind, name, mailbox_messages}'")]
pub(crate) struct Args {}

/// Longest wait for the daemon's answer.
const LIMIT: Duration = Duration::from_secs(3);

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        context.block_on(async {
            match ask(&config.server.metrics.listen).await? {
                Some(status) => {
                    if context.json {
                        output::json(&status)?;
                    } else {
                        print(&status)?;
                    }
                    Ok(if status.readiness.ready { Outcome::Right } else { Outcome::Wrong })
                }
                None => {
                    let stopped = Stopped::look(&config).await?;
                    if context.json {
                        output::json(&stopped)?;
                    } else {
                        stopped.print(&config)?;
                    }
                    Ok(Outcome::Wrong)
                }
            }
        })
    }
}

/// The daemon's own account; none where nothing listens.
pub(crate) async fn ask(listen: &str) -> anyhow::Result<Option<Status>> {
    // What listens everywhere is reached here.
    let address = listen.replacen("0.0.0.0:", "127.0.0.1:", 1).replacen("[::]:", "[::1]:", 1);
    let client = reqwest::Client::builder().timeout(LIMIT).build()?;
    let response = match client.get(format!("http://{address}/status")).send().await {
        Ok(response) => response,
        Err(e) if e.is_connect() => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("the daemon at {address} does not answer")),
    };
    let text = response.error_for_status()?.text().await?;
    let foreign = || format!("what listens on {address} is no Boathouse of this version; is metrics.listen right?");
    serde_json::from_str(&text).map(Some).with_context(foreign)
}

fn print(status: &Status) -> anyhow::Result<()> {
    let mut out = output::stdout();
    let ready = if status.readiness.ready { "ready" } else { "NOT READY" };
    writeln!(
        out,
        "Boathouse {} is {}, {ready}; up {}",
        status.version,
        status.phase.as_str(),
        humantime::format_duration(Duration::from_secs(status.uptime_seconds as u64))
    )?;
    for reason in &status.readiness.reasons {
        writeln!(out, "  {}", safe_text(reason))?;
    }
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    let memory = &status.memory;
    let resident = memory.resident_bytes.map_or_else(String::new, |b| format!(", {} resident", mib(b)));
    writeln!(out, "Memory: {} of {} in buffers{resident}", mib(memory.used_bytes), mib(memory.budget_bytes))?;
    if let Some(waiting) = mailboxes(&status.actors) {
        writeln!(out, "Mailboxes: {waiting}")?;
    }
    writeln!(out)?;

    let header = [
        "pipeline",
        "partition",
        "phase",
        "position",
        "bronze",
        "realtime",
        "lag",
        "behind",
        "late",
        "future",
        "unparsed",
    ];
    let mut grid = Grid::new(&header);
    for p in &status.partitions {
        grid.row([
            p.pipeline.clone(),
            if p.generation == 0 { p.partition.to_string() } else { format!("{}/{}", p.generation, p.partition) },
            p.phase.as_str().to_string(),
            count(p.position),
            count(p.bronze_position),
            count(p.realtime_position),
            p.lag_records.map_or_else(|| "–".into(), count),
            p.watermark_delay_seconds.map_or_else(|| "–".into(), |s| format!("{s:.0} s")),
            count(p.late_records),
            count(p.future_records),
            count(p.unparsed_records),
        ]);
    }
    grid.write(&mut out)?;
    for p in &status.partitions {
        match &p.phase {
            PartitionPhase::Stopped { what, command } => {
                writeln!(out, "  {}/{}: {}", p.topic, p.partition, safe_text(what))?;
                writeln!(out, "      {}", safe_text(command))?;
            }
            PartitionPhase::Paused { by, since, until, reason } => {
                let until =
                    until.map_or_else(String::new, |until| format!(" until {}", until.format("%Y-%m-%d %H:%M:%S UTC")));
                let since = since.format("%Y-%m-%d %H:%M:%S UTC");
                let reason = if reason.is_empty() { "no reason given" } else { reason };
                writeln!(
                    out,
                    "  {}/{}: paused by {} since {since}{until}: {}",
                    p.topic,
                    p.partition,
                    safe_text(by),
                    safe_text(reason)
                )?;
            }
            PartitionPhase::Starting | PartitionPhase::Running | PartitionPhase::Recovering => {}
        }
    }
    writeln!(out)?;
    let mut grid = Grid::new(&["sink", "condition", "for", "error"]);
    for s in &status.sinks {
        let error = match &s.condition {
            SinkCondition::Healthy => "–".into(),
            SinkCondition::Retrying { error } | SinkCondition::Refused { error } => safe_text(error),
        };
        grid.row([s.name.clone(), s.condition.as_str().to_string(), format!("{:.0} s", s.since_seconds_ago), error]);
    }
    grid.write(&mut out)?;
    print_batches(&mut out, &status.batches)?;
    let restarted = status.actors.iter().filter(|a| a.restarts > 0);
    for actor in restarted {
        writeln!(
            out,
            "{} {} was restarted {} times, now {}; last: {}",
            actor.kind,
            actor.name,
            actor.restarts,
            actor.phase.as_str(),
            safe_text(actor.last_failure.as_deref().unwrap_or("unknown"))
        )?;
    }
    Ok(out.flush()?)
}

/// The messages that wait for actors, by kind, most first; none where nothing waits.
pub(crate) fn mailboxes(actors: &[ActorStatus]) -> Option<String> {
    let mut kinds: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    for actor in actors.iter().filter(|actor| actor.mailbox_messages > 0) {
        let (messages, names) = kinds.entry(&actor.kind).or_default();
        *messages += actor.mailbox_messages;
        names.push(&actor.name);
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (messages, _))| std::cmp::Reverse(*messages));
    let texts = kinds.iter().map(|(kind, (messages, names))| match names[..] {
        [name] => format!("{messages} for {kind} {}", safe_text(name)),
        _ => format!("{messages} for {} {kind}s", names.len()),
    });
    (!kinds.is_empty()).then(|| texts.collect::<Vec<_>>().join(", "))
}

/// The batch of each pipeline: it does not count for readiness, and is seen here.
fn print_batches(out: &mut impl Write, batches: &[BatchStatus]) -> anyhow::Result<()> {
    if batches.is_empty() {
        return Ok(());
    }
    let now = Utc::now();
    let time = |at: Option<DateTime<Utc>>| at.map_or_else(|| "–".into(), |at| at.format("%H:%M:%S").to_string());
    let age = |at: Option<DateTime<Utc>>| {
        at.map_or_else(|| "–".into(), |at| format!("{} s", (now - at).num_seconds().max(0)))
    };
    writeln!(out)?;
    let header = ["batch", "state", "next slot", "last run", "outcome", "silver age", "gold age", "clickhouse age"];
    let mut grid = Grid::new(&header);
    for BatchStatus { pipeline, state: batch } in batches {
        let state = match (&batch.running, batch.paused, batch.enabled) {
            (Some(running), ..) => running.task.clone().unwrap_or_else(|| "running".into()),
            (None, Some(_), _) => "paused".into(),
            (None, None, true) => "waits".into(),
            (None, None, false) => "by hand".into(),
        };
        grid.row([
            pipeline.clone(),
            state,
            time(batch.next_slot),
            batch.last.as_ref().map_or_else(|| "–".into(), |last| last.run_id.clone()),
            batch.last.as_ref().map_or_else(|| "–".into(), |last| last.outcome.clone()),
            age(batch.fresh.silver),
            age(batch.fresh.gold),
            age(batch.fresh.clickhouse),
        ]);
    }
    grid.write(out)?;
    for BatchStatus { pipeline, state: batch } in batches {
        if let Some(error) = batch.last.as_ref().and_then(|last| last.error.as_ref()) {
            writeln!(out, "  {pipeline}: {}", safe_text(error))?;
        }
        if batch.late {
            writeln!(out, "  {pipeline}: the newest slot has no successful run although its deadline has passed")?;
        }
        if let Some(error) = &batch.history_error {
            writeln!(out, "  {pipeline}: no run starts: {}", safe_text(error))?;
        }
    }
    Ok(())
}

/// What can be known without a daemon.
#[derive(Debug, Serialize)]
struct Stopped {
    /// Always false: tells this answer from the daemon's own.
    running: bool,
    partitions: Vec<StoppedPartition>,
    /// What could not be asked.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StoppedPartition {
    pipeline: String,
    topic: String,
    generation: i32,
    partition: i32,
    /// Next offsets, exclusive.
    bronze_position: Option<i64>,
    /// Of the aggregate that is furthest behind.
    realtime_position: Option<i64>,
    end_offset: Option<i64>,
    lag_records: Option<i64>,
}

impl Stopped {
    async fn look(config: &Config) -> anyhow::Result<Self> {
        let mut found = Self { running: false, partitions: Vec::new(), problems: Vec::new() };
        for pipeline in &config.pipelines {
            found.pipeline(config, pipeline).await?;
        }
        Ok(found)
    }

    async fn pipeline(&mut self, config: &Config, pipeline: &Arc<Pipeline>) -> anyhow::Result<()> {
        let snapshot = Snapshot::newest(&config.server.lakehouse.uri, pipeline).await?;
        let (topic, generation) = match &snapshot {
            Some(s) => (s.topic.clone(), s.generation),
            None => {
                self.problems.push(format!("pipeline {}: Bronze does not exist yet", pipeline.name));
                (pipeline.topic.clone(), 0)
            }
        };
        let (kafka, asked) = (config.server.kafka.clone(), topic.clone());
        let ends = tokio::task::spawn_blocking(move || -> anyhow::Result<Vec<(i32, i64)>> {
            let Some(partitions) = kafka::partitions(&kafka, &asked)? else {
                anyhow::bail!("Kafka has no topic `{asked}`");
            };
            let consumer = kafka::consumer(&kafka)?;
            partitions.into_iter().map(|p| Ok((p, kafka::watermarks(&consumer, &asked, p)?.1))).collect()
        });
        let ends = ends.await?.unwrap_or_else(|e| {
            self.problems.push(format!("{e:#}"));
            Vec::new()
        });
        let realtime = match realtime_positions(config, pipeline, &topic, generation).await {
            Ok(positions) => positions,
            Err(e) => {
                self.problems.push(format!("{e:#}"));
                Vec::new()
            }
        };
        let known = ends.iter().map(|(p, _)| *p).chain(realtime.iter().map(|(p, _)| *p));
        let known: std::collections::BTreeSet<i32> = known.collect();
        for partition in known {
            let source =
                Source { pipeline: pipeline.name.as_str().into(), topic: topic.as_str().into(), generation, partition };
            let position = match &snapshot {
                Some(snapshot) => snapshot.position(&source).await?,
                None => None,
            };
            let of = |list: &[(i32, i64)]| list.iter().find(|(p, _)| *p == partition).map(|(_, offset)| *offset);
            let (end_offset, bronze_position) = (of(&ends), position.map(|p| p.next_offset));
            self.partitions.push(StoppedPartition {
                pipeline: pipeline.name.clone(),
                topic: topic.clone(),
                generation,
                partition,
                bronze_position,
                realtime_position: of(&realtime),
                end_offset,
                lag_records: end_offset.map(|end| (end - bronze_position.unwrap_or(0)).max(0)),
            });
        }
        Ok(())
    }

    fn print(&self, config: &Config) -> anyhow::Result<()> {
        let mut out = output::stdout();
        writeln!(out, "No daemon answers at {} (metrics.listen). From the tables:", config.server.metrics.listen)?;
        let mut grid = Grid::new(&["pipeline", "topic", "partition", "bronze", "realtime", "kafka", "lag"]);
        let shown = |n: Option<i64>| n.map_or_else(|| "–".into(), count);
        for p in &self.partitions {
            grid.row([
                p.pipeline.clone(),
                p.topic.clone(),
                p.partition.to_string(),
                shown(p.bronze_position),
                shown(p.realtime_position),
                shown(p.end_offset),
                shown(p.lag_records),
            ]);
        }
        grid.write(&mut out)?;
        for problem in &self.problems {
            writeln!(out, "  {problem}")?;
        }
        Ok(out.flush()?)
    }
}

/// The least position over the pipeline's aggregates, by partition.
async fn realtime_positions(
    config: &Config,
    pipeline: &Pipeline,
    topic: &str,
    generation: i32,
) -> anyhow::Result<Vec<(i32, i64)>> {
    if pipeline.aggregates.is_empty() {
        return Ok(Vec::new());
    }
    // The pipeline's name is a checked identifier, and a topic holds no quotes.
    let sql = format!(
        "SELECT partition, min(reached) FROM (SELECT aggregate, partition, max(next_offset) AS reached \
         FROM realtime.positions WHERE pipeline = '{}' AND topic = '{topic}' AND generation = {generation} \
         GROUP BY aggregate, partition) GROUP BY partition ORDER BY partition",
        pipeline.name
    );
    let rows = Http::new(&config.server.clickhouse)?.rows(&sql).await?;
    let pair = |row: &Vec<serde_json::Value>| Some((row.first()?.as_i64()? as i32, row.get(1)?.as_i64()?));
    Ok(rows.iter().filter_map(pair).collect())
}
