//! Per pipeline: since when its schedule holds, its newest slot, and whether it is paused.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Row};

use super::runs::slots_of;
use super::{History, HistoryError, RunState, is_taken, micros, moment};
use crate::batch::run::graph::Kind;

/// What the history knows of a pipeline's schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleState {
    /// The newest slot that was run, or the moment since when the schedule holds: slots after it are to come.
    pub last: DateTime<Utc>,
    /// Since when it is paused.
    pub paused: Option<DateTime<Utc>>,
}

impl History {
    /// The state of a pipeline's schedule; a pipeline that is new begins now: there is nothing to catch up.
    pub async fn schedule(&self, pipeline: &str) -> Result<ScheduleState, HistoryError> {
        let row = match self.schedule_row(pipeline).await? {
            Some(row) => row,
            None => {
                self.begin_schedule(pipeline, None).await?;
                (Utc::now(), None)
            }
        };
        let newest = self.newest_slot(Kind::Batch, pipeline).await?;
        Ok(ScheduleState { last: newest.map_or(row.0, |newest| newest.max(row.0)), paused: row.1 })
    }

    /// The newest slot of a graph's schedule that was run; none before the first.
    pub async fn newest_slot(&self, kind: Kind, pipeline: &str) -> Result<Option<DateTime<Utc>>, HistoryError> {
        let fail = self.error("reading a schedule");
        let sql = format!("SELECT MAX(slot_us) AS slot_us FROM {} WHERE pipeline = ?", slots_of(kind));
        let newest = sqlx::query(AssertSqlSafe(sql)).bind(pipeline).fetch_one(&self.pool).await.map_err(&fail)?;
        Ok(newest.try_get::<Option<i64>, _>("slot_us").map_err(&fail)?.map(moment))
    }

    /// Whether a slot's run has succeeded, or found nothing to do. True for a moment that is no slot.
    pub async fn slot_succeeded(&self, pipeline: &str, slot: DateTime<Utc>) -> Result<bool, HistoryError> {
        let fail = self.error("looking at a slot's run");
        let row = sqlx::query(
            "SELECT r.state AS state FROM slots s JOIN runs r ON r.run_id = s.run_id WHERE s.pipeline = ? AND s.slot_us = ?",
        )
        .bind(pipeline)
        .bind(micros(slot))
        .fetch_optional(&self.pool)
        .await
        .map_err(&fail)?;
        let Some(row) = row else { return Ok(true) };
        let state: String = row.try_get("state").map_err(&fail)?;
        Ok([RunState::Succeeded, RunState::Skipped].iter().any(|good| good.as_str() == state))
    }

    /// Pauses a pipeline's schedule, or lets it go on. False when it was so already.
    pub async fn pause(&self, pipeline: &str, pause: bool) -> Result<bool, HistoryError> {
        let now = micros(Utc::now());
        let sql = if pause {
            "UPDATE schedules SET paused_us = ? WHERE pipeline = ? AND paused_us IS NULL"
        } else {
            // Slots that passed are caught up as the policy says.
            "UPDATE schedules SET paused_us = NULL WHERE pipeline = ? AND paused_us IS NOT NULL"
        };
        let mut query = sqlx::query(sql);
        if pause {
            query = query.bind(now);
        }
        let changed = query.bind(pipeline).execute(&self.pool).await.map_err(self.error("pausing a schedule"))?;
        if changed.rows_affected() == 1 {
            return Ok(true);
        }
        Ok(pause && self.schedule_row(pipeline).await?.is_none() && self.begin_schedule(pipeline, Some(now)).await?)
    }

    /// Since when it holds, and since when it is paused.
    async fn schedule_row(
        &self,
        pipeline: &str,
    ) -> Result<Option<(DateTime<Utc>, Option<DateTime<Utc>>)>, HistoryError> {
        let fail = self.error("reading a schedule");
        let row = sqlx::query("SELECT since_us, paused_us FROM schedules WHERE pipeline = ?")
            .bind(pipeline)
            .fetch_optional(&self.pool)
            .await
            .map_err(&fail)?;
        let Some(row) = row else { return Ok(None) };
        let since = moment(row.try_get("since_us").map_err(&fail)?);
        Ok(Some((since, row.try_get::<Option<i64>, _>("paused_us").map_err(&fail)?.map(moment))))
    }

    /// False when somebody else was quicker.
    async fn begin_schedule(&self, pipeline: &str, paused_us: Option<i64>) -> Result<bool, HistoryError> {
        let made = sqlx::query("INSERT INTO schedules (pipeline, since_us, paused_us) VALUES (?, ?, ?)")
            .bind(pipeline)
            .bind(micros(Utc::now()))
            .bind(paused_us)
            .execute(&self.pool)
            .await;
        match made {
            Ok(_) => Ok(true),
            Err(e) if is_taken(&e) => Ok(false),
            Err(e) => Err(self.error("beginning a schedule")(e)),
        }
    }
}
