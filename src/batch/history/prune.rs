//! Old runs go, with their tasks and log lines. What later decisions and the status look back at stays: a pipeline's
//! newest slots and its newest successes.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row};

use super::{History, HistoryError, RunState, micros};

/// Runs looked at in one go.
const SOME: i64 = 200;
/// What is kept of a run, besides the run.
const PARTS: [&str; 5] = ["log_lines", "attempts", "run_parameters", "slots", "upkeep_slots"];

impl History {
    /// Removes the runs that were over and asked for before a moment; how many. Several processes may do so at once.
    pub async fn prune(&self, before: DateTime<Utc>) -> Result<u64, HistoryError> {
        let fail = self.error("removing old runs");
        let kept = self.kept().await?;
        let (mut after, mut removed) = (String::new(), 0);
        loop {
            let rows = sqlx::query(
                "SELECT run_id FROM runs WHERE run_id > ? AND requested_us < ? AND state NOT IN (?, ?) ORDER BY run_id LIMIT ?",
            )
            .bind(&after)
            .bind(micros(before))
            .bind(RunState::Waiting.as_str())
            .bind(RunState::Running.as_str())
            .bind(SOME)
            .fetch_all(&self.pool)
            .await
            .map_err(&fail)?;
            for row in &rows {
                let run_id: String = row.try_get("run_id").map_err(&fail)?;
                if !kept.contains(&run_id) {
                    removed += self.remove(&run_id).await?;
                }
                after = run_id;
            }
            if (rows.len() as i64) < SOME {
                return Ok(removed);
            }
        }
    }

    /// Removes one run, unless somebody has asked for it to go on meanwhile.
    async fn remove(&self, run_id: &str) -> Result<u64, HistoryError> {
        let fail = self.error("removing an old run");
        let mut transaction = self.pool.begin().await.map_err(&fail)?;
        let gone = sqlx::query("DELETE FROM runs WHERE run_id = ? AND state NOT IN (?, ?)")
            .bind(run_id)
            .bind(RunState::Waiting.as_str())
            .bind(RunState::Running.as_str())
            .execute(&mut *transaction)
            .await
            .map_err(&fail)?
            .rows_affected();
        if gone == 1 {
            for table in PARTS {
                sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE run_id = ?")))
                    .bind(run_id)
                    .execute(&mut *transaction)
                    .await
                    .map_err(&fail)?;
            }
        }
        transaction.commit().await.map_err(&fail)?;
        Ok(gone)
    }

    /// The runs that stay however old they are.
    async fn kept(&self) -> Result<BTreeSet<String>, HistoryError> {
        let fail = self.error("looking for runs that stay");
        let newest_slot = |table: &str| {
            format!(
                "SELECT s.run_id AS run_id FROM {table} s JOIN \
                 (SELECT pipeline, MAX(slot_us) AS slot_us FROM {table} GROUP BY pipeline) n \
                 ON n.pipeline = s.pipeline AND n.slot_us = s.slot_us"
            )
        };
        let successes = "SELECT MAX(run_id) AS run_id FROM runs WHERE state = 'succeeded' GROUP BY pipeline, graph";
        let mut kept = BTreeSet::new();
        for sql in [newest_slot("slots"), newest_slot("upkeep_slots"), successes.to_owned()] {
            for row in sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.pool).await.map_err(&fail)? {
                kept.insert(row.try_get("run_id").map_err(&fail)?);
            }
        }
        Ok(kept)
    }
}
