//! Events as they come, decoded as the daemon decodes them and filtered: what `boathouse tap` and the console's page show.
//!
//! The topic itself is read, by a consumer that joins no group: a tap slows no stream and needs no daemon. Whether an
//! event is late is judged by the marks that the daemon tells; without them, from the records that were seen.

mod filter;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Map, Value, json};

pub use filter::{BadCondition, Condition};

use crate::cli::kafka::{self, PlainConsumer};
use crate::cli::output::safe_bytes;
use crate::config::{Kafka, Pipeline, Role};
use crate::event::{Columns, Decoder, RawBatch, Schema};
use crate::window::{EventClock, Verdict};

/// Records that are decoded together at most.
const BATCH_RECORDS: usize = 1_000;

/// Greatest accepted event times by partition, in microseconds.
pub type Marks = BTreeMap<i32, i64>;

/// Where a tap begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With what the topic holds.
    Beginning,
    /// With what comes.
    Now,
    /// With so many of the newest records of each partition.
    Last(i64),
}

/// What is shown.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// Names of verdicts; all where there is none.
    pub verdicts: Vec<String>,
}

impl Wanted {
    /// Whether the pipeline has the fields that the conditions name.
    pub fn check(&self, pipeline: &Pipeline) -> anyhow::Result<()> {
        for condition in &self.conditions {
            if pipeline.field(condition.field()).is_none() {
                let names: Vec<&str> = pipeline.fields.iter().map(|f| f.name.as_str()).collect();
                bail!("pipeline {} has no field `{}`; it has {}", pipeline.name, condition.field(), names.join(", "));
            }
        }
        Ok(())
    }

    fn takes(&self, verdict: Verdict, event: &Map<String, Value>) -> bool {
        let fits = self.verdicts.is_empty() || self.verdicts.iter().any(|name| name == verdict.as_str());
        fits && self.conditions.iter().all(|condition| condition.holds(event))
    }
}

/// One record that fits.
#[derive(Debug, Clone)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub verdict: &'static str,
    /// The fields by name; empty where it is no event.
    pub event: Map<String, Value>,
    /// Why it is no event, and its bytes.
    pub error: Option<(String, String)>,
}

impl Seen {
    pub fn json(&self) -> Value {
        let (error, value) = self.error.as_ref().map(|(e, v)| (e.as_str(), v.as_str())).unzip();
        json!({
            "partition": self.partition, "offset": self.offset, "timestamp_ms": self.timestamp_ms,
            "verdict": self.verdict, "event": error.is_none().then_some(&self.event), "error": error, "value": value,
        })
    }
}

/// A tap. All calls block.
pub struct Tap {
    pipeline: Arc<Pipeline>,
    consumer: PlainConsumer,
    wanted: Wanted,
    clocks: BTreeMap<i32, EventClock>,
    decoder: Decoder,
    /// Next offsets, and the ends when it began.
    next: BTreeMap<i32, i64>,
    ends: BTreeMap<i32, i64>,
    /// Records that were looked at.
    pub seen: u64,
    /// Records that were left out, because there were too many to look at.
    pub dropped: u64,
}

impl Tap {
    /// Taps a pipeline's topic, or one partition of it.
    pub fn open(
        kafka: &Kafka,
        pipeline: &Arc<Pipeline>,
        partition: Option<i32>,
        begin: Begin,
        wanted: Wanted,
        marks: &Marks,
    ) -> anyhow::Result<Self> {
        wanted.check(pipeline)?;
        let topic = &pipeline.topic;
        let Some(mut partitions) = kafka::partitions(kafka, topic)? else {
            bail!("Kafka has no topic `{topic}`: no producer has written to it yet, or `topic` is another one");
        };
        partitions.retain(|id| partition.is_none_or(|wanted| wanted == *id));
        if partitions.is_empty() {
            bail!("the topic {topic} has no such partition");
        }
        let consumer = kafka::consumer(kafka)?;
        let (mut next, mut ends) = (BTreeMap::new(), BTreeMap::new());
        for id in partitions {
            let (low, high) = kafka::watermarks(&consumer, topic, id)?;
            let from = match begin {
                Begin::Beginning => low,
                Begin::Now => high,
                Begin::Last(n) => (high - n).max(low),
            };
            next.insert(id, from);
            ends.insert(id, high);
        }
        let clock = |id: &i32| (*id, EventClock::new(&pipeline.time, marks.get(id).copied()));
        let tap = Self {
            clocks: next.keys().map(clock).collect(),
            decoder: Decoder::new(Schema::new(pipeline), &[]),
            pipeline: pipeline.clone(),
            consumer,
            wanted,
            next,
            ends,
            seen: 0,
            dropped: 0,
        };
        tap.assign()?;
        Ok(tap)
    }

