//! The views that people query: `realtime.<aggregate>` over the partials in force, and `realtime.windows`.
//!
//! A view's comment says which definition it shows, so that the two can never disagree: both change in one statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::error::{Error, ErrorKind};
use super::tables::{dimension_list, table};
use crate::failpoint;
use crate::window::AggregatePlan;

/// What a view shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewInForce {
    /// The aggregate, and the view's name.
    pub aggregate: String,
    pub pipeline: String,
    pub definition: String,
    /// The view's column that holds the count.
    pub measure: String,
    /// Length of its windows, seconds.
    pub window_seconds: i64,
}

/// What stands before the description in a view's comment.
const COMMENT_PREFIX: &str = "boathouse ";

#[derive(Row, Deserialize)]
struct Table {
    name: String,
    engine: String,
    comment: String,
}

fn describe(plan: &AggregatePlan) -> ViewInForce {
    ViewInForce {
        aggregate: plan.name.clone(),
        pipeline: plan.pipeline.to_string(),
        definition: plan.definition.clone(),
        measure: plan.measure.clone(),
        window_seconds: plan.window / 1_000_000,
    }
}

fn read(comment: &str) -> Option<ViewInForce> {
    serde_json::from_str(comment.strip_prefix(COMMENT_PREFIX)?).ok()
}

fn create_view(plan: &AggregatePlan) -> String {
    let dimensions = dimension_list(plan);
    // Everything in it is made of checked identifiers, so that it needs no escaping.
    let comment = serde_json::json!(describe(plan));
    format!(
        "CREATE OR REPLACE VIEW {view} AS SELECT window_start, {dimensions}sum(partial_count) AS `{measure}` \
         FROM {partials} FINAL GROUP BY {dimensions}window_start COMMENT '{COMMENT_PREFIX}{comment}'",
        view = table(&plan.name),
        measure = plan.measure,
        partials = table(&plan.partials_table()),
    )
}

/// `realtime.windows`: every window that has a count, by pipeline, and whether it is complete. See
/// [`crate::window::complete_horizon`], which this repeats in SQL. Of aggregates with several window lengths the
/// shortest stand for the pipeline.
fn create_windows_view(views: &[ViewInForce]) -> String {
    let mut pipelines: BTreeMap<&str, Vec<&ViewInForce>> = BTreeMap::new();
    for view in views {
        pipelines.entry(&view.pipeline).or_default().push(view);
    }
    let parts: Vec<String> = pipelines.iter().map(|(pipeline, views)| windows_of(pipeline, views)).collect();
    let select = if parts.is_empty() {
        "SELECT '' AS pipeline, toDateTime(0, 'UTC') AS window_start, false AS complete WHERE 0".to_owned()
    } else {
        parts.join(" UNION ALL ")
    };
    format!("CREATE OR REPLACE VIEW realtime.windows AS {select}")
}

fn windows_of(pipeline: &str, views: &[&ViewInForce]) -> String {
    let shortest = views.iter().map(|v| v.window_seconds).min().unwrap_or(0);
    let starts: Vec<String> = views
        .iter()
        .filter(|v| v.window_seconds == shortest)
        .map(|v| {
            let partials = format!("{}_partials_{}", v.aggregate, v.definition);
            format!("SELECT window_start FROM {} GROUP BY window_start", table(&partials))
        })
        .collect();
    let in_force: Vec<String> = views.iter().map(|v| format!("('{}', '{}')", v.aggregate, v.definition)).collect();
    let rows = format!(
        "realtime.positions WHERE pipeline = '{pipeline}' AND (aggregate, definition) IN ({})",
        in_force.join(", ")
    );
    // FINAL and the filter go together: the filter's columns are part of the sorting key.
    let rows_final = rows.replacen("realtime.positions", "realtime.positions FINAL", 1);
    format!(
        "SELECT '{pipeline}' AS pipeline, window_start, \
           CAST((toInt64(toUnixTimestamp(window_start)) + {shortest}) * 1000000 <= horizon, 'Bool') AS complete \
         FROM (SELECT DISTINCT window_start FROM ({starts})) AS starts \
         CROSS JOIN (SELECT if(countIf(idle = 0) > 0, minIf(closed_horizon, idle = 0), max(closed_horizon)) AS horizon \
           FROM {rows_final} \
           AND (topic, generation) IN (SELECT topic, max(generation) FROM {rows} GROUP BY topic)) AS horizons",
        starts = starts.join(" UNION ALL "),
    )
}

impl Client {
    /// The views that Boathouse made, by name.
    pub async fn views(&self) -> Result<Vec<ViewInForce>, Error> {
        let sql = "SELECT name, engine, comment FROM system.tables WHERE database = 'realtime' AND engine = 'View' \
                   ORDER BY name";
        let tables: Vec<Table> = self.rows("list the views of realtime", self.query(sql)).await?;
        Ok(tables.iter().filter_map(|t| read(&t.comment).filter(|v| v.aggregate == t.name)).collect())
    }

    /// What the view of an aggregate shows; none where there is no view. Something else of that name is an error.
    pub async fn view(&self, aggregate: &str) -> Result<Option<ViewInForce>, Error> {
        let what = format!("look at realtime.{aggregate}");
        let query = self
            .query("SELECT name, engine, comment FROM system.tables WHERE database = 'realtime' AND name = ?")
            .bind(aggregate);
        let tables: Vec<Table> = self.rows(&what, query).await?;
        match tables.first() {
            None => Ok(None),
            Some(t) if t.engine == "View" && t.comment.starts_with(COMMENT_PREFIX) => Ok(read(&t.comment)),
            Some(t) => Err(self.error(
                ErrorKind::Permanent,
                &what,
                format!(
                    "there is already a {} of that name, not made by Boathouse: rename it or the aggregate",
                    t.engine
                ),
            )),
        }
    }

    pub(super) async fn create_view(&self, plan: &AggregatePlan) -> Result<(), Error> {
        self.execute(&format!("create the view realtime.{}", plan.name), &create_view(plan)).await
    }

    /// Lets the view show this definition, in one step: a query sees the old totals or the new ones. Call it when
    /// every partition's position under this definition has reached Bronze's. Returns whether it changed anything.
    pub async fn point_view(&self, plan: &AggregatePlan) -> Result<bool, Error> {
        if self.view(&plan.name).await? == Some(describe(plan)) {
            return Ok(false);
        }
        failpoint::hit("realtime.before_view");
        self.create_view(plan).await?;
        failpoint::hit("realtime.between_views");
        self.refresh_windows_view().await?;
        Ok(true)
    }

    pub(super) async fn refresh_windows_view(&self) -> Result<(), Error> {
        let views = self.views().await?;
        self.execute("create the view realtime.windows", &create_windows_view(&views)).await
    }

    /// Drops views of aggregates that the pipeline no longer has: a view that nothing feeds would look alive, and
    /// would keep every later window from becoming complete. Their tables stay.
    pub(super) async fn drop_absent_views(&self, pipeline: &str, plans: &[Arc<AggregatePlan>]) -> Result<(), Error> {
        for view in self.views().await? {
            if view.pipeline == pipeline && plans.iter().all(|p| p.name != view.aggregate) {
                let what =
                    format!("drop the view realtime.{}, which pipeline {pipeline} no longer has", view.aggregate);
                self.execute(&what, &format!("DROP VIEW IF EXISTS {}", table(&view.aggregate))).await?;
            }
        }
        Ok(())
    }
}
