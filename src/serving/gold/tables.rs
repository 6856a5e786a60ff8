//! The database `gold`: its shared tables, a table of rows for each model and set of columns, the views.

use std::collections::BTreeMap;

use clickhouse::Row;
use serde::{Deserialize, Serialize};

use super::super::client::Client;
use super::super::error::{Error, ErrorKind};
use super::super::schema::DURABLE;
use super::super::tables::Named;
use super::publish::Publication;
use super::{ROWS_INFIX, ServedModel, literal, table};

/// The tables that all models share. Each statement may run twice; a released one never changes, a new one is added
/// below it.
const SHARED: [(&str, &str); 4] = [
    (
        "published",
        "CREATE TABLE IF NOT EXISTS gold.published (
            pipeline LowCardinality(String), event_date Date,
            run_id String COMMENT 'the run whose rows of this date are shown',
            version UInt64 COMMENT 'grows with the version of silver that the run has read',
            silver_version UInt64,
            published_at DateTime64(3, 'UTC') DEFAULT now64(3)
        ) ENGINE = ReplacingMergeTree(version) ORDER BY (pipeline, event_date)
        SETTINGS fsync_after_insert = 1, fsync_part_directory = 1",
    ),
    (
        "progress",
        "CREATE TABLE IF NOT EXISTS gold.progress (
            pipeline LowCardinality(String), version UInt64,
            silver_table String COMMENT 'the id of the Delta table',
            silver_version UInt64,
            models String COMMENT 'changes when a served model does',
            run_id String,
            complete UInt8 COMMENT 'every date is published as of this version',
            at DateTime64(3, 'UTC') DEFAULT now64(3)
        ) ENGINE = ReplacingMergeTree(complete) ORDER BY (pipeline, version)
        SETTINGS fsync_after_insert = 1, fsync_part_directory = 1",
    ),
    (
        "freshness",
        "CREATE TABLE IF NOT EXISTS gold.freshness (
            pipeline LowCardinality(String), layer LowCardinality(String) COMMENT 'bronze, silver or gold',
            observed_at DateTime64(3, 'UTC'),
            newest_event_time Nullable(DateTime64(6, 'UTC')) COMMENT 'the newest event in the layer',
            lag_seconds Nullable(Float64) COMMENT 'how far it lies behind',
            table_version UInt64, run_id String
        ) ENGINE = MergeTree ORDER BY (pipeline, layer, observed_at) TTL toDateTime(observed_at) + INTERVAL 400 DAY",
    ),
    (
        "progress",
        "ALTER TABLE gold.progress ADD COLUMN IF NOT EXISTS silver_entry UInt64 DEFAULT 0 \
         COMMENT 'tells two commits of the same version of silver from each other'",
    ),
];

/// What stands before the description in a view's comment.
const COMMENT_PREFIX: &str = "boathouse ";

/// What a view shows, as its comment says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub pipeline: String,
    /// The tables of rows it reads, the current columns' first.
    tables: Vec<String>,
    #[serde(default)]
    description: String,
}

#[derive(Row, Deserialize)]
struct Table {
    name: String,
    engine: String,
    comment: String,
    rows: u64,
    bytes: u64,
}

#[derive(Row, Deserialize)]
struct Column {
    table: String,
    name: String,
    kind: String,
}

/// How the database was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldReady {
    /// A table was missing and was made: whatever was published before may be gone, everything is to be published.
    pub made_tables: bool,
    /// Views that the pipeline no longer serves and that are gone now: the next publication would show them empty. Their
    /// tables of rows are there still, see [`Client::gold_leftovers`].
    pub dropped: Vec<String>,
}

