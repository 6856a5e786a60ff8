//! Gold in ClickHouse: rows of runs, the dates that each run has published, views over published rows.
//!
//! A run's rows are inserted beside those of earlier runs; one insert into `gold.published` then shows its dates in all
//! views at once. Whoever reads sees the old rows of a date or the new ones, in every view the same run's. The version
//! of a published date is the version of silver that the run has read, so that a run that was held up never wins.
//! This room knows nothing of Delta: rows come as Arrow batches.

mod leftover;
mod publish;
mod read;
mod rows;
mod tables;

use std::fmt::Write;

use sha2::{Digest, Sha256};

pub use leftover::GoldLeftover;
pub use publish::{GoldStanding, GoldSteps, LayerFreshness, Publication, SilverMark};
pub use rows::{GoldRowError, gold_row_binary};
pub use tables::GoldReady;

use publish::of_days;

/// A model as ClickHouse serves it: the view `gold.<view>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedModel {
    /// The view's name; checked by the model's reader: small letters, digits and underscores.
    pub view: String,
    pub description: String,
    /// The column of the date that rows are published by.
    pub date: String,
    /// The columns that are unique together, the date among them.
    pub grain: Vec<String>,
    /// In the order of the view.
    pub columns: Vec<ServedColumn>,
}

/// A column of a served model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedColumn {
    pub name: String,
    pub kind: ServedType,
    /// Whether a row may have no value. Columns of the grain always have one.
    pub nullable: bool,
    pub doc: String,
}

/// The types that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedType {
    /// The date that rows are published by: 1970 to 2149.
    Day,
    Date,
    Int32,
    Int64,
    Float64,
    Bool,
    Text,
    /// Microseconds, UTC.
    Timestamp,
}

impl ServedColumn {
    /// The column's type in ClickHouse.
    fn clickhouse_type(&self) -> String {
        let kind = match self.kind {
            ServedType::Day => "Date",
            ServedType::Date => "Date32",
            ServedType::Int32 => "Int32",
            ServedType::Int64 => "Int64",
            ServedType::Float64 => "Float64",
            ServedType::Bool => "Bool",
            ServedType::Text => "String",
            ServedType::Timestamp => "DateTime64(6, 'UTC')",
        };
        if self.nullable { format!("Nullable({kind})") } else { kind.to_owned() }
    }
}

impl ServedModel {
    /// The table of rows with these columns: another set of columns is another table.
    fn rows_table(&self) -> String {
        let mut hash = Sha256::new();
        for column in &self.columns {
            hash.update(format!("{} {}\n", column.name, column.clickhouse_type()));
        }
        hash.update(format!("{:?} {}", self.grain, self.date));
        let mark = hash.finalize().iter().take(4).fold(String::new(), |mut text, b| {
            let _ = write!(text, "{b:02x}");
            text
        });
        format!("{}{ROWS_INFIX}{mark}", self.view)
    }

    /// The columns of the grain, the date first: the order of rows wherever they are compared.
    pub fn order(&self) -> impl Iterator<Item = &str> {
        let rest = self.grain.iter().map(String::as_str).filter(|g| *g != self.date);
        std::iter::once(self.date.as_str()).chain(rest)
    }

    /// The columns by name, in order, as SQL.
    fn column_list(&self) -> String {
        self.columns.iter().map(|c| format!("`{}`", c.name)).collect::<Vec<_>>().join(", ")
    }
}

/// What stands between the view's name and the mark of its columns in the name of its table of rows.
const ROWS_INFIX: &str = "_rows_";

/// `gold.`name``. Names are checked when models are read; this is the last door before SQL.
fn table(name: &str) -> String {
    let safe: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    format!("gold.`{safe}`")
}

/// A text as a literal of ClickHouse's SQL.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted() {
        assert_eq!(literal(r"it's \ here"), r"'it\'s \\ here'");
        assert_eq!(table("a`; DROP"), "gold.`aDROP`");
    }
}
