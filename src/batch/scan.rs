//! Rows of one data file, as batches of the columns that are wanted.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use futures::{Stream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;

use super::BatchError;
use crate::bronze::ObjectReader;

/// Rows that are decoded at a time.
pub const BATCH_ROWS: usize = 8192;

/// A data file of a table in its storage.
#[derive(Clone)]
pub struct DataFile {
    pub store: Arc<dyn ObjectStore>,
    /// Below the table's root.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
}

impl std::fmt::Debug for DataFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataFile").field("path", &self.path).field("size", &self.size).finish()
    }
}

/// A file that is open: its row count is known, nothing else is read yet.
pub struct OpenFile {
    builder: ParquetRecordBatchStreamBuilder<ObjectReader>,
    path: String,
    pub rows: usize,
}

impl DataFile {
    fn location(&self) -> Path {
        Path::from_iter(self.path.split('/'))
    }

    /// Whether the file is in storage.
    pub async fn exists(&self) -> Result<bool, BatchError> {
        match self.store.head(&self.location()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(unreadable(&self.path, e)),
        }
    }

    pub async fn open(&self) -> Result<OpenFile, BatchError> {
        let reader = ObjectReader { store: self.store.clone(), path: self.location(), size: self.size };
        // The types are those of Parquet: another writer's Arrow types (string views) are none of ours.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await;
        let builder = builder.map_err(|e| unreadable(&self.path, e))?.with_batch_size(BATCH_ROWS);
        let rows = builder.metadata().file_metadata().num_rows() as usize;
        Ok(OpenFile { builder, path: self.path.clone(), rows })
    }
}

impl OpenFile {
    /// The names of its columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.builder.parquet_schema().root_schema().get_fields().iter().map(|field| field.name())
    }

    /// Batches of the columns of `wanted`, in file order; a column that the file is too old to have is null. With a
    /// selection only those rows.
    pub fn batches(
        self,
        wanted: &SchemaRef,
        selection: Option<RowSelection>,
    ) -> Result<impl Stream<Item = Result<RecordBatch, BatchError>> + Send + Unpin + use<>, BatchError> {
        let Self { builder, path, .. } = self;
        let names = wanted.fields().iter().map(|f| f.name().as_str());
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        let mut builder = builder.with_projection(mask);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let stream = builder.build().map_err(|e| unreadable(&path, e))?;
        let wanted = wanted.clone();
        Ok(stream.map(move |batch| {
            let batch = batch.map_err(|e| unreadable(&path, e))?;
            conform(&batch, &wanted).map_err(|e| unreadable(&path, e))
        }))
    }
}

/// The batch with exactly the wanted columns.
fn conform(batch: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<arrow::datatypes::Field>| -> Result<ArrayRef, ArrowError> {
        match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
            Some(column) => cast(column, field.data_type()),
        }
    };
    let columns = wanted.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(wanted.clone(), columns, &rows)
}

pub fn unreadable(path: &str, cause: impl std::fmt::Display) -> BatchError {
    BatchError::unavailable(format!("file {path} cannot be read"), cause)
}