impl Client {
    /// Makes everything ready for the served models of a pipeline: shared tables, a table of rows for each model and
    /// set of columns, a view for each model. A view whose columns have changed shows the old rows until new ones are
    /// published. May be repeated at any time.
    pub async fn prepare_gold(&self, pipeline: &str, models: &[ServedModel]) -> Result<GoldReady, Error> {
        self.execute("create the database gold", "CREATE DATABASE IF NOT EXISTS gold").await?;
        let found = self.gold_tables().await?;
        let mut made_tables = false;
        for (name, statement) in SHARED {
            made_tables |= name != "freshness" && !found.contains_key(name);
            self.execute(&format!("make gold.{name} ready"), statement).await?;
        }
        for model in models {
            let rows = model.rows_table();
            made_tables |= !found.contains_key(&rows);
            self.execute(&format!("create gold.{rows}"), &create_rows(model)).await?;
        }
        self.show_gold(pipeline, models, true).await?;
        let mut dropped = Vec::new();
        for (name, view) in &found {
            let ours = shown(view).is_some_and(|s| s.pipeline == pipeline);
            if ours && models.iter().all(|m| m.view != *name) {
                self.drop_gold_view(name, &format!("which pipeline {pipeline} no longer serves")).await?;
                dropped.push(name.clone());
            }
        }
        Ok(GoldReady { made_tables, dropped })
    }

    pub(super) async fn drop_gold_view(&self, name: &str, why: &str) -> Result<(), Error> {
        let what = format!("drop the view gold.{name}, {why}");
        self.execute(&what, &format!("DROP VIEW IF EXISTS {}", table(name))).await
    }

    /// Once a publication is complete, and every date with it published with the current columns: views over these alone;
    /// tables of other columns go. One that was overtaken while it was held up leaves the tables to the one that came
    /// after it.
    pub async fn settle_gold(&self, of: &Publication, models: &[ServedModel]) -> Result<(), Error> {
        if self.gold_standing(&of.pipeline).await?.is_none_or(|newest| newest.version != of.version) {
            return Ok(());
        }
        self.show_gold(&of.pipeline, models, false).await?;
        let found = self.gold_tables().await?;
        for model in models {
            let current = model.rows_table();
            for name in found.keys().filter(|n| is_rows_of(n, &model.view) && **n != current) {
                let what = format!("drop gold.{name}, whose columns are not the model's any more");
                self.execute(&what, &format!("DROP TABLE IF EXISTS {}", table(name))).await?;
            }
        }
        Ok(())
    }

    /// Lets every view show its tables of rows: all of them, or only the one with the current columns.
    async fn show_gold(&self, pipeline: &str, models: &[ServedModel], earlier_too: bool) -> Result<(), Error> {
        let found = self.gold_tables().await?;
        for model in models {
            let current = model.rows_table();
            let mut tables = vec![current.clone()];
            if earlier_too {
                tables.extend(found.keys().filter(|n| is_rows_of(n, &model.view) && **n != current).cloned());
            }
            let wanted = Shown { pipeline: pipeline.to_owned(), tables, description: model.description.clone() };
            if let Some(view) = found.get(&model.view) {
                match shown(view) {
                    Some(is) if is == wanted => continue,
                    Some(is) if is.pipeline == pipeline => {}
                    Some(is) => {
                        let message =
                            format!("pipeline {} serves a model of that name: rename one of them", is.pipeline);
                        return Err(self.error(ErrorKind::Permanent, &format!("look at gold.{}", model.view), message));
                    }
                    None => {
                        let message = format!(
                            "there is already a {} of that name, not made by Boathouse: rename it",
                            view.engine
                        );
                        return Err(self.error(ErrorKind::Permanent, &format!("look at gold.{}", model.view), message));
                    }
                }
            }
            let columns = self.rows_columns(&wanted.tables).await?;
            let what = format!("create the view gold.{}", model.view);
            self.execute(&what, &create_view(model, &wanted, &columns)).await?;
        }
        Ok(())
    }

    /// Tables and views of the database, by name.
    pub(super) async fn gold_tables(&self) -> Result<BTreeMap<String, TableInfo>, Error> {
        let sql = "SELECT name, engine, comment, ifNull(total_rows, 0) AS rows, ifNull(total_bytes, 0) AS bytes \
                   FROM system.tables WHERE database = 'gold'";
        let tables: Vec<Table> = self.rows("list the tables of gold", self.query(sql)).await?;
        let info =
            |t: Table| (t.name, TableInfo { engine: t.engine, comment: t.comment, rows: t.rows, bytes: t.bytes });
        Ok(tables.into_iter().map(info).collect())
    }

