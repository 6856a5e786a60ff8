//! One partition: its Bronze rows are read once, beside its records in Kafka where they are still there, and counted
//! again on the way.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;

use super::compare::{self, BronzeBatch, Values};
use super::recount::{Cell, Recount};
use super::report::{BronzeCheck, Difference, Tally, Verdict};
use super::{Observer, Stopped};
use crate::cli::bronze::{Position, Rows, Run};
use crate::cli::kafka::{self, Read, Reader};
use crate::cli::output::{safe_bytes, shorten};
use crate::config::{Kafka, Pipeline, StartAt};
use crate::event::{Decoder, RawBatch, Schema};
use crate::kafka::Source;
use crate::window::{AggregatePlan, EventClock};

/// What is to be done with a partition.
pub(super) struct Work {
    pub pipeline: Arc<Pipeline>,
    pub source: Arc<Source>,
    pub runs: Vec<Run>,
    pub position: Option<Position>,
    /// Version of the table that the runs and the position are of.
    pub bronze_version: u64,
    /// Where its records can be read; none for an earlier generation, or where Kafka is not asked.
    pub kafka: Option<Kafka>,
    /// Whether the topic was made anew since: Kafka no longer has these records.
    pub earlier_generation: bool,
    /// Since when the settings have been what they are; none: that is not known, or they are others now.
    pub judged: Option<Judged>,
    /// Whether Kafka itself drops records whose key came again.
    pub compacted: bool,
    pub plans: Arc<Vec<Arc<AggregatePlan>>>,
}

/// From where on fields and verdicts follow from the settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judged {
    /// The least value where the partition has had no others.
    pub from: i64,
    /// The partition's mark there, microseconds since the epoch.
    pub mark: Option<i64>,
}

/// What came out.
pub(super) struct Done {
    pub check: Option<BronzeCheck>,
    /// By plan: the counts of its windows.
    pub counts: Vec<HashMap<Cell, u64>>,
}

/// The partition's Bronze rows, one at a time in offset order.
struct BronzeSide<'a> {
    pipeline: &'a Pipeline,
    rows: Rows,
    batch: Option<BronzeBatch>,
    at: usize,
    recounts: Vec<Recount<'a>>,
    /// The mark by the rows passed under the settings in force.
    mark: Option<i64>,
    judged_from: i64,
    last: Option<i64>,
    observer: &'a dyn Observer,
}

impl<'a> BronzeSide<'a> {
    /// The offset of the row in hand; none at the end.
    fn peek(&mut self) -> anyhow::Result<Option<i64>> {
        while self.batch.as_ref().is_none_or(|b| self.at >= b.len()) {
            let Some(rows) = self.rows.next()? else {
                self.batch = None;
                return Ok(None);
            };
            for recount in &mut self.recounts {
                recount.add(&rows).context("a column that an aggregate needs is missing in Bronze")?;
            }
            self.batch = Some(BronzeBatch::new(rows, self.pipeline).context("Bronze has other columns than expected")?);
            self.at = 0;
        }
        Ok(self.batch.as_ref().map(|b| b.offset(self.at)))
    }

    /// Passes the row in hand. True when it had the same offset as the row before.
    fn advance(&mut self) -> bool {
        let Some(batch) = &self.batch else { return false };
        let offset = batch.offset(self.at);
        if let Some(time) = batch.accepted(self.at).filter(|_| offset >= self.judged_from) {
            self.mark = self.mark.max(Some(time));
        }
        self.at += 1;
        let twice = self.last == Some(offset);
        self.last = Some(offset);
        twice
    }

    /// Tells how far it is; an error where it is to stop.
    fn go_on(&self, rows: u64) -> anyhow::Result<()> {
        self.observer.rows(rows);
        if self.observer.is_stopped() { Err(Stopped.into()) } else { Ok(()) }
    }

    /// Passes all rows below an offset; how many there were, and how many of them twice.
    fn pass_below(&mut self, end: i64, tally: &mut Tally) -> anyhow::Result<u64> {
        let mut passed = 0;
        while let Some(offset) = self.peek()?.filter(|o| *o < end) {
            if self.advance() {
                duplicated(tally, offset);
            }
            passed += 1;
            if passed % 100_000 == 0 {
                self.go_on(100_000)?;
            }
        }
        self.go_on(passed % 100_000)?;
        Ok(passed)
    }
}

