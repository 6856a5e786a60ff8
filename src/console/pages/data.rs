//! The Delta tables: what they hold, their columns, their newest versions, a sample of their rows. And what ClickHouse
//! serves of them.

use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Serialize;

use super::sql::{address, rows};
use crate::batch::upkeep::{Commit, TableSummary};
use crate::console::problem::Problem;
use crate::console::query::{Answer, On};
use crate::console::served::{self, Served, WholeServed};
use crate::console::shared::Shared;
use crate::console::view::{self, View, empty, figure, in_path, n, th};
use crate::console::words::{self, count};

/// Versions that a table's page shows.
const VERSIONS: u64 = 20;
/// Rows of the sample.
const SAMPLE: usize = 20;

/// A table and what it holds.
#[derive(Debug, Serialize)]
pub struct Table {
    pub table: String,
    #[serde(flatten)]
    pub summary: TableSummary,
}

/// A table with its columns and newest versions.
#[derive(Debug, Serialize)]
pub struct WholeTable {
    #[serde(flatten)]
    pub table: Table,
    /// Name and type.
    pub columns: Vec<(String, String)>,
    pub commits: Vec<Commit>,
}

/// All tables.
pub async fn tables(shared: &Shared) -> anyhow::Result<Vec<Table>> {
    let tables = shared.tables.clone();
    let found = shared.desk.run(async move { tables.all().await }).await?;
    Ok(found.into_iter().map(|(table, known)| Table { table, summary: known.summary }).collect())
}

/// One table; none where there is none.
pub async fn table(shared: &Shared, table: &str) -> anyhow::Result<Option<WholeTable>> {
    let (tables, table) = (shared.tables.clone(), table.to_owned());
    let found = shared.desk.run(async move { Ok((tables.one(&table, VERSIONS).await?, table)) }).await?;
    let (Some((known, commits)), table) = found else { return Ok(None) };
    let columns = known.columns.to_vec();
    Ok(Some(WholeTable { table: Table { table, summary: known.summary }, columns, commits }))
}

/// What ClickHouse serves.
pub async fn all_served(shared: &Shared) -> anyhow::Result<Vec<Served>> {
    let server = shared.server.clone();
    shared.desk.run(async move { served::all(&server).await }).await
}

/// A table or view of ClickHouse.
pub async fn one_served(shared: &Shared, name: &str) -> Result<WholeServed, Problem> {
    let (server, name) = (shared.server.clone(), name.to_owned());
    let found = shared.desk.run(async move { served::one(&server, &name).await }).await?;
    found.ok_or_else(|| Problem::missing("there is no such table or view in ClickHouse; the data page lists all"))
}

pub async fn page(view: View, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let tables = tables(&shared).await?;
    let first = html! {
        h1 { "Data" }
        p.lead { "The Delta tables of the lakehouse. Any Delta reader can open them, here by name in the " a href="/sql" { "SQL editor" } "." }
        @if tables.is_empty() {
            (empty("No table yet", html! { "Bronze appears with the first event, silver and gold with the first " a href="/batch" { "batch run" } "." }))
        } @else {
            @let columns = [th("Table"), n("Rows"), n("Size"), n("Files"), n("Small files"), n("Version")];
            (view::table("Tables", &columns, html! {
                @for Table { table, summary } in &tables {
                    tr {
                        th scope="row" { a href={ "/data/" (table) } { (table) } }
                        td.n { (count(summary.rows)) } td.n { (words::bytes(summary.bytes)) } td.n { (count(summary.files as i64)) }
                        td.n { (count(summary.files_small as i64)) } td.n { (count(summary.version)) }
                    }
                }
            }))
            p.note { "Many small files make reading slow; " code { "boathouse tables optimize TABLE" } " merges them." }
        }
    };
    // Behind the rest, which does not wait for ClickHouse.
    let rest = async move { Ok(served_list(&all_served(&shared).await?)) };
    Ok(view.page_in_two("Data", None, first, rest))
}

