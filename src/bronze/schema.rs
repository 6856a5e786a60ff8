//! The Bronze table's columns: the system's own around the pipeline's fields.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use crate::config::{FieldType, Pipeline, Role};
use crate::event::{EVENT_TIME_COLUMN, arrow_type};

/// The partition column of the table: the day (UTC) on which the record was taken from Kafka.
pub const PARTITION_COLUMN: &str = "ingestion_date";

const BEFORE: [&str; 7] = ["topic", "generation", "partition", "offset", "kafka_timestamp", "key", "headers"];
const AFTER: [&str; 6] =
    [EVENT_TIME_COLUMN, "time_status", "parse_error", "payload", "ingestion_time", PARTITION_COLUMN];

/// Where the headers stand in a data file, and behind them the pipeline's fields.
pub(crate) const PLACE_OF_HEADERS: usize = BEFORE.len() - 1;

/// Names that no field of a pipeline may have (compared without regard to case, as Delta does). The field with the
/// role `event_time` is exempt: its column is `event_time`, whatever the field's name.
pub fn reserved_columns() -> impl Iterator<Item = &'static str> {
    BEFORE.into_iter().chain(AFTER)
}

/// The fields of a pipeline that are columns of their own: all but the event time's, with their place in `fields`.
pub(crate) fn own_fields(pipeline: &Pipeline) -> impl Iterator<Item = (usize, &crate::config::Field)> {
    pipeline.fields.iter().enumerate().filter(|(_, f)| f.role != Some(Role::EventTime))
}

/// Delta's `timestamp`: microseconds, UTC.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The fields of one header: its key and its value, which may be null.
pub(crate) fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, true), Field::new("value", DataType::Binary, true)])
}

/// The element of the `headers` list.
pub(crate) fn header_element() -> Field {
    Field::new("element", DataType::Struct(header_fields()), true)
}

/// The columns of a data file: the table's without its partition column.
pub fn file_schema(pipeline: &Pipeline) -> SchemaRef {
    let mut fields = vec![
        Field::new("topic", DataType::Utf8, true),
        Field::new("generation", DataType::Int32, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("kafka_timestamp", timestamp(), true),
        Field::new("key", DataType::Binary, true),
        Field::new("headers", DataType::List(Arc::new(header_element())), true),
    ];
    fields.extend(own_fields(pipeline).map(|(_, f)| Field::new(&f.name, arrow_type(f.kind), true)));
    fields.extend([
        Field::new(EVENT_TIME_COLUMN, timestamp(), true),
        Field::new("time_status", DataType::Utf8, true),
        Field::new("parse_error", DataType::Utf8, true),
        Field::new("payload", DataType::Binary, true),
        Field::new("ingestion_time", timestamp(), true),
    ]);
    Arc::new(Schema::new(fields))
}

/// Delta's name for a field's type.
pub(crate) fn delta_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String => "string",
        FieldType::Int => "long",
        FieldType::Float => "double",
        FieldType::Bool => "boolean",
        FieldType::Timestamp => "timestamp",
    }
}

/// The columns of a pipeline's table as entries of a Delta schema's `fields`.
pub(crate) fn delta_columns(pipeline: &Pipeline) -> Vec<Value> {
    let column = |name: &str, kind: Value| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let header =
        json!({"type": "struct", "fields": [column("key", json!("string")), column("value", json!("binary"))]});
    let headers = json!({"type": "array", "elementType": header, "containsNull": true});
    let mut columns = vec![
        column("topic", json!("string")),
        column("generation", json!("integer")),
        column("partition", json!("integer")),
        column("offset", json!("long")),
        column("kafka_timestamp", json!("timestamp")),
        column("key", json!("binary")),
        column("headers", headers),
    ];
    columns.extend(own_fields(pipeline).map(|(_, f)| column(&f.name, json!(delta_type(f.kind)))));
    columns.extend([
        column(EVENT_TIME_COLUMN, json!("timestamp")),
        column("time_status", json!("string")),
        column("parse_error", json!("string")),
        column("payload", json!("binary")),
        column("ingestion_time", json!("timestamp")),
        column(PARTITION_COLUMN, json!("date")),
    ]);
    columns
}

/// A Delta schema as it stands in a table's metadata.
pub(crate) fn schema_string(columns: &[Value]) -> String {
    json!({"type": "struct", "fields": columns}).to_string()
}
