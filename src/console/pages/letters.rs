//! Dead letters: the records that silver refuses, or will, with the reason, what was sent, and whether they are resolved.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, NaiveDate, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::bulk;
use crate::cli::lake::Lake;
use crate::cli::output::safe_bytes;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{self, View, badge, empty, encoded, table, th};
use crate::console::words;
use crate::letters::{Letter, Search, State, Status};

/// Letters of a page and of an answer.
const LETTERS: usize = 100;
const LETTERS_MAX: usize = 1_000;
/// Bytes that a look at the letters may hold.
const MEMORY_BYTES: usize = 64 << 20;
/// Characters of a payload in the list.
const PREVIEW: usize = 90;

#[derive(Clone, Deserialize, Default, schemars::JsonSchema)]
pub struct Asked {
    /// The pipeline; all without it.
    #[serde(default)]
    pub pipeline: String,
    /// `unparsed`, `future` or `refused`; all without it.
    #[serde(default)]
    pub status: String,
    /// `open` or `resolved`; both without it.
    #[serde(default)]
    pub state: String,
    /// Only where the reason contains this.
    #[serde(default)]
    pub reason: String,
    /// Only what arrived at this date or moment (RFC 3339) or later.
    #[serde(default)]
    pub from: String,
    /// Only what arrived before this date or moment.
    #[serde(default)]
    pub to: String,
    /// How many of the newest.
    pub limit: Option<usize>,
}

impl Asked {
    /// What is looked for.
    pub fn search(&self) -> Result<Search, Problem> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Search {
            pipeline: given(&self.pipeline),
            status: match self.status.as_str() {
                "unparsed" => Some(Status::Unparsed),
                "future" => Some(Status::Future),
                "refused" => Some(Status::Refused),
                _ => None,
            },
            state: match self.state.as_str() {
                "open" => Some(State::Open),
                "resolved" => Some(State::Resolved),
                _ => None,
            },
            reason: given(&self.reason),
            from: given(&self.from).map(|text| moment(&text)).transpose()?,
            to: given(&self.to).map(|text| moment(&text)).transpose()?,
            limit: self.limit.unwrap_or(LETTERS).min(LETTERS_MAX),
        })
    }

    /// What tells letters apart but whether they wait for somebody, under the names that forms and addresses use.
    pub fn fields(&self) -> [(&'static str, &str); 5] {
        [
            ("pipeline", &self.pipeline),
            ("status", &self.status),
            ("reason", &self.reason),
            ("from", &self.from),
            ("to", &self.to),
        ]
    }

    fn is_whole(&self) -> bool {
        self.state.is_empty() && self.fields().iter().all(|(_, value)| value.is_empty())
    }
}

/// A date is its beginning in UTC.
pub fn moment(text: &str) -> Result<DateTime<Utc>, Problem> {
    let date = || text.parse::<NaiveDate>().ok().and_then(|date| date.and_hms_opt(0, 0, 0)).map(|t| t.and_utc());
    let wrong =
        || Problem::refused(format!("`{text}` is neither a date (2026-02-06) nor a moment (2026-02-06T14:30:00Z)"));
    text.parse().ok().or_else(date).ok_or_else(wrong)
}

/// The lakehouse with the tables that the console keeps open.
pub fn lake(shared: &Shared) -> anyhow::Result<Lake> {
    Lake::kept_open(&shared.server.lakehouse.uri, MEMORY_BYTES, Arc::new(shared.tables.clone()))
}

/// The newest letters that fit.
pub async fn letters(shared: &Shared, asked: &Asked) -> Result<Vec<Letter>, Problem> {
    let (config, lake, search) = (shared.config(), lake(shared)?, asked.search()?);
    if let Some(name) = &search.pipeline {
        super::batch::known(shared, name)?;
    }
    Ok(shared.desk.run(async move { search.newest(&config, &lake).await }).await?)
}

/// A record's address in the console.
pub fn address(source: &str) -> String {
    format!("/records/{}", source.split('/').map(encoded).collect::<Vec<_>>().join("/"))
}

/// Whether a letter waits for somebody.
pub fn state(letter: &Letter) -> Markup {
    if letter.resolved_by.is_empty() { badge(view::State::Watch, "open") } else { badge(view::State::Good, "resolved") }
}

/// A field of a filter that is one of some.
pub fn choice(name: &'static str, label: &'static str, chosen: &str, options: &[(&str, &str)]) -> Markup {
    html! {
        label for=(name) { (label) }
        select #(name) name=(name) {
            @for (value, shown) in options { option value=(value) selected[chosen == *value] { (shown) } }
        }
    }
}

/// The field of a filter for the kind of letters.
pub fn kind(asked: &Asked) -> Markup {
    let kinds = [("", "all"), ("unparsed", "unparsed"), ("future", "future"), ("refused", "refused")];
    choice("status", "Kind", &asked.status, &kinds)
}

/// The fields of a filter for the reason and the time of arrival.
pub fn bounds(asked: &Asked) -> Markup {
    html! {
        span.field { label for="reason" { "Reason contains" } input #reason name="reason" value=(asked.reason) spellcheck="false"; }
        span.field { label for="from" { "From" } input #from name="from" type="date" value=(asked.from); }
        span.field { label for="to" { "Before" } input #to name="to" type="date" value=(asked.to); }
    }
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    asked.search()?;
    let first = html! {
        h1 { "Dead letters" }
        p.lead {
            "Records that are no events, whose clock lies ahead, or that silver's rules refuse. They are in Bronze, byte for byte. "
            "One is resolved when an event that corrects it has come and silver keeps it."
        }
        form.filter method="get" {
            (kind(&asked))
            (choice("state", "State", &asked.state, &[("", "all"), ("open", "open"), ("resolved", "resolved")]))
            (bounds(&asked))
            button type="submit" { "Filter" }
        }
    };
    let operator = view.operator();
    let rest = async move {
        let letters = letters(&shared, &asked).await?;
        Ok(list(&letters, &asked, operator))
    };
    Ok(view.page_in_two("Dead letters", None, first, rest))
}

fn list(letters: &[Letter], asked: &Asked, operator: bool) -> Markup {
    html! {
        @if operator && letters.iter().any(|letter| letter.resolved_by.is_empty()) {
            p { a href=(bulk::address(asked)) { "Correct all of these at once" } span.note { " that are open; what they would be comes first" } }
        }
        @if letters.is_empty() {
            @if asked.is_whole() {
                (empty("No dead letter", html! { "Every record so far is an event that silver keeps." }))
            } @else {
                (empty("None fits this filter", html! { a href="/dead-letters" { "Show all" } }))
            }
        } @else {
            (table("Dead letters", &["Record", "Arrived", "Kind", "State", "Reason", "Begins"].map(th), html! {
                @for letter in letters {
                    tr {
                        th scope="row" { a href=(address(&letter.source())) { (letter.source()) } }
                        td { (letter.ingested) } td { (letter.status) } td { (state(letter)) } td.wrap { (letter.reason) }
                        td { code { (letter.value.as_deref().map_or_else(|| "–".into(), |value| words::begin(&safe_bytes(value), PREVIEW))) } }
                    }
                }
            }))
            @if letters.len() == LETTERS { p.note { "The newest " (LETTERS) ". A filter shows others." } }
            p.note { "Silver's own refusals show once the batch has run." }
        }
    }
}
