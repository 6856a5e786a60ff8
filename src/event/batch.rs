//! The batch as it travels: raw records of one partition, their columns, their verdicts.

use std::sync::Arc;

use arrow::array::ArrayRef;

use crate::kafka::Source;
use crate::window::Verdict;

/// Zero bytes kept behind the last value, so that a scanner may load as many at any value byte.
pub const PADDING: usize = 64;

/// The headers of one record, in order; a header's value may be null.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Consecutive records of one partition as they came from Kafka, in offset order. All vectors but
/// `values`, `keys` and `headers` have one entry per record.
#[derive(Debug, Default, Clone)]
pub struct RawBatch {
    /// All values one behind the other, followed by [`PADDING`] zero bytes (added by [`RawBatch::seal`]).
    pub values: Vec<u8>,
    /// Where each value ends in `values`; it starts where the one before ends.
    pub value_ends: Vec<u32>,
    /// Whether the value is null (a tombstone), as opposed to empty.
    pub value_null: Vec<bool>,
    /// Kafka offsets; strictly increasing, not always contiguous.
    pub offsets: Vec<i64>,
    /// Kafka timestamps in milliseconds since the epoch; -1 where there is none.
    pub timestamps: Vec<i64>,
    /// All keys one behind the other.
    pub keys: Vec<u8>,
    /// Where each key ends in `keys`.
    pub key_ends: Vec<u32>,
    /// Whether the key is null.
    pub key_null: Vec<bool>,
    /// Headers of the few records that have any: (row, headers), by row.
    pub headers: Vec<(u32, Headers)>,
    /// What `headers` takes, nearly; see [`RawBatch::push_headers`].
    header_bytes: usize,
}

