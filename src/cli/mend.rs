//! `boathouse bronze …`: what resolves a pipeline or partition that has stopped until somebody decides. Errors and
//! `/readyz` name these commands. Each is one commit to the Bronze table; a daemon that runs on old knowledge notices.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use rdkafka::Message;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::OwnedMessage;
use serde_json::json;

use super::{Context, Outcome, kafka, pipelines};
use crate::bronze::{self, DeltaLog, Ledger, Position, Table};
use crate::config::Config;
use crate::kafka::{Source, settings, topic_id};

/// How long the broker may take to tell the topic's id.
const ASK: Duration = Duration::from_secs(10);

/// Decide what a stopped pipeline asks you: settings left behind, a topic made anew, a gap, a wrong clock, a damaged log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stop the daemon first where it still runs; each command says what it did, and the next start goes on from there.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Put this configuration's settings in force, although the table has left them behind.
    ///
    /// Verdicts that were given stay as they are; the windows are counted again under a new definition.
    AcceptSettings {
        /// The pipeline.
        pipeline: String,
    },
    /// Take on a topic that was deleted and made anew: its offsets begin again, under the next generation.
    ///
    /// Rows and totals of the old generation stay and add up.
    AdoptTopic {
        /// The pipeline.
        pipeline: String,
        /// Even though the topic still holds what Bronze read from it: all of it is then read and counted once more.
        #[arg(long)]
        even_so: bool,
    },
    /// Read on at the log's start where Kafka's retention has passed Bronze's position.
    ///
    /// The offsets in between are lost: nobody has them. The windows are counted again from Bronze under a new
    /// definition, for realtime may have counted some of those records.
    AcceptGap {
        /// The pipeline.
        pipeline: String,
    },
    /// Set the event clock of partitions back, where a wrong clock has moved it so far that everything is late.
    ///
    /// Verdicts that were given stay as they are.
    LowerMark {
        /// The pipeline.
        pipeline: String,
        /// The greatest event time that is to count as seen, such as 2026-02-06T14:30:00Z.
        #[arg(long, value_name = "TIME")]
        to: DateTime<Utc>,
    },
    /// Take a damaged end off the Delta log, as a power cut leaves it. Its files are moved aside, not deleted.
    ///
    /// Positions go back with it, so that its records are read from Kafka again.
    RepairLog {
        /// The pipeline.
        pipeline: String,
        /// Even though sound entries above the damaged one go with it.
        #[arg(long)]
        even_so: bool,
    },
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let (name, done) = match &self.action {
            Action::AcceptSettings { pipeline } => (pipeline, accept_settings(context, &config, pipeline)?),
            Action::AdoptTopic { pipeline, even_so } => (pipeline, adopt_topic(context, &config, pipeline, *even_so)?),
            Action::AcceptGap { pipeline } => (pipeline, accept_gap(context, &config, pipeline)?),
            Action::LowerMark { pipeline, to } => (pipeline, lower_mark(context, &config, pipeline, *to)?),
            Action::RepairLog { pipeline, even_so } => (pipeline, repair_log(context, &config, pipeline, *even_so)?),
        };
        if context.json {
            println!("{}", json!({ "pipeline": name, "done": done }));
        } else {
            for line in done {
                println!("{name}: {line}");
            }
        }
        Ok(Outcome::Right)
    }
}

fn accept_settings(context: &Context, config: &Config, name: &str) -> anyhow::Result<Vec<String>> {
    let pipeline = pipelines::named(config, name)?;
    let uri = &config.server.lakehouse.uri;
    let table = context.block_on(async { Ok(Table::accept_settings(uri, pipeline, None).await?) })?;
    Ok(vec![format!("the configuration's settings are in force, epoch {}", table.epoch())])
}

fn adopt_topic(context: &Context, config: &Config, name: &str, even_so: bool) -> anyhow::Result<Vec<String>> {
    let pipeline = pipelines::named(config, name)?;
    let uri = &config.server.lakehouse.uri;
    let logs = logs(config, &pipeline.topic)?;
    let topic_id = topic_id(kafka::consumer(&config.server.kafka)?.client(), &pipeline.topic, ASK);
    let table = context.block_on(async {
        let table = Table::open_or_create(uri, pipeline, None).await?;
        let another_id = topic_id.as_deref().is_some_and(|id| table.confirm_topic(id).is_err());
        if !even_so && !another_id && !is_another_log(config, &table, &logs).await? {
            bail!(
                "topic {} still holds what Bronze read from it, so it does not look like one made anew; \
                 adopted all the same (--even-so), all of it would be read and counted once more",
                pipeline.topic
            );
        }
        Ok(Table::adopt_topic(uri, pipeline, topic_id).await?)
    })?;
    Ok(vec![format!("topic {} is read from its beginning, as generation {}", pipeline.topic, table.generation())])
}

