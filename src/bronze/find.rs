//! Single rows of Bronze: by an event's id, or by their place in Kafka. Nothing is settled or written.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;

use super::durable::has_log;
use super::files::{DataFile, data_files};
use super::log::CommitLog;
use super::object_reader::ObjectReader;
use super::table::open_log;
use super::{BronzeError, DeltaLog, file_schema, table_key};
use crate::config::{Pipeline, Role};

/// Files that are read at the same time.
const FILES_AT_ONCE: usize = 4;

/// Which rows are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Every copy of an event.
    EventId(String),
    /// The record at a place.
    Place { generation: i32, partition: i32, offset: i64 },
}

/// A row that was found: one row of the columns of [`file_schema`], in its types.
#[derive(Debug, Clone)]
pub struct FoundRow {
    /// Its data file, below the table's root.
    pub file: String,
    pub row: RecordBatch,
}

/// A pipeline's Bronze table, for looking things up.
#[derive(Debug)]
pub struct Lookup {
    log: DeltaLog,
    pipeline: Pipeline,
    /// The newest version.
    pub version: u64,
    pub table_id: String,
    /// The id of the settings in force.
    pub epoch: String,
    /// Kafka's topic, and the newest generation of it.
    pub topic: String,
    pub generation: i32,
}

impl Lookup {
    /// Opens the table of a pipeline; none where there is none.
    pub async fn open(lakehouse_uri: &str, pipeline: &Pipeline) -> Result<Option<Self>, BronzeError> {
        let log = open_log(lakehouse_uri, &pipeline.name)?;
        // Looking at storage would make the table's folder.
        if log.local().is_some_and(|root| !has_log(root)) {
            return Ok(None);
        }
        let Some(state) = log.load(&[]).await? else { return Ok(None) };
        let text = |name: &str| state.configuration.get(name).cloned().unwrap_or_default();
        Ok(Some(Self {
            version: state.version,
            table_id: state.metadata["id"].as_str().unwrap_or_default().to_owned(),
            epoch: text(table_key::EPOCH),
            topic: text(table_key::TOPIC),
            generation: text(table_key::GENERATION).parse().unwrap_or(0),
            log,
            pipeline: pipeline.clone(),
        }))
    }

    /// The offset that Bronze reads next of a partition; none where it does not know it.
    pub async fn next_offset(&self, source: &crate::kafka::Source) -> Result<Option<i64>, BronzeError> {
        let id = source.txn_id();
        let state = self.log.load(std::slice::from_ref(&id)).await?;
        Ok(state.and_then(|s| s.txns.get(&id).copied()))
    }

