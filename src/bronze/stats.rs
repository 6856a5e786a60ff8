//! Statistics of a data file, as Delta's `add` action carries them: readers skip files by them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::aggregate::{max, min};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::DateTime;
use serde_json::{Map, Value, json};

use crate::event::Batch;

/// Least and greatest value; none before the first.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Range(Option<(i64, i64)>);

impl Range {
    fn add(&mut self, least: Option<i64>, greatest: Option<i64>) {
        if let (Some(least), Some(greatest)) = (least, greatest) {
            let (a, b) = self.0.unwrap_or((least, greatest));
            self.0 = Some((a.min(least), b.max(greatest)));
        }
    }
}

/// Statistics of the columns that readers search by: numbers and timestamps of the system's own.
#[derive(Debug, Default)]
pub struct FileStats {
    generation: Range,
    partition: Range,
    offset: Range,
    kafka_timestamp: Range,
    event_time: Range,
    ingestion_time: Range,
    kafka_timestamp_nulls: usize,
    event_time_nulls: usize,
}

impl FileStats {
    /// Takes in a batch; `event_time` is its event-time array, null where the record is no event.
    pub fn add(&mut self, batch: &Batch, event_time: &ArrayRef) {
        let source = &batch.source;
        let raw = &batch.columns.raw;
        let offsets = &raw.offsets;
        let kafka_timestamps = || raw.timestamps.iter().filter(|t| **t != -1).map(|t| t * 1000);
        self.generation.add(Some(source.generation.into()), Some(source.generation.into()));
        self.partition.add(Some(source.partition.into()), Some(source.partition.into()));
        self.offset.add(offsets.first().copied(), offsets.last().copied());
        self.kafka_timestamp.add(kafka_timestamps().min(), kafka_timestamps().max());
        self.kafka_timestamp_nulls += raw.timestamps.len() - kafka_timestamps().count();
        if let Some(event_time) = event_time.as_primitive_opt::<TimestampMicrosecondType>() {
            self.event_time.add(min(event_time), max(event_time));
            self.event_time_nulls += event_time.null_count();
        }
        self.ingestion_time.add(Some(batch.received_at), Some(batch.received_at));
    }

    /// Whether all rows are of one partition of one generation.
    pub fn single_source(&self) -> bool {
        let one = |r: Range| r.0.is_some_and(|(a, b)| a == b);
        one(self.generation) && one(self.partition)
    }

    /// The JSON text of `add.stats`. Timestamps keep their microseconds: a reader may take the extremes for exact.
    pub fn to_json(&self, rows: usize) -> String {
        let (mut least, mut greatest) = (Map::new(), Map::new());
        let mut put = |name: &str, range: Range, value: fn(i64) -> Value| {
            if let Some((a, b)) = range.0 {
                least.insert(name.into(), value(a));
                greatest.insert(name.into(), value(b));
            }
        };
        put("generation", self.generation, |n| json!(n));
        put("partition", self.partition, |n| json!(n));
        put("offset", self.offset, |n| json!(n));
        put("kafka_timestamp", self.kafka_timestamp, timestamp);
        put("event_time", self.event_time, timestamp);
        put("ingestion_time", self.ingestion_time, timestamp);
        json!({
            "numRecords": rows,
            "minValues": least,
            "maxValues": greatest,
            "nullCount": {
                "generation": 0,
                "partition": 0,
                "offset": 0,
                "kafka_timestamp": self.kafka_timestamp_nulls,
                "event_time": self.event_time_nulls,
                "ingestion_time": 0,
            },
        })
        .to_string()
    }
}

fn timestamp(micros: i64) -> Value {
    let at = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    json!(at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}