impl RawBatch {
    /// An empty batch with room for so many records and bytes of values.
    pub fn with_capacity(records: usize, value_bytes: usize) -> Self {
        Self {
            values: Vec::with_capacity(value_bytes + PADDING),
            value_ends: Vec::with_capacity(records),
            value_null: Vec::with_capacity(records),
            offsets: Vec::with_capacity(records),
            timestamps: Vec::with_capacity(records),
            keys: Vec::new(),
            key_ends: Vec::with_capacity(records),
            key_null: Vec::with_capacity(records),
            headers: Vec::new(),
            header_bytes: 0,
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Appends one record.
    pub fn push(&mut self, offset: i64, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        debug_assert!(self.offsets.last().is_none_or(|last| *last < offset));
        self.offsets.push(offset);
        self.timestamps.push(timestamp);
        self.keys.extend_from_slice(key.unwrap_or_default());
        self.key_ends.push(self.keys.len() as u32);
        self.key_null.push(key.is_none());
        self.values.extend_from_slice(value.unwrap_or_default());
        self.value_ends.push(self.values.len() as u32);
        self.value_null.push(value.is_none());
    }

    /// Gives the record that was pushed last its headers.
    pub fn push_headers(&mut self, headers: Headers) {
        debug_assert!(!self.is_empty());
        self.header_bytes += bytes_of(&headers);
        self.headers.push((self.len() as u32 - 1, headers));
    }

    /// Adds the padding behind the last value; call once, after the last [`RawBatch::push`].
    pub fn seal(&mut self) {
        self.values.extend_from_slice(&[0; PADDING]);
    }

    /// Keeps the first `rows` records.
    pub fn truncate(&mut self, rows: usize) {
        if rows >= self.len() {
            return;
        }
        self.values.truncate(self.start(rows));
        self.keys.truncate(if rows == 0 { 0 } else { self.key_ends[rows - 1] as usize });
        self.value_ends.truncate(rows);
        self.value_null.truncate(rows);
        self.offsets.truncate(rows);
        self.timestamps.truncate(rows);
        self.key_ends.truncate(rows);
        self.key_null.truncate(rows);
        self.headers.retain(|(row, _)| (*row as usize) < rows);
        self.header_bytes = self.headers.iter().map(|(_, headers)| bytes_of(headers)).sum();
    }

    /// Where the value of a row starts in `values`.
    pub fn start(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.value_ends[row - 1] as usize }
    }

    /// The value bytes of a row; empty for a tombstone.
    pub fn value(&self, row: usize) -> &[u8] {
        &self.values[self.start(row)..self.value_ends[row] as usize]
    }

    /// The key bytes of a row, if it has a key.
    pub fn key(&self, row: usize) -> Option<&[u8]> {
        let start = if row == 0 { 0 } else { self.key_ends[row - 1] as usize };
        (!self.key_null[row]).then(|| &self.keys[start..self.key_ends[row] as usize])
    }

    /// Bytes of values, keys and headers: how full it is.
    pub fn filled(&self) -> usize {
        self.values.len() + self.keys.len() + self.header_bytes
    }

    /// Bytes that this batch holds in memory, nearly.
    pub fn memory(&self) -> usize {
        self.values.capacity() + self.keys.capacity() + self.header_bytes + self.len() * 26
    }

    /// Empties the batch and keeps its buffers for the next one.
    pub fn clear(&mut self) {
        self.values.clear();
        self.value_ends.clear();
        self.value_null.clear();
        self.offsets.clear();
        self.timestamps.clear();
        self.keys.clear();
        self.key_ends.clear();
        self.key_null.clear();
        self.headers.clear();
        self.header_bytes = 0;
    }
}

/// What the headers of one record take in a batch: each is two allocations beside its bytes, and small ones cost more by
/// those than by what they say.
fn bytes_of(headers: &Headers) -> usize {
    let each = headers
        .iter()
        .map(|(name, value)| size_of::<(String, Option<Vec<u8>>)>() + name.len() + value.as_ref().map_or(0, Vec::len));
    size_of::<(u32, Headers)>() + each.sum::<usize>()
}

/// A low-cardinality string column as codes: row `i` holds `values[codes[i]]`; rows that are no
/// events hold [`Codes::NONE`], and so do nulls.
#[derive(Debug, Default, Clone)]
pub struct Codes {
    pub codes: Vec<u32>,
    pub values: Vec<String>,
}

impl Codes {
    pub const NONE: u32 = u32::MAX;
}

/// A decoded batch. Row `i` of everything belongs to record `i` of `raw`.
#[derive(Debug)]
pub struct Columns {
    pub raw: RawBatch,
    /// One array per field of the pipeline, in its order, the event-time field included; null where the record
    /// is no event. Types: Utf8, Int64, Float64, Boolean, Timestamp(Microsecond, "UTC").
    pub fields: Vec<ArrayRef>,
    /// Event time in microseconds since the epoch; meaningless where the record is no event.
    pub event_time: Vec<i64>,
    /// The records that are no events: (row, error that names the field and what is wrong), by row.
    pub errors: Vec<(u32, String)>,
    /// Whether the columns alone could not give the same JSON value back, so that the bytes must be kept.
    pub keep_payload: Vec<bool>,
    /// For each field of the pipeline that a realtime aggregate groups or filters by: its values as codes.
    pub codes: Vec<Option<Codes>>,
}

/// A batch with its verdicts and place in the partition: what both sinks are given, by reference.
#[derive(Debug)]
pub struct Batch {
    pub source: Arc<Source>,
    pub columns: Columns,
    /// One verdict per row.
    pub verdicts: Vec<Verdict>,
    /// Position before the batch: every record below it came earlier. `from <= offsets[0]`.
    pub from: i64,
    /// Position after the batch (exclusive): the last offset + 1, or behind transaction markers that follow it.
    pub next: i64,
    /// The partition's mark (greatest accepted event time, microseconds) after the batch.
    pub mark: Option<i64>,
    /// Wall clock when the batch was taken from Kafka, microseconds since the epoch.
    pub received_at: i64,
}

impl Batch {
    pub fn len(&self) -> usize {
        self.verdicts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.verdicts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_count_in_what_a_batch_holds() {
        let mut raw = RawBatch::default();
        let large = || vec![("trace".to_owned(), Some(vec![7; 10_000])), ("none".to_owned(), None)];
        for offset in 0..3 {
            raw.push(offset, -1, Some(b"key"), Some(b"value"));
            assert_eq!(raw.filled(), 8 * (offset as usize + 1), "a record without headers takes nothing for them");
        }
        let (filled, memory) = (raw.filled(), raw.memory());
        raw.push(3, -1, None, Some(b""));
        raw.push_headers(large());
        let one = raw.filled() - filled;
        assert!((10_009..10_200).contains(&one), "{one}");
        assert!(raw.memory() >= memory + one);
        raw.push(4, -1, None, None);
        raw.push_headers(large());
        assert_eq!((raw.filled(), raw.headers[1].0), (filled + 2 * one, 4));
        raw.truncate(4);
        assert_eq!((raw.filled(), raw.headers.len()), (filled + one, 1));
        raw.clear();
        assert_eq!(raw.filled(), 0);
    }
}
