//! `boathouse tap`: events as they come, decoded as the daemon decodes them, with a filter.

mod filter;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rdkafka::consumer::Consumer;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Map, Value, json};

use super::kafka::{self, PlainConsumer};
use super::output::{self, safe_bytes, safe_text};
use super::status;
use super::{Context, Outcome, pipelines};
use crate::config::{Config, Pipeline, Role};
use crate::event::{Columns, Decoder, RawBatch, Schema};
use crate::stop_signal::StopSignal;
use crate::window::{EventClock, Verdict};
use filter::Condition;

/// Longest wait for a record before it is looked whether somebody wants to stop.
const WAIT: Duration = Duration::from_millis(100);
/// Records that are decoded together at most.
const BATCH_RECORDS: usize = 1_000;

/// Show events as they come, decoded, with a filter, until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the topic itself: it needs no daemon, joins no group and changes nothing. Whether an event is late is judged by the
partition's event clock, which the daemon tells; without a daemon, from the records seen so far.

Examples:
  boathouse tap event_type=purchase
  boathouse tap 'user_id>90' source=web page~check
  boathouse tap --unparsed                  records that are no events, and why
  boathouse tap --late --future             events with odd times
  boathouse tap --json -n 100 | jq .page")]
pub(crate) struct Args {
    /// Conditions that must all hold: FIELD=VALUE, FIELD!=VALUE, FIELD~TEXT, FIELD<NUMBER, FIELD>NUMBER.
    #[arg(value_name = "CONDITION")]
    conditions: Vec<Condition>,

    /// The pipeline; by default the first one.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,

    /// Late events (alone, or with the other verdicts that are named).
    #[arg(long)]
    late: bool,

    /// Events from the future.
    #[arg(long)]
    future: bool,

    /// Records that are no events.
    #[arg(long)]
    unparsed: bool,

    /// Begin with what the topic holds instead of what comes.
    #[arg(long)]
    from_beginning: bool,

    /// Stop after so many shown.
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let pipeline = self.pipeline(&config)?;
        for condition in &self.conditions {
            if pipeline.field(condition.field()).is_none() {
                let names: Vec<&str> = pipeline.fields.iter().map(|f| f.name.as_str()).collect();
                bail!("pipeline {} has no field `{}`; it has {}", pipeline.name, condition.field(), names.join(", "));
            }
        }
        // Before anything that waits, so that Ctrl-C is heard.
        let stop = StopSignal::listen().context("cannot listen for signals")?;
        let marks = context.block_on(async { Ok(marks(&config, &pipeline).await) })?;
        let consumer = kafka::consumer(&config.server.kafka)?;
        let next = self.start(&config, &consumer, &pipeline)?;
        let clock = |p: i32| EventClock::new(&pipeline.time, marks.get(&p).copied());
        let mut tap = Tap {
            wanted: self.wanted(),
            conditions: self.conditions,
            limit: self.limit.unwrap_or(usize::MAX),
            json: context.json,
            shown: 0,
            seen: 0,
            clocks: next.keys().map(|p| (*p, clock(*p))).collect(),
            decoder: Decoder::new(Schema::new(&pipeline), &[]),
            pipeline,
            out: output::stdout(),
        };
        if !context.json {
            eprintln!("tapping {} ({} partitions); Ctrl-C stops", tap.pipeline.topic, next.len());
        }
        tap.follow(&consumer, &stop)?;
        if !context.json {
            eprintln!("{} of {} records shown", output::count(tap.shown as u64), output::count(tap.seen as u64));
        }
        Ok(Outcome::Right)
    }

    fn pipeline(&self, config: &Config) -> anyhow::Result<Arc<Pipeline>> {
        match &self.pipeline {
            Some(name) => pipelines::named(config, name).cloned(),
            None => config.pipelines.first().cloned().context("there is no pipeline"),
        }
    }

    /// The verdicts that are shown.
    fn wanted(&self) -> Vec<Verdict> {
        let asked = [(self.late, Verdict::Late), (self.future, Verdict::Future), (self.unparsed, Verdict::Unparsed)];
        if asked.iter().all(|(asked, _)| !asked) {
            return Verdict::ALL.to_vec();
        }
        asked.iter().filter(|(asked, _)| *asked).map(|(_, verdict)| *verdict).collect()
    }

    /// Assigns the partitions; where each begins.
    fn start(&self, config: &Config, consumer: &PlainConsumer, p: &Pipeline) -> anyhow::Result<BTreeMap<i32, i64>> {
        let Some(mut partitions) = kafka::partitions(&config.server.kafka, &p.topic)? else {
            bail!("Kafka has no topic `{}`: no producer has written to it yet, or `topic` is another one", p.topic);
        };
        partitions.retain(|id| self.partition.is_none_or(|wanted| wanted == *id));
        if partitions.is_empty() {
            bail!("the topic {} has no such partition", p.topic);
        }
        let mut next = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for id in partitions {
            let (low, high) = kafka::watermarks(consumer, &p.topic, id)?;
            let from = if self.from_beginning { low } else { high };
            list.add_partition_offset(&p.topic, id, Offset::Offset(from))?;
            next.insert(id, from);
        }
        consumer.assign(&list).with_context(|| format!("cannot read {}", p.topic))?;
        Ok(next)
    }
}

