//! How each column of silver's tables is written. Measured on Bronze's columns, which these are: less than half the CPU
//! of ArrowWriter's defaults, and smaller files.

use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::bronze::own_fields;
use crate::config::{Field, FieldType, Pipeline, Role};

/// Encoded bytes of a row group, so that a writer's and a reader's memory has a bound.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// The settings for a pipeline's data files.
pub(crate) fn properties(pipeline: &Pipeline) -> Arc<WriterProperties> {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("boathouse ", env!("CARGO_PKG_VERSION")).into())
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_compression(Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(true);
    for column in ["offset", "kafka_timestamp", "ingestion_time"] {
        builder = number(builder, column);
    }
    for column in ["generation", "partition"] {
        builder = number(builder, column);
    }
    // Few distinct seconds at a time: a dictionary first, deltas where that overflows.
    builder = number(builder, "event_time").set_column_dictionary_enabled(ColumnPath::from("event_time"), true);
    for column in ["key", "payload"] {
        builder = unique_text(builder, column.into());
    }
    builder = builder.set_column_compression("parse_error".into(), zstd());
    for (_, field) in own_fields(pipeline) {
        builder = own_field(builder, pipeline, field);
    }
    Arc::new(builder.build())
}

/// Level 1: the levels above cost more than they save.
fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

fn own_field(builder: WriterPropertiesBuilder, pipeline: &Pipeline, field: &Field) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(field.name.as_str());
    match field.kind {
        FieldType::String if field.role == Some(Role::EventId) => unique_text(builder, path),
        // Few distinct values: codes of a few bits, which compression would only slow down.
        FieldType::String if enumerated(pipeline, field) => builder,
        FieldType::String => builder.set_column_compression(path, zstd()),
        FieldType::Int | FieldType::Timestamp => number(builder, &field.name),
        FieldType::Float => builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_statistics_enabled(path.clone(), EnabledStatistics::Chunk)
            .set_column_compression(path, zstd()),
        FieldType::Bool => builder.set_column_dictionary_enabled(path, false),
    }
}

/// Whether a field is known to have few distinct values: silver allows only some, or a dashboard groups by it.
fn enumerated(pipeline: &Pipeline, field: &Field) -> bool {
    field.allowed.is_some()
        || pipeline.aggregates.iter().any(|a| a.dimensions.contains(&field.name) || a.filter.contains_key(&field.name))
}

/// Integers and timestamps: differences, bit-packed; statistics cost next to nothing.
fn number(builder: WriterPropertiesBuilder, column: &str) -> WriterPropertiesBuilder {
    let path = ColumnPath::from(column);
    builder
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
        .set_column_statistics_enabled(path, EnabledStatistics::Chunk)
}

/// Bytes that hardly repeat: lengths apart from the bytes, which zstd then takes three times as fast.
fn unique_text(builder: WriterPropertiesBuilder, path: ColumnPath) -> WriterPropertiesBuilder {
    builder
        .set_column_dictionary_enabled(path.clone(), false)
        .set_column_encoding(path.clone(), Encoding::DELTA_LENGTH_BYTE_ARRAY)
        .set_column_compression(path, zstd())
}
