//! The table of partial totals of one aggregate: one per definition, so that two definitions never mix.

use std::fmt::Write;
use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;

use super::client::Client;
use super::error::{Error, ErrorKind};
use super::schema::DURABLE;
use super::store::Refused;
use crate::failpoint;
use crate::window::{AggregatePlan, is_identifier};

#[derive(Row, Deserialize)]
struct Column {
    name: String,
    kind: String,
}

#[derive(Row, Deserialize)]
pub(super) struct Named {
    pub name: String,
}

/// `realtime.`name``. Plans are checked when they are compiled; this is the last door before SQL.
pub(super) fn table(name: &str) -> String {
    // Names of partials tables are longer than an identifier of the configuration may be.
    debug_assert!(name.split("_partials_").all(|part| is_identifier(&format!("a{part}")) || part.len() > 60));
    let safe: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    format!("realtime.`{safe}`")
}

/// The dimension columns, each followed by a comma.
pub(super) fn dimension_list(plan: &AggregatePlan) -> String {
    plan.dimensions.iter().fold(String::new(), |mut list, d| {
        let _ = write!(list, "`{}`, ", d.name);
        list
    })
}

/// The columns of the partials table, in the order that a flush writes them.
fn columns(plan: &AggregatePlan) -> Vec<(&str, &'static str)> {
    let mut columns = vec![("window_start", "DateTime('UTC')")];
    columns.extend(plan.dimensions.iter().map(|d| (d.name.as_str(), "String")));
    columns.extend([
        ("topic", "LowCardinality(String)"),
        ("generation", "Int32"),
        ("partition", "Int32"),
        ("partial_count", "UInt64"),
        ("partial_version", "UInt64"),
    ]);
    columns
}

/// The comment gives each table that is made an identity of its own, see [`crate::window::Loaded::table`].
fn create_partials(plan: &AggregatePlan) -> String {
    let id = uuid::Uuid::new_v4();
    let list: Vec<String> = columns(plan).iter().map(|(name, kind)| format!("`{name}` {kind}")).collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({}) ENGINE = ReplacingMergeTree(partial_version) \
         PARTITION BY toYYYYMMDD(window_start) ORDER BY (window_start, {}topic, generation, partition) {DURABLE} \
         COMMENT 'boathouse {id}'",
        table(&plan.partials_table()),
        list.join(", "),
        dimension_list(plan),
    )
}

/// The table and columns of an insert of partials.
pub(super) fn insert_target(plan: &AggregatePlan) -> String {
    let list: Vec<String> = columns(plan).iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("{} ({})", table(&plan.partials_table()), list.join(", "))
}

impl Client {
    /// Makes everything ready for the aggregates of one pipeline: shared tables, a table for each definition, a view
    /// for each aggregate that has none yet; views of aggregates that the pipeline no longer has are dropped. May be
    /// repeated at any time. A view that shows another definition stays until [`Client::point_view`]. Answers the
    /// aggregates that only an operator can help, such as one whose table was changed by hand; the others are ready.
    pub async fn prepare(&self, pipeline: &str, plans: &[Arc<AggregatePlan>]) -> Result<Refused, Error> {
        self.migrate().await?;
        let mut refused = Refused::new();
        for (aggregate, plan) in plans.iter().enumerate() {
            match self.ensure_aggregate(plan).await {
                Ok(()) => {}
                Err(error) if error.kind == ErrorKind::Permanent => refused.push((aggregate, error)),
                Err(error) => return Err(error),
            }
        }
        self.drop_absent_views(pipeline, plans).await?;
        match self.refresh_windows_view().await {
            // It reads the tables of all aggregates, also one that is not what it was: it stays as it is until then.
            Err(error) if error.kind == ErrorKind::Permanent && !refused.is_empty() => {}
            outcome => outcome?,
        }
        Ok(refused)
    }

    /// Creates the table of partials, and the view if the aggregate has none.
    async fn ensure_aggregate(&self, plan: &AggregatePlan) -> Result<(), Error> {
        let name = plan.partials_table();
        self.execute(&format!("create realtime.{name}"), &create_partials(plan)).await?;
        let what = format!("check the columns of realtime.{name}");
        let query = self
            .query("SELECT name, type AS kind FROM system.columns WHERE database = 'realtime' AND table = ? ORDER BY position")
            .bind(name.as_str());
        let found: Vec<Column> = self.rows(&what, query).await?;
        if !found.iter().map(|c| (c.name.as_str(), c.kind.as_str())).eq(columns(plan)) {
            let message = "the table was changed by hand: drop it, and it is made again and filled from Bronze";
            return Err(self.error(ErrorKind::Permanent, &what, message));
        }
        if self.view(&plan.name).await?.is_none() {
            self.create_view(plan).await?;
        }
        Ok(())
    }

    /// Drops the partials tables of earlier definitions of this aggregate. Call it once the view shows this one.
    pub async fn drop_superseded(&self, plan: &AggregatePlan) -> Result<Vec<String>, Error> {
        let prefix = format!("{}_partials_", plan.name);
        let what = format!("list earlier tables of realtime.{}", plan.name);
        let query = self
            .query("SELECT name FROM system.tables WHERE database = 'realtime' AND startsWith(name, ?) AND name != ?")
            .bind(prefix.as_str())
            .bind(plan.partials_table());
        let tables: Vec<String> = self.rows::<Named>(&what, query).await?.into_iter().map(|t| t.name).collect();
        for name in &tables {
            failpoint::hit("realtime.before_drop_superseded");
            self.execute(&format!("drop realtime.{name}"), &format!("DROP TABLE IF EXISTS {}", table(name))).await?;
        }
        Ok(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_letters_digits_and_underscores_reach_sql() {
        assert_eq!(table("events_per_minute_partials_0a1b"), "realtime.`events_per_minute_partials_0a1b`");
        assert_eq!(table(&"a".repeat(90)), format!("realtime.`{}`", "a".repeat(90)));
    }
}
