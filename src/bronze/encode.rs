//! Batches to one Parquet file, in memory, in the Bronze table's columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::BronzeError;
use super::chunks::Chunks;
use super::columns::{Constants, binary, headers, parse_errors, time_status};
use super::properties::writer_properties;
use super::schema::{file_schema, own_fields};
use super::stats::FileStats;
use crate::config::{KeepPayload, Pipeline, Role};
use crate::event::Batch;
use crate::window::Verdict;

/// What all files of a pipeline have in common; cheap to clone, so that a new file costs no set-up.
#[derive(Clone)]
struct Layout {
    schema: SchemaRef,
    properties: Arc<WriterProperties>,
    /// Places in `Columns::fields` of the fields that are columns of their own, in column order.
    own: Arc<[usize]>,
    /// Place of the event time in `Columns::fields`.
    event_time: usize,
    keep_all_payloads: bool,
}

/// Builds one data file. Batches of several partitions may go into it; a file holds records of one ingestion date.
pub struct Encoder {
    layout: Layout,
    writer: ArrowWriter<Chunks>,
    constants: Constants,
    stats: FileStats,
    date: Option<NaiveDate>,
    rows: usize,
}

/// A finished data file, not yet in the table's storage.
#[derive(Debug, Clone)]
pub struct SealedFile {
    /// The file's bytes, in order.
    pub chunks: Vec<Bytes>,
    /// Length in bytes.
    pub size: usize,
    pub rows: usize,
    /// The partition that the file belongs to.
    pub ingestion_date: NaiveDate,
    /// Statistics as Delta's `add` action carries them, JSON.
    pub stats: String,
    /// Whether all rows are of one partition, so that they stand in offset order.
    pub single_source: bool,
}

impl Encoder {
    /// An encoder for files of this pipeline. Validation of the configuration guarantees that it has an event time
    /// and that no field is named like a system column.
    pub fn new(pipeline: &Pipeline) -> Result<Self, BronzeError> {
        let event_time = pipeline.role(Role::EventTime).ok_or_else(|| {
            BronzeError::stopped(
                "no field has the role `event_time`",
                format!("pipeline {}", pipeline.name),
                "give the role to one field of pipeline.toml",
            )
        })?;
        let schema = file_schema(pipeline);
        let layout = Layout {
            properties: Arc::new(writer_properties(pipeline)),
            own: own_fields(pipeline).map(|(i, _)| i).collect(),
            event_time,
            keep_all_payloads: pipeline.bronze.keep_payload == KeepPayload::Always,
            schema,
        };
        Self::with_layout(layout, Constants::default())
    }

    fn with_layout(layout: Layout, constants: Constants) -> Result<Self, BronzeError> {
        let properties = WriterProperties::clone(&layout.properties);
        let writer = ArrowWriter::try_new(Chunks::default(), layout.schema.clone(), Some(properties))
            .map_err(|e| BronzeError::parquet("a Bronze file cannot be begun", e))?;
        Ok(Self { layout, writer, constants, stats: FileStats::default(), date: None, rows: 0 })
    }

    /// Whether this batch may go into the file: its ingestion date is the file's, or the file is empty. Where it is
    /// not, seal the file first.
    pub fn accepts(&self, batch: &Batch) -> bool {
        self.date.is_none_or(|date| date == ingestion_date(batch))
    }

    /// Appends a batch's rows.
    pub fn push(&mut self, batch: &Batch) -> Result<(), BronzeError> {
        if batch.is_empty() {
            return Ok(());
        }
        debug_assert!(self.accepts(batch), "a file has one ingestion date");
        let record_batch = self.record_batch(batch)?;
        self.writer.write(&record_batch).map_err(|e| BronzeError::parquet("a batch cannot be encoded", e))?;
        self.date = Some(ingestion_date(batch));
        self.rows += batch.len();
        Ok(())
    }

