//! Rows of one partition in offset order, for the recovery of windows.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::stream::{BoxStream, Stream, TryStreamExt, try_unfold};
use futures::{FutureExt, StreamExt};
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use super::files::{DataFile, column, data_files, each_offset, rows_of};
use super::{BronzeError, Table};
use crate::kafka::Source;
use crate::window::Verdict;

/// Which rows of a partition are wanted: those with the verdict `ok`.
#[derive(Debug, Clone)]
pub struct OkRows {
    pub source: Arc<Source>,
    /// Offsets, the end exclusive.
    pub offsets: Range<i64>,
    /// Only events at or after this instant, microseconds since the epoch; none for all.
    pub event_time_from: Option<i64>,
    /// The pipeline's fields that are wanted beside offset and event time.
    pub fields: Vec<String>,
}

/// Rows of one partition that stand in a file in offset order: a whole file of ours, or a part of one that was merged
/// from several.
#[derive(Debug, Clone)]
struct Run {
    file: Arc<DataFile>,
    /// Rows of the file; none for all of them.
    rows: Option<Range<usize>>,
    /// First and last offset, nearly: only their order matters.
    offsets: (i64, i64),
}

/// The first event time (microseconds) whose window of `window` microseconds ends after `horizon`.
pub fn first_event_time_after(horizon: i64, window: i64) -> i64 {
    horizon - horizon.rem_euclid(window)
}

impl Table {
    /// The wanted rows as of a table version (the newest if none is given), in offset order. Columns of the batches:
    /// `offset`, `event_time`, then the fields in the order asked for. Memory: one batch, one row group's pages of
    /// the wanted columns, and a list of files.
    pub async fn ok_rows(
        &self,
        version: Option<u64>,
        wanted: OkRows,
    ) -> Result<BoxStream<'static, Result<RecordBatch, BronzeError>>, BronzeError> {
        let store = self.log().store().object_store(None);
        let files = data_files(self.log(), version, |file| {
            file.may_hold(&wanted.source)
                && *file.offsets.start() < wanted.offsets.end
                && *file.offsets.end() >= wanted.offsets.start
                && wanted.event_time_from.is_none_or(|from| *file.event_times.end() >= from)
        })
        .await?;
        let mut runs = Vec::new();
        for file in files {
            runs.extend(runs_of(file, &store, &wanted.source).await?);
        }
        runs.sort_by_key(|run| run.offsets);
        if let Some(pair) = runs.windows(2).find(|w| w[0].offsets.1 >= w[1].offsets.0) {
            return Err(BronzeError::stopped(
                format!("offsets {} to {} of {} are there twice", pair[1].offsets.0, pair[0].offsets.1, wanted.source),
                format!("files {} and {}", pair[0].file.path, pair[1].file.path),
                "the table was changed by hand: restore it as it was before",
            ));
        }
        let wanted = Arc::new(wanted);
        let state = (VecDeque::from(runs), store, wanted);
        Ok(try_unfold(state, |(mut runs, store, wanted)| async move {
            let Some(run) = runs.pop_front() else { return Ok(None) };
            let batches = rows_of_run(run, &store, wanted.clone()).await?;
            Ok::<_, BronzeError>(Some((batches, (runs, store, wanted))))
        })
        .try_flatten()
        .boxed())
    }
}

/// The runs of a partition in a file.
async fn runs_of(file: DataFile, store: &Arc<dyn ObjectStore>, source: &Source) -> Result<Vec<Run>, BronzeError> {
    let file = Arc::new(file);
    if file.single_source {
        let offsets = (*file.offsets.start(), *file.offsets.end());
        return Ok(vec![Run { file, rows: None, offsets }]);
    }
    let mut runs: Vec<(Range<usize>, (i64, i64))> = Vec::new();
    each_offset(&file, store, source, |row, offset| match runs.last_mut() {
        Some((rows, (_, last))) if *last < offset => {
            rows.end = row + 1;
            *last = offset;
        }
        _ => runs.push((row..row + 1, (offset, offset))),
    })
    .await?;
    let whole = runs.len() == 1;
    let run = |(rows, offsets)| Run { file: file.clone(), rows: (!whole).then_some(rows), offsets };
    Ok(runs.into_iter().map(run).collect())
}

