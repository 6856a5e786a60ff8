//! Runs: asked for, taken up, ended, listed.

use chrono::{DateTime, Utc};
use rand::RngExt;
use sqlx::AssertSqlSafe;

use super::record::RUN;
use super::schema::TEXT_MAX;
use super::{Cause, History, HistoryError, Lease, Run, RunState, is_taken, micros};
use crate::batch::run::graph::GRAPH;

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
        let now = Utc::now();
        let run_id = new_id(now);
        insert(&self.pool, &run_id, pipeline, Cause::Manual, None, now)
            .await
            .map_err(self.error("asking for a run"))?;
        Ok(run_id)
    }

    /// Asks for a slot's run; none when the slot has its run already: the slot's row is what makes one of several
    /// processes run it.
    pub async fn claim_slot(&self, pipeline: &str, slot: DateTime<Utc>) -> Result<Option<String>, HistoryError> {
        let fail = self.error("asking for a slot's run");
        let now = Utc::now();
        let run_id = new_id(now);
        // One transaction that begins with its write: both rows are there, or neither.
        let mut transaction = self.pool.begin().await.map_err(&fail)?;
        let claimed = sqlx::query("INSERT INTO slots (pipeline, slot_us, run_id) VALUES (?, ?, ?)")
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
        insert(&mut *transaction, &run_id, pipeline, Cause::Schedule, Some(slot), now).await.map_err(&fail)?;
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
        let filter = if pipeline.is_some() { "WHERE pipeline = ?" } else { "" };
        let sql = format!("SELECT {RUN} FROM runs {filter} ORDER BY run_id DESC LIMIT ?");
        let mut query = sqlx::query(AssertSqlSafe(sql));
        if let Some(pipeline) = pipeline {
            query = query.bind(pipeline);
        }
        let rows = query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(self.error("listing runs"))?;
        rows.iter().map(|row| self.read_run(row)).collect()
    }

    /// The newest run of a pipeline that succeeded.
    pub async fn last_success(&self, pipeline: &str) -> Result<Option<Run>, HistoryError> {
        let sql = format!("SELECT {RUN} FROM runs WHERE state = ? AND pipeline = ? ORDER BY run_id DESC LIMIT 1");
        let row = sqlx::query(AssertSqlSafe(sql))
            .bind(RunState::Succeeded.as_str())
            .bind(pipeline)
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

async fn insert<'e, E: sqlx::Executor<'e, Database = sqlx::Any>>(
    executor: E,
    run_id: &str,
    pipeline: &str,
    cause: Cause,
    slot: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO runs (run_id, pipeline, graph, cause, state, slot_us, requested_us, cancel_asked, tries) \
         VALUES (?, ?, ?, ?, ?, ?, ?, 0, 1)",
    )
    .bind(run_id)
    .bind(pipeline)
    .bind(GRAPH)
    .bind(cause.as_str())
    .bind(RunState::Waiting.as_str())
    .bind(slot.map(micros))
    .bind(micros(now))
    .execute(executor)
    .await
    .map(drop)
}