fn duplicated(tally: &mut Tally, offset: i64) {
    tally.duplicated += 1;
    let what = "duplicated".into();
    tally.sample(Difference { offset, what, kafka: "one record".into(), bronze: "the row once more".into() });
}

fn unknown(tally: &mut Tally, offset: i64, why: &str) {
    tally.unknown += 1;
    tally.sample(Difference { offset, what: why.into(), kafka: "nothing".into(), bronze: "a row".into() });
}

/// Checks a partition.
pub(super) fn check(work: &Work, observer: &dyn Observer) -> anyhow::Result<Done> {
    let mut bronze = BronzeSide {
        pipeline: &work.pipeline,
        rows: Rows::new(work.runs.clone(), &compare::columns(&work.pipeline)),
        batch: None,
        at: 0,
        recounts: work.plans.iter().map(|p| Recount::new(p)).collect(),
        mark: work.judged.and_then(|j| j.mark),
        judged_from: work.judged.map_or(i64::MAX, |j| j.from),
        last: None,
        observer,
    };
    let check = match (&work.kafka, work.position) {
        (Some(kafka), Some(position)) => Some(beside_kafka(work, kafka, position, &mut bronze)?),
        (Some(_), None) => Some(unknown_to_bronze(work)),
        (None, _) if work.earlier_generation => Some(earlier_generation(work, &mut bronze)?),
        (None, _) => None,
    };
    // What is not compared still counts.
    bronze.pass_below(i64::MAX, &mut Tally::default())?;
    let counts = bronze.recounts.into_iter().map(|recount| {
        let mut counts = HashMap::new();
        recount.add_to(&mut counts);
        counts
    });
    Ok(Done { check, counts: counts.collect() })
}

fn empty_check(work: &Work) -> BronzeCheck {
    BronzeCheck {
        pipeline: work.pipeline.name.clone(),
        topic: work.source.topic.to_string(),
        generation: work.source.generation,
        partition: work.source.partition,
        bronze_version: work.bronze_version,
        from_offset: 0,
        to_offset: 0,
        lag_records: 0,
        unchecked_rows: 0,
        tally: Tally::default(),
        verdict: Verdict::Same,
        notes: Vec::new(),
    }
}

fn earlier_generation(work: &Work, bronze: &mut BronzeSide<'_>) -> anyhow::Result<BronzeCheck> {
    let mut check = empty_check(work);
    check.unchecked_rows = bronze.pass_below(i64::MAX, &mut check.tally)?;
    check.notes.push("the topic was made anew since: Kafka no longer has these records".into());
    if check.tally.differs() {
        check.verdict = Verdict::Different;
    }
    Ok(check)
}

fn unknown_to_bronze(work: &Work) -> BronzeCheck {
    let mut check = empty_check(work);
    check.verdict = Verdict::NotChecked;
    check.notes.push("Bronze does not know this partition yet; has the daemon taken it?".into());
    check
}

