//! A gold model: one SQL statement over silver and other models, with a header that says what its rows are.

mod expect;
mod header;

use std::path::PathBuf;
use std::sync::Arc;

pub use header::{ColumnDoc, Header, Kind};

use crate::config::{ConfigError, ModelFile, Origin};

/// A model as its file has it; whether its SQL fits the tables is the [`super::graph`]'s business.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The file's name without `.sql`: the table's name in `gold/`.
    pub name: String,
    /// The file, for messages.
    pub file: Arc<PathBuf>,
    pub header: Header,
    /// The whole file, header and all: lines of the SQL are lines of the file.
    pub sql: String,
}

/// Names that no model may have: tables of the platform's own in `gold/` and in ClickHouse's database `gold`.
const RESERVED: [&str; 4] = ["published", "freshness", "progress", "expectation_results"];
/// What stands between the name of a served model and the mark of its columns, in the name of its table of rows.
pub const ROWS_INFIX: &str = "_rows_";

impl Model {
    /// Reads a model's file. All mistakes are given at once.
    pub fn parse(file: &ModelFile) -> Result<Self, Vec<ConfigError>> {
        let mut mistakes = Mistakes::new(&file.path);
        if let Some(why) = bad_name(&file.name) {
            mistakes.add(
                None,
                format!("the model's name `{}` {why}", file.name),
                "rename the file, as in user_days.sql",
            );
        }
        let header = header::parse(&file.text, &mut mistakes);
        match header {
            Some(header) if mistakes.found.is_empty() => {
                Ok(Self { name: file.name.clone(), file: file.path.clone(), header, sql: file.text.clone() })
            }
            _ => Err(mistakes.found),
        }
    }
}

/// Why a text cannot be a table's name.
fn bad_name(name: &str) -> Option<&'static str> {
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Some("begins with no small letter");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Some("has other characters than small letters, digits and underscores");
    }
    if name.len() > 64 {
        return Some("is longer than 64 characters");
    }
    if RESERVED.contains(&name) || name.contains(ROWS_INFIX) {
        return Some("is one of the platform's own tables");
    }
    None
}

/// Collects the mistakes of one model's file.
pub(super) struct Mistakes<'a> {
    file: &'a Arc<PathBuf>,
    pub found: Vec<ConfigError>,
}

impl<'a> Mistakes<'a> {
    pub fn new(file: &'a Arc<PathBuf>) -> Self {
        Self { file, found: Vec::new() }
    }

    /// Notes a mistake in a line (from 1), or in the file as a whole.
    pub fn add(&mut self, line: Option<usize>, message: impl Into<String>, hint: impl Into<String>) {
        let hint: String = hint.into();
        self.found.push(ConfigError {
            origin: Origin::File { path: self.file.clone(), line },
            message: message.into(),
            hint: (!hint.is_empty()).then_some(hint),
        });
    }
}
