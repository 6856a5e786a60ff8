//! The first pass over Bronze's files: which rows are refused and why, and which hours the others touch. Refused rows
//! are written on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StringBuilder};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, SchemaRef, TimestampMicrosecondType};
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::RowSelection;
use serde_json::Value;

use super::columns::{REASONS_PLACE, refused_schema, refused_source};
use super::duplicates::{FINGERPRINT_BYTES, Fingerprint, Fingerprints};
use super::reasons::{Reasons, Rules};
use crate::batch::hour::Hour;
use crate::batch::output::{Layout, PartitionWriter};
use crate::batch::plan::HourRows;
use crate::batch::scan::{DataFile, unreadable};
use crate::batch::{BatchError, TaskContext};
use crate::bronze::PARTITION_COLUMN;
use crate::config::Pipeline;
use crate::event::EVENT_TIME_COLUMN;

/// A file of Bronze that a run reads.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub file: DataFile,
    /// Value of Bronze's partition column, `YYYY-MM-DD`.
    pub ingestion_date: String,
    /// Event times of its rows lie within these microseconds since the epoch, as the log says; none where it does not.
    pub event_times: Option<(i64, i64)>,
    /// Whether its rows are new to silver.
    pub for_silver: bool,
    /// Whether its rows are new to the refused table.
    pub for_refused: bool,
}

/// A file whose rows have been judged.
#[derive(Debug)]
pub struct JudgedFile {
    pub file: DataFile,
    /// The rows that are not refused.
    pub kept: BooleanBuffer,
    /// The hours of those.
    pub hours: BTreeSet<Hour>,
    /// Their fingerprints, in their order; none where there are too many to be kept.
    pub fingerprints: Option<Vec<Fingerprint>>,
}

/// What the first pass found in the files that are new to silver.
#[derive(Debug, Default)]
pub struct Judged {
    pub files: Vec<JudgedFile>,
    /// Rows that are not refused, by hour.
    pub hours: HourRows,
    /// Rows, without those that are older than silver is kept.
    pub rows: u64,
    /// Rows that are older than silver is kept, and were left alone.
    pub too_old: u64,
    pub refused: u64,
    /// Refused rows by reason; a row with two reasons counts under both.
    pub by_reason: BTreeMap<String, u64>,
}

/// Writes refused rows to the refused table's files.
pub struct RefusedWriter {
    layout: Layout,
    source: SchemaRef,
    open: Option<(String, PartitionWriter)>,
    adds: Vec<Value>,
    pub rows: u64,
}

impl RefusedWriter {
    pub fn new(layout: Layout, pipeline: &Pipeline) -> Self {
        debug_assert_eq!(layout.schema, refused_schema(pipeline));
        Self { layout, source: refused_source(pipeline), open: None, adds: Vec::new(), rows: 0 }
    }

    /// Writes the rows of a file that have reasons; `reasons` has one entry for each of them, in file order.
    async fn write(
        &mut self,
        file: &SourceFile,
        refused: &BooleanBuffer,
        reasons: &[Reasons],
        rules: &Rules,
    ) -> Result<(), BatchError> {
        let selection = RowSelection::from_filters(&[BooleanArray::new(refused.clone(), None)]);
        let mut batches = file.file.open().await?.batches(&self.source, Some(selection))?;
        let mut at = 0;
        while let Some(batch) = batches.try_next().await? {
            let reasons = reasons.get(at..at + batch.num_rows());
            let reasons = reasons.ok_or_else(|| unreadable(&file.file.path, "it has changed while it was read"))?;
            at += batch.num_rows();
            let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
            columns.insert(REASONS_PLACE, list_of(reasons, rules.names()));
            let batch = RecordBatch::try_new(self.layout.schema.clone(), columns);
            let batch = batch.map_err(|e| unreadable(&file.file.path, e))?;
            self.writer(&file.ingestion_date).await?.write(&batch).await?;
            self.rows += batch.num_rows() as u64;
        }
        Ok(())
    }

    /// The writer of a date; files come by date, so that one is open at a time.
    async fn writer(&mut self, date: &str) -> Result<&mut PartitionWriter, BatchError> {
        if self.open.as_ref().is_some_and(|(open, _)| open != date) {
            self.close().await?;
        }
        let fresh = || PartitionWriter::new(self.layout.clone(), vec![(PARTITION_COLUMN, date.to_string())]);
        let (_, writer) = self.open.get_or_insert_with(|| (date.to_string(), fresh()));
        Ok(writer)
    }

    async fn close(&mut self) -> Result<(), BatchError> {
        if let Some((_, mut writer)) = self.open.take() {
            self.adds.extend(writer.finish().await?);
        }
        Ok(())
    }

