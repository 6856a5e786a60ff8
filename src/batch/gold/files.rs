//! The data files of a commit of a model's table.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use chrono::NaiveDate;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::Value;

use crate::batch::encoding::{self, float, number, text, unique_text};
use crate::batch::graph::Node;
use crate::batch::output::{Layout, PartitionWriter};
use crate::batch::{BatchError, Lake, Layer};

/// Writes a model's rows, a date after the other. Files whose commit never comes are left for vacuum.
pub struct Files<'a> {
    node: &'a Node,
    layout: Layout,
    /// Places of the columns that stand in the files: all but the partition's.
    columns: Vec<usize>,
    adds: Vec<Value>,
    rows: u64,
}

impl<'a> Files<'a> {
    pub fn new(lake: &Lake, node: &'a Node) -> Result<Self, BatchError> {
        let partition = node.model.header.partition.as_ref();
        let fields = node.schema.fields().iter().enumerate().filter(|(_, f)| Some(f.name()) != partition);
        let (columns, fields): (Vec<_>, Vec<_>) =
            fields.map(|(place, f)| (place, f.as_ref().clone().with_nullable(true))).unzip();
        let layout = Layout {
            store: lake.log_store(Layer::Gold, &node.model.name)?,
            schema: Arc::new(Schema::new(fields)),
            properties: Arc::new(properties(node)),
        };
        Ok(Self { node, layout, columns, adds: Vec::new(), rows: 0 })
    }

    /// A writer of the rows of a date, or of all rows of a snapshot.
    pub fn writer(&self, date: Option<NaiveDate>) -> PartitionWriter {
        let partition = self.node.model.header.partition.as_deref().zip(date);
        let partition = partition.map(|(name, date)| (name, date.to_string()));
        PartitionWriter::new(self.layout.clone(), partition.into_iter().collect())
    }

    /// Writes rows in the types of the model's table.
    pub async fn write(&mut self, writer: &mut PartitionWriter, batch: &RecordBatch) -> Result<(), BatchError> {
        let batch = batch.project(&self.columns).and_then(|b| b.with_schema(self.layout.schema.clone()));
        let name = &self.node.model.name;
        let batch = batch.map_err(|e| BatchError::unavailable(format!("gold/{name} cannot be written"), e))?;
        self.rows += batch.num_rows() as u64;
        writer.write(&batch).await
    }

    /// Finishes the files of a writer, so that only one date's are in memory.
    pub async fn finish(&mut self, mut writer: PartitionWriter) -> Result<(), BatchError> {
        self.adds.extend(writer.finish().await?);
        Ok(())
    }

    /// The `add` actions of the files, and the rows in them.
    pub fn into_parts(self) -> (Vec<Value>, u64) {
        (self.adds, self.rows)
    }
}

/// How a model's columns are written.
fn properties(node: &Node) -> WriterProperties {
    let header = &node.model.header;
    let mut key = header.grain.iter().filter(|column| Some(*column) != header.partition.as_ref());
    // A column that alone tells rows apart has no value twice.
    let unique = key.next().filter(|_| key.next().is_none());
    let mut builder = encoding::properties();
    for field in node.schema.fields() {
        let path = ColumnPath::from(field.name().as_str());
        builder = match field.data_type() {
            DataType::Utf8 if Some(field.name()) == unique => unique_text(builder, path),
            DataType::Utf8 => text(builder, path),
            DataType::Float64 => float(builder, path),
            DataType::Boolean => builder.set_column_dictionary_enabled(path, false),
            DataType::Timestamp(..) => encoding::event_time(builder, path),
            _ => number(builder, path),
        };
    }
    builder.build()
}
