//! The tables and views in ClickHouse, as people find them beside the Delta tables.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

use crate::cli::clickhouse::Http;
use crate::config::Server;
use crate::serving::literal;

/// The databases that Boathouse keeps. Numbers as texts: of 64 bits, some servers write them so in JSON anyway.
const TABLES: &str = "SELECT concat(database, '.', name), engine, toString(total_rows), toString(total_bytes) \
     FROM system.tables WHERE database IN ('realtime', 'gold') ORDER BY database, name";
const COLUMNS: &str = "SELECT name, type, comment FROM system.columns \
     WHERE concat(database, '.', table) = {table} ORDER BY position";

/// A table or view of ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Served {
    pub table: String,
    /// `View`, or the engine of a table.
    pub engine: String,
    /// What a table holds; none of a view.
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
}

/// A column of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Column {
    pub name: String,
    pub r#type: String,
    pub comment: String,
}

/// One with its columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct WholeServed {
    #[serde(flatten)]
    pub served: Served,
    pub columns: Vec<Column>,
}

fn text(row: &[Value], place: usize) -> Option<String> {
    row.get(place)?.as_str().map(str::to_owned)
}

/// All of them; none before the daemon has made its first.
pub async fn all(server: &Server) -> anyhow::Result<Vec<Served>> {
    let http = Http::new(&server.clickhouse)?;
    let number = |row: &[Value], place| text(row, place)?.parse().ok();
    let served = |row: Vec<Value>| {
        Some(Served { table: text(&row, 0)?, engine: text(&row, 1)?, rows: number(&row, 2), bytes: number(&row, 3) })
    };
    http.rows(TABLES).await?.into_iter().map(served).collect::<Option<_>>().context("system.tables has other columns")
}

/// One with its columns; none where there is none of this name.
pub async fn one(server: &Server, name: &str) -> anyhow::Result<Option<WholeServed>> {
    // Only a name that the server itself has told goes back to it.
    let Some(served) = all(server).await?.into_iter().find(|served| served.table == name) else { return Ok(None) };
    let sql = COLUMNS.replace("{table}", &literal(&served.table));
    let column = |row: Vec<Value>| {
        Some(Column { name: text(&row, 0)?, r#type: text(&row, 1)?, comment: text(&row, 2).unwrap_or_default() })
    };
    let rows = Http::new(&server.clickhouse)?.rows(&sql).await?;
    let columns = rows.into_iter().map(column).collect::<Option<_>>().context("system.columns has other columns")?;
    Ok(Some(WholeServed { served, columns }))
}