    /// Finishes the last file; the `add` actions of all.
    pub async fn finish(mut self) -> Result<Vec<Value>, BatchError> {
        self.close().await?;
        Ok(self.adds)
    }
}

/// Judges every row of the files; `files` are in the order of their ingestion dates. The fingerprints of the rows that
/// are kept stay in memory as far as `memory` bytes reach: those of further files are read again when they are wanted.
pub async fn judge(
    files: &[SourceFile],
    rules: &Rules,
    fingerprints: &Fingerprints,
    memory: usize,
    refused: &mut RefusedWriter,
    context: &TaskContext,
) -> Result<Judged, BatchError> {
    let mut judged = Judged::default();
    let mut room = memory / FINGERPRINT_BYTES;
    for file in files {
        context.check()?;
        let open = file.file.open().await?;
        let rows = open.rows;
        let mut batches = open.batches(rules.columns(), None)?;
        let (mut keep, mut refuse) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let mut too_old = 0;
        let mut reasons: Vec<Reasons> = Vec::new();
        let mut hours = HourRows::new();
        let mut taken = (file.for_silver && rows <= room).then(|| Vec::with_capacity(rows));
        while let Some(batch) = batches.try_next().await? {
            let times = batch.column_by_name(EVENT_TIME_COLUMN);
            let times = times.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
            let times = times.ok_or_else(|| unreadable(&file.file.path, "it has no event times"))?;
            let ids = batch.column_by_name(&fingerprints.event_id).and_then(|c| c.as_string_opt::<i32>());
            let ids = ids.ok_or_else(|| unreadable(&file.file.path, "it has no event ids"))?;
            // Rows come by hour, nearly.
            let mut run = (Hour(0), 0);
            for (row, found) in rules.judge(&batch)?.into_iter().enumerate() {
                let old = times.is_valid(row) && rules.since.is_some_and(|since| times.value(row) < since);
                keep.push(found == 0 && !old);
                refuse.push(found != 0 && !old);
                if old {
                    too_old += 1;
                } else if found == 0 {
                    let hour = Hour::of_micros(times.value(row));
                    if hour != run.0 {
                        count(&mut hours, run);
                        run = (hour, 0);
                    }
                    run.1 += 1;
                    if let Some(taken) = &mut taken {
                        let fingerprint = fingerprints.take(ids.value(row), hour);
                        taken.push(fingerprint.ok_or_else(|| out_of_time(&file.file.path, hour))?);
                    }
                } else {
                    reasons.push(found);
                }
            }
            count(&mut hours, run);
        }
        if keep.len() != rows {
            return Err(unreadable(&file.file.path, format!("it has {} rows, its footer says {rows}", keep.len())));
        }
        let kept = BooleanBuffer::from(keep);
        if file.for_refused && !reasons.is_empty() {
            refused.write(file, &BooleanBuffer::from(refuse), &reasons, rules).await?;
        }
        if file.for_silver {
            judged.rows += rows as u64 - too_old;
            judged.too_old += too_old;
            judged.refused += reasons.len() as u64;
            for (bit, name) in rules.names().iter().enumerate() {
                let count = reasons.iter().filter(|r| *r & (1 << bit) != 0).count();
                if count > 0 {
                    *judged.by_reason.entry(name.clone()).or_default() += count as u64;
                }
            }
            hours.iter().for_each(|(hour, rows)| *judged.hours.entry(*hour).or_default() += rows);
            room -= taken.as_ref().map_or(0, |_| rows);
            judged.files.push(JudgedFile {
                file: file.file.clone(),
                kept,
                hours: hours.into_keys().collect(),
                fingerprints: taken,
            });
        }
    }
    Ok(judged)
}

fn count(hours: &mut HourRows, (hour, rows): (Hour, u64)) {
    if rows > 0 {
        *hours.entry(hour).or_default() += rows;
    }
}

/// An event of an hour that Bronze takes none of.
pub fn out_of_time(path: &str, hour: Hour) -> BatchError {
    BatchError::refused(
        format!("file {path} has an event of the hour {hour}"),
        "events are of the years 1970 to 2105",
        "Boathouse does not write such rows: take out what somebody else has written",
    )
}

/// The `reasons` column.
fn list_of(rows: &[Reasons], names: &[String]) -> ArrayRef {
    let mut values = StringBuilder::new();
    let mut lengths = Vec::with_capacity(rows.len());
    for reasons in rows {
        let found = names.iter().enumerate().filter(|(bit, _)| reasons & (1 << bit) != 0);
        let mut length = 0;
        for (_, name) in found {
            values.append_value(name);
            length += 1;
        }
        lengths.push(length);
    }
    let element = Arc::new(Field::new("element", DataType::Utf8, true));
    Arc::new(ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(values.finish()), None))
}
