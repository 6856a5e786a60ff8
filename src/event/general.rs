//! The general parser: decides of every record whether it is an event. The scanner only takes its short cut where it
//! would have decided the same.

use std::ops::Range;
use std::sync::Arc;

use super::columns::{Cell, ColumnSet};
use super::float;
use super::json::{Malformed, Reader, Text, Value};
use super::refusal::Refusal;
use super::schema::{FieldSpec, Schema};
use super::timestamp::{self, NoTimestamp};
use crate::config::FieldType;

/// Bytes of decoded strings whose buffer stays from record to record.
const SCRATCH_KEPT: usize = 64 << 10;

/// Values of a record that the scanner is told of at most.
const SPANS_MAX: usize = 256;

/// Reads one record at a time; its buffers stay for the next.
pub(crate) struct GeneralParser {
    schema: Arc<Schema>,
    /// One per field: what its last key said.
    slots: Vec<Slot>,
    /// Strings that had escapes, decoded.
    scratch: Vec<u8>,
    /// Where the values stand, in the order of the record.
    spans: Vec<Span>,
}

/// Where a value stands in a record; a string without its quotes.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub of: SpanOf,
    pub range: Range<usize>,
}

/// Whose value a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanOf {
    Field(usize),
    /// A field that is null.
    Null(usize),
    /// A string under an unknown key.
    OtherText,
    /// A number under an unknown key.
    OtherNumber,
    /// `true`, `false` or `null` under an unknown key.
    OtherWord,
}

/// An event that the parser accepted and wrote to the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Whether the columns alone could not give the same JSON value back.
    pub keep_payload: bool,
    /// Whether [`GeneralParser::spans`] name all there is in the record: each field once, and nothing nested.
    pub plain: bool,
}

#[derive(Debug, Clone)]
enum Slot {
    Missing,
    Null,
    Int(i64),
    Float(f64),
    Bool(bool),
    Time(i64),
    Text(Text),
    Wrong(Wrong),
}

/// A value that is not of the declared type.
#[derive(Debug, Clone)]
enum Wrong {
    Type(&'static str),
    NotInt(Range<usize>),
    IntRange(Range<usize>),
    FloatRange(Range<usize>),
    Timestamp(Text, NoTimestamp),
}

impl GeneralParser {
    pub fn new(schema: Arc<Schema>) -> Self {
        Self { slots: Vec::with_capacity(schema.len()), schema, scratch: Vec::new(), spans: Vec::new() }
    }

    /// The values of the record that was accepted last.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Writes an event into `row` of the columns, or says why the record is none; the row is then null.
    pub fn parse<'a>(
        &'a mut self,
        value: &'a [u8],
        row: usize,
        columns: &mut ColumnSet,
    ) -> Result<Accepted, Refusal<'a>> {
        let accepted = match self.read(value) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                columns.set_row_null(row);
                return Err(refusal);
            }
        };
        let wrong = self.schema.fields.iter().zip(&self.slots).position(|(field, slot)| match slot {
            Slot::Wrong(_) => true,
            Slot::Missing | Slot::Null => field.required,
            _ => false,
        });
        if let Some(index) = wrong {
            columns.set_row_null(row);
            return Err(self.refusal(index, value));
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let cell = match slot {
                Slot::Int(v) | Slot::Time(v) => Cell::Long(*v),
                Slot::Float(v) => Cell::Float(*v),
                Slot::Bool(v) => Cell::Bool(*v),
                Slot::Text(text) => Cell::Text(text.bytes(value, &self.scratch)),
                Slot::Missing | Slot::Null | Slot::Wrong(_) => Cell::Null,
            };
            columns.set(index, row, cell);
        }
        Ok(accepted)
    }

    /// Reads the whole record into the slots.
    fn read(&mut self, value: &[u8]) -> Result<Accepted, Refusal<'static>> {
        self.slots.clear();
        self.slots.resize(self.schema.len(), Slot::Missing);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT);
        self.spans.clear();
        let mut reader = begin(value)?;
        let mut accepted = Accepted { keep_payload: false, plain: true };
        let found = match reader.peek() {
            Some(b'{') => {
                self.object(&mut reader, value, &mut accepted)?;
                None
            }
            _ => Some(reader.value(0, &mut self.scratch)?),
        };
        reader.end()?;
        match found {
            Some(found) => Err(Refusal::NotObject { found: kind(&found) }),
            None => Ok(accepted),
        }
    }

    fn object(&mut self, reader: &mut Reader, value: &[u8], accepted: &mut Accepted) -> Result<(), Malformed> {
        let mut guess = 0;
        let mut more = reader.open_object();
        while more {
            let key = reader.text(&mut self.scratch)?;
            let field = self.schema.find(key.bytes(value, &self.scratch), guess);
            reader.colon()?;
            let start = reader.at;
            let read = reader.value(1, &mut self.scratch)?;
            let quote = usize::from(matches!(read, Value::Text(_)));
            let range = start + quote..reader.at - quote;
            let of = match (field, &read) {
                (Some(index), _) if !matches!(self.slots[index], Slot::Missing) => None,
                (Some(index), Value::Null) => Some(SpanOf::Null(index)),
                (Some(index), _) => Some(SpanOf::Field(index)),
                (None, Value::Text(_)) => Some(SpanOf::OtherText),
                (None, Value::Number(_)) => Some(SpanOf::OtherNumber),
                (None, Value::Null | Value::Bool(_)) => Some(SpanOf::OtherWord),
                (None, Value::Array | Value::Object) => None,
            };
            match of {
                Some(of) if self.spans.len() < SPANS_MAX => self.spans.push(Span { of, range }),
                Some(_) => accepted.plain = false,
                None => {
                    accepted.plain = false;
                    accepted.keep_payload = true;
                }
            }
            match field {
                None => accepted.keep_payload = true,
                Some(index) => {
                    let (slot, keep) = slot(&self.schema.fields[index], read, value, &self.scratch);
                    self.slots[index] = slot;
                    accepted.keep_payload |= keep;
                    guess = index + 1;
                }
            }
            more = reader.next_member()?;
        }
        Ok(())
    }

    /// Why field `index` makes the record no event.
    fn refusal<'a>(&'a self, index: usize, value: &'a [u8]) -> Refusal<'a> {
        let FieldSpec { name: field, kind: expected, .. } = &self.schema.fields[index];
        let expected = *expected;
        match &self.slots[index] {
            Slot::Null => Refusal::Type { field, expected, found: "null" },
            Slot::Wrong(Wrong::Type(found)) => Refusal::Type { field, expected, found },
            Slot::Wrong(Wrong::NotInt(range)) => Refusal::NotInt { field, number: &value[range.clone()] },
            Slot::Wrong(Wrong::IntRange(range)) => Refusal::IntRange { field, number: &value[range.clone()] },
            Slot::Wrong(Wrong::FloatRange(range)) => Refusal::FloatRange { field, number: &value[range.clone()] },
            Slot::Wrong(Wrong::Timestamp(text, why)) => {
                let text = text.bytes(value, &self.scratch);
                let shown = if *why == NoTimestamp::Date { &text[..10] } else { text };
                Refusal::Timestamp { field, text: shown, why: *why }
            }
            _ => Refusal::Missing { field },
        }
    }
}

