//! Tables, queries, quality, and one event's way.

use actix_web::{HttpResponse, web};
use chrono::Utc;
use serde::Deserialize;

use crate::console::pages::sql::{Which, standing};
use crate::console::pages::trace::found;
use crate::console::pages::{data, quality as results};
use crate::console::problem::Problem;
use crate::console::query::{On, PAGE_ROWS};
use crate::console::range::Range;
use crate::console::shared::Shared;
use crate::console::view::View;

pub async fn tables(shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(data::tables(&shared).await?))
}

pub async fn table(name: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let table = data::table(&shared, &name).await?;
    let missing = || Problem::missing("there is no such table; /api/v1/tables lists all");
    Ok(HttpResponse::Ok().json(table.ok_or_else(missing)?))
}

pub async fn all_served(shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(data::all_served(&shared).await?))
}

pub async fn served(name: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(data::one_served(&shared, &name).await?))
}

/// A statement that reads.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// One statement.
    sql: String,
    /// Where to run it; Delta without it.
    #[serde(default)]
    on: On,
    /// How many rows; 200 without it, 100,000 at most.
    limit: Option<usize>,
    /// A name of the caller's, 8 to 40 letters, digits and dashes, by which it is cancelled.
    id: Option<String>,
}

pub async fn sql(
    view: View,
    statement: web::Json<Statement>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let Statement { sql, on, limit, id } = statement.into_inner();
    let answer = shared.ask_as(&view.caller.name, id.as_deref(), on, &sql, limit.unwrap_or(PAGE_ROWS)).await;
    Ok(HttpResponse::Ok().json(answer.map_err(|error| Problem::refused(format!("{error:#}")))?))
}

pub async fn sql_running(view: View, shared: web::Data<Shared>) -> HttpResponse {
    HttpResponse::Ok().json(standing(&shared, &view.caller.name))
}

pub async fn sql_cancel(
    view: View,
    which: web::Json<Which>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    match shared.queries.cancel(&view.caller.name, &which.id) {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(Problem::missing("no query of yours has this id; it may be over")),
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Runs {
    /// Results of so many of the newest runs, 1,000 at most; one without it, all of the range with one.
    runs: Option<u16>,
    /// `15m`, `1h`, `6h`, `24h`, `7d` or `30d`: what was checked in this time alone.
    range: Option<String>,
}

/// Runs whose results one call answers at most.
const RUNS_MAX: u16 = 1_000;

pub async fn quality(which: web::Query<Runs>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let range = which.range.as_deref().filter(|name| !name.is_empty());
    let since = range.map(|name| Range::named(name, Range::Week)).transpose()?.map(|range| Utc::now() - range.span());
    let runs = which.runs.unwrap_or(if since.is_some() { RUNS_MAX } else { 1 }).clamp(1, RUNS_MAX);
    Ok(HttpResponse::Ok().json(results::results(&shared, runs.into(), since).await?))
}

pub async fn trace(view: View, asked: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(&*found(&shared, &view.caller.name, &asked).await?))
}
