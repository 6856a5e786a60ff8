//! Where one event is: its row of silver or why it has none, and the rows of gold that it is part of. Nothing is written.

mod commits;
mod gold;
mod silver;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

pub use commits::commit_of;
pub use gold::{Contribution, contributions};
pub use silver::{Record, SilverPlace, locate_in_silver};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use arrow::util::display::array_value_to_string;

/// A record's place in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub topic: String,
    pub generation: i32,
    pub partition: i32,
    pub offset: i64,
}

impl Place {
    /// The place of a row of Bronze or silver, or the column that it lacks.
    pub fn of_row(batch: &RecordBatch, row: usize) -> Result<Self, &'static str> {
        let number = |name: &'static str| {
            let column = batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int32Type>());
            column.map(|c| c.value(row)).ok_or(name)
        };
        let topic = batch.column_by_name("topic").and_then(|c| c.as_string_opt::<i32>());
        let offset = batch.column_by_name("offset").and_then(|c| c.as_primitive_opt::<Int64Type>());
        Ok(Self {
            topic: topic.filter(|c| c.is_valid(row)).ok_or("topic")?.value(row).to_owned(),
            generation: number("generation")?,
            partition: number("partition")?,
            offset: offset.ok_or("offset")?.value(row),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}/{}", self.topic, self.generation, self.partition, self.offset)
    }
}

/// A commit of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitRef {
    pub version: u64,
    pub at: Option<DateTime<Utc>>,
    /// As `WRITE`; `OPTIMIZE` where rows were moved from smaller files.
    pub operation: String,
}

/// The columns of one row by name, as JSON: numbers and truth values as such, anything else as text.
pub fn row_as_json(batch: &RecordBatch, row: usize, wanted: impl Fn(&str) -> bool) -> Map<String, Value> {
    let schema = batch.schema();
    let fields = schema.fields().iter().enumerate().filter(|(_, f)| wanted(f.name()));
    fields.map(|(i, f)| (f.name().clone(), cell(batch.column(i), row))).collect()
}

fn cell(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        _ => array_value_to_string(array, row).map_or(Value::Null, Value::from),
    }
}

/// The date of an instant in UTC.
fn date_of_instant(micros: i64) -> NaiveDate {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().date_naive()
}