    /// The batch as Arrow columns, in the order of the file's schema.
    fn record_batch(&mut self, batch: &Batch) -> Result<RecordBatch, BronzeError> {
        let rows = batch.len();
        let columns = &batch.columns;
        let raw = &columns.raw;
        let all_ok = batch.verdicts.iter().all(|v| *v == Verdict::Ok);

        let kafka_nulls = raw.timestamps.contains(&-1).then(|| raw.timestamps.iter().map(|t| *t != -1).collect());
        let kafka_timestamps: ScalarBuffer<i64> = raw.timestamps.iter().map(|t| t * 1000).collect::<Vec<_>>().into();
        let kafka_timestamps = TimestampMicrosecondArray::new(kafka_timestamps, kafka_nulls).with_timezone("UTC");
        let ingestion_time = TimestampMicrosecondArray::from(vec![batch.received_at; rows]).with_timezone("UTC");

        let event_time = &columns.fields[self.layout.event_time];
        self.stats.add(batch, &kafka_timestamps, event_time);

        let constants = self.constants.of(&batch.source, rows);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.layout.schema.fields().len());
        arrays.push(constants.topic.slice(0, rows));
        arrays.push(constants.generation.slice(0, rows));
        arrays.push(constants.partition.slice(0, rows));
        arrays.push(Arc::new(Int64Array::from(raw.offsets.clone())));
        arrays.push(Arc::new(kafka_timestamps));
        arrays.push(binary(rows, raw.key_null.iter().map(|null| !null), &raw.keys, &raw.key_ends, || {
            constants.no_bytes.slice(0, rows)
        }));
        arrays.push(match raw.headers.is_empty() {
            true => constants.no_headers.slice(0, rows),
            false => headers(rows, &raw.headers),
        });
        arrays.extend(self.layout.own.iter().map(|i| columns.fields[*i].clone()));
        arrays.push(event_time.clone());
        arrays.push(match all_ok {
            true => constants.all_ok.slice(0, rows),
            false => time_status(&batch.verdicts),
        });
        arrays.push(match columns.errors.is_empty() {
            true => constants.no_text.slice(0, rows),
            false => parse_errors(rows, &columns.errors),
        });
        let keep_all = self.layout.keep_all_payloads;
        let kept = (0..rows).map(|row| {
            let keep = keep_all || columns.keep_payload[row] || batch.verdicts[row] == Verdict::Unparsed;
            keep && !raw.value_null[row]
        });
        arrays.push(binary(rows, kept, &raw.values, &raw.value_ends, || constants.no_bytes.slice(0, rows)));
        arrays.push(Arc::new(ingestion_time));
        RecordBatch::try_new(self.layout.schema.clone(), arrays)
            .map_err(|e| BronzeError::parquet("a batch does not have the pipeline's columns", e))
    }

    /// Bytes that the file would have if it were sealed now, nearly.
    pub fn encoded_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Bytes of memory held, nearly.
    pub fn memory(&self) -> usize {
        self.writer.bytes_written() + self.writer.memory_size()
    }

    /// Rows appended so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Finishes the file; none if nothing was appended. Goes on as an empty encoder for the next file.
    pub fn seal(&mut self) -> Result<Option<SealedFile>, BronzeError> {
        let Some(ingestion_date) = self.date else { return Ok(None) };
        let next = Self::with_layout(self.layout.clone(), std::mem::take(&mut self.constants))?;
        let done = std::mem::replace(self, next);
        let chunks =
            done.writer.into_inner().map_err(|e| BronzeError::parquet("a Bronze file cannot be finished", e))?;
        let chunks = chunks.into_bytes();
        Ok(Some(SealedFile {
            size: chunks.iter().map(Bytes::len).sum(),
            chunks,
            rows: done.rows,
            ingestion_date,
            stats: done.stats.to_json(done.rows),
            single_source: done.stats.single_source(),
        }))
    }
}

/// The day (UTC) on which the batch was taken from Kafka.
pub fn ingestion_date(batch: &Batch) -> NaiveDate {
    DateTime::from_timestamp_micros(batch.received_at).unwrap_or_default().date_naive()
}
