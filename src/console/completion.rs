//! The words that the SQL editor completes: tables, their columns, functions. Looked up at most once a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::query::{OUTSIDE, On};
use super::tables::Tables;
use crate::cli::clickhouse::Http;
use crate::cli::lake::Lake;
use crate::config::Server;

/// What was looked up holds for so long.
const FRESH: Duration = Duration::from_secs(60);
/// Memory of a session that plans nothing.
const MEMORY_BYTES: usize = 1 << 20;

/// The databases whose tables people ask.
const TABLES: &str = "SELECT concat(database, '.', table) AS name, groupArray(column) FROM \
     (SELECT database, table, name AS column FROM system.columns WHERE database IN ('realtime', 'gold') \
      ORDER BY database, table, position) GROUP BY name ORDER BY name";
const FUNCTIONS: &str = "SELECT name FROM system.functions WHERE NOT startsWith(name, '_') ORDER BY name";

/// A table and its columns.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct TableWords {
    pub table: String,
    pub columns: Vec<String>,
}

/// What can be completed.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Words {
    pub tables: Vec<TableWords>,
    pub functions: Vec<String>,
}

type Kept = Mutex<Option<(Instant, Arc<Words>)>>;

/// The words of each engine. Clones share them.
#[derive(Clone, Default)]
pub struct Completion {
    delta: Arc<Kept>,
    clickhouse: Arc<Kept>,
}

impl Completion {
    /// The words of an engine, on the desk's threads.
    pub async fn words(&self, on: On, server: &Server, tables: &Tables) -> anyhow::Result<Arc<Words>> {
        let mut kept = match on {
            On::Delta => self.delta.lock().await,
            On::Clickhouse => self.clickhouse.lock().await,
        };
        if let Some((_, words)) = kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(words.clone());
        }
        let words = Arc::new(match on {
            On::Delta => delta(server, tables).await?,
            On::Clickhouse => clickhouse(server).await?,
        });
        *kept = Some((Instant::now(), words.clone()));
        Ok(words)
    }
}

async fn delta(server: &Server, tables: &Tables) -> anyhow::Result<Words> {
    let of = |(table, known): (String, super::tables::Known)| TableWords {
        table,
        columns: known.columns.iter().map(|(name, _)| name.clone()).collect(),
    };
    let tables = tables.all().await?.into_iter().map(of).collect();
    let functions = Lake::open_by_name(&server.lakehouse.uri, MEMORY_BYTES)?.functions();
    Ok(Words { tables, functions })
}

async fn clickhouse(server: &Server) -> anyhow::Result<Words> {
    let http = Http::new(&server.clickhouse)?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let mut tables = Vec::new();
    for row in http.rows(TABLES).await? {
        let table = text(row.first()).context("system.columns has no names")?;
        let columns = row.get(1).and_then(Value::as_array).into_iter().flatten().filter_map(|c| text(Some(c)));
        tables.push(TableWords { table, columns: columns.collect() });
    }
    let mut functions: Vec<String> = http.rows(FUNCTIONS).await?.iter().filter_map(|row| text(row.first())).collect();
    // What would be refused is not offered.
    functions.retain(|name| !OUTSIDE.contains(&name.to_lowercase().replace('_', "").as_str()));
    Ok(Words { tables, functions })
}
