//! The comment block at the top of a model's file.
//!
//! ```sql
//! -- description: Distinct users of each day.
//! -- kind: by_date
//! -- partition: event_date
//! -- grain: event_date
//! -- lookback_days: 0
//! -- clickhouse: gold.daily_active_users
//! -- column event_date: The day, in UTC.
//! -- expect some_users: range(dau_count, 1) fail
//! -- column dau_count: Users with at least one event on that day;
//! --   a line that is indented goes on with the one above.
//! ```
//!
//! The block ends at the first line that is no comment. Comments further down are the SQL's own.

use super::{Mistakes, bad_name, expect};
use crate::config::Expectation;

/// How a model is kept up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A date's rows are a function of that date's rows in its inputs (and of those `lookback_days` before it): only
    /// touched dates are computed again.
    ByDate,
    /// One table as of now, computed whole from models by date.
    Snapshot,
}

/// What a model says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// What a row is, in a sentence.
    pub description: String,
    pub kind: Kind,
    /// The columns that together are unique.
    pub grain: Vec<String>,
    /// The column of the date; of models by date alone.
    pub partition: Option<String>,
    /// How many days before a date its rows depend on.
    pub lookback_days: u32,
    /// The view in ClickHouse's database `gold`; none: not served.
    pub clickhouse: Option<String>,
    /// Every column, in the order of the header.
    pub columns: Vec<ColumnDoc>,
    /// What its rows are held against before they are served, with the line of each.
    pub expectations: Vec<(Expectation, usize)>,
    /// Lines of the keys, for messages.
    lines: Vec<(String, usize)>,
}

/// What a column means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDoc {
    pub name: String,
    pub doc: String,
    /// Line of the file, from 1.
    pub line: usize,
}

const KEYS: &str = "description, kind, partition, grain, lookback_days, clickhouse, column NAME, expect NAME";
/// Longest look back that is taken for meant.
const LOOKBACK_MAX: u32 = 366;

impl Header {
    /// The line of a key, from 1; the first where the key is left out.
    pub fn line(&self, key: &str) -> usize {
        self.lines.iter().find(|(k, _)| k == key).map_or(1, |(_, line)| *line)
    }
}

/// A `key: value` of the block.
struct Entry {
    key: String,
    value: String,
    line: usize,
}

/// Reads the header; none where a key that everything else needs is missing or wrong.
pub(super) fn parse(text: &str, mistakes: &mut Mistakes<'_>) -> Option<Header> {
    let entries = entries(text, mistakes);
    let mut columns: Vec<ColumnDoc> = Vec::new();
    let mut expectations = Vec::new();
    let mut lines: Vec<(String, usize)> = Vec::new();
    let (mut description, mut kind, mut grain, mut partition) = (None, None, Vec::new(), None);
    let (mut lookback_days, mut clickhouse, mut served) = (0, None, false);
    for Entry { key, value, line } in entries {
        if let Some(name) = key.strip_prefix("expect ").map(str::trim) {
            match expect::parse(name, &value) {
                Ok(expectation) => expectations.push((expectation, line)),
                Err(message) => mistakes.add(Some(line), message, expect::HINT),
            }
            continue;
        }
        if let Some(name) = key.strip_prefix("column ").map(str::trim) {
            if columns.iter().any(|c| c.name == name) {
                mistakes.add(Some(line), format!("column `{name}` is described twice"), "leave one out");
            }
            columns.push(ColumnDoc { name: name.to_owned(), doc: value, line });
            continue;
        }
        if lines.iter().any(|(k, _)| *k == key) {
            mistakes.add(Some(line), format!("`{key}` is there twice"), "leave one out");
        }
        lines.push((key.clone(), line));
        match key.as_str() {
            "description" => description = Some(value),
            "kind" => match value.as_str() {
                "by_date" => kind = Some(Kind::ByDate),
                "snapshot" => kind = Some(Kind::Snapshot),
                other => mistakes.add(
                    Some(line),
                    format!("`kind` is `{other}`"),
                    "by_date (computed again per touched date) or snapshot (one table as of now)",
                ),
            },
            "grain" => grain = value.split(',').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect(),
            "partition" => partition = Some(value),
            "lookback_days" => match value.parse() {
                Ok(days) if days <= LOOKBACK_MAX => lookback_days = days,
                _ => mistakes.add(
                    Some(line),
                    format!("`lookback_days` is `{value}`"),
                    format!("a whole number of days, at most {LOOKBACK_MAX}"),
                ),
            },
            "clickhouse" => {
                served = true;
                clickhouse = target(&value, line, mistakes);
            }
            other => {
                mistakes.add(Some(line), format!("`{other}` is no key of a model's header"), format!("keys are {KEYS}"))
            }
        }
    }
    let at = |key: &str| lines.iter().find(|(k, _)| k == key).map(|(_, line)| *line);
    let mut missing = |key: &str, hint: &str| {
        mistakes.add(Some(1), format!("the header has no `{key}`"), format!("add the line `-- {key}: {hint}`"));
    };
    if description.as_ref().is_none_or(String::is_empty) {
        missing("description", "what a row is, in a sentence");
    }
    if grain.is_empty() {
        missing("grain", "the columns that together are unique, separated by commas");
    }
    if !served {
        missing("clickhouse", "gold.NAME, or none");
    }
    if kind.is_none() && at("kind").is_none() {
        missing("kind", "by_date or snapshot");
    }
    if kind == Some(Kind::ByDate) && partition.is_none() {
        missing("partition", "the column of the date");
    }
    if kind == Some(Kind::Snapshot) {
        for key in ["partition", "lookback_days"] {
            if let Some(line) = at(key) {
                mistakes.add(
                    Some(line),
                    format!("a snapshot has no `{key}`"),
                    "take the line out, or make it kind: by_date",
                );
            }
        }
        if let (Some(_), Some(line)) = (&clickhouse, at("clickhouse")) {
            let hint = "served models are published date by date: use kind: by_date, or clickhouse: none";
            mistakes.add(Some(line), "a snapshot cannot be served from ClickHouse", hint);
        }
    }
    let (description, kind) = (description?, kind?);
    Some(Header { description, kind, grain, partition, lookback_days, clickhouse, columns, expectations, lines })
}

