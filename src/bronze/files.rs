//! The data files of one table version, with what their statistics say about them.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use chrono::DateTime;
use deltalake::kernel::Snapshot;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use serde::Deserialize;

use super::object_reader::ObjectReader;
use super::table::SINGLE_SOURCE_PREFIX;
use super::{BronzeError, DeltaLog};
use crate::kafka::Source;

/// Rows that a reader decodes at a time.
const BATCH_ROWS: usize = 8192;

/// A data file. A range that its statistics do not give is unbounded.
#[derive(Debug, Clone)]
pub struct DataFile {
    pub path: Path,
    pub size: u64,
    pub generations: RangeInclusive<i64>,
    pub partitions: RangeInclusive<i64>,
    pub offsets: RangeInclusive<i64>,
    /// Microseconds since the epoch.
    pub event_times: RangeInclusive<i64>,
    /// Whether its name says that all rows are of one partition, in offset order. Merged files have other names.
    pub single_source: bool,
}

/// The part of `add.stats` that is read here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    min_values: HashMap<String, serde_json::Value>,
    max_values: HashMap<String, serde_json::Value>,
}

impl Stats {
    fn range(&self, column: &str) -> RangeInclusive<i64> {
        let bound = |values: &HashMap<String, serde_json::Value>| values.get(column).and_then(|v| v.as_i64());
        bound(&self.min_values).unwrap_or(i64::MIN)..=bound(&self.max_values).unwrap_or(i64::MAX)
    }

    /// A range of timestamps. Other writers cut to the millisecond, so a maximum may lie that much higher.
    fn timestamps(&self, column: &str) -> RangeInclusive<i64> {
        let bound = |values: &HashMap<String, serde_json::Value>| {
            let text = values.get(column)?.as_str()?;
            DateTime::parse_from_rfc3339(text).ok().map(|t| t.timestamp_micros())
        };
        let greatest = bound(&self.max_values).map(|m| if m % 1000 == 0 { m + 999 } else { m });
        bound(&self.min_values).unwrap_or(i64::MIN)..=greatest.unwrap_or(i64::MAX)
    }
}

impl DataFile {
    /// Whether it may hold rows of a partition.
    pub fn may_hold(&self, source: &Source) -> bool {
        self.generations.contains(&source.generation.into()) && self.partitions.contains(&source.partition.into())
    }

    /// Opens it for reading; the builder knows the file's metadata.
    pub async fn open(
        &self,
        store: &Arc<dyn ObjectStore>,
    ) -> Result<ParquetRecordBatchStreamBuilder<ObjectReader>, BronzeError> {
        let reader = ObjectReader { store: store.clone(), path: self.path.clone(), size: self.size };
        // The types are those of Parquet: another writer's Arrow types (string views) are none of ours.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await;
        let builder = builder.map_err(|e| self.unreadable(e))?;
        Ok(builder.with_batch_size(BATCH_ROWS))
    }

    pub fn unreadable(&self, cause: impl std::fmt::Display) -> BronzeError {
        BronzeError::parquet(format!("file {} cannot be read", self.path), cause)
    }
}

/// The data files of a version (the newest if none is given) that `wanted` takes, in no order.
pub async fn data_files(
    log: &DeltaLog,
    version: Option<u64>,
    wanted: impl Fn(&DataFile) -> bool,
) -> Result<Vec<DataFile>, BronzeError> {
    let failed = |e: deltalake::DeltaTableError| BronzeError::io("the files of a Bronze table cannot be listed", e);
    let snapshot = Snapshot::try_new(log.store().as_ref(), version).await.map_err(failed)?;
    let mut files = Vec::new();
    let mut views = snapshot.file_views(log.store().as_ref(), None);
    while let Some(view) = views.try_next().await.map_err(failed)? {
        let stats: Stats = view.stats().and_then(|s| serde_json::from_str(&s).ok()).unwrap_or_default();
        let path = view.object_store_path();
        let file = DataFile {
            single_source: path.filename().is_some_and(|name| name.starts_with(SINGLE_SOURCE_PREFIX)),
            path,
            size: view.size() as u64,
            generations: stats.range("generation"),
            partitions: stats.range("partition"),
            offsets: stats.range("offset"),
            event_times: stats.timestamps("event_time"),
        };
        if wanted(&file) {
            files.push(file);
        }
    }
    Ok(files)
}

/// The columns by which a row's place in Kafka is known.
pub fn place_columns() -> [&'static str; 3] {
    ["generation", "partition", "offset"]
}

/// Calls `each(row in the file, offset)` for every row of a partition, in file order.
pub async fn each_offset(
    file: &DataFile,
    store: &Arc<dyn ObjectStore>,
    source: &Source,
    mut each: impl FnMut(usize, i64),
) -> Result<(), BronzeError> {
    let builder = file.open(store).await?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), place_columns());
    let mut batches = builder.with_projection(mask).build().map_err(|e| file.unreadable(e))?;
    let mut first_row = 0;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|e| file.unreadable(e))?;
        let of_source = rows_of(&batch, source).ok_or_else(|| file.unreadable("columns are missing"))?;
        let offsets = column::<Int64Type>(&batch, "offset").ok_or_else(|| file.unreadable("no offsets"))?;
        for row in (0..batch.num_rows()).filter(|row| of_source[*row]) {
            each(first_row + row, offsets[row]);
        }
        first_row += batch.num_rows();
    }
    Ok(())
}

/// Which rows of a batch with generation and partition are of a partition.
pub fn rows_of(batch: &RecordBatch, source: &Source) -> Option<Vec<bool>> {
    let generations = column::<Int32Type>(batch, "generation")?;
    let partitions = column::<Int32Type>(batch, "partition")?;
    let rows = generations.iter().zip(partitions);
    Some(rows.map(|(g, p)| *g == source.generation && *p == source.partition).collect())
}

/// The values of a primitive column.
pub fn column<'a, T: arrow::datatypes::ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Option<&'a [T::Native]> {
    Some(batch.column_by_name(name)?.as_primitive_opt::<T>()?.values())
}
