//! What the history holds, as values.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{History, HistoryError};
use crate::batch::run::graph::{Ended, Outcome, Task};

/// Microseconds since 1970, UTC.
pub fn micros(moment: DateTime<Utc>) -> i64 {
    moment.timestamp_micros()
}

/// The moment of microseconds since 1970; what no calendar has is 1970.
pub fn moment(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

/// An enum that has one name for each value: in the database, in JSON and for people.
macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The value of a name; none that this program knows.
            pub fn read(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

names! {
    /// Where a run stands.
    RunState {
        /// Asked for, or left by a process that went away: somebody is to take it up.
        Waiting = "waiting",
        Running = "running",
        Succeeded = "succeeded",
        /// Bronze was empty.
        Skipped = "skipped",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

impl RunState {
    /// Whether nothing more will happen to it by itself.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Running)
    }
}

impl From<Outcome> for RunState {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Skipped => Self::Skipped,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

names! {
    /// What started a run.
    Cause {
        Schedule = "schedule",
        Manual = "manual",
    }
}

names! {
    /// Where an attempt at a task stands.
    AttemptState {
        Running = "running",
        Succeeded = "succeeded",
        /// Worth another attempt.
        FailedForNow = "failed",
        /// Another attempt would fail alike.
        FailedForGood = "refused",
        Cancelled = "cancelled",
        /// Its process was asked to leave; the run goes on from here.
        Stopped = "stopped",
        /// Its process went away.
        Interrupted = "interrupted",
    }
}

impl From<Ended> for AttemptState {
    fn from(how: Ended) -> Self {
        match how {
            Ended::Succeeded => Self::Succeeded,
            Ended::FailedForNow => Self::FailedForNow,
            Ended::FailedForGood => Self::FailedForGood,
            Ended::Cancelled => Self::Cancelled,
            Ended::Stopped => Self::Stopped,
            Ended::Interrupted => Self::Interrupted,
        }
    }
}

impl AttemptState {
    /// How it ended; one that still runs has been interrupted, for whoever goes on with its run.
    pub fn ended(self) -> Ended {
        match self {
            Self::Succeeded => Ended::Succeeded,
            Self::FailedForNow => Ended::FailedForNow,
            Self::FailedForGood => Ended::FailedForGood,
            Self::Cancelled => Ended::Cancelled,
            Self::Stopped => Ended::Stopped,
            Self::Running | Self::Interrupted => Ended::Interrupted,
        }
    }
}

/// A run of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Sorts by the time of its request, as in `20260206T140500Z-3f9a1c`.
    pub run_id: String,
    pub pipeline: String,
    pub graph: String,
    pub cause: Cause,
    pub state: RunState,
    /// The slot of the schedule; none for a run by hand.
    pub slot: Option<DateTime<Utc>>,
    pub requested: DateTime<Utc>,
    pub started: Option<DateTime<Utc>>,
    pub ended: Option<DateTime<Utc>>,
    /// The process that runs it, or ran it last.
    pub runner: Option<String>,
    /// Whether somebody asked it to stop.
    pub cancel_asked: bool,
    /// From 1; one more each time that somebody asks for the failed task to be tried anew.
    pub tries: i64,
    pub error: Option<String>,
}

impl Run {
    /// Why it is not gone on with.
    pub fn no_retry(&self) -> String {
        let state = self.state.as_str();
        format!("run {} is {state}; only one that failed or was cancelled is gone on with", self.run_id)
    }

    /// Why it cannot be stopped.
    pub fn no_cancel(&self) -> String {
        format!("run {} is over: it is {}", self.run_id, self.state.as_str())
    }
}

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub task: Task,
    /// From 1.
    pub attempt: i64,
    /// The run's `tries` at that time.
    pub try_number: i64,
    pub state: AttemptState,
    pub started: DateTime<Utc>,
    pub ended: Option<DateTime<Utc>>,
    pub rows_in: i64,
    pub rows_out: i64,
    pub rows_refused: i64,
    pub summary: Option<String>,
    pub error: Option<String>,
}

/// One line of a task's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// From 1, in the order of the run.
    pub line: i64,
    pub task: String,
    pub attempt: i64,
    pub at: DateTime<Utc>,
    pub severity: String,
    pub message: String,
}

pub(super) const RUN: &str = "run_id, pipeline, graph, cause, state, slot_us, requested_us, started_us, ended_us, runner, cancel_asked, tries, error";

impl History {
    pub(super) fn read_run(&self, row: &AnyRow) -> Result<Run, HistoryError> {
        let fail = self.error("reading a run");
        let state: String = row.try_get("state").map_err(&fail)?;
        let cause: String = row.try_get("cause").map_err(&fail)?;
        let at = |column: &str| Ok(row.try_get::<Option<i64>, _>(column).map_err(&fail)?.map(moment));
        Ok(Run {
            run_id: row.try_get("run_id").map_err(&fail)?,
            pipeline: row.try_get("pipeline").map_err(&fail)?,
            graph: row.try_get("graph").map_err(&fail)?,
            cause: Cause::read(&cause).ok_or_else(|| self.foreign("the cause of a run", cause))?,
            state: RunState::read(&state).ok_or_else(|| self.foreign("the state of a run", state))?,
            slot: at("slot_us")?,
            requested: moment(row.try_get("requested_us").map_err(&fail)?),
            started: at("started_us")?,
            ended: at("ended_us")?,
            runner: row.try_get("runner").map_err(&fail)?,
            cancel_asked: row.try_get::<i64, _>("cancel_asked").map_err(&fail)? != 0,
            tries: row.try_get("tries").map_err(&fail)?,
            error: row.try_get("error").map_err(&fail)?,
        })
    }

    pub(super) fn read_attempt(&self, row: &AnyRow) -> Result<Attempt, HistoryError> {
        let fail = self.error("reading an attempt");
        let state: String = row.try_get("state").map_err(&fail)?;
        let task: String = row.try_get("task").map_err(&fail)?;
        Ok(Attempt {
            task: task.parse().map_err(|_| self.foreign("a task", task))?,
            attempt: row.try_get("attempt").map_err(&fail)?,
            try_number: row.try_get("try_number").map_err(&fail)?,
            state: AttemptState::read(&state).ok_or_else(|| self.foreign("the state of an attempt", state))?,
            started: moment(row.try_get("started_us").map_err(&fail)?),
            ended: row.try_get::<Option<i64>, _>("ended_us").map_err(&fail)?.map(moment),
            rows_in: row.try_get("rows_in").map_err(&fail)?,
            rows_out: row.try_get("rows_out").map_err(&fail)?,
            rows_refused: row.try_get("rows_refused").map_err(&fail)?,
            summary: row.try_get("summary").map_err(&fail)?,
            error: row.try_get("error").map_err(&fail)?,
        })
    }

    fn foreign(&self, of: &'static str, value: String) -> HistoryError {
        HistoryError::Foreign { address: self.shown.clone(), of, value }
    }
}
