//! What is served of one event: its windows' totals, and who published its date.

use chrono::{DateTime, Utc};
use clickhouse::Row;
use serde::Deserialize;

use super::client::Client;
use super::error::Error;
use super::tables::table;
use crate::kafka::Source;
use crate::window::AggregatePlan;

#[derive(Row, Deserialize)]
struct Number {
    n: u64,
}

#[derive(Row, Deserialize)]
struct Offset {
    n: i64,
}

#[derive(Row, Deserialize)]
struct Published {
    run_id: String,
    silver_version: u64,
    /// Milliseconds since the epoch.
    at: i64,
}

/// Who published a date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedDate {
    /// The run, and what its rows were made from.
    pub run_id: String,
    pub silver_version: u64,
    pub at: Option<DateTime<Utc>>,
}

impl Client {
    /// What the view of an aggregate shows of a window (its start in microseconds since the epoch) under these values of
    /// its dimensions; none where it shows nothing.
    pub async fn served_total(
        &self,
        plan: &AggregatePlan,
        window_start: i64,
        values: &[String],
    ) -> Result<Option<u64>, Error> {
        let conditions: String = plan.dimensions.iter().map(|d| format!(" AND `{}` = ?", d.name)).collect();
        let sql = format!(
            "SELECT toUInt64(`{}`) AS n FROM {} WHERE toInt64(toUnixTimestamp(window_start)) = ?{conditions}",
            plan.measure,
            table(&plan.name)
        );
        let mut query = self.query(&sql).bind(window_start / 1_000_000);
        for value in values {
            query = query.bind(value.as_str());
        }
        let rows: Vec<Number> = self.rows(&format!("read realtime.{}", plan.name), query).await?;
        Ok(rows.first().map(|r| r.n))
    }

    /// The offset up to which the totals of an aggregate hold a partition; none where they hold nothing of it.
    pub async fn served_position(&self, plan: &AggregatePlan, source: &Source) -> Result<Option<i64>, Error> {
        let query = self
            .query(
                "SELECT toInt64(next_offset) AS n FROM realtime.positions FINAL WHERE pipeline = ? AND aggregate = ? \
                 AND definition = ? AND topic = ? AND generation = ? AND partition = ?",
            )
            .bind(&*plan.pipeline)
            .bind(plan.name.as_str())
            .bind(plan.definition.as_str())
            .bind(&*source.topic)
            .bind(source.generation)
            .bind(source.partition);
        let rows: Vec<Offset> = self.rows("read realtime.positions", query).await?;
        Ok(rows.first().map(|r| r.n))
    }

    /// Whether a window (its start in microseconds since the epoch) is complete; none where it is not listed.
    pub async fn window_complete(&self, pipeline: &str, window_start: i64) -> Result<Option<bool>, Error> {
        let query = self
            .query(
                "SELECT toUInt64(ifNull(complete, false)) AS n FROM realtime.windows WHERE pipeline = ? \
                 AND toInt64(toUnixTimestamp(window_start)) = ?",
            )
            .bind(pipeline)
            .bind(window_start / 1_000_000);
        let rows: Vec<Number> = self.rows("read realtime.windows", query).await?;
        Ok(rows.first().map(|r| r.n != 0))
    }

    /// Who published a date (days since 1970) last; none where nobody has.
    pub async fn published_date(&self, pipeline: &str, day: u16) -> Result<Option<PublishedDate>, Error> {
        let query = self
            .query(
                "SELECT run_id, silver_version, toUnixTimestamp64Milli(published_at) AS at FROM gold.published FINAL \
                 WHERE pipeline = ? AND toUInt16(event_date) = ?",
            )
            .bind(pipeline)
            .bind(day);
        let rows: Vec<Published> = self.rows("read gold.published", query).await?;
        Ok(rows.into_iter().next().map(|p| PublishedDate {
            run_id: p.run_id,
            silver_version: p.silver_version,
            at: DateTime::from_timestamp_millis(p.at),
        }))
    }
}
