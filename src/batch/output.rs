//! Writing the data files of one partition of a table: Parquet, rolled at a size, with the `add` actions for the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType};
use chrono::DateTime;
use deltalake::logstore::LogStoreRef;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::BatchError;
use crate::bronze::{Chunks, fsync, local_path};

/// Encoded bytes at which a file is closed and the next one begun.
const FILE_BYTES: usize = 64 << 20;

/// What the files of a table have in common.
#[derive(Clone)]
pub struct Layout {
    pub store: LogStoreRef,
    pub schema: SchemaRef,
    pub properties: Arc<WriterProperties>,
}

/// Writes the files of one partition.
pub struct PartitionWriter {
    layout: Layout,
    /// Where its files lie below the table's root, with a slash at the end unless that is empty.
    folder: String,
    /// Partition columns and their values, as they stand in the log.
    values: Map<String, Value>,
    /// How the files' names begin.
    prefix: &'static str,
    /// False where the rows come from files that leave the table in the same commit.
    data_change: bool,
    /// Encoded bytes at which a file is closed and the next one begun.
    file_bytes: usize,
    writer: Option<ArrowWriter<Chunks>>,
    stats: Vec<ColumnStats>,
    rows_in_file: u64,
    /// Rows written so far.
    pub rows: u64,
    /// Bytes of the files written so far.
    pub bytes: u64,
    adds: Vec<Value>,
}

impl PartitionWriter {
    pub fn new(layout: Layout, partition: Vec<(&str, String)>) -> Self {
        let stats = Self::fresh_stats(&layout.schema);
        Self {
            folder: partition.iter().map(|(name, value)| format!("{name}={value}/")).collect(),
            values: partition.into_iter().map(|(name, value)| (name.to_string(), json!(value))).collect(),
            prefix: "part-",
            data_change: true,
            file_bytes: FILE_BYTES,
            layout,
            writer: None,
            stats,
            rows_in_file: 0,
            rows: 0,
            bytes: 0,
            adds: Vec::new(),
        }
    }

    /// Writes one file of rows that come from others of the partition, beside `path`, one of those.
    pub fn moving(
        layout: Layout,
        path: &str,
        partition: &BTreeMap<String, Option<String>>,
        prefix: &'static str,
    ) -> Self {
        Self {
            folder: path.rfind('/').map_or_else(String::new, |end| path[..=end].into()),
            values: partition.iter().map(|(name, value)| (name.clone(), json!(value))).collect(),
            prefix,
            data_change: false,
            file_bytes: usize::MAX,
            ..Self::new(layout, Vec::new())
        }
    }

    fn fresh_stats(schema: &SchemaRef) -> Vec<ColumnStats> {
        let kept = |kind: &DataType| matches!(kind, DataType::Int32 | DataType::Int64 | DataType::Timestamp(..));
        let fields = schema.fields().iter().enumerate().filter(|(_, f)| kept(f.data_type()));
        fields.map(|(column, f)| ColumnStats { column, name: f.name().clone(), range: None, nulls: 0 }).collect()
    }

    /// Appends rows.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), BatchError> {
        let failed = |e| BatchError::unavailable("rows cannot be encoded", e);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let properties = WriterProperties::clone(&self.layout.properties);
                let writer = ArrowWriter::try_new(Chunks::default(), self.layout.schema.clone(), Some(properties));
                self.writer.insert(writer.map_err(failed)?)
            }
        };
        writer.write(batch).map_err(failed)?;
        for stats in &mut self.stats {
            stats.take(batch.column(stats.column));
        }
        self.rows += batch.num_rows() as u64;
        self.rows_in_file += batch.num_rows() as u64;
        if writer.bytes_written() + writer.in_progress_size() >= self.file_bytes {
            self.close().await?;
        }
        Ok(())
    }

    /// Finishes the file in hand, durably. It belongs to the table once it is committed; a file whose commit fails is
    /// left for vacuum, never deleted: the commit may have landed.
    async fn close(&mut self) -> Result<(), BatchError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let failed = |e: &dyn std::fmt::Display| BatchError::unavailable("a data file cannot be written", e);
        let chunks = writer.into_inner().map_err(|e| failed(&e))?.into_bytes();
        let size: usize = chunks.iter().map(bytes::Bytes::len).sum();
        let path = format!("{}{}{}.parquet", self.folder, self.prefix, Uuid::new_v4());
        let payload: PutPayload = chunks.into_iter().collect();
        let store = self.layout.store.object_store(None);
        store.put(&Path::from_iter(path.split('/')), payload).await.map_err(|e| failed(&e))?;
        if let Some(root) = local_path(self.layout.store.root_url()) {
            let file = root.join(&path);
            // The file, then the names on the way to it.
            let paths =
                file.ancestors().take(self.folder.matches('/').count() + 2).map(std::path::Path::to_path_buf).collect();
            fsync(paths).await.map_err(|e| failed(&e))?;
        }
        let stats = std::mem::replace(&mut self.stats, Self::fresh_stats(&self.layout.schema));
        self.adds.push(json!({"add": {
            "path": path,
            "partitionValues": self.values,
            "size": size,
            "modificationTime": chrono::Utc::now().timestamp_millis(),
            "dataChange": self.data_change,
            "stats": stats_json(std::mem::take(&mut self.rows_in_file), &stats),
        }}));
        self.bytes += size as u64;
        Ok(())
    }

    /// Finishes the last file; the `add` actions of all.
    pub async fn finish(&mut self) -> Result<Vec<Value>, BatchError> {
        self.close().await?;
        Ok(std::mem::take(&mut self.adds))
    }
}

/// Least and greatest value of a column of a file, and how many are null.
struct ColumnStats {
    column: usize,
    name: String,
    range: Option<(Bound, Bound)>,
    nulls: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Bound {
    Number(i64),
    Instant(i64),
}

impl ColumnStats {
    fn take(&mut self, values: &ArrayRef) {
        self.nulls += values.null_count() as u64;
        let range = match values.data_type() {
            DataType::Int32 => {
                let values = values.as_primitive::<Int32Type>();
                min(values).zip(max(values)).map(|(a, b)| (Bound::Number(a.into()), Bound::Number(b.into())))
            }
            DataType::Int64 => {
                let values = values.as_primitive::<Int64Type>();
                min(values).zip(max(values)).map(|(a, b)| (Bound::Number(a), Bound::Number(b)))
            }
            _ => values
                .as_primitive_opt::<TimestampMicrosecondType>()
                .and_then(|values| min(values).zip(max(values)).map(|(a, b)| (Bound::Instant(a), Bound::Instant(b)))),
        };
        if let Some((a, b)) = range {
            let (least, greatest) = self.range.unwrap_or((a, b));
            self.range = Some((if a < least { a } else { least }, if b > greatest { b } else { greatest }));
        }
    }
}

/// The JSON text of `add.stats`.
fn stats_json(rows: u64, columns: &[ColumnStats]) -> String {
    let value = |bound: Bound| match bound {
        Bound::Number(n) => json!(n),
        Bound::Instant(micros) => {
            let at = DateTime::from_timestamp_micros(micros).unwrap_or_default();
            json!(at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
        }
    };
    let (mut least, mut greatest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for column in columns {
        nulls.insert(column.name.clone(), json!(column.nulls));
        if let Some((a, b)) = column.range {
            least.insert(column.name.clone(), value(a));
            greatest.insert(column.name.clone(), value(b));
        }
    }
    json!({"numRecords": rows, "minValues": least, "maxValues": greatest, "nullCount": nulls}).to_string()
}
