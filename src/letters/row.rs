//! One letter: what Bronze or the refused table keeps of a record, and its cells as text, bytes and JSON.

use anyhow::Context as _;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value, json};

use crate::batch::locate::Place;
use crate::config::{Field, Role};
use crate::event::Headers;

/// A record that is a dead letter, or one that was asked for and is none.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub pipeline: String,
    pub place: Place,
    pub ingested: String,
    /// `unparsed`, `future`, or `refused` by silver's rules; `ok` or `late` where it is no dead letter.
    pub status: String,
    pub reason: String,
    /// The record's value: its bytes, or the event that its columns stand for; none for a tombstone.
    pub value: Option<Vec<u8>>,
    pub key: Option<Vec<u8>>,
    /// None where the table that it was found in keeps no headers.
    pub headers: Option<Headers>,
    /// The records that resolve it.
    pub resolved_by: Vec<String>,
}

impl Letter {
    /// Reads a row that has the columns `letter_status` and `letter_reason` besides the table's.
    pub fn read(pipeline: &str, fields: &[Field], batch: &RecordBatch, row: usize) -> anyhow::Result<Self> {
        let column = |name| text(batch, name, row).map(Option::unwrap_or_default);
        let status = column("letter_status")?;
        // An event whose columns say everything has no payload of its own; what is no event has no columns.
        let value = match bytes(batch, "payload", row) {
            None if status != "unparsed" => Some(event(fields, batch, row)?.into_bytes()),
            payload => payload,
        };
        let place = Place {
            topic: column("topic")?,
            generation: column("generation")?.parse().context("a generation")?,
            partition: column("partition")?.parse().context("a partition")?,
            offset: column("offset")?.parse().context("an offset")?,
        };
        let headers = batch.column_by_name("headers").map(|_| headers(batch, row).unwrap_or_default());
        Ok(Self {
            pipeline: pipeline.to_owned(),
            place,
            ingested: column("ingestion_time")?,
            status,
            reason: column("letter_reason")?,
            value,
            key: bytes(batch, "key", row),
            headers,
            resolved_by: Vec::new(),
        })
    }

    /// Whether silver refuses it, or will.
    pub fn is_dead(&self) -> bool {
        ["unparsed", "future", "refused"].contains(&self.status.as_str())
    }

    /// `topic/generation/partition/offset`.
    pub fn source(&self) -> String {
        self.place.to_string()
    }

    /// `open`, or `resolved`.
    pub fn state(&self) -> &'static str {
        if self.resolved_by.is_empty() { "open" } else { "resolved" }
    }

    pub fn json(&self) -> Value {
        json!({
            "pipeline": self.pipeline,
            "source": self.source(),
            "ingestion_time": self.ingested,
            "time_status": self.status,
            "reason": self.reason,
            "state": self.state(),
            "resolved_by": self.resolved_by,
            "payload": self.value.as_deref().map(bytes_as_json),
            "key": self.key.as_deref().map(bytes_as_json),
        })
    }
}

/// The event that a row's columns stand for, as JSON.
fn event(fields: &[Field], batch: &RecordBatch, row: usize) -> anyhow::Result<String> {
    let mut members = Vec::new();
    for field in fields {
        let is_time = field.role == Some(Role::EventTime);
        let column = if is_time { "event_time" } else { field.name.as_str() };
        let value = match cell_as_json(batch, column, row)? {
            // Without a payload it was written like this.
            Value::String(time) if is_time => Value::from(time.trim_end_matches('Z')),
            value => value,
        };
        if value != Value::Null {
            members.push(format!("{}:{value}", Value::from(field.name.as_str())));
        }
    }
    Ok(format!("{{{}}}", members.join(",")))
}

/// A cell as text; none where it is null.
pub(crate) fn text(batch: &RecordBatch, name: &str, row: usize) -> anyhow::Result<Option<String>> {
    let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    Ok(if column.is_null(row) { None } else { Some(array_value_to_string(column, row)?) })
}

/// A cell's bytes; none where it is null or no bytes.
pub(crate) fn bytes(batch: &RecordBatch, name: &str, row: usize) -> Option<Vec<u8>> {
    let column = batch.column_by_name(name)?;
    if column.is_null(row) {
        return None;
    }
    if let Some(binary) = column.as_binary_opt::<i32>() {
        return Some(binary.value(row).to_vec());
    }
    column.as_binary_view_opt().map(|view| view.value(row).to_vec())
}

/// A text where the bytes are one, else `{"hex": "…"}`.
pub(crate) fn bytes_as_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "hex": bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() }),
    }
}

/// A record's headers; none where it has none.
pub(crate) fn headers(batch: &RecordBatch, row: usize) -> Option<Headers> {
    let list = batch.column_by_name("headers")?.as_list_opt::<i32>()?;
    if list.is_null(row) {
        return None;
    }
    let elements = list.value(row);
    let elements = elements.as_struct_opt()?;
    let fields = arrow::datatypes::Schema::new(elements.fields().clone());
    let columns = RecordBatch::try_new(fields.into(), elements.columns().to_vec()).ok()?;
    let element = |i| Some((text(&columns, "key", i).ok()??, bytes(&columns, "value", i)));
    (0..elements.len()).map(element).collect()
}

fn cell_as_json(batch: &RecordBatch, name: &str, row: usize) -> anyhow::Result<Value> {
    if name == "headers" {
        return Ok(headers(batch, row).map_or(Value::Null, |headers| {
            let element = |(key, value): (String, Option<Vec<u8>>)| {
                json!({"key": key, "value": value.as_deref().map(bytes_as_json)})
            };
            headers.into_iter().map(element).collect()
        }));
    }
    if let Some(bytes) = bytes(batch, name, row) {
        return Ok(bytes_as_json(&bytes));
    }
    let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    let Some(text) = text(batch, name, row)? else { return Ok(Value::Null) };
    let kind = column.data_type();
    Ok(if kind.is_integer() || kind.is_floating() || *kind == arrow::datatypes::DataType::Boolean {
        serde_json::from_str(&text).unwrap_or(Value::from(text))
    } else {
        Value::from(text)
    })
}

/// A row's columns by name.
pub(crate) fn row_as_json(pipeline: &str, batch: &RecordBatch) -> anyhow::Result<Map<String, Value>> {
    let mut object = Map::new();
    object.insert("pipeline".into(), pipeline.into());
    for field in batch.schema().fields() {
        object.insert(field.name().clone(), cell_as_json(batch, field.name(), 0)?);
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_hexadecimal() {
        assert_eq!(bytes_as_json(b"ab"), json!("ab"));
        assert_eq!(bytes_as_json(b"\xff\x00"), json!({"hex": "ff00"}));
    }
}
