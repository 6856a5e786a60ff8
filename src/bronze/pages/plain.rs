//! Columns that arrow-rs writes: types for which there is nothing to be gained.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::SchemaDescPtr;

use super::Measured;
use crate::bronze::chunks::Chunks;

/// What the files of a schema have in common.
#[derive(Clone)]
pub struct PlainLayout {
    pub arrow: SchemaRef,
    pub parquet: SchemaDescPtr,
    properties: Arc<WriterProperties>,
    writers: Arc<ArrowRowGroupWriterFactory>,
}

impl PlainLayout {
    pub fn new(arrow: SchemaRef, properties: WriterProperties) -> Result<Self> {
        let parquet = Arc::new(ArrowSchemaConverter::new().convert(&arrow)?);
        let properties = Arc::new(properties);
        let file = SerializedFileWriter::new(Chunks::default(), parquet.root_schema_ptr(), properties.clone())?;
        let writers = Arc::new(ArrowRowGroupWriterFactory::new(&file, arrow.clone()));
        Ok(Self { arrow, parquet, properties, writers })
    }

    /// A file without a row.
    pub fn begin(&self) -> Result<SerializedFileWriter<Chunks>> {
        SerializedFileWriter::new(Chunks::default(), self.parquet.root_schema_ptr(), self.properties.clone())
    }
}

/// One column, whatever its type; a nested one has several leaves.
pub struct PlainColumn {
    field: Arc<Field>,
    leaves: Vec<ArrowColumnWriter>,
}

impl PlainColumn {
    /// The column at this place of the schema.
    pub fn new(layout: &PlainLayout, place: usize) -> Result<Self> {
        let writers = layout.writers.create_column_writers(0)?;
        let leaves = writers.into_iter().enumerate();
        let leaves = leaves.filter(|(leaf, _)| layout.parquet.get_column_root_idx(*leaf) == place);
        let leaves = leaves.map(|(_, writer)| writer).collect();
        Ok(Self { field: layout.arrow.fields()[place].clone(), leaves })
    }

    pub fn push(&mut self, array: &ArrayRef) -> Result<()> {
        for (writer, leaf) in self.leaves.iter_mut().zip(compute_leaves(&self.field, array)?) {
            writer.write(&leaf)?;
        }
        Ok(())
    }

    /// Puts the column's chunks behind those that the row group has already.
    pub fn append_to(self, group: &mut SerializedRowGroupWriter<'_, Chunks>) -> Result<()> {
        self.leaves.into_iter().try_for_each(|leaf| leaf.close()?.append_to_row_group(group))
    }
}

impl Measured for PlainColumn {
    fn bytes(&self) -> usize {
        self.leaves.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    fn memory(&self) -> usize {
        self.leaves.iter().map(ArrowColumnWriter::memory_size).sum()
    }
}
