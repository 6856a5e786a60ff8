//! A snapshot's rows from what has changed in the one model that it is made from, where that is known.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::DataFusionError;
use datafusion::prelude::DataFrame;
use deltalake::DeltaTable;
use futures::TryStreamExt;

use super::compute::{Inputs, days_since_epoch, in_memory};
use super::merge::{BEFORE, CAME, GONE, Merge};
use super::{partition_date, provider};
use crate::batch::changes::{ChangedFile, LogRange, changes};
use crate::batch::graph::Node;
use crate::batch::mark::{mark_id, replaced};
use crate::batch::scan::DataFile;
use crate::batch::{BatchError, Lake};

/// The application id under which a snapshot notes the version of the table that it was made from.
pub fn input_txn(input_table: &str) -> String {
    format!("gold/{input_table}")
}

/// A snapshot and what it is made from.
pub struct Snapshot<'a> {
    pub lake: &'a Lake,
    pub node: &'a Node,
    /// Its table as it stands.
    pub table: &'a DeltaTable,
    /// The one model that it reads.
    pub input: (&'a Node, &'a DeltaTable),
    /// All tables of the run.
    pub inputs: &'a Inputs,
}

impl Snapshot<'_> {
    /// Its rows as of the input's version; none where they are to be made from all of the input's.
    pub async fn merged(&self) -> Result<Option<DataFrame>, BatchError> {
        let Some((gone, came)) = self.changed().await? else { return Ok(None) };
        let whole = self.inputs.frame_of_snapshot(self.lake, self.node).await?;
        let Some(merge) = Merge::of(whole.logical_plan(), &self.node.schema) else { return Ok(None) };
        let before = provider(self.table, &self.node.model.name).await?;
        let gone = self.of_rows(&gone).await?;
        let came = self.of_rows(&came).await?;
        let failed =
            |e: DataFusionError| BatchError::engine(format!("gold/{} cannot be merged", self.node.model.name), &e);
        let session = self.lake.session();
        session.register_table(BEFORE, before).map_err(failed)?;
        for (name, frame) in [(GONE, gone), (CAME, came)] {
            let table = in_memory(&self.node.schema, in_order(&frame.collect().await.map_err(failed)?, self.node)?);
            session.register_table(name, table.map_err(failed)?).map_err(failed)?;
        }
        merge.frame(&session).await.map_err(failed)
    }

    /// The files whose rows have left the input since the snapshot was made, and those whose rows have come; none where
    /// that is not known, or too much.
    async fn changed(&self) -> Result<Option<(Vec<ChangedFile>, Vec<ChangedFile>)>, BatchError> {
        let (node, input) = self.input;
        let unreadable = |e| BatchError::unavailable(format!("gold/{} cannot be read", node.model.name), e);
        let state = input.snapshot().map_err(unreadable)?;
        let (id, version) = (state.metadata().id(), state.version());
        let since = self.lake.noted(self.table, &input_txn(id)).await.map_err(unreadable)?;
        let Some(since) = since.and_then(|v| u64::try_from(v).ok()).filter(|since| *since <= version) else {
            return Ok(None);
        };
        let mark = self.lake.noted(self.table, &mark_id(id)).await.map_err(unreadable)?;
        if replaced(&input.log_store(), since, mark.and_then(|v| u64::try_from(v).ok())).await? {
            return Ok(None);
        }
        let LogRange::Whole(changes) = changes(&input.log_store(), since, version).await? else { return Ok(None) };
        // Rows that were merged into other files, taken out for their age, or replaced once more: not told apart here.
        let removed: HashSet<&String> = changes.removed.iter().map(|file| &file.path).collect();
        if changes.taken_out.iter().any(|path| !removed.contains(path))
            || changes.added.iter().any(|file| changes.taken_out.contains(&file.path))
        {
            return Ok(None);
        }
        let bytes: u64 = changes.added.iter().chain(&changes.removed).map(|file| file.size).sum();
        // Rows take a multiple of their files' size in memory.
        if bytes > self.lake.memory() as u64 / 32 {
            return Ok(None);
        }
        for file in &changes.removed {
            if !self.file(file).exists().await? {
                return Ok(None);
            }
        }
        Ok(Some((changes.removed, changes.added)))
    }

    fn file(&self, file: &ChangedFile) -> DataFile {
        let store = self.input.1.log_store().object_store(None);
        DataFile { store, path: file.path.clone(), size: file.size }
    }

    /// The model's rows if its input held the rows of these files alone.
    async fn of_rows(&self, files: &[ChangedFile]) -> Result<DataFrame, BatchError> {
        let input = self.input.0;
        let partition = input.model.header.partition.as_ref();
        let stored = input.schema.fields().iter().filter(|field| Some(field.name()) != partition).cloned();
        let stored = Arc::new(Schema::new(stored.collect::<Vec<_>>()));
        let unreadable = |e| BatchError::unavailable(format!("gold/{} cannot be read", input.model.name), e);
        let mut rows = Vec::new();
        for file in files {
            let date = partition.and_then(|name| partition_date(file.partition.get(name)));
            let mut batches = self.file(file).open().await?.batches(&stored, None)?;
            while let Some(batch) = batches.try_next().await? {
                let column = |field: &Arc<arrow::datatypes::Field>| -> ArrayRef {
                    match (batch.column_by_name(field.name()), date) {
                        (Some(column), _) => column.clone(),
                        (None, Some(date)) if *field.data_type() == DataType::Date32 => {
                            Arc::new(Date32Array::from(vec![days_since_epoch(date); batch.num_rows()]))
                        }
                        (None, _) => new_null_array(field.data_type(), batch.num_rows()),
                    }
                };
                let columns = input.schema.fields().iter().map(column).collect();
                let schema = Schema::new(
                    input.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
                );
                rows.push(RecordBatch::try_new(Arc::new(schema), columns).map_err(unreadable)?);
            }
        }
        let table = in_memory(&input.schema, rows)
            .map_err(|e| BatchError::engine(format!("gold/{} cannot be read", input.model.name), &e))?;
        let mut inputs = self.inputs.clone();
        inputs.model(input, table);
        inputs.frame_of_snapshot(self.lake, self.node).await
    }
}

/// Rows in the types of a model's table.
fn in_order(batches: &[RecordBatch], node: &Node) -> Result<Vec<RecordBatch>, BatchError> {
    let unreadable = |e| BatchError::unavailable(format!("gold/{} cannot be merged", node.model.name), e);
    batches.iter().map(|batch| super::conform(batch, &node.schema).map_err(unreadable)).collect()
}
