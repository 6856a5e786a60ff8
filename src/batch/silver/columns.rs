//! The columns of silver's two tables.
//!
//! `silver/<pipeline>`, the rows that are kept, one for each event:
//!
//! | column | type | |
//! |---|---|---|
//! | `topic`, `generation`, `partition`, `offset` | string, integer, integer, long | where the record stands in Kafka |
//! | `kafka_timestamp` | timestamp | null where the record had none |
//! | the pipeline's fields but the event time's, in their order | as declared | required ones are never null |
//! | `event_time` | timestamp | never null |
//! | `time_status` | string | `ok` or `late` |
//! | `ingestion_time` | timestamp | when the record was taken from Kafka |
//! | `event_date`, `event_hour` | date, integer | of `event_time` in UTC; the partition columns, in this order |
//!
//! An event-hour is one partition, and a run replaces all its files in one commit (remove and add), or adds the first
//! ones. So a commit's adds and removes name, by their `partitionValues`, exactly the hours whose rows it changed.
//!
//! `silver/<pipeline>_refused`, append only: the first five columns, `key`, then `reasons` (array of string, never
//! empty), the fields and `event_time` as far as they are known, `time_status`, `parse_error`, `payload` (binary),
//! `ingestion_time`, and `ingestion_date`, the partition column.
//!
//! Timestamps are Delta's `timestamp`: microseconds, UTC.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::{Value, json};

use crate::bronze;
use crate::config::Pipeline;
use crate::event::EVENT_TIME_COLUMN;

/// Partition columns of silver.
pub const EVENT_DATE: &str = "event_date";
pub const EVENT_HOUR: &str = "event_hour";
/// Why a row was refused.
pub const REASONS: &str = "reasons";

const PLACE: [&str; 5] = ["topic", "generation", "partition", "offset", "kafka_timestamp"];

/// The columns of silver's data files: Bronze's of the same names and types.
pub(super) fn silver_schema(pipeline: &Pipeline) -> SchemaRef {
    let mut names: Vec<&str> = PLACE.to_vec();
    names.extend(bronze::own_fields(pipeline).map(|(_, f)| f.name.as_str()));
    names.extend([EVENT_TIME_COLUMN, "time_status", "ingestion_time"]);
    pick(pipeline, &names)
}

/// The columns of Bronze that a refused row takes along.
pub(super) fn refused_source(pipeline: &Pipeline) -> SchemaRef {
    let mut names: Vec<&str> = PLACE.to_vec();
    names.push("key");
    names.extend(bronze::own_fields(pipeline).map(|(_, f)| f.name.as_str()));
    names.extend([EVENT_TIME_COLUMN, "time_status", "parse_error", "payload", "ingestion_time"]);
    pick(pipeline, &names)
}

/// Place of `reasons` among the columns of a refused row: behind `key`.
pub(super) const REASONS_PLACE: usize = PLACE.len() + 1;

/// The columns of the refused table's data files.
pub(super) fn refused_schema(pipeline: &Pipeline) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = refused_source(pipeline).fields().iter().cloned().collect();
    fields.insert(REASONS_PLACE, Arc::new(Field::new(REASONS, reasons_type(), true)));
    Arc::new(Schema::new(fields))
}

pub(super) fn reasons_type() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
}

fn pick(pipeline: &Pipeline, names: &[&str]) -> SchemaRef {
    let all = bronze::file_schema(pipeline);
    let picked: Vec<Field> = names.iter().filter_map(|name| all.field_with_name(name).ok().cloned()).collect();
    debug_assert_eq!(picked.len(), names.len(), "Bronze has them all");
    Arc::new(Schema::new(picked))
}

/// A table's columns in Delta's JSON form: its data files' and its partition columns.
pub(in crate::batch) fn delta_schema(files: &Schema, partition_columns: &[(&str, &str)]) -> String {
    let column = |name: &str, kind: Value| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let mut fields: Vec<Value> = files.fields().iter().map(|f| column(f.name(), delta_type(f.data_type()))).collect();
    fields.extend(partition_columns.iter().map(|(name, kind)| column(name, json!(kind))));
    json!({"type": "struct", "fields": fields}).to_string()
}

fn delta_type(kind: &DataType) -> Value {
    match kind {
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float64 => json!("double"),
        DataType::Boolean => json!("boolean"),
        DataType::Binary => json!("binary"),
        DataType::Timestamp(..) => json!("timestamp"),
        DataType::List(element) => {
            json!({"type": "array", "elementType": delta_type(element.data_type()), "containsNull": true})
        }
        _ => json!("string"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::pipeline;
    use super::*;

    #[test]
    fn both_tables_have_the_columns_that_are_documented() {
        let names = |schema: SchemaRef| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            names(silver_schema(&pipeline())),
            "topic generation partition offset kafka_timestamp event_id user_id event_type page source event_time \
             time_status ingestion_time"
        );
        assert_eq!(
            names(refused_schema(&pipeline())),
            "topic generation partition offset kafka_timestamp key reasons event_id user_id event_type page source \
             event_time time_status parse_error payload ingestion_time"
        );
    }

    #[test]
    fn types_are_deltas() {
        let schema = delta_schema(&refused_schema(&pipeline()), &[("ingestion_date", "date")]);
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let kind = |name: &str| {
            let fields = schema["fields"].as_array().unwrap();
            fields.iter().find(|f| f["name"] == name).unwrap()["type"].clone()
        };
        assert_eq!(kind("user_id"), "long");
        assert_eq!(kind("event_time"), "timestamp");
        assert_eq!(kind("payload"), "binary");
        assert_eq!(kind("reasons"), json!({"type": "array", "elementType": "string", "containsNull": true}));
        assert_eq!(kind("ingestion_date"), "date");
    }
}
