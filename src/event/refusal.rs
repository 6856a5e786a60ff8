//! Why a record is no event, in one short line that names the field.

use std::fmt;

use super::timestamp::NoTimestamp;
use crate::config::FieldType;

/// Characters of a value that an error shows at most.
const SHOWN: usize = 40;

/// Why a record is no event; its text is the row's `parse_error`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal<'a> {
    #[error("tombstone (null value)")]
    Tombstone,
    #[error("empty value")]
    Empty,
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 { at: usize },
    #[error("not JSON: {what} at byte {at}")]
    NotJson { what: &'static str, at: usize },
    #[error("expected an object, found {found}")]
    NotObject { found: &'static str },
    #[error("{field}: missing")]
    Missing { field: &'a str },
    #[error("{field}: expected {}, found {found}", Expected(*.expected))]
    Type { field: &'a str, expected: FieldType, found: &'static str },
    #[error("{field}: expected int, found {}", Shown(.number))]
    NotInt { field: &'a str, number: &'a [u8] },
    #[error("{field}: {} does not fit signed 64 bits", Shown(.number))]
    IntRange { field: &'a str, number: &'a [u8] },
    #[error("{field}: {} does not fit a double", Shown(.number))]
    FloatRange { field: &'a str, number: &'a [u8] },
    #[error("{field}: {} {why}", Shown(.text))]
    Timestamp { field: &'a str, text: &'a [u8], why: NoTimestamp },
}

/// A type as the pipeline names it.
struct Expected(FieldType);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            FieldType::String => "string",
            FieldType::Int => "int",
            FieldType::Float => "float",
            FieldType::Bool => "bool",
            FieldType::Timestamp => "timestamp",
        })
    }
}

/// The beginning of a value, escaped, so that an error is one short line whatever a producer sends.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Four bytes a character at most, so the cut cannot fall short of what is shown.
        let text = String::from_utf8_lossy(&self.0[..self.0.len().min(4 * (SHOWN + 1))]);
        if text.is_empty() {
            return f.write_str("an empty string");
        }
        for c in text.chars().take(SHOWN) {
            write!(f, "{}", c.escape_debug())?;
        }
        if text.chars().nth(SHOWN).is_some() { f.write_str("…") } else { Ok(()) }
    }
}
