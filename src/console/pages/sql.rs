//! The SQL editor: one statement on the Delta tables or on ClickHouse, its rows, and the same as CSV.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use crate::console::assets;
use crate::console::completion::Words;
use crate::console::draw::result;
use crate::console::problem::Problem;
use crate::console::query::{Answer, LIMIT, On, PAGE_ROWS, ROWS_MAX, Running, Standing, csv};
use crate::console::shared::Shared;
use crate::console::view::{View, encoded, go};
use crate::console::words;

/// Characters of a value in the table.
const SHOWN: usize = 300;
/// Statements to begin with.
const EXAMPLES: [(On, &str, &str); 5] = [
    (On::Delta, "All tables", "select table_schema, table_name from information_schema.tables order by 1, 2"),
    (
        On::Delta,
        "Verdicts in Bronze",
        "select time_status, count(*) as records from bronze.user_events group by 1 order by 2 desc",
    ),
    (
        On::Delta,
        "Newest events",
        "select event_time, event_type, user_id, page, source from silver.user_events order by event_time desc limit 20",
    ),
    (
        On::Clickhouse,
        "Events per minute",
        "select * from realtime.events_per_minute order by window_start desc, event_type limit 40",
    ),
    (On::Clickhouse, "Conversion by day", "select * from gold.conversion_rate_daily order by event_date desc limit 30"),
];

#[derive(Deserialize, Default)]
pub struct Asked {
    #[serde(default)]
    sql: String,
    #[serde(default)]
    on: On,
}

/// Which engine.
#[derive(Deserialize, schemars::JsonSchema)]
pub struct Of {
    /// Delta without it.
    #[serde(default)]
    pub on: On,
}

/// What the editor completes.
pub async fn words(asked: web::Query<Of>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(&*completed(&shared, asked.on).await?))
}

pub async fn completed(shared: &Shared, on: On) -> anyhow::Result<Arc<Words>> {
    let (completion, server, tables) = (shared.completion.clone(), shared.server.clone(), shared.tables.clone());
    shared.desk.run(async move { completion.words(on, &server, &tables).await }).await
}

/// How the caller's queries stand.
pub fn standing(shared: &Shared, user: &str) -> Vec<Standing> {
    shared.queries.running(user).iter().map(Running::standing).collect()
}

