//! Batches to one Parquet file, in memory, in the Bronze table's columns.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate};
use parquet::arrow::add_encoded_arrow_schema_to_metadata;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;

use super::BronzeError;
use super::chunks::Chunks;
use super::group::{OwnField, RowGroup, Tools};
use super::pages::PlainLayout;
use super::properties::{ROW_GROUP_BYTES, own_field_ways, writer_properties};
use super::schema::file_schema;
use super::stats::FileStats;
use crate::config::{KeepPayload, Pipeline, Role};
use crate::event::Batch;

/// What all files of a pipeline have in common; cheap to clone, so that a new file costs no set-up.
#[derive(Clone)]
struct Layout {
    columns: PlainLayout,
    own: Arc<[OwnField]>,
    /// Place of the event time in `Columns::fields`.
    event_time: usize,
    keep_all_payloads: bool,
}

/// Builds one data file. Batches of several partitions may go into it; a file holds records of one ingestion date.
pub struct Encoder {
    layout: Layout,
    tools: Tools,
    file: SerializedFileWriter<Chunks>,
    /// The row group at hand.
    group: RowGroup,
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
        let arrow = file_schema(pipeline);
        let mut properties = writer_properties();
        add_encoded_arrow_schema_to_metadata(&arrow, &mut properties);
        let layout = Layout {
            columns: PlainLayout::new(arrow, properties).map_err(not_begun)?,
            own: own_field_ways(pipeline).into(),
            event_time,
            keep_all_payloads: pipeline.bronze.keep_payload == KeepPayload::Always,
        };
        let tools = Tools::new().map_err(|e| BronzeError::parquet("zstd cannot be set up", e))?;
        let file = layout.columns.begin().map_err(not_begun)?;
        let group = RowGroup::new(&layout.columns, &layout.own).map_err(not_begun)?;
        Ok(Self { layout, tools, file, group, stats: FileStats::default(), date: None, rows: 0 })
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
        self.append(batch).map_err(|e| BronzeError::parquet("a batch cannot be encoded", e))?;
        self.date = Some(ingestion_date(batch));
        self.rows += batch.len();
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), ParquetError> {
        let Layout { event_time, keep_all_payloads, .. } = self.layout;
        self.group.push(batch, event_time, keep_all_payloads, &mut self.tools)?;
        self.stats.add(batch, &batch.columns.fields[event_time]);
        if self.group.bytes() >= ROW_GROUP_BYTES { self.close_group() } else { Ok(()) }
    }

    /// Writes the row group at hand and begins another.
    fn close_group(&mut self) -> Result<(), ParquetError> {
        let next = RowGroup::new(&self.layout.columns, &self.layout.own)?;
        let done = std::mem::replace(&mut self.group, next);
        let mut writer = self.file.next_row_group()?;
        done.close(&mut writer, &mut self.tools)?;
        writer.close().map(drop)
    }

    /// Bytes that the file would have if it were sealed now, nearly.
    pub fn encoded_bytes(&self) -> usize {
        self.file.bytes_written() + self.group.bytes()
    }

    /// Bytes of memory held, nearly.
    pub fn memory(&self) -> usize {
        self.file.bytes_written() + self.group.memory()
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
        let not_finished = |e| BronzeError::parquet("a Bronze file cannot be finished", e);
        if !self.group.is_empty() {
            self.close_group().map_err(not_finished)?;
        }
        let file = std::mem::replace(&mut self.file, self.layout.columns.begin().map_err(not_begun)?);
        let chunks = file.into_inner().map_err(not_finished)?.into_bytes();
        let stats = std::mem::take(&mut self.stats);
        let rows = std::mem::take(&mut self.rows);
        self.date = None;
        Ok(Some(SealedFile {
            size: chunks.iter().map(Bytes::len).sum(),
            chunks,
            rows,
            ingestion_date,
            stats: stats.to_json(rows),
            single_source: stats.single_source(),
        }))
    }
}

fn not_begun(error: ParquetError) -> BronzeError {
    BronzeError::parquet("a Bronze file cannot be begun", error)
}

/// The day (UTC) on which the batch was taken from Kafka.
pub fn ingestion_date(batch: &Batch) -> NaiveDate {
    DateTime::from_timestamp_micros(batch.received_at).unwrap_or_default().date_naive()
}
