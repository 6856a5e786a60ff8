//! What resolves a pipeline or partition that has stopped until somebody decides: each choice with what it would do, and
//! the doing, which is one commit to the Bronze table. The command and the console call the same.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use chrono::{DateTime, Utc};
use rdkafka::Message;
use rdkafka::consumer::Consumer as _;
use rdkafka::message::OwnedMessage;
use serde::Serialize;

use crate::bronze::{self, BronzeError, DeltaLog, Ledger, Position, Table};
use crate::cli::kafka;
use crate::config::{Config, Pipeline};
use crate::kafka::{Source, settings, topic_id};
use crate::recount;
use crate::window::{Cluster, Rule};

/// How long the broker may take to tell the topic's id.
const ASK: Duration = Duration::from_secs(10);

/// What somebody decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Put this configuration's settings in force, although the table has left them behind.
    AcceptSettings,
    /// Take on a topic that was deleted and made anew.
    AdoptTopic {
        /// Even though the topic still holds what Bronze read from it.
        even_so: bool,
    },
    /// Read on at the log's start where Kafka's retention has passed Bronze's position.
    AcceptGap {
        /// One partition alone; without it every one that lies behind its log.
        partition: Option<i32>,
    },
    /// Take the bad records that partitions have stopped for as dead letters, and read on.
    AcceptBadRecords {
        /// Also those that come until the end of the log as it is now.
        backlog: bool,
    },
    /// Set the event clock of partitions back.
    LowerMark { to: DateTime<Utc> },
    /// Take a damaged end off the Delta log.
    RepairLog {
        /// Even though sound entries above the damaged one go with it.
        even_so: bool,
    },
}

/// The names of all choices, as the command has them.
pub const NAMES: [&str; 7] = [
    "accept-gap",
    "accept-bad-records",
    "accept-bad-backlog",
    "adopt-topic",
    "accept-settings",
    "lower-mark",
    "repair-log",
];

impl Choice {
    /// The choice of a name.
    pub fn named(name: &str, even_so: bool, to: Option<DateTime<Utc>>, partition: Option<i32>) -> anyhow::Result<Self> {
        if partition.is_some() && name != "accept-gap" {
            bail!("`{name}` is for the whole pipeline; only `accept-gap` may be for one partition");
        }
        Ok(match (name, to) {
            ("accept-settings", _) => Self::AcceptSettings,
            ("adopt-topic", _) => Self::AdoptTopic { even_so },
            ("accept-gap", _) => Self::AcceptGap { partition },
            ("accept-bad-records", _) => Self::AcceptBadRecords { backlog: false },
            ("accept-bad-backlog", _) => Self::AcceptBadRecords { backlog: true },
            ("lower-mark", Some(to)) => Self::LowerMark { to },
            ("lower-mark", None) => bail!("to which time? Give the greatest event time that is to count as seen"),
            ("repair-log", _) => Self::RepairLog { even_so },
            _ => bail!("`{name}` is no choice; they are {}", NAMES.join(", ")),
        })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::AcceptSettings => "accept-settings",
            Self::AdoptTopic { .. } => "adopt-topic",
            Self::AcceptGap { .. } => "accept-gap",
            Self::AcceptBadRecords { backlog: false } => "accept-bad-records",
            Self::AcceptBadRecords { backlog: true } => "accept-bad-backlog",
            Self::LowerMark { .. } => "lower-mark",
            Self::RepairLog { .. } => "repair-log",
        }
    }

    /// What it is, in a sentence.
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::AcceptSettings => {
                "Put this configuration's settings in force. Verdicts that were given stay; the windows are counted again."
            }
            Self::AdoptTopic { .. } => {
                "Take on a topic that was deleted and made anew, as the next generation. Old rows and totals stay and add up."
            }
            Self::AcceptGap { .. } => {
                "Read on at the log's start where Kafka's retention has passed Bronze's position. The windows are counted again."
            }
            Self::AcceptBadRecords { backlog: false } => {
                "Take the bad records that a partition has stopped for as dead letters, and read on. The count begins anew."
            }
            Self::AcceptBadRecords { backlog: true } => {
                "The same, also for whatever is bad up to the end of the log as it is now. The count begins anew behind it."
            }
            Self::LowerMark { .. } => {
                "Set the event clock back, where a wrong clock has moved it so far that everything is late. Verdicts stay."
            }
            Self::RepairLog { .. } => {
                "Take a damaged end off the table's log, as a power cut leaves it. Its files are moved aside, not deleted."
            }
        }
    }
}

