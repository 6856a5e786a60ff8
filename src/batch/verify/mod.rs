//! Is it right? Silver beside Bronze, gold beside silver, what ClickHouse serves beside gold: row by row, for people who
//! want to know. Nothing is written.
//!
//! Each table is compared as of the version that it says it was made from, so that a run in between changes no verdict:
//! what came later is *not yet run*. What should be there is counted by rules written a second time, in SQL, so that a
//! fault of the code that made the rows cannot hide itself. Only gold's own rules, the models, are run as they are.
//!
//! Rows are sorted by DataFusion within `batch.memory`, a date or a part of one at a time, and compared as they stream by:
//! a row with its partner, every column by its value. A date that does not fit is read once and dealt out ([`part`]).

mod gold;
mod part;
mod refused;
mod rows;
mod served;
mod silver;
mod sql;

use chrono::NaiveDate;
use deltalake::{DeltaTable, DeltaTableError};
use serde::Serialize;

pub use gold::verify_gold;
pub use refused::verify_refused;
pub use rows::{Example, Kind, OnDate};
pub use served::verify_served;
pub use silver::{SilverCheck, verify_silver};

use rows::Tally;

/// Event dates that are looked at, both ends included; all without limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    pub from: Option<NaiveDate>,
    pub to: Option<NaiveDate>,
}

impl Scope {
    pub fn holds(&self, date: NaiveDate) -> bool {
        self.from.is_none_or(|from| date >= from) && self.to.is_none_or(|to| date <= to)
    }

    /// Whether every date is looked at.
    pub fn is_everything(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Same,
    Different,
    /// There is nothing to compare until the batch has run.
    NotYetRun,
    /// The question did not ask for it.
    LeftOut,
    /// It could not be compared; the notes say why.
    NotChecked,
}

/// One date on which rows differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DateDifference {
    pub date: NaiveDate,
    #[serde(flatten)]
    pub rows: OnDate,
}

/// One table beside what it should be.
#[derive(Debug, Clone, Serialize)]
pub struct TableCheck {
    pub pipeline: String,
    /// As `silver.user_events`; of ClickHouse the view, as `gold.daily_active_users`.
    pub table: String,
    /// Version of the Delta table that was looked at.
    pub version: Option<u64>,
    /// Version of the table that it was made from.
    pub source_version: Option<u64>,
    /// Rows that should be there.
    pub checked_rows: u64,
    pub missing_rows: u64,
    pub unknown_rows: u64,
    pub differing_rows: u64,
    /// Dates on which rows differ, the earliest first.
    pub dates: Vec<DateDifference>,
    pub examples: Vec<Example>,
    pub verdict: Verdict,
    pub notes: Vec<String>,
    /// What to do about a difference.
    pub remedy: Option<String>,
}

impl TableCheck {
    /// A comparison that could not be carried out.
    pub fn failed(pipeline: &str, table: &str, error: &super::BatchError) -> Self {
        Self::new(pipeline, table.to_owned()).ended(Verdict::NotChecked, error.to_string())
    }

    fn new(pipeline: &str, table: String) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            table,
            version: None,
            source_version: None,
            checked_rows: 0,
            missing_rows: 0,
            unknown_rows: 0,
            differing_rows: 0,
            dates: Vec::new(),
            examples: Vec::new(),
            verdict: Verdict::Same,
            notes: Vec::new(),
            remedy: None,
        }
    }

    /// Ends the check without a comparison.
    fn ended(mut self, verdict: Verdict, why: impl Into<String>) -> Self {
        self.verdict = verdict;
        self.notes.push(why.into());
        self
    }

    /// Ends the check with what was counted; `remedy` is for a difference.
    fn counted(mut self, tally: Tally, remedy: impl FnOnce(&[DateDifference]) -> String) -> Self {
        if tally.differs() {
            self.verdict = Verdict::Different;
        }
        self.checked_rows = tally.expected;
        self.missing_rows = tally.missing;
        self.unknown_rows = tally.unknown;
        self.differing_rows = tally.differing;
        self.dates = tally.dates.into_iter().map(|(date, rows)| DateDifference { date, rows }).collect();
        self.examples = tally.examples;
        if self.verdict == Verdict::Different {
            self.remedy = Some(remedy(&self.dates));
        }
        self
    }
}

/// A table as of a version; as it is where it has that one in hand.
async fn at_version(table: DeltaTable, version: u64) -> Result<DeltaTable, DeltaTableError> {
    if table.version() == Some(version) {
        return Ok(table);
    }
    let mut earlier = DeltaTable::new(table.log_store());
    earlier.load_version(version).await?;
    Ok(earlier)
}

/// Is told how far a comparison is.
pub trait Watch: Sync {
    /// A table's comparison begins; about so many rows are to come.
    fn begin(&self, table: &str, rows: u64);
    fn rows(&self, done: u64);
}

/// For comparisons that nobody watches.
pub struct Unwatched;

impl Watch for Unwatched {
    fn begin(&self, _table: &str, _rows: u64) {}
    fn rows(&self, _done: u64) {}
}
