//! Attempts at tasks, and their log lines.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row};

use super::runs::cut;
use super::{Attempt, AttemptState, History, HistoryError, Line, Run, micros, moment};
use crate::batch::run::graph::Task;
use crate::batch::{LogLine, TaskReport};

/// An attempt that begins now.
#[derive(Debug, Clone)]
pub struct NewAttempt {
    pub run_id: String,
    pub task: Task,
    /// From 1.
    pub attempt: u32,
    pub try_number: i64,
}

impl History {
    /// The attempts of a run, in the order in which they began.
    pub async fn attempts(&self, run_id: &str) -> Result<Vec<Attempt>, HistoryError> {
        let rows = sqlx::query(
            "SELECT task, attempt, try_number, state, started_us, ended_us, rows_in, rows_out, rows_refused, summary, error \
             FROM attempts WHERE run_id = ? ORDER BY started_us, task, attempt",
        )
        .bind(run_id)
        .fetch_all(&self.pool)
        .await
        .map_err(self.error("reading the tasks of a run"))?;
        rows.iter().map(|row| self.read_attempt(row)).collect()
    }

    /// The attempts of some runs, each with its run.
    pub async fn attempts_of(&self, runs: &[Run]) -> Result<Vec<(String, Attempt)>, HistoryError> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let fail = self.error("reading the tasks of runs");
        let sql = format!(
            "SELECT run_id, task, attempt, try_number, state, started_us, ended_us, rows_in, rows_out, rows_refused, summary, error \
             FROM attempts WHERE run_id IN ({}) ORDER BY started_us, task, attempt",
            vec!["?"; runs.len()].join(", ")
        );
        let query = runs.iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, run| query.bind(&run.run_id));
        let rows = query.fetch_all(&self.pool).await.map_err(&fail)?;
        rows.iter().map(|row| Ok((row.try_get("run_id").map_err(&fail)?, self.read_attempt(row)?))).collect()
    }

    /// Notes that an attempt begins.
    pub async fn begin_attempt(&self, new: &NewAttempt) -> Result<(), HistoryError> {
        sqlx::query(
            "INSERT INTO attempts (run_id, task, attempt, try_number, state, started_us, rows_in, rows_out, rows_refused) \
             VALUES (?, ?, ?, ?, ?, ?, 0, 0, 0)",
        )
        .bind(&new.run_id)
        .bind(new.task.as_str())
        .bind(i64::from(new.attempt))
        .bind(new.try_number)
        .bind(AttemptState::Running.as_str())
        .bind(micros(Utc::now()))
        .execute(&self.pool)
        .await
        .map_err(self.error("noting the begin of a task"))?;
        Ok(())
    }

    /// Notes how an attempt ended.
    pub async fn end_attempt(
        &self,
        of: &NewAttempt,
        state: AttemptState,
        report: &TaskReport,
        error: Option<&str>,
    ) -> Result<(), HistoryError> {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        sqlx::query(
            "UPDATE attempts SET state = ?, ended_us = ?, rows_in = ?, rows_out = ?, rows_refused = ?, summary = ?, error = ? \
             WHERE run_id = ? AND task = ? AND attempt = ?",
        )
        .bind(state.as_str())
        .bind(micros(Utc::now()))
        .bind(number(report.rows_in))
        .bind(number(report.rows_out))
        .bind(number(report.rows_refused))
        .bind((!report.summary.is_empty()).then(|| cut(&report.summary)))
        .bind(error.map(cut))
        .bind(&of.run_id)
        .bind(of.task.as_str())
        .bind(i64::from(of.attempt))
        .execute(&self.pool)
        .await
        .map_err(self.error("noting the end of a task"))?;
        Ok(())
    }

    /// Marks attempts that a process left running as interrupted.
    pub async fn interrupt_attempts(&self, run_id: &str) -> Result<(), HistoryError> {
        sqlx::query("UPDATE attempts SET state = ?, ended_us = ? WHERE run_id = ? AND state = ?")
            .bind(AttemptState::Interrupted.as_str())
            .bind(micros(Utc::now()))
            .bind(run_id)
            .bind(AttemptState::Running.as_str())
            .execute(&self.pool)
            .await
            .map_err(self.error("taking up a run"))?;
        Ok(())
    }

    /// When the newest successful attempt at a task of the pipeline began: what it wrote holds everything that its
    /// source had then.
    pub async fn fresh_since(&self, pipeline: &str, task: Task) -> Result<Option<DateTime<Utc>>, HistoryError> {
        let fail = self.error("looking for a task's last success");
        let row = sqlx::query(
            "SELECT MAX(a.started_us) AS started_us FROM attempts a JOIN runs r ON r.run_id = a.run_id \
             WHERE r.pipeline = ? AND a.task = ? AND a.state = ?",
        )
        .bind(pipeline)
        .bind(task.as_str())
        .bind(AttemptState::Succeeded.as_str())
        .fetch_one(&self.pool)
        .await
        .map_err(&fail)?;
        Ok(row.try_get::<Option<i64>, _>("started_us").map_err(&fail)?.map(moment))
    }

    /// The number of the last log line of a run; 0 for none.
    pub async fn last_line(&self, run_id: &str) -> Result<i64, HistoryError> {
        let fail = self.error("reading a log");
        let row = sqlx::query("SELECT MAX(line) AS line FROM log_lines WHERE run_id = ?")
            .bind(run_id)
            .fetch_one(&self.pool)
            .await
            .map_err(&fail)?;
        Ok(row.try_get::<Option<i64>, _>("line").map_err(&fail)?.unwrap_or(0))
    }

    /// Adds lines to a run's log, the first with the number `first`.
    pub async fn add_lines(&self, of: &NewAttempt, first: i64, lines: &[LogLine]) -> Result<(), HistoryError> {
        let fail = self.error("writing a log");
        let mut transaction = self.pool.begin().await.map_err(&fail)?;
        for (number, line) in (first..).zip(lines) {
            sqlx::query(
                "INSERT INTO log_lines (run_id, line, task, attempt, at_us, severity, message) VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&of.run_id)
            .bind(number)
            .bind(of.task.as_str())
            .bind(i64::from(of.attempt))
            .bind(micros(line.at))
            .bind(line.level.as_str())
            .bind(cut(&line.text))
            .execute(&mut *transaction)
            .await
            .map_err(&fail)?;
        }
        transaction.commit().await.map_err(&fail)
    }

    /// A run's log lines after a number, oldest first, of one task or of all.
    pub async fn lines(&self, run_id: &str, task: Option<Task>, after: i64) -> Result<Vec<Line>, HistoryError> {
        self.lines_at_most(run_id, task, after, u32::MAX).await
    }

    /// As [`Self::lines`], the first `limit` of them: whoever follows a log asks on behind the last one.
    pub async fn lines_at_most(
        &self,
        run_id: &str,
        task: Option<Task>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Line>, HistoryError> {
        let fail = self.error("reading a log");
        let filter = if task.is_some() { "AND task = ?" } else { "" };
        let sql = format!(
            "SELECT line, task, attempt, at_us, severity, message FROM log_lines \
             WHERE run_id = ? AND line > ? {filter} ORDER BY line LIMIT ?"
        );
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(run_id).bind(after);
        if let Some(task) = task {
            query = query.bind(task.as_str());
        }
        let rows = query.bind(i64::from(limit)).fetch_all(&self.pool).await.map_err(&fail)?;
        let read = |row: &sqlx::any::AnyRow| {
            Ok(Line {
                line: row.try_get("line").map_err(&fail)?,
                task: row.try_get("task").map_err(&fail)?,
                attempt: row.try_get("attempt").map_err(&fail)?,
                at: moment(row.try_get("at_us").map_err(&fail)?),
                severity: row.try_get("severity").map_err(&fail)?,
                message: row.try_get("message").map_err(&fail)?,
            })
        };
        rows.iter().map(read).collect()
    }
}
