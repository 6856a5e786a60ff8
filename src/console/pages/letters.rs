//! Dead letters: records that are no events, or whose clock is ahead, with the reason and what was sent.

use actix_web::{HttpResponse, web};
use maud::html;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::dead_letters::{Letter, List, Status, record, record_as_json};
use crate::cli::lake::Lake;
use crate::cli::output::safe_bytes;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{State, View, badge, empty, table, th};
use crate::console::words;

/// Letters of a page and of an answer.
const LETTERS: usize = 100;
const LETTERS_MAX: usize = 1_000;
const MEMORY_BYTES: usize = 64 << 20;
/// Characters of a payload in the list.
const PREVIEW: usize = 90;

#[derive(Clone, Deserialize, Default, schemars::JsonSchema)]
pub struct Asked {
    /// `unparsed` or `future`; both without it.
    #[serde(default)]
    status: String,
    /// Only where the reason contains this.
    #[serde(default)]
    reason: String,
    /// How many of the newest.
    limit: Option<usize>,
}

/// The newest letters that fit.
pub async fn letters(shared: &Shared, asked: &Asked) -> anyhow::Result<Vec<Letter>> {
    let (config, uri) = (shared.config(), shared.server.lakehouse.uri.clone());
    let list = List {
        status: match asked.status.as_str() {
            "unparsed" => Some(Status::Unparsed),
            "future" => Some(Status::Future),
            _ => None,
        },
        reason: Some(asked.reason.clone()).filter(|reason| !reason.is_empty()),
        limit: asked.limit.unwrap_or(LETTERS).min(LETTERS_MAX),
        ..List::default()
    };
    shared.desk.run(async move { list.newest(&config, &Lake::open_by_name(&uri, MEMORY_BYTES)?).await }).await
}

/// One record of Bronze, by `topic/generation/partition/offset`.
pub async fn find(shared: &Shared, source: &str) -> anyhow::Result<Map<String, Value>> {
    let (config, uri, source) = (shared.config(), shared.server.lakehouse.uri.clone(), source.to_owned());
    shared
        .desk
        .run(async move {
            let (pipeline, batch) = record(&config, &Lake::open_by_name(&uri, MEMORY_BYTES)?, &source).await?;
            record_as_json(&pipeline, &batch)
        })
        .await
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let letters = letters(&shared, &asked).await?;
    let body = html! {
        h1 { "Dead letters" }
        p.lead { "Records that are no events, or whose clock lies ahead. They are in Bronze, byte for byte, and count nowhere else." }
        form.filter method="get" {
            label for="status" { "Kind" }
            select #status name="status" {
                @for (value, name) in [("", "all"), ("unparsed", "unparsed"), ("future", "future")] { option value=(value) selected[asked.status == value] { (name) } }
            }
            label for="reason" { "Reason contains" } input #reason name="reason" value=(asked.reason) spellcheck="false";
            button type="submit" { "Filter" }
        }
        @if letters.is_empty() {
            @if asked.status.is_empty() && asked.reason.is_empty() {
                (empty("No dead letter", html! { "Every record so far is an event." }))
            } @else {
                (empty("None fits this filter", html! { a href="/dead-letters" { "Show all" } }))
            }
        } @else {
            (table("Dead letters", &["Record", "Arrived", "Kind", "Reason", "Begins"].map(th), html! {
                @for letter in &letters {
                    tr {
                        th scope="row" { a href={ "/records/" (letter.source) } { (letter.source) } }
                        td { (letter.ingested) } td { (badge(State::Watch, &letter.status)) } td.wrap { (letter.reason) }
                        td { code { (letter.payload.as_deref().map_or_else(|| "–".into(), |payload| words::begin(&safe_bytes(payload), PREVIEW))) } }
                    }
                }
            }))
            @if letters.len() == LETTERS { p.note { "The newest " (LETTERS) "." } }
        }
    };
    Ok(view.page("Dead letters", None, body))
}

/// One record, whole.
pub async fn one(view: View, source: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let record = find(&shared, &source).await.map_err(|error| Problem::missing(format!("{error:#}")))?;
    let body = html! {
        p.crumbs { a href="/dead-letters" { "Dead letters" } " / record" }
        h1 { (source) }
        p.lead { "The record as Bronze keeps it." }
        (table("Record", &["Column", "Value"].map(th), html! {
            @for (name, value) in &record { tr { th scope="row" { (name) } td.wrap { code { (words::value(value)) } } } }
        }))
    };
    Ok(view.page(&source, None, body))
}