/// The greatest event times that the daemon has accepted, by partition; none where no daemon answers.
async fn marks(config: &Config, pipeline: &Pipeline) -> BTreeMap<i32, i64> {
    let Ok(Some(status)) = status::ask(&config.server.metrics.listen).await else { return BTreeMap::new() };
    let ours = status.partitions.iter().filter(|p| p.pipeline == pipeline.name);
    ours.filter_map(|p| Some((p.partition, p.mark_us?))).collect()
}

struct Tap<W: Write> {
    pipeline: Arc<Pipeline>,
    conditions: Vec<Condition>,
    wanted: Vec<Verdict>,
    limit: usize,
    json: bool,
    shown: usize,
    seen: usize,
    clocks: BTreeMap<i32, EventClock>,
    decoder: Decoder,
    out: W,
}

impl<W: Write> Tap<W> {
    fn follow(&mut self, consumer: &PlainConsumer, stop: &StopSignal) -> anyhow::Result<()> {
        while self.shown < self.limit && !stop.asked() {
            let mut batches: BTreeMap<i32, RawBatch> = BTreeMap::new();
            let mut taken = 0;
            while taken < BATCH_RECORDS {
                let wait = if taken == 0 { WAIT } else { Duration::ZERO };
                match consumer.poll(wait) {
                    None => break,
                    Some(Ok(m)) => {
                        let batch = batches.entry(m.partition()).or_default();
                        batch.push(m.offset(), m.timestamp().to_millis().unwrap_or(-1), m.key(), m.payload());
                        taken += 1;
                    }
                    Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => {}
                    Some(Err(error)) => {
                        return Err(error).with_context(|| format!("cannot read {}", self.pipeline.topic));
                    }
                }
            }
            for (partition, raw) in batches {
                self.batch(partition, raw)?;
            }
            self.out.flush()?;
        }
        Ok(())
    }

    fn batch(&mut self, partition: i32, raw: RawBatch) -> anyhow::Result<()> {
        let columns = self.decoder.decode(raw);
        for row in 0..columns.raw.len() {
            self.seen += 1;
            let error = columns.errors.iter().find(|(at, _)| *at as usize == row).map(|(_, error)| error.as_str());
            let verdict = match (error, self.clocks.get_mut(&partition)) {
                (Some(_), _) => Verdict::Unparsed,
                (None, Some(clock)) => clock.judge(columns.event_time[row], columns.raw.timestamps[row]),
                (None, None) => Verdict::Ok,
            };
            let event = event(&self.pipeline, &columns, row)?;
            let holds = self.conditions.iter().all(|c| c.holds(&event));
            if self.shown < self.limit && holds && self.wanted.contains(&verdict) {
                self.shown += 1;
                self.show(partition, &columns, row, verdict, error, event)?;
            }
        }
        Ok(())
    }

    fn show(
        &mut self,
        partition: i32,
        columns: &Columns,
        row: usize,
        verdict: Verdict,
        error: Option<&str>,
        event: Map<String, Value>,
    ) -> anyhow::Result<()> {
        let (offset, timestamp_ms) = (columns.raw.offsets[row], columns.raw.timestamps[row]);
        let raw = error.map(|_| safe_bytes(columns.raw.value(row)));
        if self.json {
            let line = json!({
                "partition": partition, "offset": offset, "timestamp_ms": timestamp_ms, "verdict": verdict.as_str(),
                "event": (error.is_none()).then_some(event), "error": error, "value": raw,
            });
            writeln!(self.out, "{line}")?;
            return Ok(());
        }
        let arrived = chrono::DateTime::from_timestamp_millis(timestamp_ms)
            .map_or_else(|| "-".to_owned(), |at| at.format("%H:%M:%S%.3f").to_string());
        write!(self.out, "{partition}:{offset}  {arrived}  {:8}", verdict.as_str())?;
        match (error, raw) {
            (Some(error), Some(raw)) => write!(self.out, "  {}: {}", safe_text(error), output::shorten(&raw, 200))?,
            _ => {
                for (name, value) in &event {
                    let text = value.as_str().map_or_else(|| value.to_string(), safe_text);
                    write!(self.out, "  {name}={text}")?;
                }
            }
        }
        Ok(writeln!(self.out)?)
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