    /// The rows wanted, as of a version (the newest if none is given). By a place the files are read whose statistics
    /// allow it. By an id, one column of every file: copies may be anywhere, and ids have no order. Files that upkeep has
    /// merged have filters of their ids, and of those next to nothing is read.
    pub async fn find(&self, version: Option<u64>, wanted: &Wanted) -> Result<Vec<FoundRow>, BronzeError> {
        let store = self.log.store().object_store(None);
        let may_hold = |file: &DataFile| match wanted {
            Wanted::EventId(_) => true,
            Wanted::Place { generation, partition, offset } => {
                file.generations.contains(&i64::from(*generation))
                    && file.partitions.contains(&i64::from(*partition))
                    && file.offsets.contains(offset)
            }
        };
        let files = data_files(&self.log, version, may_hold).await?;
        let found = futures::stream::iter(files.into_iter().map(|file| self.in_file(file, &store, wanted)));
        let found: Vec<Vec<FoundRow>> = found.buffer_unordered(FILES_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn in_file(
        &self,
        file: DataFile,
        store: &Arc<dyn ObjectStore>,
        wanted: &Wanted,
    ) -> Result<Vec<FoundRow>, BronzeError> {
        let id = self.pipeline.role(Role::EventId).map(|i| self.pipeline.fields[i].name.as_str()).unwrap_or_default();
        let columns: &[&str] = match wanted {
            Wanted::EventId(_) => &[id],
            Wanted::Place { .. } => &["generation", "partition", "offset"],
        };
        let mut builder = file.open(store).await?;
        let groups = groups(&mut builder, id, wanted).await.map_err(|e| file.unreadable(e))?;
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let rows_of_groups: usize = groups.iter().map(|g| builder.metadata().row_group(*g).num_rows() as usize).sum();
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let builder = builder.with_projection(mask).with_row_groups(groups.clone());
        let mut batches = builder.build().map_err(|e| file.unreadable(e))?;
        let (mut rows, mut first) = (Vec::new(), 0);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|e| file.unreadable(e))?;
            let found = matching(&batch, id, wanted).ok_or_else(|| file.unreadable("a column is missing"))?;
            rows.extend(found.into_iter().map(|row| first + row));
            first += batch.num_rows();
        }
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut selectors = Vec::new();
        let mut at = 0;
        for row in &rows {
            selectors.extend([RowSelector::skip(row - at), RowSelector::select(1)]);
            at = row + 1;
        }
        selectors.push(RowSelector::skip(rows_of_groups.saturating_sub(at)));
        let builder = file.open(store).await?.with_row_groups(groups);
        let mut batches =
            builder.with_row_selection(RowSelection::from(selectors)).build().map_err(|e| file.unreadable(e))?;
        let schema = file_schema(&self.pipeline);
        let mut found = Vec::new();
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|e| file.unreadable(e))?;
            // A column that the file is too old to have is null.
            let columns = schema.fields().iter().map(|f| match batch.column_by_name(f.name()) {
                Some(column) => column.clone(),
                None => arrow::array::new_null_array(f.data_type(), batch.num_rows()),
            });
            let batch = RecordBatch::try_new(schema.clone(), columns.collect()).map_err(|e| file.unreadable(e))?;
            let one = |row| FoundRow { file: file.path.to_string(), row: batch.slice(row, 1) };
            found.extend((0..batch.num_rows()).map(one));
        }
        Ok(found)
    }
}

/// The row groups that may have what is wanted.
async fn groups(
    builder: &mut ParquetRecordBatchStreamBuilder<ObjectReader>,
    id: &str,
    wanted: &Wanted,
) -> Result<Vec<usize>, ParquetError> {
    let all = 0..builder.metadata().num_row_groups();
    let column = builder.parquet_schema().columns().iter().position(|column| column.path().string() == id);
    let (Wanted::EventId(event_id), Some(column)) = (wanted, column) else { return Ok(all.collect()) };
    let mut groups = Vec::new();
    for group in all {
        let filter = builder.get_row_group_column_bloom_filter(group, column).await?;
        if filter.is_none_or(|filter| filter.check(event_id.as_str())) {
            groups.push(group);
        }
    }
    Ok(groups)
}

/// The rows of a batch that are wanted; none where it lacks a column.
fn matching(batch: &RecordBatch, id: &str, wanted: &Wanted) -> Option<Vec<usize>> {
    let rows = 0..batch.num_rows();
    match wanted {
        Wanted::EventId(event_id) => {
            let ids = batch.column_by_name(id)?.as_string_opt::<i32>()?;
            Some(rows.filter(|row| ids.is_valid(*row) && ids.value(*row) == event_id).collect())
        }
        Wanted::Place { generation, partition, offset } => {
            let generations = batch.column_by_name("generation")?.as_primitive_opt::<Int32Type>()?.values();
            let partitions = batch.column_by_name("partition")?.as_primitive_opt::<Int32Type>()?.values();
            let offsets = batch.column_by_name("offset")?.as_primitive_opt::<Int64Type>()?.values();
            let is = |row: &usize| {
                generations[*row] == *generation && partitions[*row] == *partition && offsets[*row] == *offset
            };
            Some(rows.filter(is).collect())
        }
    }
}