    fn assign(&self) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        for (id, from) in &self.next {
            list.add_partition_offset(&self.pipeline.topic, *id, Offset::Offset(*from))?;
        }
        self.consumer.assign(&list).with_context(|| format!("cannot read {}", self.pipeline.topic))
    }

    /// How many partitions it reads.
    pub fn partitions(&self) -> usize {
        self.next.len()
    }

    /// Whether everything has been read that was there when it began.
    pub fn is_through(&self) -> bool {
        self.next.iter().all(|(id, next)| self.ends.get(id).is_none_or(|end| next >= end))
    }

    /// Goes on at the topic's end, and counts what lies between as dropped.
    pub fn skip_to_end(&mut self) -> anyhow::Result<()> {
        for (id, next) in &mut self.next {
            let (_, high) = kafka::watermarks(&self.consumer, &self.pipeline.topic, *id)?;
            self.dropped += u64::try_from(high - *next).unwrap_or(0);
            *next = high.max(*next);
        }
        self.assign()
    }

    /// The next records that fit, in the order of their partitions; waits at most so long for the first one.
    pub fn read(&mut self, wait: Duration) -> anyhow::Result<Vec<Seen>> {
        let mut batches: BTreeMap<i32, RawBatch> = BTreeMap::new();
        let mut taken = 0;
        while taken < BATCH_RECORDS {
            match self.consumer.poll(if taken == 0 { wait } else { Duration::ZERO }) {
                None => break,
                Some(Ok(m)) => {
                    let batch = batches.entry(m.partition()).or_default();
                    batch.push(m.offset(), m.timestamp().to_millis().unwrap_or(-1), m.key(), m.payload());
                    self.next.insert(m.partition(), m.offset() + 1);
                    taken += 1;
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(id))) => {
                    // Transaction markers at the end bring no record.
                    if let Some(end) = self.ends.get(&id) {
                        let next = self.next.entry(id).or_default();
                        *next = (*next).max(*end);
                    }
                    if taken == 0 && self.is_through() {
                        break;
                    }
                }
                Some(Err(error)) => {
                    return Err(error).with_context(|| format!("cannot read {}", self.pipeline.topic));
                }
            }
        }
        let mut found = Vec::new();
        for (partition, raw) in batches {
            self.look(partition, raw, &mut found)?;
        }
        Ok(found)
    }

    fn look(&mut self, partition: i32, raw: RawBatch, found: &mut Vec<Seen>) -> anyhow::Result<()> {
        let columns = self.decoder.decode(raw);
        for row in 0..columns.raw.len() {
            self.seen += 1;
            let error = columns.errors.iter().find(|(at, _)| *at as usize == row).map(|(_, error)| error.clone());
            let verdict = match (&error, self.clocks.get_mut(&partition)) {
                (Some(_), _) => Verdict::Unparsed,
                (None, Some(clock)) => clock.judge(columns.event_time[row], columns.raw.timestamps[row]),
                (None, None) => Verdict::Ok,
            };
            let event = event(&self.pipeline, &columns, row)?;
            if !self.wanted.takes(verdict, &event) {
                continue;
            }
            found.push(Seen {
                partition,
                offset: columns.raw.offsets[row],
                timestamp_ms: columns.raw.timestamps[row],
                verdict: verdict.as_str(),
                event,
                error: error.map(|error| (error, safe_bytes(columns.raw.value(row)))),
            });
        }
        Ok(())
    }
}

/// A record's fields by name; the event time as text. Empty where the record is no event.
fn event(pipeline: &Pipeline, columns: &Columns, row: usize) -> anyhow::Result<Map<String, Value>> {
    let options = FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"));
    let mut event = Map::new();
    for (field, array) in pipeline.fields.iter().zip(&columns.fields) {
        if array.is_null(row) {
            continue;
        }
        let text = ArrayFormatter::try_new(array, &options)?.value(row).to_string();
        let plain = field.role == Some(Role::EventId) || array.data_type() == &arrow::datatypes::DataType::Utf8;
        let number = || text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from));
        let value = match text.as_str() {
            _ if plain => Value::from(text.as_str()),
            "true" | "false" => Value::from(text == "true"),
            _ => number().unwrap_or_else(|_| Value::from(text.as_str())),
        };
        event.insert(field.name.clone(), value);
    }
    Ok(event)
}