pub async fn running(view: View, shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(standing(&shared, &view.caller.name))
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> HttpResponse {
    show(&view, &shared, &asked, None)
}

/// The editor with a statement in it.
pub fn address(on: On, sql: &str) -> String {
    format!("/sql?on={}&sql={}", on.as_str(), encoded(sql))
}

fn show(view: &View, shared: &Shared, asked: &Asked, answer: Option<Result<&Answer, &str>>) -> HttpResponse {
    let running = shared.queries.running(&view.caller.name);
    let body = html! {
        h1 { "SQL" }
        p.lead { "Reads the Delta tables (DataFusion) or ClickHouse. Nothing can be changed here; a query may take "
            (words::span(LIMIT)) " and gives at most " (words::count(ROWS_MAX as i64)) " rows." }
        (view.form("/sql", html! {
            div.editor data-editor {
                label for="sql" { "Statement" }
                textarea #sql name="sql" rows="7" spellcheck="false" autocapitalize="none" autocomplete="off" required data-run { (asked.sql) }
                div.actions {
                    fieldset.choice {
                        legend.sr { "Where to run it" }
                        @for (on, name) in [(On::Delta, "Delta"), (On::Clickhouse, "ClickHouse")] {
                            label { input type="radio" name="on" value=(on.as_str()) checked[asked.on == on]; " " (name) }
                        }
                    }
                    button.primary type="submit" name="as" value="page" { "Run" }
                    button type="submit" name="as" value="csv" { "Download CSV" }
                    span.note { "Ctrl+Enter runs" span data-keys hidden { ", Ctrl+Space completes" } }
                }
            }
        }))
        script src=(assets::url("sql.js")) defer {}
        @if !running.is_empty() {
            section aria-labelledby="running-title" {
                h2 #running-title { "Your queries under way" }
                ul.sinks { @for query in &running {
                    li {
                        code { (query.sql.chars().take(120).collect::<String>()) }
                        span.note { "for " (words::span(Duration::from_secs(query.since.elapsed().as_secs()))) }
                        (view.form("/sql/cancel", html! { input type="hidden" name="id" value=(query.id); button.danger type="submit" { "Cancel" } }))
                    }
                } }
            }
        }
        div #answer data-answer { (shown(answer)) }
        @if answer.is_none() {
                section aria-labelledby="examples-title" {
                    h2 #examples-title { "To begin with" }
                    ul.examples { @for (on, name, sql) in EXAMPLES {
                        li { a href=(address(on, sql)) { (name) } " " span.note { (on.as_str()) } }
                    } }
                }
        }
    };
    view.page("SQL", None, body)
}

/// What came of a statement: its drawing, where one suits its rows, and the rows.
fn shown(answer: Option<Result<&Answer, &str>>) -> Markup {
    match answer {
        None => html! {},
        Some(Err(error)) => html! { p.said role="alert" { (error) } },
        Some(Ok(answer)) => html! {
            @if let Some(drawn) = result::chart(&answer.columns, &answer.rows) {
                section aria-labelledby="chart-title" { h2 #chart-title { "Chart" } (drawn) }
            }
            (rows(answer))
        },
    }
}

/// The rows of an answer, as a table.
pub fn rows(answer: &Answer) -> Markup {
    let numbers: Vec<bool> = (0..answer.columns.len())
        .map(|i| {
            let mut values = answer.rows.iter().filter_map(|row| row.get(i)?.as_deref()).peekable();
            values.peek().is_some() && values.all(|value| value.parse::<f64>().is_ok())
        })
        .collect();
    let class = |i: usize| numbers.get(i).copied().unwrap_or(false).then_some("n");
    html! {
        section aria-labelledby="rows-title" {
            div.heading {
                h2 #rows-title { (words::plural(answer.rows.len() as i64, "row", "rows")) }
                p.note role="status" { (words::seconds(answer.seconds)) @if answer.more { "; there are more: add a limit or download them as CSV" } }
            }
            @if !answer.columns.is_empty() {
                div.scroll.tall tabindex="0" role="region" aria-label="Rows" {
                    table {
                        thead { tr { @for (i, name) in answer.columns.iter().enumerate() { th scope="col" class=[class(i)] { (name) } } } }
                        tbody { @for row in &answer.rows {
                            tr { @for (i, value) in row.iter().enumerate() {
                                td class=[class(i)] { @match value { Some(value) => { (words::begin(value, SHOWN)) } None => { span.note { "null" } } } }
                            } }
                        } }
                    }
                }
            }
        }
    }
}

#[derive(Deserialize)]
pub struct Sent {
    sql: String,
    #[serde(default)]
    on: On,
    #[serde(default, rename = "as")]
    shown: String,
    /// By which the caller asks how it stands, and cancels it.
    #[serde(default)]
    id: String,
}

pub async fn run(view: View, sent: web::Form<Sent>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let Sent { sql, on, shown: form, id } = sent.into_inner();
    let download = form == "csv";
    let limit = if download { ROWS_MAX } else { PAGE_ROWS };
    let answer = shared.ask_as(&view.caller.name, Some(&id), on, &sql, limit).await;
    let asked = Asked { sql, on };
    if form == "part" {
        // For a page that stays as it is; that it failed is in its words.
        let answer = answer.as_ref().map_err(|error| format!("{error:#}"));
        let content = shown(Some(answer.as_ref().map(|answer| *answer).map_err(String::as_str)));
        return Ok(HttpResponse::Ok().content_type(ContentType::html()).body(content.into_string()));
    }
    match answer {
        Ok(answer) if download => Ok(HttpResponse::Ok()
            .content_type("text/csv; charset=utf-8")
            .insert_header((header::CONTENT_DISPOSITION, "attachment; filename=\"rows.csv\""))
            .body(csv(&answer))),
        Ok(answer) => Ok(show(&view, &shared, &asked, Some(Ok(&answer)))),
        Err(error) => {
            let mut response = show(&view, &shared, &asked, Some(Err(&format!("{error:#}"))));
            *response.status_mut() = actix_web::http::StatusCode::UNPROCESSABLE_ENTITY;
            Ok(response)
        }
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Which {
    /// The query's id.
    pub id: String,
}

pub async fn cancel(view: View, which: web::Form<Which>, shared: web::Data<Shared>) -> HttpResponse {
    shared.queries.cancel(&view.caller.name, &which.id);
    go("/sql")
}
