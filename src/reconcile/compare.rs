//! One partition's records beside its Bronze rows, both in offset order. Pure.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};

use super::report::{Difference, Tally};
use crate::cli::output::{safe_bytes, shorten};
use crate::config::{Pipeline, Role};
use crate::event::Columns;
use crate::window::{EventClock, Verdict};

/// Longest shown part of a value that differs.
const SHOWN: usize = 60;

/// A batch of Bronze rows, its columns found once.
pub(super) struct BronzeBatch {
    pub rows: RecordBatch,
    offsets: ArrayRef,
    timestamps: ArrayRef,
    keys: ArrayRef,
    headers: ArrayRef,
    status: ArrayRef,
    event_times: ArrayRef,
    parse_errors: ArrayRef,
    payloads: ArrayRef,
    /// By field of the pipeline; none for the event time, which has its own.
    fields: Vec<Option<ArrayRef>>,
}

/// The columns that a comparison needs, beside the offset.
pub(super) fn columns(pipeline: &Pipeline) -> Vec<&str> {
    let system = ["kafka_timestamp", "key", "headers", "event_time", "time_status", "parse_error", "payload"];
    let fields = pipeline.fields.iter().filter(|f| f.role != Some(Role::EventTime)).map(|f| f.name.as_str());
    system.into_iter().chain(fields).collect()
}

impl BronzeBatch {
    /// None where a column is missing or has another type than Bronze's.
    pub fn new(rows: RecordBatch, pipeline: &Pipeline) -> Option<Self> {
        let column = |name: &str| rows.column_by_name(name).cloned();
        let fields = pipeline.fields.iter().map(|f| match f.role {
            Some(Role::EventTime) => Some(None),
            _ => Some(Some(column(&f.name)?)),
        });
        let batch = Self {
            offsets: column("offset")?,
            timestamps: column("kafka_timestamp")?,
            keys: column("key")?,
            headers: column("headers")?,
            status: column("time_status")?,
            event_times: column("event_time")?,
            parse_errors: column("parse_error")?,
            payloads: column("payload")?,
            fields: fields.collect::<Option<_>>()?,
            rows,
        };
        let micros = |a: &ArrayRef| a.as_primitive_opt::<TimestampMicrosecondType>().is_some();
        let typed = batch.offsets.as_primitive_opt::<Int64Type>().is_some()
            && micros(&batch.timestamps)
            && micros(&batch.event_times)
            && batch.keys.as_binary_opt::<i32>().is_some()
            && batch.payloads.as_binary_opt::<i32>().is_some()
            && batch.headers.as_list_opt::<i32>().is_some()
            && batch.status.as_string_opt::<i32>().is_some()
            && batch.parse_errors.as_string_opt::<i32>().is_some();
        typed.then_some(batch)
    }

    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn offset(&self, row: usize) -> i64 {
        self.offsets.as_primitive::<Int64Type>().value(row)
    }

    /// The event time of a row that was accepted, microseconds since the epoch.
    pub fn accepted(&self, row: usize) -> Option<i64> {
        (self.status.as_string::<i32>().value(row) == Verdict::Ok.as_str())
            .then(|| self.event_times.as_primitive::<TimestampMicrosecondType>().value(row))
    }

    fn binary(array: &ArrayRef, row: usize) -> Option<&[u8]> {
        array.is_valid(row).then(|| array.as_binary::<i32>().value(row))
    }
}

/// What is compared of the values, beside their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// Everything, the verdict included.
    Judged(Verdict),
    /// Only what came from Kafka as it is: the row was written under other settings.
    Raw,
}

/// Compares a record with its row and notes what differs.
pub(super) fn record(
    columns: &Columns,
    at: usize,
    bronze: &BronzeBatch,
    row: usize,
    pipeline: &Pipeline,
    values: Values,
    tally: &mut Tally,
) {
    let offset = columns.raw.offsets[at];
    let mut differs = false;
    let mut note = |what: &str, kafka: String, bronze: String| {
        differs = true;
        tally.sample(Difference {
            offset,
            what: what.to_string(),
            kafka: shorten(&kafka, SHOWN),
            bronze: shorten(&bronze, SHOWN),
        });
    };
    let raw = &columns.raw;
    let timestamp = (raw.timestamps[at] >= 0).then(|| raw.timestamps[at] * 1000);
    let stored = bronze.timestamps.as_primitive::<TimestampMicrosecondType>();
    let stored = stored.is_valid(row).then(|| stored.value(row));
    if timestamp != stored {
        note("kafka_timestamp", micros(timestamp), micros(stored));
    }
    let (key, stored) = (raw.key(at), BronzeBatch::binary(&bronze.keys, row));
    if key != stored {
        note("key", bytes(key), bytes(stored));
    }
    if let Some((ours, theirs)) = headers_differ(columns, at, bronze, row) {
        note("headers", ours, theirs);
    }
    let value = (!raw.value_null[at]).then(|| raw.value(at));
    match BronzeBatch::binary(&bronze.payloads, row) {
        Some(payload) if value != Some(payload) => note("payload", bytes(value), bytes(Some(payload))),
        None if value.is_some() && values != Values::Raw && columns.keep_payload[at] => {
            note("payload", bytes(value), "null".into());
        }
        _ => {}
    }
    if values == Values::Raw {
        tally.differing += u64::from(differs);
        return;
    }
    let error = columns.errors.binary_search_by_key(&(at as u32), |(row, _)| *row).ok();
    let error = error.map(|i| columns.errors[i].1.as_str());
    let stored = bronze.parse_errors.as_string::<i32>();
    let stored = stored.is_valid(row).then(|| stored.value(row));
    if error != stored {
        note("parse_error", error.unwrap_or("null").into(), stored.unwrap_or("null").into());
    }
    let event_time = error.is_none().then(|| columns.event_time[at]);
    let stored = bronze.event_times.as_primitive::<TimestampMicrosecondType>();
    let stored = stored.is_valid(row).then(|| stored.value(row));
    if event_time != stored {
        note("event_time", micros(event_time), micros(stored));
    }
    for (i, field) in pipeline.fields.iter().enumerate() {
        let Some(stored) = &bronze.fields[i] else { continue };
        if !same(&columns.fields[i], at, stored, row) {
            note(&field.name, cell(&columns.fields[i], at), cell(stored, row));
        }
    }
    let status = bronze.status.as_string::<i32>().value(row);
    match values {
        Values::Judged(verdict) if verdict.as_str() != status => {
            note("time_status", verdict.as_str().into(), status.into());
        }
        _ => {}
    }
    tally.differing += u64::from(differs);
}