fn beside_kafka(
    work: &Work,
    kafka: &Kafka,
    position: Position,
    bronze: &mut BronzeSide<'_>,
) -> anyhow::Result<BronzeCheck> {
    let (topic, partition) = (&*work.source.topic, work.source.partition);
    let consumer = kafka::consumer(kafka)?;
    let (low, high) = kafka::watermarks(&consumer, topic, partition)?;
    let mut check = empty_check(work);
    let end = position.next_offset;
    // A pipeline that began at the end of the log has nothing before its first row.
    let genesis = match work.pipeline.start_at {
        StartAt::Earliest => low,
        StartAt::Latest => work.runs.first().map_or(end, |r| r.first),
    };
    let start = low.max(genesis).min(end);
    (check.from_offset, check.to_offset) = (start, end);
    check.lag_records = (high - end).max(0);
    check.unchecked_rows = bronze.pass_below(start, &mut check.tally)?;
    let mut overrun = (low - end).max(0);
    if high < end {
        check.notes.push(format!(
            "Kafka ends at {high}, before Bronze's position {end}: the broker lost its tail, or the topic was made anew"
        ));
        check.verdict = Verdict::Different;
    }
    let mut reader = Reader::new(consumer, topic, partition, start)?;
    let schema = Schema::new(&work.pipeline);
    let mut decoder = Decoder::new(schema, &[]);
    let mut clock: Option<EventClock> = None;
    let mut buffer = RawBatch::default();
    let mut at = start;
    while at < end {
        let raw = match reader.read(buffer)? {
            Read::End => break,
            Read::Gone => {
                // Retention went on while this was reading.
                let (low, _) = kafka::watermarks(reader.consumer(), topic, partition)?;
                check.unchecked_rows += bronze.pass_below(low.min(end), &mut check.tally)?;
                check.notes.push(format!("Kafka's retention removed offsets {at} to {low} while they were being read"));
                overrun = overrun.max(low - end);
                clock = None;
                at = low;
                reader.seek(low.max(start))?;
                buffer = RawBatch::default();
                continue;
            }
            Read::Records(raw) if raw.is_empty() => {
                buffer = raw;
                continue;
            }
            Read::Records(raw) => raw,
        };
        at = reader.position;
        bronze.go_on(raw.len() as u64)?;
        let columns = decoder.decode(raw);
        for row in 0..columns.raw.len() {
            let offset = columns.raw.offsets[row];
            if offset >= end {
                break;
            }
            let values = match work.judged {
                Some(judged) if judged.from <= offset => {
                    let clock = clock.get_or_insert_with(|| EventClock::new(&work.pipeline.time, bronze.mark));
                    Values::Judged(compare::judge(&columns, row, clock))
                }
                _ => Values::Raw,
            };
            check.tally.checked += 1;
            not_in_kafka(bronze, offset, work.compacted, &mut check.tally)?;
            if bronze.peek()? != Some(offset) {
                check.tally.lost += 1;
                let value = (!columns.raw.value_null[row]).then(|| safe_bytes(columns.raw.value(row)));
                check.tally.sample(Difference {
                    offset,
                    what: "lost".into(),
                    kafka: value.map_or_else(|| "null".into(), |v| shorten(&v, 60)),
                    bronze: "nothing".into(),
                });
                continue;
            }
            if let Some(batch) = &bronze.batch {
                let pipeline = &work.pipeline;
                compare::record(&columns, row, batch, bronze.at, pipeline, values, &mut check.tally);
            }
            bronze.advance();
        }
        let mut emptied = columns.raw;
        emptied.clear();
        buffer = emptied;
    }
    not_in_kafka(bronze, end, work.compacted, &mut check.tally)?;
    while let Some(offset) = bronze.peek()? {
        bronze.advance();
        unknown(&mut check.tally, offset, "beyond Bronze's position");
    }
    notes(work, &mut check, start, overrun);
    if check.tally.differs() || overrun > 0 {
        check.verdict = Verdict::Different;
    }
    Ok(check)
}

/// Passes the rows below an offset that Kafka has no record for.
fn not_in_kafka(bronze: &mut BronzeSide<'_>, below: i64, compacted: bool, tally: &mut Tally) -> anyhow::Result<()> {
    while let Some(offset) = bronze.peek()?.filter(|o| *o < below) {
        if bronze.advance() {
            duplicated(tally, offset);
        } else if !compacted {
            unknown(tally, offset, "not in Kafka");
        }
    }
    Ok(())
}

fn notes(work: &Work, check: &mut BronzeCheck, start: i64, overrun: i64) {
    use crate::cli::output::count;
    if check.unchecked_rows > 0 {
        check.notes.push(format!(
            "{} rows below offset {start} cannot be compared: Kafka's retention has removed their records",
            count(check.unchecked_rows)
        ));
    }
    if overrun > 0 {
        check.notes.push(format!(
            "Kafka's retention has removed up to {} records that Bronze had not yet taken",
            count(overrun)
        ));
    }
    match work.judged {
        Some(judged) if judged.from <= start => {}
        Some(judged) => check.notes.push(format!(
            "the settings changed at offset {}: fields and verdicts are compared from there on",
            judged.from
        )),
        None => check.notes.push(
            "fields and verdicts are not compared: the configuration is not the one that the table was written with"
                .into(),
        ),
    }
    if work.compacted {
        check.notes.push("the topic is compacted: rows that Kafka no longer has are not looked at".into());
    }
}