async fn rows_of_run(
    run: Run,
    store: &Arc<dyn ObjectStore>,
    wanted: Arc<OkRows>,
) -> Result<impl Stream<Item = Result<RecordBatch, BronzeError>> + use<>, BronzeError> {
    let file = run.file;
    let mut builder = file.open(store).await?;
    let columns = ["generation", "partition", "offset", "event_time", "time_status"];
    let names = columns.into_iter().chain(wanted.fields.iter().map(String::as_str));
    let mask = ProjectionMask::columns(builder.parquet_schema(), names);
    if let Some(rows) = run.rows {
        let after = builder.metadata().file_metadata().num_rows() as usize - rows.end;
        builder = builder.with_row_selection(RowSelection::from(vec![
            RowSelector::skip(rows.start),
            RowSelector::select(rows.len()),
            RowSelector::skip(after),
        ]));
    }
    let batches = builder.with_projection(mask).build().map_err(|e| file.unreadable(e))?;
    Ok(batches.map(move |batch| {
        let batch = batch.map_err(|e| file.unreadable(e))?;
        wanted.filter(&batch).ok_or_else(|| file.unreadable("a column is missing or has another type"))?
    }))
}

impl OkRows {
    /// The wanted rows and columns of a batch; none where it lacks a column that every file has.
    fn filter(&self, batch: &RecordBatch) -> Option<Result<RecordBatch, BronzeError>> {
        let offsets = column::<Int64Type>(batch, "offset")?;
        let event_times = column::<TimestampMicrosecondType>(batch, "event_time")?;
        let status = batch.column_by_name("time_status")?.as_string_opt::<i32>()?;
        let from = self.event_time_from.unwrap_or(i64::MIN);
        let mut keep = rows_of(batch, &self.source)?;
        for (row, keep) in keep.iter_mut().enumerate() {
            *keep = *keep
                && self.offsets.contains(&offsets[row])
                && status.value(row) == Verdict::Ok.as_str()
                && event_times[row] >= from;
        }
        let mut columns = vec![batch.schema().index_of("offset").ok()?, batch.schema().index_of("event_time").ok()?];
        for field in &self.fields {
            columns.push(batch.schema().index_of(field).ok()?);
        }
        let failed = |e| BronzeError::parquet("rows cannot be filtered", e);
        let kept = batch.project(&columns).and_then(|b| filter_record_batch(&b, &BooleanArray::from(keep)));
        Some(kept.map_err(failed))
    }
}

/// The last row of a partition, to be compared with the record in Kafka: a broker that lost its tail has another one
/// there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRow {
    pub offset: i64,
    /// Kafka timestamp, milliseconds since the epoch; none where the record had none.
    pub kafka_timestamp: Option<i64>,
    /// The event id; none where the record is no event.
    pub event_id: Option<String>,
}

impl Table {
    /// The row of a partition with the greatest offset, as of a table version (the newest if none is given).
    pub async fn last_row(&self, version: Option<u64>, source: &Source) -> Result<Option<LastRow>, BronzeError> {
        let store = self.log().store().object_store(None);
        let mut files = data_files(self.log(), version, |file| file.may_hold(source)).await?;
        files.sort_by_key(|file| std::cmp::Reverse(*file.offsets.end()));
        let mut last: Option<(DataFile, usize, i64)> = None;
        for file in files {
            if last.as_ref().is_some_and(|(_, _, offset)| file.offsets.end() <= offset) {
                break;
            }
            let mut greatest: Option<(usize, i64)> = None;
            each_offset(&file, &store, source, |row, offset| {
                if greatest.is_none_or(|(_, at)| at < offset) {
                    greatest = Some((row, offset));
                }
            })
            .await?;
            if let Some((row, offset)) = greatest
                && last.as_ref().is_none_or(|(_, _, at)| *at < offset)
            {
                last = Some((file, row, offset));
            }
        }
        let Some((file, row, offset)) = last else { return Ok(None) };
        self.row(&file, row, offset, &store).boxed().await.map(Some)
    }

    async fn row(
        &self,
        file: &DataFile,
        row: usize,
        offset: i64,
        store: &Arc<dyn ObjectStore>,
    ) -> Result<LastRow, BronzeError> {
        let mut builder = file.open(store).await?;
        let event_id = self.event_id_column();
        let names = ["kafka_timestamp"].into_iter().chain(event_id);
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        let after = builder.metadata().file_metadata().num_rows() as usize - row - 1;
        builder = builder.with_row_selection(RowSelection::from(vec![
            RowSelector::skip(row),
            RowSelector::select(1),
            RowSelector::skip(after),
        ]));
        let mut batches = builder.with_projection(mask).build().map_err(|e| file.unreadable(e))?;
        let batch = batches.try_next().await.map_err(|e| file.unreadable(e))?;
        let batch = batch.ok_or_else(|| file.unreadable("a row is missing"))?;
        let timestamps = batch.column_by_name("kafka_timestamp");
        let timestamps = timestamps.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let ids = event_id.and_then(|name| batch.column_by_name(name)?.as_string_opt::<i32>());
        Ok(LastRow {
            offset,
            kafka_timestamp: timestamps.filter(|t| t.is_valid(0)).map(|t| t.value(0) / 1000),
            event_id: ids.filter(|i| i.is_valid(0)).map(|i| i.value(0).to_string()),
        })
    }
}
