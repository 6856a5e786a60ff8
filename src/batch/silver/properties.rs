//! How each column of silver's tables is written.

use std::sync::Arc;

use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::batch::encoding::{self, event_time, float, number, text, unique_text, zstd};
use crate::bronze::own_fields;
use crate::config::{Field, FieldType, Pipeline, Role};

/// Share of the row groups without an id that are read for it nevertheless.
const FILTER_ERRORS: f64 = 0.02;
/// Ids for which there is room in a filter while it is made; it is made smaller then. A row group has fewer.
const FILTER_IDS: u64 = 1 << 20;

/// The settings for a pipeline's data files.
pub(crate) fn properties(pipeline: &Pipeline) -> Arc<WriterProperties> {
    Arc::new(builder(pipeline).build())
}

/// The settings of files whose rows were merged: whoever looks for one event has a filter of each row group's ids, which
/// is too dear to be made while rows come in.
pub(crate) fn searchable(pipeline: &Pipeline) -> Arc<WriterProperties> {
    let ids = own_fields(pipeline).filter(|(_, field)| field.role == Some(Role::EventId));
    let builder = ids.fold(builder(pipeline), |builder, (_, field)| {
        let path = ColumnPath::from(field.name.as_str());
        builder
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), FILTER_ERRORS)
            .set_column_bloom_filter_max_ndv(path, FILTER_IDS)
    });
    Arc::new(builder.build())
}

fn builder(pipeline: &Pipeline) -> WriterPropertiesBuilder {
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
    builder
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
