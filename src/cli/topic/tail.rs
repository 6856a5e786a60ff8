//! `boathouse topic tail`: the last records of a topic, or all of them, or those that come.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, Timestamp, TopicPartitionList};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::client::Target;
use super::text::{escaped, hex, shortened};
use crate::producer::topic::QuietContext;
use crate::stop_signal::StopSignal;

/// Characters of a value that are shown, unless all are asked for.
const VALUE_CHARACTERS: usize = 1_000;

/// Shows records as `partition:offset  time  key  value`, with bytes that are no text escaped.
#[derive(Debug, Args)]
pub(super) struct Tail {
    /// The topic; by default that of the first pipeline.
    topic: Option<String>,
    /// How many of the last records to show.
    #[arg(short = 'n', long, default_value_t = 10, conflicts_with = "from_beginning")]
    lines: usize,
    /// Show all records, from the first one.
    #[arg(long)]
    from_beginning: bool,
    /// Stop after this many records.
    #[arg(long)]
    max_messages: Option<usize>,
    /// Go on with records as they come, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Show values in full, however long.
    #[arg(long)]
    full: bool,
}

/// A record, taken off the client.
#[derive(Debug, serde::Serialize)]
struct Shown {
    partition: i32,
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Option<Bytes>)>,
}

/// A key, a value or a header. As JSON a string where it is text, else `{"hex": …}`.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("hex", &hex(&self.0))?;
                map.end()
            }
        }
    }
}

impl Tail {
    pub(super) fn run(self, target: &Target, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
        let stop = StopSignal::listen().context("cannot listen for signals")?;
        let topic = target.topic(self.topic.clone())?;
        let mut watermarks = target.watermarks(&topic)?;
        if let Some(partition) = self.partition {
            watermarks.retain(|p, _| *p == partition);
            anyhow::ensure!(!watermarks.is_empty(), "the topic {topic} has no partition {partition}");
        }
        let consumer = target.consumer();
        let limit = self.max_messages.unwrap_or(usize::MAX);
        let mut shown = 0;
        let mut next: BTreeMap<i32, i64> = watermarks.iter().map(|(p, (start, _))| (*p, *start)).collect();
        if !self.from_beginning {
            let wanted = self.lines.min(limit);
            let last = last_records(consumer, &topic, &watermarks, wanted, &stop)?;
            for record in &last {
                print(record, self.full, json, out)?;
            }
            shown = last.len();
            next = watermarks.iter().map(|(p, (_, end))| (*p, *end)).collect();
            if !self.follow {
                return Ok(());
            }
        }
        out.flush()?;
        let mut reader = Reader::start(consumer, &topic, &next)?;
        while shown < limit && !stop.asked() {
            match reader.next()? {
                Step::Record(message) => {
                    print(&Shown::of(&message), self.full, json, out)?;
                    shown += 1;
                }
                Step::AtEnd if !self.follow => break,
                Step::AtEnd | Step::Nothing => out.flush()?,
            }
        }
        Ok(())
    }
}

/// The last `wanted` records by time. Offsets can have gaps (compaction, transaction markers): where too few
/// records lie in the last offsets, more offsets are read.
fn last_records(
    consumer: &BaseConsumer<QuietContext>,
    topic: &str,
    watermarks: &BTreeMap<i32, (i64, i64)>,
    wanted: usize,
    stop: &StopSignal,
) -> anyhow::Result<Vec<Shown>> {
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let mut back = i64::try_from(wanted).unwrap_or(i64::MAX);
    loop {
        let from: BTreeMap<i32, i64> =
            watermarks.iter().map(|(p, (start, end))| (*p, end.saturating_sub(back).max(*start))).collect();
        let mut records: BTreeMap<i32, Vec<Shown>> = BTreeMap::new();
        let mut reader = Reader::start(consumer, topic, &from)?;
        while !stop.asked() {
            match reader.next()? {
                // Records that came since are left to --follow.
                Step::Record(message) if message.offset() < watermarks[&message.partition()].1 => {
                    records.entry(message.partition()).or_default().push(Shown::of(&message));
                }
                Step::Record(message) => reader.finish(message.partition())?,
                Step::AtEnd => break,
                Step::Nothing => {}
            }
            if reader.finished() {
                break;
            }
        }
        let all_read = from.iter().all(|(p, offset)| *offset == watermarks[p].0);
        let enough = from.keys().all(|p| records.get(p).map_or(0, Vec::len) >= wanted || from[p] == watermarks[p].0);
        if all_read || enough || stop.asked() {
            let mut last: Vec<Shown> = records.into_values().flatten().collect();
            last.sort_by_key(|r| (r.timestamp_ms, r.partition, r.offset));
            last.drain(..last.len().saturating_sub(wanted));
            return Ok(last);
        }
        back = back.saturating_mul(4);
    }
}

/// Reads some partitions from given offsets and knows which have been read to their end.
struct Reader<'a> {
    consumer: &'a BaseConsumer<QuietContext>,
    topic: String,
    unfinished: Vec<i32>,
}

enum Step<'a> {
    Record(BorrowedMessage<'a>),
    /// The last partition has been read to its end.
    AtEnd,
    /// Nothing for now.
    Nothing,
}

impl<'a> Reader<'a> {
    fn start(consumer: &'a BaseConsumer<QuietContext>, topic: &str, from: &BTreeMap<i32, i64>) -> anyhow::Result<Self> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&list).with_context(|| format!("cannot read {topic}"))?;
        Ok(Self { consumer, topic: topic.to_owned(), unfinished: from.keys().copied().collect() })
    }

    fn next(&mut self) -> anyhow::Result<Step<'a>> {
        match self.consumer.poll(Duration::from_millis(100)) {
            None => Ok(Step::Nothing),
            Some(Ok(message)) => Ok(Step::Record(message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.unfinished.retain(|p| *p != partition);
                Ok(if self.unfinished.is_empty() { Step::AtEnd } else { Step::Nothing })
            }
            Some(Err(error)) => Err(error).with_context(|| format!("cannot read {}", self.topic)),
        }
    }

    /// What comes of this partition is not wanted any more.
    fn finish(&mut self, partition: i32) -> anyhow::Result<()> {
        self.unfinished.retain(|p| *p != partition);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        self.consumer.pause(&list).context("cannot pause a partition")
    }

    fn finished(&self) -> bool {
        self.unfinished.is_empty()
    }
}

impl Shown {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.map(Bytes::of))).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: match message.timestamp() {
                Timestamp::NotAvailable => None,
                Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => Some(ms),
            },
            key: message.key().map(Bytes::of),
            value: message.payload().map(Bytes::of),
            headers,
        }
    }
}

fn print(record: &Shown, full: bool, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, record).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    let text = |bytes: &Option<Bytes>| match bytes {
        None => "(null)".to_owned(),
        Some(Bytes(bytes)) => escaped(bytes),
    };
    let time = record
        .timestamp_ms
        .and_then(chrono::DateTime::from_timestamp_millis)
        .map_or("-".to_owned(), |t| t.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
    let mut value = text(&record.value);
    if !full {
        value = shortened(&value, VALUE_CHARACTERS);
    }
    write!(out, "{}:{}  {time}  {}  {value}", record.partition, record.offset, text(&record.key))?;
    for (key, value) in &record.headers {
        write!(out, "  [{}={}]", escaped(key.as_bytes()), text(value))?;
    }
    writeln!(out)?;
    Ok(())
}
