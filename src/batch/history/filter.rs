//! Which runs are listed.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::record::RUN;
use super::{Cause, History, HistoryError, Run, RunState, micros};
use crate::batch::run::graph::Kind;

/// What runs must be to be listed; what is none is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    pub pipeline: Option<String>,
    pub state: Option<RunState>,
    pub cause: Option<Cause>,
    pub kind: Option<Kind>,
    /// Runs of slots from this moment on; a run by hand counts as of when it was asked for.
    pub from: Option<DateTime<Utc>>,
    /// Runs of slots before this moment.
    pub before: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether every run is listed.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

impl History {
    /// The newest runs that fit, newest first.
    pub async fn runs_that(&self, filter: &Filter, limit: u32) -> Result<Vec<Run>, HistoryError> {
        let texts = [
            ("pipeline = ?", filter.pipeline.as_deref()),
            ("state = ?", filter.state.map(RunState::as_str)),
            ("cause = ?", filter.cause.map(Cause::as_str)),
            ("graph = ?", filter.kind.map(Kind::as_str)),
        ];
        let moments = [
            ("COALESCE(slot_us, requested_us) >= ?", filter.from.map(micros)),
            ("COALESCE(slot_us, requested_us) < ?", filter.before.map(micros)),
        ];
        let texts: Vec<_> = texts.into_iter().filter_map(|(is, value)| Some((is, value?))).collect();
        let moments: Vec<_> = moments.into_iter().filter_map(|(is, value)| Some((is, value?))).collect();
        let wanted: Vec<&str> = texts.iter().map(|(is, _)| *is).chain(moments.iter().map(|(is, _)| *is)).collect();
        let filter = if wanted.is_empty() { String::new() } else { format!("WHERE {}", wanted.join(" AND ")) };
        let sql = format!("SELECT {RUN} FROM runs {filter} ORDER BY run_id DESC LIMIT ?");
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (_, value) in texts {
            query = query.bind(value);
        }
        for (_, value) in moments {
            query = query.bind(value);
        }
        let rows = query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(self.error("listing runs"))?;
        rows.iter().map(|row| self.read_run(row)).collect()
    }
}