/// The name of the view, without its database.
fn target(value: &str, line: usize, mistakes: &mut Mistakes<'_>) -> Option<String> {
    if value == "none" {
        return None;
    }
    let Some(name) = value.strip_prefix("gold.") else {
        mistakes.add(Some(line), format!("`clickhouse` is `{value}`"), "gold.NAME, or none");
        return None;
    };
    if let Some(why) = bad_name(name) {
        mistakes.add(Some(line), format!("the view's name `{name}` {why}"), "as in gold.daily_active_users");
        return None;
    }
    Some(name.to_owned())
}

/// The block's entries, continuation lines joined.
fn entries(text: &str, mistakes: &mut Mistakes<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(i, l)| (i + 1, l)) {
        let Some(comment) = line.strip_prefix("--") else { break };
        if comment.starts_with("   ")
            && let Some(entry) = entries.last_mut()
        {
            entry.value = format!("{} {}", entry.value, comment.trim()).trim().to_owned();
            continue;
        }
        match comment.split_once(':') {
            Some((key, value)) => {
                entries.push(Entry { key: key.trim().to_owned(), value: value.trim().to_owned(), line: number });
            }
            None => mistakes.add(
                Some(number),
                format!("`{}` is no `-- key: value`", line.trim()),
                "the comment block at the top is the model's header; other comments go below it, after a blank line",
            ),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::super::Model;
    use super::*;
    use crate::config::{ConfigError, ModelFile, Origin};

    const GOOD: &str = "\
-- description: Distinct users
--   of each day.
-- kind: by_date
-- partition: event_date
-- grain: event_date , source
-- clickhouse: gold.dau
-- column event_date: The day: in UTC.
-- column source: Where from.

-- a comment of the SQL: its own
SELECT 1
";

    fn read(text: &str) -> Result<Model, Vec<ConfigError>> {
        Model::parse(&ModelFile { name: "dau".into(), path: Arc::new(PathBuf::from("dau.sql")), text: text.into() })
    }

    fn mistakes(text: &str) -> Vec<(Option<usize>, String)> {
        let line = |e: &ConfigError| match e.origin {
            Origin::File { line, .. } => line,
            _ => None,
        };
        read(text).expect_err("a mistake").iter().map(|e| (line(e), e.message.clone())).collect()
    }

    #[test]
    fn a_header_is_read_whole() {
        let header = read(GOOD).expect("right").header;
        assert_eq!(header.description, "Distinct users of each day.");
        assert_eq!((header.kind, header.lookback_days), (Kind::ByDate, 0));
        assert_eq!(header.grain, ["event_date", "source"]);
        assert_eq!(header.partition.as_deref(), Some("event_date"));
        assert_eq!(header.clickhouse.as_deref(), Some("dau"));
        let docs: Vec<_> = header.columns.iter().map(|c| (c.name.as_str(), c.doc.as_str(), c.line)).collect();
        assert_eq!(docs, [("event_date", "The day: in UTC.", 7), ("source", "Where from.", 8)]);
        assert_eq!(header.line("grain"), 5);
    }

    #[test]
    fn every_mistake_has_its_line() {
        assert_eq!(mistakes(&GOOD.replace("by_date", "daily")), [(Some(3), "`kind` is `daily`".into())]);
        assert_eq!(
            mistakes(&GOOD.replace("-- grain: event_date , source\n", "")),
            [(Some(1), "the header has no `grain`".into())]
        );
        assert_eq!(
            mistakes(&GOOD.replace("gold.dau", "dau").replace("-- kind", "-- lookback_days: x\n-- kind")),
            [(Some(3), "`lookback_days` is `x`".into()), (Some(7), "`clickhouse` is `dau`".into())]
        );
        assert_eq!(
            mistakes(&GOOD.replace("column source", "column event_date")),
            [(Some(8), "column `event_date` is described twice".into())]
        );
        assert_eq!(
            mistakes(&GOOD.replace("grain:", "grian:"))[0],
            (Some(5), "`grian` is no key of a model's header".into())
        );
        assert_eq!(mistakes(&GOOD.replace("gold.dau", "gold.published"))[0].0, Some(6));
    }

    #[test]
    fn a_snapshot_has_no_date_and_is_not_served() {
        let found = mistakes(&GOOD.replace("by_date", "snapshot"));
        assert_eq!(found.iter().map(|(line, _)| line.unwrap_or(0)).collect::<Vec<_>>(), [4, 6]);
    }
}