/// What a choice would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Outlook {
    pub choice: &'static str,
    pub meaning: &'static str,
    /// Whether there is anything that it would change.
    pub applies: bool,
    /// What it would do, or why there is nothing to do.
    pub would: Vec<String>,
    /// Why it is done only on insistence (`even_so`).
    pub insist: Option<String>,
}

/// Looks what a choice would do; changes nothing.
pub async fn look(config: &Config, pipeline: &Arc<Pipeline>, choice: Choice) -> anyhow::Result<Outlook> {
    let (applies, would, insist) = match choice {
        Choice::RepairLog { .. } => match damage(config, pipeline).await? {
            None => (false, vec!["the log is sound".to_owned()], None),
            Some(tail) => {
                let mut would = vec![format!("{}; the log would end before version {}", tail.what, tail.from)];
                would.extend(tail.files.iter().map(|file| format!("would be moved aside: {file}")));
                (true, would, more_than_the_damage(&tail))
            }
        },
        // Looking makes no table and puts nothing in force.
        _ => match Table::as_it_stands(&config.server.lakehouse.uri, pipeline).await? {
            None => (false, vec![format!("there is no table bronze/{} yet", pipeline.name)], None),
            Some((table, start)) => look_at(config, &table, start, choice).await?,
        },
    };
    Ok(Outlook { choice: choice.name(), meaning: choice.meaning(), applies, would, insist })
}

type Found = (bool, Vec<String>, Option<String>);

async fn look_at(
    config: &Config,
    table: &Table,
    start: Result<Option<String>, BronzeError>,
    choice: Choice,
) -> anyhow::Result<Found> {
    Ok(match choice {
        Choice::AcceptSettings | Choice::RepairLog { .. } => match start {
            Ok(None) => (
                false,
                vec!["the configuration's settings are in force".to_owned()],
                Some("put in force once more (--even-so), the windows are counted again from Bronze".to_owned()),
            ),
            Ok(Some(what)) => (false, vec![format!("the next start does it by itself: {what}")], None),
            Err(error) if error.is_loud_stop() => (true, vec![error.to_string()], None),
            Err(error) => return Err(error.into()),
        },
        Choice::AdoptTopic { .. } => {
            let topic = &table.pipeline().topic;
            let generation = table.generation().saturating_add(1);
            let would = format!("topic {topic} would be read from its beginning, as generation {generation}");
            let anew = is_made_anew(config, table).await?;
            (anew, vec![would], (!anew).then(|| still_held(topic)))
        }
        Choice::AcceptGap { partition } => {
            let tell = |(source, at, to): &(Arc<Source>, Position, i64)| {
                let (partition, lost) = (source.partition, to - at.next_offset);
                format!("partition {partition} would go on at offset {to}; {lost} offsets were never read and are lost")
            };
            let gaps = gaps(config, table, partition).await?;
            match gaps.is_empty() {
                true => (false, vec![NO_GAP.to_owned()], None),
                false => (true, gaps.iter().map(tell).collect(), None),
            }
        }
        Choice::AcceptBadRecords { backlog } => {
            let tell = |stop: &BadStop| stop.told(["would be read on", "would be", "would begin"], backlog);
            let stops = bad_stops(config, table).await?;
            match stops.is_empty() {
                true => (false, vec![NO_BAD_RECORDS.to_owned()], None),
                false => (true, stops.iter().map(tell).collect(), None),
            }
        }
        Choice::LowerMark { to } => {
            let tell = |(source, mark): &(Arc<Source>, i64)| {
                let mark = DateTime::from_timestamp_micros(*mark).unwrap_or_default();
                format!("the event clock of partition {} stands at {mark} and would be set to {to}", source.partition)
            };
            let ahead = ahead(config, table, to).await?;
            match ahead.is_empty() {
                true => (false, vec![format!("no partition has seen an event after {to}")], None),
                false => (true, ahead.iter().map(tell).collect(), None),
            }
        }
    })
}

