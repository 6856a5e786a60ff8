//! The room under random input: against a plain recount, and under the protocol's crashes.

pub(crate) mod broken;
mod model;
pub(crate) mod properties;

use std::sync::Arc;

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::config::Pipeline;
use crate::event::{Batch, Codes, Columns, RawBatch};
use crate::kafka::Source;
use crate::window::{EventClock, OTHER, OkRows, Verdict};

/// Fields that aggregates of these tests group and filter by; they follow the event id and the event time.
const TEXTS: [&str; 5] = ["kind", "page", "source", "country", "device"];
pub(crate) const SECOND: i64 = 1_000_000;

/// A pipeline with the fields above; `rest` holds its times and aggregates, as TOML.
pub(crate) fn pipeline(rest: &str) -> Pipeline {
    let mut text = String::from("topic = \"t\"\n");
    text.push_str("[[field]]\nname = \"id\"\ntype = \"string\"\nrole = \"event_id\"\n");
    text.push_str("[[field]]\nname = \"at\"\ntype = \"timestamp\"\nrole = \"event_time\"\n");
    for name in TEXTS {
        text.push_str(&format!("[[field]]\nname = \"{name}\"\ntype = \"string\"\nrequired = false\n"));
    }
    text.push_str(rest);
    let mut pipeline: Pipeline = toml_edit::de::from_str(&text).unwrap();
    pipeline.name = "p".into();
    pipeline
}

fn source(partition: i32) -> Arc<Source> {
    Arc::new(Source { pipeline: "p".into(), topic: "t".into(), generation: 0, partition })
}

/// A record; no texts for one that is no event.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    /// Microseconds.
    pub(crate) time: i64,
    pub(crate) kafka_ms: i64,
    pub(crate) texts: Option<[Option<&'static str>; 5]>,
}

/// The records of a partition: mostly in order, sometimes far out of it, sometimes in the future or no event at all.
/// Their offsets have gaps, as after transactions.
pub(crate) fn random_records(rng: &mut ChaCha8Rng) -> Vec<Record> {
    let (mut clock, mut offset) = (100i64, 0);
    let kinds = [Some("a"), Some("b"), Some("c"), Some(OTHER), None];
    (0..rng.random_range(5..90))
        .map(|_| {
            clock += *[0, 0, 0, 1, 1, 2, 15].choose(rng).unwrap();
            offset += *[1, 1, 1, 3].choose(rng).unwrap();
            let ahead = if rng.random_bool(0.05) { *[10, 500].choose(rng).unwrap() } else { 0 };
            let back = *[0, 1, 2, 4, 9, 12, 30].choose(rng).unwrap();
            let texts = [*kinds.choose(rng).unwrap(), None, None, None, None];
            Record {
                offset,
                time: (clock - back + ahead).max(0) * SECOND,
                kafka_ms: clock * 1000,
                texts: rng.random_bool(0.95).then_some(texts),
            }
        })
        .collect()
}

/// What becomes of a record, said plainly.
pub(crate) fn plain_verdict(pipeline: &Pipeline, record: &Record, mark: &mut Option<i64>) -> Verdict {
    let micros = |d: std::time::Duration| d.as_micros() as i64;
    let time = &pipeline.time;
    if record.texts.is_none() {
        return Verdict::Unparsed;
    }
    if record.time > record.kafka_ms * 1000 + micros(time.future_guard) {
        return Verdict::Future;
    }
    let window_end = (record.time / micros(time.window) + 1) * micros(time.window);
    if mark.is_some_and(|m| window_end <= m - micros(time.bound) - micros(time.allowed_lateness)) {
        return Verdict::Late;
    }
    *mark = Some(mark.map_or(record.time, |m| m.max(record.time)));
    Verdict::Ok
}

/// The texts of some records as codes, by field of the pipeline.
fn codes<'a>(records: impl Iterator<Item = &'a Record> + Clone) -> Vec<Option<Codes>> {
    let mut columns = vec![None, None];
    for field in 0..TEXTS.len() {
        let mut column = Codes::default();
        for record in records.clone() {
            let code = match record.texts.and_then(|t| t[field]) {
                None => Codes::NONE,
                Some(text) => match column.values.iter().position(|v| v == text) {
                    Some(code) => code as u32,
                    None => {
                        column.values.push(text.into());
                        column.values.len() as u32 - 1
                    }
                },
            };
            column.codes.push(code);
        }
        columns.push(Some(column));
    }
    columns
}

/// The batch that a consumer at `from` makes of the next records, with the position behind them.
pub(crate) fn batch(source: &Arc<Source>, clock: &mut EventClock, records: &[Record], from: i64, next: i64) -> Batch {
    let mut raw = RawBatch::default();
    let mut verdicts = Vec::new();
    for record in records {
        raw.push(record.offset, record.kafka_ms, None, Some(&record.time.to_le_bytes()));
        verdicts.push(match record.texts {
            None => Verdict::Unparsed,
            Some(_) => clock.judge(record.time, record.kafka_ms),
        });
    }
    raw.seal();
    let columns = Columns {
        fields: Vec::new(),
        event_time: records.iter().map(|r| r.time).collect(),
        errors: Vec::new(),
        keep_payload: vec![false; records.len()],
        codes: codes(records.iter()),
        raw,
    };
    Batch { source: source.clone(), columns, verdicts, from, next, mark: clock.mark(), received_at: 0 }
}

/// Bronze's rows of some records.
pub(crate) fn ok_rows(records: &[&Record]) -> OkRows {
    OkRows {
        offsets: records.iter().map(|r| r.offset).collect(),
        event_time: records.iter().map(|r| r.time).collect(),
        codes: codes(records.iter().copied()),
    }
}
