//! How each column of silver's tables is written.

use std::sync::Arc;

use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::batch::encoding::{self, event_time, float, number, text, unique_text, zstd};
use crate::bronze::own_fields;
use crate::config::{Field, FieldType, Pipeline, Role};

/// The settings for a pipeline's data files.
pub(crate) fn properties(pipeline: &Pipeline) -> Arc<WriterProperties> {
    let mut builder = encoding::properties();
    for column in ["offset", "kafka_timestamp", "ingestion_time", "generation", "partition"] {
        builder = number(builder, column.into());
    }
    builder = event_time(builder, "event_time".into());
    for column in ["key", "payload"] {
        builder = unique_text(builder, column.into());
    }
    builder = builder.set_column_compression("parse_error".into(), zstd());
    for (_, field) in own_fields(pipeline) {
        builder = own_field(builder, pipeline, field);
    }
    Arc::new(builder.build())
}

fn own_field(builder: WriterPropertiesBuilder, pipeline: &Pipeline, field: &Field) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(field.name.as_str());
    match field.kind {
        FieldType::String if field.role == Some(Role::EventId) => unique_text(builder, path),
        FieldType::String if enumerated(pipeline, field) => builder,
        FieldType::String => text(builder, path),
        FieldType::Int | FieldType::Timestamp => number(builder, path),
        FieldType::Float => float(builder, path),
        FieldType::Bool => builder.set_column_dictionary_enabled(path, false),
    }
}

/// Whether a field is known to have few distinct values: silver allows only some, or a dashboard groups by it.
fn enumerated(pipeline: &Pipeline, field: &Field) -> bool {
    field.allowed.is_some()
        || pipeline.aggregates.iter().any(|a| a.dimensions.contains(&field.name) || a.filter.contains_key(&field.name))
}