fn served_list(all: &[Served]) -> Markup {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    html! {
        section aria-labelledby="served-title" {
            div.heading { h2 #served-title { "In ClickHouse" } p.note { "what dashboards and BI tools read; views show what is in force" } }
            @if all.is_empty() {
                (empty("No table yet", html! { "The databases realtime and gold appear with the first window and the first " a href="/batch" { "batch run" } "." }))
            } @else {
                (view::table("Tables and views of ClickHouse", &[th("Table"), th("Engine"), n("Rows"), n("Size")], html! {
                    @for Served { table, engine, rows, bytes } in all {
                        tr {
                            th scope="row" { a href={ "/data/clickhouse/" (in_path(table)) } { (table) } }
                            td { (engine) }
                            td.n { (or_none(rows.map(|rows| count(rows as i128)))) } td.n { (or_none(bytes.map(words::bytes))) }
                        }
                    }
                }))
            }
        }
    }
}

pub async fn one_of_clickhouse(
    view: View,
    name: web::Path<String>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let WholeServed { served, columns } = one_served(&shared, &name).await?;
    let quoted = served.table.split('.').map(|part| format!("`{part}`")).collect::<Vec<_>>().join(".");
    let sql = format!("select * from {quoted} limit {SAMPLE}");
    let sample = shared.ask(&view.caller.name, On::Clickhouse, &sql, SAMPLE).await;
    let body = html! {
        p.crumbs { a href="/data" { "Data" } " / ClickHouse" }
        h1 { (served.table) }
        dl.figures {
            (figure("Engine", &served.engine, "", None))
            @if let Some(rows) = served.rows { (figure("Rows", &count(rows as i128), "", Some("before equal keys are merged"))) }
            @if let Some(bytes) = served.bytes { (figure("Size", &words::bytes(bytes), "", None)) }
        }
        section aria-labelledby="columns-title" {
            h2 #columns-title { "Columns" }
            (view::table("Columns and their types", &["Column", "Type", "What it is"].map(th), html! {
                @for column in &columns { tr { th scope="row" { (column.name) } td { code { (column.r#type) } } td.wrap { (column.comment) } } }
            }))
        }
        (sampled(&sample, On::Clickhouse, &sql))
    };
    Ok(view.page(&served.table, None, body))
}

/// The sample of a table, and the way on.
fn sampled(sample: &anyhow::Result<Answer>, on: On, sql: &str) -> Markup {
    html! {
        @match sample {
            Ok(answer) => {
                (rows(answer))
                p { a href=(address(on, sql)) { "Go on in the SQL editor" } }
            }
            Err(error) => { p.said role="alert" { (format!("{error:#}")) } }
        }
    }
}

pub async fn one(view: View, name: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let missing = || Problem::missing("there is no such table; the data page lists all");
    let found = table(&shared, &name).await?.ok_or_else(missing)?;
    let Table { table, summary } = &found.table;
    let sql = format!("select * from {table} limit {SAMPLE}");
    let sample = shared.ask(&view.caller.name, On::Delta, &sql, SAMPLE).await;
    let body = html! {
        p.crumbs { a href="/data" { "Data" } }
        h1 { (table) }
        dl.figures {
            (figure("Rows", &count(summary.rows), "", None)) (figure("Size", &words::bytes(summary.bytes), "", None))
            (figure("Files", &count(summary.files as i64), "", Some(&format!("{} small", summary.files_small))))
            (figure("Version", &count(summary.version), "", None))
        }
        section aria-labelledby="columns-title" {
            h2 #columns-title { "Columns" }
            (view::table("Columns and their types", &["Column", "Type"].map(th), html! {
                @for (name, kind) in &found.columns { tr { th scope="row" { (name) } td { code { (kind) } } } }
            }))
        }
        (sampled(&sample, On::Delta, &sql))
        section aria-labelledby="versions-title" {
            h2 #versions-title { "Newest versions" }
            @let columns = [n("Version"), th("When"), th("Operation"), n("Files added"), n("Files removed"), n("Rows added")];
            (view::table("Versions of the table", &columns, html! {
                @for commit in &found.commits {
                    tr {
                        td.n { (count(commit.version)) } td { (commit.at.map_or_else(|| "–".into(), words::moment)) } td { (commit.operation) }
                        td.n { (count(commit.files_added as i64)) } td.n { (count(commit.files_removed as i64)) } td.n { (count(commit.rows_added)) }
                    }
                }
            }))
        }
    };
    Ok(view.page(table, None, body))
}