/// Does it; what was done, in sentences. No daemon should be writing to the table meanwhile: one that is notices, and
/// begins anew or stops.
pub async fn carry_out(config: &Config, pipeline: &Arc<Pipeline>, choice: Choice) -> anyhow::Result<Vec<String>> {
    let uri = &config.server.lakehouse.uri;
    match choice {
        Choice::AcceptSettings => {
            let table = Table::accept_settings(uri, pipeline, None).await?;
            Ok(vec![format!("the configuration's settings are in force, epoch {}", table.epoch())])
        }
        Choice::AdoptTopic { even_so } => {
            let table = Table::open_or_create(uri, pipeline, None).await?;
            if !even_so && !is_made_anew(config, &table).await? {
                bail!("{}", still_held(&pipeline.topic));
            }
            let topic_id = asked_topic_id(config, &pipeline.topic).await?;
            let table = Table::adopt_topic(uri, pipeline, topic_id).await?;
            let generation = table.generation();
            Ok(vec![format!("topic {} is read from its beginning, as generation {generation}", pipeline.topic)])
        }
        Choice::AcceptGap { partition } => {
            let gaps = gaps(config, &Table::open_or_create(uri, pipeline, None).await?, partition).await?;
            if gaps.is_empty() {
                return Ok(vec![format!("{NO_GAP}; nothing was done")]);
            }
            Table::accept_gap(uri, pipeline, None, &gaps).await?;
            let tell = |(source, at, to): &(Arc<Source>, Position, i64)| {
                let lost = to - at.next_offset;
                format!("partition {} goes on at offset {to}; {lost} offsets were never read", source.partition)
            };
            Ok(gaps.iter().map(tell).collect())
        }
        Choice::AcceptBadRecords { backlog } => {
            let stops = bad_stops(config, &Table::open_or_create(uri, pipeline, None).await?).await?;
            if stops.is_empty() {
                return Ok(vec![format!("{NO_BAD_RECORDS}; nothing was done")]);
            }
            let below: Vec<_> = stops.iter().map(|stop| (stop.source.clone(), stop.below(backlog))).collect();
            Table::accept_bad_records(uri, pipeline, None, &below).await?;
            Ok(stops.iter().map(|stop| stop.told(["is read on", "are", "begins"], backlog)).collect())
        }
        Choice::LowerMark { to } => {
            let table = Table::open_or_create(uri, pipeline, None).await?;
            let ahead = ahead(config, &table, to).await?.into_iter();
            let marks: Vec<(Arc<Source>, i64)> = ahead.map(|(source, _)| (source, to.timestamp_micros())).collect();
            if marks.is_empty() {
                return Ok(vec![format!("no partition has seen an event after {to}; nothing was done")]);
            }
            Table::lower_marks(uri, pipeline, None, &marks).await?;
            let tell = |(source, _): &(Arc<Source>, i64)| {
                format!("the event clock of partition {} is set to {to}", source.partition)
            };
            Ok(marks.iter().map(tell).collect())
        }
        Choice::RepairLog { even_so } => {
            let Some(tail) = damage(config, pipeline).await? else {
                return Ok(vec!["the log is sound; nothing was done".to_owned()]);
            };
            if let Some(why) = more_than_the_damage(&tail).filter(|_| !even_so) {
                bail!("{why}");
            }
            bronze::repair_log(uri, &pipeline.name).await?;
            let mut done = vec![format!("{}; the log ends before version {} now", tail.what, tail.from)];
            done.extend(tail.files.iter().map(|file| format!("moved aside: {file}")));
            Ok(done)
        }
    }
}

const NO_BAD_RECORDS: &str = "no partition has stopped for bad records";
const NO_GAP: &str = "no partition lies behind the start of its log";

fn still_held(topic: &str) -> String {
    format!(
        "topic {topic} still holds what Bronze read from it, so it does not look like one made anew; \
         adopted all the same (--even-so), all of it would be read and counted once more"
    )
}

async fn damage(config: &Config, pipeline: &Pipeline) -> anyhow::Result<Option<bronze::DamagedTail>> {
    Ok(bronze::damaged_tail(&config.server.lakehouse.uri, &pipeline.name).await?)
}

/// Why a damaged end goes only on insistence.
fn more_than_the_damage(tail: &bronze::DamagedTail) -> Option<String> {
    let entries = tail.files.iter().filter(|f| f.ends_with(".json")).count();
    let (what, files) = (&tail.what, tail.files.join(", "));
    (entries > 1).then(|| format!("{what}; {entries} entries would be taken off with it (--even-so): {files}"))
}