/// The verdict of a record by an independent pass over the log.
pub(super) fn judge(columns: &Columns, at: usize, clock: &mut EventClock) -> Verdict {
    match columns.errors.binary_search_by_key(&(at as u32), |(row, _)| *row) {
        Ok(_) => Verdict::Unparsed,
        Err(_) => clock.judge(columns.event_time[at], columns.raw.timestamps[at]),
    }
}

fn headers_differ(columns: &Columns, at: usize, bronze: &BronzeBatch, row: usize) -> Option<(String, String)> {
    let ours = columns.raw.headers.binary_search_by_key(&(at as u32), |(row, _)| *row).ok();
    let ours: &[(String, Option<Vec<u8>>)] = ours.map_or(&[], |i| &columns.raw.headers[i].1);
    let list = bronze.headers.as_list::<i32>();
    let none = list.is_null(row) || list.value_length(row) == 0;
    if ours.is_empty() && none {
        return None;
    }
    let theirs = if none { Some(Vec::new()) } else { stored_headers(&list.value(row)) };
    let shown = |headers: &[(String, Option<Vec<u8>>)]| {
        headers.iter().map(|(k, v)| format!("{k}={}", bytes(v.as_deref()))).collect::<Vec<_>>().join(", ")
    };
    match theirs {
        Some(theirs) if theirs == ours => None,
        Some(theirs) => Some((shown(ours), shown(&theirs))),
        None => Some((shown(ours), "not readable".into())),
    }
}

fn stored_headers(elements: &ArrayRef) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    let elements = elements.as_struct_opt()?;
    let keys = elements.column_by_name("key")?.as_string_opt::<i32>()?;
    let values = elements.column_by_name("value")?.as_binary_opt::<i32>()?;
    let value = |i: usize| values.is_valid(i).then(|| values.value(i).to_vec());
    Some((0..elements.len()).map(|i| (keys.value(i).to_string(), value(i))).collect())
}

/// Whether two cells hold the same value; floats by their bits, so that a NaN equals itself.
fn same(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize) -> bool {
    if a.is_null(i) || b.is_null(j) {
        return a.is_null(i) && b.is_null(j);
    }
    match (a.data_type(), b.data_type()) {
        (DataType::Utf8, DataType::Utf8) => a.as_string::<i32>().value(i) == b.as_string::<i32>().value(j),
        (DataType::Int64, DataType::Int64) => {
            a.as_primitive::<Int64Type>().value(i) == b.as_primitive::<Int64Type>().value(j)
        }
        (DataType::Float64, DataType::Float64) => {
            a.as_primitive::<Float64Type>().value(i).to_bits() == b.as_primitive::<Float64Type>().value(j).to_bits()
        }
        (DataType::Boolean, DataType::Boolean) => a.as_boolean().value(i) == b.as_boolean().value(j),
        (DataType::Timestamp(..), DataType::Timestamp(..)) => {
            let micros = |a: &ArrayRef, i| a.as_primitive_opt::<TimestampMicrosecondType>().map(|a| a.value(i));
            micros(a, i).is_some() && micros(a, i) == micros(b, j)
        }
        _ => false,
    }
}

fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".into();
    }
    arrow::util::display::array_value_to_string(array, row)
        .map_or_else(|e| e.to_string(), |text| crate::cli::output::safe_text(&text))
}

fn bytes(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".into(), safe_bytes)
}

fn micros(time: Option<i64>) -> String {
    match time {
        None => "null".into(),
        Some(t) => chrono::DateTime::from_timestamp_micros(t)
            .map_or_else(|| format!("{t} µs"), |t| t.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string()),
    }
}