/// A reader at a record's value, of which nothing is known yet.
pub(super) fn begin(value: &[u8]) -> Result<Reader<'_>, Refusal<'static>> {
    if value.is_empty() {
        return Err(Refusal::Empty);
    }
    std::str::from_utf8(value).map_err(|e| Refusal::NotUtf8 { at: e.valid_up_to() })?;
    let mut reader = Reader::new(value);
    reader.skip_space();
    Ok(reader)
}

impl From<Malformed> for Refusal<'_> {
    fn from(m: Malformed) -> Self {
        Refusal::NotJson { what: m.what, at: m.at }
    }
}

/// What a value is to a field, and whether the column alone could not give it back.
fn slot(field: &FieldSpec, read: Value, value: &[u8], scratch: &[u8]) -> (Slot, bool) {
    match (field.kind, read) {
        (_, Value::Null) => (Slot::Null, true),
        (FieldType::String, Value::Text(text)) => (Slot::Text(text), false),
        (FieldType::Bool, Value::Bool(b)) => (Slot::Bool(b), false),
        (FieldType::Int, Value::Number(range)) => int(range, value),
        (FieldType::Float, Value::Number(range)) => {
            let text = std::str::from_utf8(&value[range.clone()]).unwrap_or_default();
            match text.parse::<f64>() {
                Ok(v) if v.is_finite() => (Slot::Float(v), !float::gives_back(v, text)),
                _ => (Slot::Wrong(Wrong::FloatRange(range)), false),
            }
        }
        (FieldType::Timestamp, Value::Text(text)) => match timestamp::parse(text.bytes(value, scratch)) {
            Ok(t) => (Slot::Time(t.micros), !t.canonical),
            Err(why) => (Slot::Wrong(Wrong::Timestamp(text, why)), false),
        },
        (_, other) => (Slot::Wrong(Wrong::Type(kind(&other))), false),
    }
}

fn int(range: Range<usize>, value: &[u8]) -> (Slot, bool) {
    let text = &value[range.clone()];
    if text.iter().any(|b| matches!(b, b'.' | b'e' | b'E')) {
        return (Slot::Wrong(Wrong::NotInt(range)), false);
    }
    match std::str::from_utf8(text).unwrap_or_default().parse() {
        // `-0` is the integer 0, but not every reader of JSON takes it for the same value.
        Ok(v) => (Slot::Int(v), text == b"-0"),
        Err(_) => (Slot::Wrong(Wrong::IntRange(range)), false),
    }
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::Text(_) => "string",
        Value::Array => "array",
        Value::Object => "object",
    }
}