/// The partitions that Bronze knows and whose log begins behind it: where it stands, and where the log begins.
async fn gaps(
    config: &Config,
    table: &Table,
    partition: Option<i32>,
) -> anyhow::Result<Vec<(Arc<Source>, Position, i64)>> {
    let mut logs = logs(config, &table.pipeline().topic).await?;
    logs.retain(|log| partition.is_none_or(|wanted| wanted == log.partition));
    let known = acquire(table, &mut table.ledger(), &logs).await?;
    let behind = known.into_iter().filter(|(_, at, log)| at.next_offset < log.start);
    Ok(behind.map(|(source, at, log)| (source, at, log.start)).collect())
}

/// A partition that has stopped for bad records.
struct BadStop {
    source: Arc<Source>,
    cluster: Cluster,
    /// Where it stands.
    next: i64,
    /// Offset behind the log's last record.
    end: i64,
}

impl BadStop {
    /// The offset below which bad records would be accepted.
    fn below(&self, backlog: bool) -> i64 {
        if backlog { self.end.max(self.next) } else { self.next }
    }

    /// What is done, or would be.
    fn told(&self, [read, are, begins]: [&str; 3], backlog: bool) -> String {
        let Self { source, cluster, next, .. } = self;
        let below = self.below(backlog);
        let more = match below - next {
            0 => String::new(),
            behind => format!(", and so {are} those among the {behind} offsets behind them"),
        };
        format!(
            "partition {} {read} at offset {next}; its {} bad records from offset {} to {} {are} dead letters{more}; the \
             count {begins} anew at offset {below}",
            source.partition, cluster.refused, cluster.first, cluster.last
        )
    }
}

/// The partitions that have stopped for bad records, or would as soon as they are taken up.
async fn bad_stops(config: &Config, table: &Table) -> anyhow::Result<Vec<BadStop>> {
    let Some(rule) = Rule::new(&table.pipeline().bad_records) else { return Ok(Vec::new()) };
    let logs = logs(config, &table.pipeline().topic).await?;
    let mut stops = Vec::new();
    for (source, at, Log { end, .. }) in acquire(table, &mut table.ledger(), &logs).await? {
        let counter = recount::bad_records(table, &source, at.next_offset, rule).await?;
        stops.extend(counter.cluster().map(|cluster| BadStop { source, cluster, next: at.next_offset, end }));
    }
    Ok(stops)
}

/// The partitions whose event clock is ahead of a time, with where it stands.
async fn ahead(config: &Config, table: &Table, to: DateTime<Utc>) -> anyhow::Result<Vec<(Arc<Source>, i64)>> {
    let logs = logs(config, &table.pipeline().topic).await?;
    let known = acquire(table, &mut table.ledger(), &logs).await?;
    let marks = known.into_iter().filter_map(|(source, at, _)| Some((source, at.mark?)));
    Ok(marks.filter(|(_, mark)| *mark > to.timestamp_micros()).collect())
}

/// Whether the topic looks like one made anew.
async fn is_made_anew(config: &Config, table: &Table) -> anyhow::Result<bool> {
    let topic = &table.pipeline().topic;
    let logs = logs(config, topic).await?;
    let topic_id = asked_topic_id(config, topic).await?;
    let another_id = topic_id.as_deref().is_some_and(|id| table.confirm_topic(id).is_err());
    Ok(another_id || is_another_log(config, table, &logs).await?)
}

/// The topic's id, where the broker tells one.
async fn asked_topic_id(config: &Config, topic: &str) -> anyhow::Result<Option<String>> {
    let (kafka, topic) = (config.server.kafka.clone(), topic.to_owned());
    let ask = move || anyhow::Ok(topic_id(kafka::consumer(&kafka)?.client(), &topic, ASK));
    tokio::task::spawn_blocking(ask).await?
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

async fn logs(config: &Config, topic: &str) -> anyhow::Result<Vec<Log>> {
    let (kafka, topic) = (config.server.kafka.clone(), topic.to_owned());
    let ask = move || {
        let Some(partitions) = kafka::partitions(&kafka, &topic)? else {
            bail!("Kafka at {} has no topic {topic}", kafka.brokers);
        };
        let consumer = kafka::consumer(&kafka)?;
        let log = |partition| {
            let (start, end) = kafka::watermarks(&consumer, &topic, partition)?;
            Ok(Log { partition, start, end })
        };
        partitions.into_iter().map(log).collect()
    };
    tokio::task::spawn_blocking(ask).await?
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
