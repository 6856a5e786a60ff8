//! The columns of silver as models see them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::config::{Pipeline, Role};
use crate::event::{EVENT_TIME_COLUMN, arrow_type};

/// The columns of `silver/<pipeline>`, its partition columns last.
pub fn silver_columns(pipeline: &Pipeline) -> SchemaRef {
    let timestamp = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut columns = vec![
        ("topic", DataType::Utf8),
        ("generation", DataType::Int32),
        ("partition", DataType::Int32),
        ("offset", DataType::Int64),
        ("kafka_timestamp", timestamp()),
    ];
    let own = pipeline.fields.iter().filter(|f| f.role != Some(Role::EventTime));
    columns.extend(own.map(|f| (f.name.as_str(), arrow_type(f.kind))));
    columns.extend([
        (EVENT_TIME_COLUMN, timestamp()),
        ("time_status", DataType::Utf8),
        ("ingestion_time", timestamp()),
        ("event_date", DataType::Date32),
        ("event_hour", DataType::Int32),
    ]);
    let fields: Vec<Field> = columns.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect();
    Arc::new(Schema::new(fields))
}
