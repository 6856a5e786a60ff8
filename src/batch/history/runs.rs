//! Runs: asked for, taken up, ended, listed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rand::RngExt;
use sqlx::{AssertSqlSafe, Row};

use super::record::RUN;
use super::schema::TEXT_MAX;
use super::{Cause, Filter, History, HistoryError, Lease, Run, RunState, is_taken, micros};
use crate::batch::run::graph::Kind;

/// A name for a new run: sorts by time, and two at the same moment differ.
fn new_id(now: DateTime<Utc>) -> String {
    format!("{}-{:06x}", now.format("%Y%m%dT%H%M%SZ"), rand::rng().random_range(0..0x100_0000))
}

/// A text that fits its column.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl History {
    /// Asks for a run by hand; its id.
    pub async fn request(&self, pipeline: &str) -> Result<String, HistoryError> {
        self.request_of(Kind::Batch, pipeline, &BTreeMap::new()).await
    }

    /// Asks for a run through a graph by hand, with these parameters; its id.
    pub async fn request_of(
        &self,
        kind: Kind,
        pipeline: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Result<String, HistoryError> {
        let fail = self.error("asking for a run");
        let now = Utc::now();
        let run_id = new_id(now);
        let new = NewRun { run_id: &run_id, pipeline, kind, cause: Cause::Manual, slot: None, now };
        let mut transaction = self.pool.begin().await.map_err(&fail)?;
        for (name, value) in parameters {
            sqlx::query("INSERT INTO run_parameters (run_id, name, value) VALUES (?, ?, ?)")
                .bind(&run_id)
                .bind(name)
                .bind(value)
                .execute(&mut *transaction)
                .await
                .map_err(&fail)?;
        }
        new.insert(&mut *transaction).await.map_err(&fail)?;
        transaction.commit().await.map_err(&fail)?;
        Ok(run_id)
    }

    /// What a run was asked with.
    pub async fn parameters(&self, run_id: &str) -> Result<BTreeMap<String, String>, HistoryError> {
        let fail = self.error("reading what a run was asked with");
        let rows = sqlx::query("SELECT name, value FROM run_parameters WHERE run_id = ?")
            .bind(run_id)
            .fetch_all(&self.pool)
            .await
            .map_err(&fail)?;
        rows.iter().map(|row| Ok((row.try_get("name").map_err(&fail)?, row.try_get("value").map_err(&fail)?))).collect()
    }

    /// Asks for a slot's run; none when the slot has its run already: the slot's row is what makes one of several
    /// processes run it.
    pub async fn claim_slot(&self, pipeline: &str, slot: DateTime<Utc>) -> Result<Option<String>, HistoryError> {
        self.claim_slot_of(Kind::Batch, pipeline, slot).await
    }

    /// As [`Self::claim_slot`], of the schedule of a graph.
    pub async fn claim_slot_of(
        &self,
        kind: Kind,
        pipeline: &str,
        slot: DateTime<Utc>,
    ) -> Result<Option<String>, HistoryError> {
        let table = slots_of(kind);
        let fail = self.error("asking for a slot's run");
        let now = Utc::now();
        let run_id = new_id(now);
        // One transaction that begins with its write: both rows are there, or neither.
        let mut transaction = self.pool.begin().await.map_err(&fail)?;
        let sql = format!("INSERT INTO {table} (pipeline, slot_us, run_id) VALUES (?, ?, ?)");
        let claimed = sqlx::query(AssertSqlSafe(sql))
            .bind(pipeline)
            .bind(micros(slot))
            .bind(&run_id)
            .execute(&mut *transaction)
            .await;
        match claimed {
            Ok(_) => {}
            Err(e) if is_taken(&e) => {
                // Now rather than later: the failed insert holds a lock.
                transaction.rollback().await.map_err(&fail)?;
                return Ok(None);
            }
            Err(e) => return Err(fail(e)),
        }
        let new = NewRun { run_id: &run_id, pipeline, kind, cause: Cause::Schedule, slot: Some(slot), now };
        new.insert(&mut *transaction).await.map_err(&fail)?;
        transaction.commit().await.map_err(&fail)?;
        Ok(Some(run_id))
    }

    /// The run to go on with: one that was left running first, then the oldest that waits.
    pub async fn next_run(&self, pipeline: &str) -> Result<Option<Run>, HistoryError> {
        for state in [RunState::Running, RunState::Waiting] {
            let sql = format!("SELECT {RUN} FROM runs WHERE state = ? AND pipeline = ? ORDER BY run_id LIMIT 1");
            let row = sqlx::query(AssertSqlSafe(sql))
                .bind(state.as_str())
                .bind(pipeline)
                .fetch_optional(&self.pool)
                .await
                .map_err(self.error("looking for a run"))?;
            if let Some(row) = row {
                return self.read_run(&row).map(Some);
            }
        }
        Ok(None)
    }

    /// Whether a run of a pipeline through a graph waits or is under way.
    pub async fn is_asked_for(&self, kind: Kind, pipeline: &str) -> Result<bool, HistoryError> {
        let sql = "SELECT COUNT(*) AS runs FROM runs WHERE state IN (?, ?) AND pipeline = ? AND graph = ?";
        let fail = self.error("looking for a run that waits");
        let row = sqlx::query(sql)
            .bind(RunState::Waiting.as_str())
            .bind(RunState::Running.as_str())
            .bind(pipeline)
            .bind(kind.as_str())
            .fetch_one(&self.pool)
            .await
            .map_err(&fail)?;
        Ok(row.try_get::<i64, _>("runs").map_err(&fail)? > 0)
    }

    /// Marks a run as running under a lease.
    pub async fn begin_run(&self, run_id: &str, lease: &Lease) -> Result<(), HistoryError> {
        let fail = self.error("beginning a run");
        sqlx::query("UPDATE runs SET state = ?, runner = ?, ended_us = NULL, error = NULL WHERE run_id = ?")
            .bind(RunState::Running.as_str())
            .bind(&lease.holder)
            .bind(run_id)
            .execute(&self.pool)
            .await
            .map_err(&fail)?;
        sqlx::query("UPDATE runs SET started_us = ? WHERE run_id = ? AND started_us IS NULL")
            .bind(micros(Utc::now()))
            .bind(run_id)
            .execute(&self.pool)
            .await
            .map_err(&fail)?;
        Ok(())
    }

    /// Notes how a run ended, or that it waits for somebody to go on with it.
    pub async fn end_run(&self, run_id: &str, state: RunState, error: Option<&str>) -> Result<(), HistoryError> {
        sqlx::query("UPDATE runs SET state = ?, ended_us = ?, error = ? WHERE run_id = ?")
            .bind(state.as_str())
            .bind(state.is_over().then(|| micros(Utc::now())))
            .bind(error.map(cut))
            .bind(run_id)
            .execute(&self.pool)
            .await
            .map_err(self.error("noting the end of a run"))?;
        Ok(())
    }

    /// One run.
    pub async fn run(&self, run_id: &str) -> Result<Option<Run>, HistoryError> {
        let row = sqlx::query(AssertSqlSafe(format!("SELECT {RUN} FROM runs WHERE run_id = ?")))
            .bind(run_id)
            .fetch_optional(&self.pool)
            .await
            .map_err(self.error("reading a run"))?;
        row.map(|row| self.read_run(&row)).transpose()
    }

    /// The newest runs, newest first.
    pub async fn runs(&self, pipeline: Option<&str>, limit: u32) -> Result<Vec<Run>, HistoryError> {
        self.runs_that(&Filter { pipeline: pipeline.map(str::to_owned), ..Filter::default() }, limit).await
    }

    /// The newest run of a pipeline's batch that succeeded.
    pub async fn last_success(&self, pipeline: &str) -> Result<Option<Run>, HistoryError> {
        self.last_success_of(Kind::Batch, pipeline).await
    }

    /// The newest run of a pipeline through a graph that succeeded.
    pub async fn last_success_of(&self, kind: Kind, pipeline: &str) -> Result<Option<Run>, HistoryError> {
        let sql = format!(
            "SELECT {RUN} FROM runs WHERE state = ? AND pipeline = ? AND graph = ? ORDER BY run_id DESC LIMIT 1"
        );
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(RunState::Succeeded.as_str())
            .bind(pipeline)
            .bind(kind.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(self.error("looking for the last success"))?;
        row.map(|row| self.read_run(&row)).transpose()
    }

    /// Asks a run to stop: at once where nobody has taken it up, else its runner is told. False when it is over.
    pub async fn cancel(&self, run_id: &str) -> Result<bool, HistoryError> {
        let fail = self.error("cancelling a run");
        let waiting =
            sqlx::query("UPDATE runs SET state = ?, ended_us = ?, cancel_asked = 1 WHERE run_id = ? AND state = ?")
                .bind(RunState::Cancelled.as_str())
                .bind(micros(Utc::now()))
                .bind(run_id)
                .bind(RunState::Waiting.as_str())
                .execute(&self.pool)
                .await
                .map_err(&fail)?;
        if waiting.rows_affected() == 1 {
            return Ok(true);
        }
        let running = sqlx::query("UPDATE runs SET cancel_asked = 1 WHERE run_id = ? AND state = ?")
            .bind(run_id)
            .bind(RunState::Running.as_str())
            .execute(&self.pool)
            .await
            .map_err(&fail)?;
        Ok(running.rows_affected() == 1)
    }

    /// Asks for a run that failed or was cancelled to go on from the task where it stopped. False when it is in no such
    /// state.
    pub async fn retry(&self, run_id: &str) -> Result<bool, HistoryError> {
        let done = sqlx::query(
            "UPDATE runs SET state = ?, tries = tries + 1, cancel_asked = 0, ended_us = NULL \
             WHERE run_id = ? AND state IN (?, ?)",
        )
        .bind(RunState::Waiting.as_str())
        .bind(run_id)
        .bind(RunState::Failed.as_str())
        .bind(RunState::Cancelled.as_str())
        .execute(&self.pool)
        .await
        .map_err(self.error("asking for a run once more"))?;
        Ok(done.rows_affected() == 1)
    }
}

/// The table of a graph's slots.
pub(super) fn slots_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Batch | Kind::Backfill => "slots",
        Kind::Upkeep => "upkeep_slots",
    }
}

struct NewRun<'a> {
    run_id: &'a str,
    pipeline: &'a str,
    kind: Kind,
    cause: Cause,
    slot: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

impl NewRun<'_> {
    async fn insert<'e, E: sqlx::Executor<'e, Database = sqlx::Any>>(self, executor: E) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO runs (run_id, pipeline, graph, cause, state, slot_us, requested_us, cancel_asked, tries) \
             VALUES (?, ?, ?, ?, ?, ?, ?, 0, 1)",
        )
        .bind(self.run_id)
        .bind(self.pipeline)
        .bind(self.kind.as_str())
        .bind(self.cause.as_str())
        .bind(RunState::Waiting.as_str())
        .bind(self.slot.map(micros))
        .bind(micros(self.now))
        .execute(executor)
        .await
        .map(drop)
    }
}