fn accept_gap(context: &Context, config: &Config, name: &str) -> anyhow::Result<Vec<String>> {
    let pipeline = pipelines::named(config, name)?;
    let logs = logs(config, &pipeline.topic)?;
    context.block_on(async {
        let uri = &config.server.lakehouse.uri;
        let table = Table::open_or_create(uri, pipeline, None).await?;
        let gaps: Vec<(Arc<Source>, Position, i64)> = acquire(&table, &mut table.ledger(), &logs)
            .await?
            .into_iter()
            .filter(|(_, at, log)| at.next_offset < log.start)
            .map(|(source, at, log)| (source, at, log.start))
            .collect();
        if gaps.is_empty() {
            return Ok(vec!["no partition lies behind the start of its log; nothing was done".to_owned()]);
        }
        Table::accept_gap(uri, pipeline, None, &gaps).await?;
        Ok(gaps
            .iter()
            .map(|(source, at, to)| {
                let lost = to - at.next_offset;
                format!("partition {} goes on at offset {to}; {lost} offsets were never read", source.partition)
            })
            .collect())
    })
}

/// What Kafka has of one partition.
#[derive(Debug, Clone, Copy)]
struct Log {
    partition: i32,
    /// First offset.
    start: i64,
    /// Offset behind the last record.
    end: i64,
}

fn logs(config: &Config, topic: &str) -> anyhow::Result<Vec<Log>> {
    let Some(partitions) = kafka::partitions(&config.server.kafka, topic)? else {
        bail!("Kafka at {} has no topic {topic}", config.server.kafka.brokers);
    };
    let consumer = kafka::consumer(&config.server.kafka)?;
    partitions
        .into_iter()
        .map(|partition| {
            let (start, end) = kafka::watermarks(&consumer, topic, partition)?;
            Ok(Log { partition, start, end })
        })
        .collect()
}

/// Takes the partitions on; gives those that Bronze knows, with where it stands.
async fn acquire(
    table: &Table,
    ledger: &mut Ledger<DeltaLog>,
    logs: &[Log],
) -> anyhow::Result<Vec<(Arc<Source>, Position, Log)>> {
    let pipeline = table.pipeline();
    let sources: Vec<Arc<Source>> = logs
        .iter()
        .map(|log| {
            Arc::new(Source {
                pipeline: pipeline.name.as_str().into(),
                topic: pipeline.topic.as_str().into(),
                generation: table.generation(),
                partition: log.partition,
            })
        })
        .collect();
    let positions = ledger.acquire(&sources).await?.positions;
    let known = sources.into_iter().zip(positions).zip(logs);
    Ok(known.filter_map(|((source, at), log)| Some((source, at?, *log))).collect())
}

/// Whether the topic is not the one that Bronze has read: a position beyond its end, or another record in the place of
/// Bronze's last one.
async fn is_another_log(config: &Config, table: &Table, logs: &[Log]) -> anyhow::Result<bool> {
    let client = settings::client(&config.server.kafka);
    for (source, at, log) in acquire(table, &mut table.ledger(), logs).await? {
        if at.next_offset > log.end {
            return Ok(true);
        }
        let row = table.last_row(None, &source).await?.filter(|row| (log.start..log.end).contains(&row.offset));
        let Some(row) = row else { continue };
        let (mut client, topic) = (client.clone(), source.topic.clone());
        client.set("group.id", format!("{}-adopt", config.server.kafka.group));
        let read =
            move || crate::kafka::records_at(&client, &topic, log.partition, &[row.offset], Duration::from_secs(15));
        let records = tokio::task::spawn_blocking(read).await??;
        let timestamp = |record: &OwnedMessage| record.timestamp().to_millis().filter(|t| *t >= 0);
        // A record that compaction has taken says nothing.
        if records.iter().flatten().any(|record| timestamp(record) != row.kafka_timestamp) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lower_mark(context: &Context, config: &Config, name: &str, to: DateTime<Utc>) -> anyhow::Result<Vec<String>> {
    let pipeline = pipelines::named(config, name)?;
    let uri = &config.server.lakehouse.uri;
    let logs = logs(config, &pipeline.topic)?;
    let to_us = to.timestamp_micros();
    context.block_on(async {
        let table = Table::open_or_create(uri, pipeline, None).await?;
        let known = acquire(&table, &mut table.ledger(), &logs).await?;
        let ahead: Vec<(Arc<Source>, i64)> = known
            .into_iter()
            .filter(|(_, at, _)| at.mark.is_some_and(|mark| mark > to_us))
            .map(|(source, _, _)| (source, to_us))
            .collect();
        if ahead.is_empty() {
            return Ok(vec![format!("no partition has seen an event after {to}; nothing was done")]);
        }
        Table::lower_marks(uri, pipeline, None, &ahead).await?;
        Ok(ahead.iter().map(|(s, _)| format!("the event clock of partition {} is set to {to}", s.partition)).collect())
    })
}

fn repair_log(context: &Context, config: &Config, name: &str, even_so: bool) -> anyhow::Result<Vec<String>> {
    let pipeline = pipelines::named(config, name)?;
    let uri = &config.server.lakehouse.uri;
    context.block_on(async {
        let Some(tail) = bronze::damaged_tail(uri, &pipeline.name).await? else {
            return Ok(vec!["the log is sound; nothing was done".to_owned()]);
        };
        let entries = tail.files.iter().filter(|f| f.ends_with(".json")).count();
        if entries > 1 && !even_so {
            bail!("{}; {entries} entries would be taken off with it (--even-so): {}", tail.what, tail.files.join(", "));
        }
        bronze::repair_log(uri, &pipeline.name).await?;
        let mut done = vec![format!("{}; the log ends before version {} now", tail.what, tail.from)];
        done.extend(tail.files.iter().map(|file| format!("moved aside: {file}")));
        Ok(done)
    })
}
