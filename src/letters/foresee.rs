//! What an event would be if it were sent now: by the pipeline's own decoder, its event clock and silver's rules.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use serde::Serialize;

use crate::batch::silver::RowRules;
use crate::config::Pipeline;
use crate::event::{Decoder, RawBatch, Schema, bronze_fields};
use crate::window::{EventClock, Verdict};

/// What an event would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Foreseen {
    /// `ok`, `late`, `future` or `unparsed`.
    pub verdict: &'static str,
    /// Why silver would refuse it; empty where it would be kept.
    pub reasons: Vec<String>,
    /// The same in words.
    pub text: String,
}

impl Foreseen {
    /// Whether it would resolve a letter.
    pub fn is_good(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// A pipeline's decoder and rules.
pub(super) struct Oracle {
    pipeline: Arc<Pipeline>,
    decoder: Decoder,
    rules: RowRules,
}

impl Oracle {
    pub fn of(pipeline: &Arc<Pipeline>) -> anyhow::Result<Self> {
        let decoder = Decoder::new(Schema::new(pipeline), &[]);
        Ok(Self { pipeline: pipeline.clone(), decoder, rules: RowRules::of(pipeline)? })
    }

    /// Why silver would refuse a row of Bronze.
    pub fn reasons(&self, row: &RecordBatch) -> anyhow::Result<Vec<String>> {
        Ok(self.rules.reasons(row)?.pop().unwrap_or_default())
    }

    /// Foresees one record that is sent at `now_ms`. `mark` is the greatest event time that its partition has accepted,
    /// in microseconds; without it nothing is called late.
    pub fn foresee(&mut self, value: Option<&[u8]>, now_ms: i64, mark: Option<i64>) -> anyhow::Result<Foreseen> {
        let mut raw = RawBatch::default();
        raw.push(0, now_ms, None, value);
        raw.seal();
        let columns = self.decoder.decode(raw);
        let error = columns.errors.first().map(|(_, error)| error.clone());
        let verdict = match &error {
            Some(_) => Verdict::Unparsed,
            None => EventClock::new(&self.pipeline.time, mark).judge(columns.event_time[0], now_ms),
        };
        let instant = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        let now: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![now_ms * 1000]).with_timezone("UTC"));
        let mut fields = bronze_fields(&self.pipeline);
        let mut values = columns.fields;
        for (name, kind, value) in [
            ("time_status", DataType::Utf8, Arc::new(StringArray::from(vec![verdict.as_str()])) as ArrayRef),
            ("kafka_timestamp", instant.clone(), now.clone()),
            ("ingestion_time", instant, now),
        ] {
            fields.push(Field::new(name, kind, true));
            values.push(value);
        }
        let row = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), values)?;
        let reasons = self.rules.reasons(&row)?.pop().unwrap_or_default();
        let text = match (verdict, &error) {
            (Verdict::Unparsed, error) => {
                format!("it would be no event: {}", error.as_deref().unwrap_or("it cannot be read"))
            }
            _ if !reasons.is_empty() => format!("silver would refuse it: {}", reasons.join(", ")),
            (Verdict::Late, _) => {
                "it would be taken, late: its windows have closed, so that it comes to silver and gold \
                                   with the next batch and is in no realtime window"
                    .into()
            }
            _ => "it would be taken and counted".into(),
        };
        Ok(Foreseen { verdict: verdict.as_str(), reasons, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::silver::testing::pipeline;

    const NOW_MS: i64 = 1_790_000_000_000;

    fn event(kind: &str, timestamp: &str) -> String {
        format!(
            r#"{{"event_id":"e","user_id":7,"event_type":"{kind}","page":"/","timestamp":"{timestamp}","source":"web"}}"#
        )
    }

    #[test]
    fn an_event_is_judged_as_the_stream_and_silver_would() {
        let mut oracle = Oracle::of(&Arc::new(pipeline())).unwrap();
        let at = chrono::DateTime::from_timestamp_millis(NOW_MS).unwrap();
        let text = |seconds: i64| (at + chrono::TimeDelta::seconds(seconds)).format("%Y-%m-%dT%H:%M:%S").to_string();
        let mark = Some(NOW_MS * 1000);
        let mut foresee = |value: Option<&str>, mark| {
            let found = oracle.foresee(value.map(str::as_bytes), NOW_MS, mark).unwrap();
            (found.verdict, found.reasons.join(","), found.text)
        };
        let (verdict, reasons, _) = foresee(Some(&event("click", &text(-5))), mark);
        assert_eq!((verdict, reasons.as_str()), ("ok", ""));
        let (verdict, reasons, words) = foresee(Some(&event("click", &text(-7200))), mark);
        assert_eq!((verdict, reasons.as_str()), ("late", ""));
        assert!(words.contains("no realtime window"), "{words}");
        assert_eq!(foresee(Some(&event("click", &text(-7200))), None).0, "ok", "without a mark nothing is late");
        assert_eq!(foresee(Some(&event("click", &text(7200))), mark).1, "future");
        let (verdict, reasons, _) = foresee(Some(&event("clack", &text(-5))), mark);
        assert_eq!((verdict, reasons.as_str()), ("ok", "invalid:event_type"));
        let (verdict, reasons, words) = foresee(Some("{oops"), mark);
        assert_eq!((verdict, reasons.as_str()), ("unparsed", "unparsed"));
        assert!(words.contains("not JSON"), "{words}");
        assert!(foresee(None, mark).2.contains("tombstone"));
    }
}
