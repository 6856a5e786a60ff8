//! Where did event X go? Its way on a time line, from its place in Kafka to what ClickHouse serves.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpResponse, web};
use maud::{Markup, html};

use super::sql::address;
use crate::cli::trace::{fate, unknown};
use crate::console::live::Parts;
use crate::console::problem::Problem;
use crate::console::query::On;
use crate::console::shared::Shared;
use crate::console::traces::{ASKED_MAX, OVERTAKEN, Standing};
use crate::console::view::{State, View, badge, empty, in_path, part};
use crate::console::words;
use crate::trace::{About, EventCopy, Fate, Step, Trace};

/// A search that is over by then is shown at once; one that takes longer tells how it goes.
const AT_ONCE: Duration = Duration::from_millis(120);
/// How often the page asks again where there is no script.
const AGAIN_SECONDS: u32 = 2;

/// The page of an event or a place.
pub fn path(asked: &str) -> String {
    format!("/trace/{}", in_path(asked))
}

fn checked(asked: &str) -> Result<&str, Problem> {
    let asked = asked.trim();
    if asked.is_empty() || asked.chars().count() > ASKED_MAX {
        return Err(Problem::refused(format!(
            "ask for an event's id or for topic/partition/offset, of at most {ASKED_MAX} characters"
        )));
    }
    Ok(asked)
}

/// What came of a search, once it is over.
pub async fn found(shared: &Shared, user: &str, asked: &str) -> Result<Arc<Trace>, Problem> {
    let mut outcome = shared.traces.ask(&shared.desk, shared.config(), user, checked(asked)?);
    let over = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
    match over {
        Ok(Some(Ok(trace))) if trace.copies.is_empty() => Err(Problem::missing(unknown(&trace))),
        Ok(Some(Ok(trace))) => Ok(trace),
        Ok(Some(Err(error))) => Err(anyhow::anyhow!("{error}").into()),
        // The one who would tell was ended.
        Ok(None) | Err(_) => Err(Problem::refused(OVERTAKEN)),
    }
}

pub async fn page(view: View, asked: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let asked = checked(&asked)?;
    let mut outcome = shared.traces.ask(&shared.desk, shared.config(), &view.caller.name, asked);
    // Over or not: what stands then is shown.
    let _ = tokio::time::timeout(AT_ONCE, outcome.wait_for(Option::is_some)).await;
    let standing = shared.traces.standing(&view.caller.name, asked);
    let over = standing.as_ref().is_none_or(|standing| standing.outcome.is_some());
    let body = html! {
        h1 { "Trace" }
        p.lead { "Where " code { (asked) } " is, from its place in Kafka to what ClickHouse serves of it." }
        (part("trace", &content(standing.as_ref())))
        @if over { p { a href=(path(asked)) { "Look again" } span.note { " what was found is shown for ten seconds before it is looked for anew" } } }
    };
    let live = format!("/live/trace/{}", in_path(asked));
    let view = if over { view } else { view.asks_again(AGAIN_SECONDS) };
    Ok(view.page(&format!("Trace {}", words::begin(asked, 40)), (!over).then_some(live.as_str()), body))
}

pub fn parts(shared: &Shared, user: &str, asked: &str) -> Parts {
    vec![("trace", content(shared.traces.standing(user, asked).as_ref()))]
}

fn content(standing: Option<&Standing>) -> Markup {
    let Some(Standing { since, outcome }) = standing else {
        return html! { p.said role="status" { "This search is over and was let go of, or another search of yours has ended it. Reload to look again." } };
    };
    match outcome {
        None => html! {
            p.said.busy role="status" {
                (badge(State::Busy, "Searching")) " for " (words::span(Duration::from_secs(since.as_secs())))
                ". By an id every file of Bronze is looked through, one column of it; this page shows what is found by itself."
            }
        },
        Some(Err(error)) => html! { p.said role="alert" { (error) } },
        Some(Ok(trace)) if trace.copies.is_empty() => empty("There is no such event", html! { (unknown(trace)) }),
        Some(Ok(trace)) => {
            html! { @for (number, of) in trace.copies.iter().enumerate() { (copy(number + 1, trace.copies.len(), of)) } }
        }
    }
}

fn state(copy: &EventCopy) -> State {
    match &copy.silver {
        Fate::Kept { .. } => State::Good,
        Fate::Refused { .. } | Fate::Duplicate { .. } => State::Watch,
        Fate::Missing { .. } => State::Wrong,
        Fate::NotYetRun { .. } => State::Busy,
        Fate::Expired { .. } => State::Idle,
    }
}

fn copy(number: usize, of: usize, copy: &EventCopy) -> Markup {
    let title = format!("copy-{number}");
    html! {
        section aria-labelledby=(title) {
            div.heading {
                h2 id=(title) { (copy.event_id.as_deref().unwrap_or("No event")) }
                (badge(state(copy), fate(copy)))
                p.note { (copy.pipeline) @if of > 1 { ", copy " (number) " of " (of) } }
            }
            ol.way { @for one in &copy.timeline { (step(one)) } }
        }
    }
}

fn step(step: &Step) -> Markup {
    html! {
        li class={ "step " (step.layer) } {
            div.at {
                span.layer { (step.layer) }
                @if let Some(at) = step.at { time datetime=(at.to_rfc3339()) { (at.format("%Y-%m-%d %H:%M:%S%.3f")) } }
            }
            div.what {
                p { (step.what) }
                @if !step.about.is_empty() { p.note { @for about in &step.about { (link(about)) " " } } }
            }
        }
    }
}

fn link(about: &About) -> Markup {
    match about {
        About::Record { source } => html! { a href={ "/records/" (in_path(source)) } { "record " (source) } },
        About::Table { table } => html! { a href={ "/data/" (table) } { "table " (table) } },
        About::Run { run_id } => {
            // What is published bears the version of silver behind the run's name.
            let run = run_id.split('@').next().unwrap_or(run_id);
            html! { a href={ "/batch/runs/" (run) } { "run " (run) } }
        }
        About::View { view } => {
            html! { a href=(address(On::Clickhouse, &format!("select * from {view} limit 100"))) { "ask " (view) } }
        }
        About::Window { view, window_start } => {
            let at = window_start.format("%Y-%m-%d %H:%M:%S");
            let sql = format!("select * from {view} where window_start = '{at}'");
            html! { a href=(address(On::Clickhouse, &sql)) { "ask " (view) } }
        }
    }
}
