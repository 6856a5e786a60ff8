//! A pipeline's fields, compiled once for the decoder.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, TimeUnit};

use crate::config::{FieldType, KeepPayload, Pipeline, Role};

/// Name of the Bronze column that holds the field with the role `event_time`.
pub const EVENT_TIME_COLUMN: &str = "event_time";

/// The fields of one pipeline as the decoder sees them.
#[derive(Debug, Clone)]
pub struct Schema {
    pub(crate) fields: Vec<FieldSpec>,
    pub(crate) event_time: Option<usize>,
    pub(crate) keep_always: bool,
    by_name: HashMap<Box<[u8]>, usize>,
}

/// One field.
#[derive(Debug, Clone)]
pub(crate) struct FieldSpec {
    pub name: String,
    pub kind: FieldType,
    pub required: bool,
}

impl Schema {
    /// Compiles a validated pipeline's fields. The event time is required whatever the pipeline says: no window could
    /// take an event without one.
    pub fn new(pipeline: &Pipeline) -> Arc<Self> {
        let fields: Vec<FieldSpec> = pipeline
            .fields
            .iter()
            .map(|f| FieldSpec {
                name: f.name.clone(),
                kind: f.kind,
                required: f.required || f.role == Some(Role::EventTime),
            })
            .collect();
        let by_name = fields.iter().enumerate().map(|(i, f)| (f.name.as_bytes().into(), i)).collect();
        Arc::new(Self {
            event_time: pipeline.role(Role::EventTime),
            keep_always: pipeline.bronze.keep_payload == KeepPayload::Always,
            fields,
            by_name,
        })
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The field that a key names. `guess` is tried first: keys mostly come in the order of the pipeline.
    pub(crate) fn find(&self, key: &[u8], guess: usize) -> Option<usize> {
        match self.fields.get(guess) {
            Some(field) if field.name.as_bytes() == key => Some(guess),
            _ => self.by_name.get(key).copied(),
        }
    }
}

/// Indices of the string fields that a realtime aggregate groups or filters by, in field order: those that
/// [`super::Decoder::new`] is to give codes.
pub fn coded_fields(pipeline: &Pipeline) -> Vec<usize> {
    let used =
        |name: &String| pipeline.aggregates.iter().any(|a| a.dimensions.contains(name) || a.filter.contains_key(name));
    let coded = |f: &&crate::config::Field| f.kind == FieldType::String && used(&f.name);
    pipeline.fields.iter().filter(coded).filter_map(|f| pipeline.field(&f.name)).collect()
}

/// The Arrow type of a field's column.
pub fn arrow_type(kind: FieldType) -> DataType {
    match kind {
        FieldType::String => DataType::Utf8,
        FieldType::Int => DataType::Int64,
        FieldType::Float => DataType::Float64,
        FieldType::Bool => DataType::Boolean,
        FieldType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

/// The Arrow fields of the pipeline's columns in Bronze, in the order of [`super::Columns::fields`]; the field with
/// the role `event_time` bears the name [`EVENT_TIME_COLUMN`]. All are nullable: a record that is no event has none.
pub fn bronze_fields(pipeline: &Pipeline) -> Vec<ArrowField> {
    pipeline
        .fields
        .iter()
        .map(|f| {
            let name = if f.role == Some(Role::EventTime) { EVENT_TIME_COLUMN } else { &f.name };
            ArrowField::new(name, arrow_type(f.kind), true)
        })
        .collect()
}