    /// The columns of tables of rows, by table.
    async fn rows_columns(&self, tables: &[String]) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
        let sql = "SELECT table, name, type AS kind FROM system.columns WHERE database = 'gold' AND table IN ?";
        let query = self.query(sql).bind(tables);
        let mut columns: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for column in self.rows::<Column>("read the columns of gold's tables", query).await? {
            columns.entry(column.table).or_default().insert(column.name, column.kind);
        }
        Ok(columns)
    }

    /// The tables of rows of a model, with whatever columns.
    pub(super) async fn rows_tables(&self, view: &str) -> Result<Vec<String>, Error> {
        let what = format!("list the tables of gold.{view}");
        let query = self
            .query("SELECT name FROM system.tables WHERE database = 'gold' AND startsWith(name, ?) ORDER BY name")
            .bind(format!("{view}{ROWS_INFIX}"));
        Ok(self.rows::<Named>(&what, query).await?.into_iter().map(|t| t.name).collect())
    }
}

pub(super) struct TableInfo {
    pub engine: String,
    pub comment: String,
    pub rows: u64,
    pub bytes: u64,
}

impl TableInfo {
    /// Whether it is of the kind that a model's rows are in, on one server or a cluster.
    pub fn holds_rows(&self) -> bool {
        self.engine.ends_with("ReplacingMergeTree")
    }
}

pub(super) fn shown(view: &TableInfo) -> Option<Shown> {
    let text = view.comment.strip_prefix(COMMENT_PREFIX).filter(|_| view.engine == "View")?;
    serde_json::from_str(text).ok()
}

fn is_rows_of(name: &str, view: &str) -> bool {
    rows_of(name) == Some(view)
}

/// The view whose rows are in a table of this name; none where it is no table of rows.
pub(super) fn rows_of(name: &str) -> Option<&str> {
    let (view, mark) = name.rsplit_once(ROWS_INFIX)?;
    (mark.len() == 8 && mark.bytes().all(|b| b.is_ascii_hexdigit())).then_some(view)
}

fn create_rows(model: &ServedModel) -> String {
    let columns: Vec<String> = model
        .columns
        .iter()
        .map(|c| format!("`{}` {} COMMENT {}", c.name, c.clickhouse_type(), literal(&c.doc)))
        .collect();
    let key: Vec<String> = model.grain.iter().filter(|g| **g != model.date).map(|g| format!(", `{g}`")).collect();
    // The partition is a function of the sorting key, or FINAL would be wrong.
    format!(
        "CREATE TABLE IF NOT EXISTS {} (run_id String, {}, written_at DateTime('UTC') DEFAULT now()) \
         ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(`{date}`) ORDER BY (`{date}`, run_id{}) {DURABLE}",
        table(&model.rows_table()),
        columns.join(", "),
        key.concat(),
        date = model.date,
    )
}

/// A view over the published rows. Rows of tables with earlier columns have defaults where they lack one.
fn create_view(model: &ServedModel, shown: &Shown, columns: &BTreeMap<String, BTreeMap<String, String>>) -> String {
    let none = BTreeMap::new();
    let selects: Vec<String> = shown
        .tables
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let has = columns.get(name).unwrap_or(&none);
            let list: Vec<String> = model
                .columns
                .iter()
                .map(|c| match has.get(&c.name) {
                    Some(kind) if i == 0 || *kind == c.clickhouse_type() => format!("`{}`", c.name),
                    _ => format!("defaultValueOfTypeName({}) AS `{}`", literal(&c.clickhouse_type()), c.name),
                })
                .collect();
            format!(
                "SELECT {} FROM {} FINAL WHERE (`{date}`, run_id) IN \
                 (SELECT event_date, run_id FROM gold.published FINAL WHERE pipeline = {})",
                list.join(", "),
                table(name),
                literal(&shown.pipeline),
                date = model.date,
            )
        })
        .collect();
    let comment = format!("{COMMENT_PREFIX}{}", serde_json::json!(shown));
    format!(
        "CREATE OR REPLACE VIEW {} AS {} COMMENT {}",
        table(&model.view),
        selects.join(" UNION ALL "),
        literal(&comment)
    )
}
