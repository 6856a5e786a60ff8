//! Is it right? Every layer beside the one that it is made from: the newest verdict, and comparing again.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use chrono::Utc;
use maud::{Markup, html};

use crate::console::live::Parts;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{State, View, badge, empty, go, n, part, table, th};
use crate::console::words::{self, count};
use crate::reconcile::Verdict;
use crate::reconcile::job::{BY_SCHEDULE, Running, Standing};
use crate::reconcile::kept::{Kept, KeptCheck};

/// How often the page asks again where there is no script.
const AGAIN_SECONDS: u32 = 3;

pub async fn page(view: View, shared: web::Data<Shared>) -> HttpResponse {
    let standing = shared.reconcile.standing();
    let body = html! {
        h1 { "Reconcile" }
        p.lead { "Every layer beside the one that it is made from, row by row: the topic, Bronze, the realtime views, silver, gold, and what ClickHouse serves. It only reads, beside everything that goes on." }
        @if view.operator() {
            div.actions {
                (view.form("/reconcile/run", html! { button.primary type="submit" { "Compare now" } }))
                (view.form("/reconcile/stop", html! { button type="submit" { "Stop" } }))
                p.note { "It reads the whole topic and all of Bronze, one thing after the other, at a low priority." }
            }
        }
        @for (id, content) in &parts(&standing) { (part(id, content)) }
    };
    let view = if standing.running.is_some() { view.asks_again(AGAIN_SECONDS) } else { view };
    view.page("Reconcile", Some("/live/reconcile"), body)
}

pub fn parts(standing: &Standing) -> Parts {
    let last = html! {
        @match &standing.last {
            Some(kept) => { (layers(kept)) (checks(kept)) }
            None => { (empty("Nothing was compared here yet", html! {
                "Compare now, let a schedule do it (" code { "[reconcile]" } " in boathouse.toml), or run " code { "boathouse reconcile" } " anywhere."
            })) }
        }
    };
    vec![("running", running(standing)), ("last", last)]
}

fn running(standing: &Standing) -> Markup {
    html! {
        @if let Some(running) = &standing.running { (progress(running)) }
        @if let (Some(failed), None) = (&standing.failed, &standing.running) {
            p.said role="status" { "The one of " (words::moment(failed.at)) " UTC, asked for by " (failed.by) ", came to no verdict: " (failed.error) }
        }
        @if let Some(next) = standing.next { p.note { "The schedule compares next at " (words::moment(next)) " UTC." } }
    }
}

fn progress(running: &Running) -> Markup {
    let since = Duration::from_secs((Utc::now() - running.since).num_seconds().max(0) as u64);
    let what = if running.what.is_empty() { "the topic and Bronze's files" } else { running.what.as_str() };
    html! {
        div.said.busy role="status" {
            p {
                (badge(State::Busy, if running.stopping { "Stopping" } else { "Comparing" })) " " (what) " for " (words::span(since))
                ", asked for by " (running.by)
            }
            @if running.rows > 0 {
                progress value=(running.rows_done.min(running.rows)) max=(running.rows) aria-label={ "Rows of " (what) } {}
                p.note { (count(running.rows_done)) " of about " (count(running.rows)) " rows" }
            }
        }
    }
}

/// A verdict as a badge.
fn verdict(verdict: Verdict) -> Markup {
    let (state, word) = match verdict {
        Verdict::Same => (State::Good, "the same"),
        Verdict::Different => (State::Wrong, "different"),
        Verdict::NotYetRun => (State::Idle, "not yet run"),
        Verdict::NotChecked => (State::Watch, "not checked"),
    };
    badge(state, word)
}

fn layers(kept: &Kept) -> Markup {
    let now = Utc::now();
    let words = match kept.verdict {
        Verdict::Same => "Everything compared is the same.",
        Verdict::Different => "There are differences.",
        Verdict::NotYetRun => "There is nothing to compare yet.",
        Verdict::NotChecked => "Not everything could be checked.",
    };
    let wrong =
        |layer: &str| kept.checks.iter().filter(|check| check.layer == layer).map(KeptCheck::wrong_rows).sum::<u64>();
    html! {
        section aria-labelledby="layers-title" {
            div.heading {
                h2 #layers-title { (words) }
                p.note {
                    (words::moment(kept.ended)) " UTC, " (words::ago(kept.ended, now)) ", in " (words::took(kept.begun, kept.ended))
                    @if kept.by == BY_SCHEDULE { ", by schedule" } @else { ", asked for by " (kept.by) }
                }
            }
            @let columns = [th("What is compared"), th("Verdict"), n("Differing rows"), th("Of what")];
            (table("Verdict of each layer", &columns, html! {
                @for layer in &kept.layers {
                    tr {
                        th scope="row" { (layer.title) } td { (verdict(layer.verdict)) }
                        td.n { (count(wrong(&layer.layer))) } td.wrap { (layer.summary) }
                    }
                }
            }))
        }
    }
}

fn checks(kept: &Kept) -> Markup {
    html! {
        section aria-labelledby="checks-title" {
            h2 #checks-title { "One by one" }
            @let columns =
                [th("What"), th("Verdict"), n("Compared"), n("Missing"), n("Not to be there"), n("Different"), th("Notes")];
            (table("Everything that was compared", &columns, html! {
                @for check in &kept.checks {
                    tr {
                        th scope="row" { (name(check)) } td { (verdict(check.verdict)) } td.n { (count(check.checked_rows)) }
                        td.n { (count(check.missing_rows)) } td.n { (count(check.unknown_rows)) } td.n { (count(check.differing_rows)) }
                        td.wrap { @for note in &check.notes { p { (note) } } }
                    }
                    @if !check.examples.is_empty() || check.remedy.is_some() {
                        tr.below { td colspan="7" {
                            @for example in &check.examples { p.error { (example) } }
                            @if let Some(remedy) = &check.remedy { p { "To resolve it: " (remedy) } }
                        } }
                    }
                }
            }))
        }
    }
}

fn name(check: &KeptCheck) -> Markup {
    html! {
        @match check.layer.as_str() {
            "silver" | "gold" if check.what.contains('.') => { a href={ "/data/" (check.what) } { (check.what) } }
            "clickhouse_gold" => { (check.what) span.note { " in ClickHouse" } }
            _ => { (check.what) }
        }
    }
}

/// Begins one, for a user.
pub fn begin(shared: &Shared, user: &str) -> Result<(), Problem> {
    shared.reconcile.start(user).map_err(|error| Problem::new(StatusCode::CONFLICT, error.to_string()))
}

pub async fn run(view: View, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    begin(&shared, &view.caller.name)?;
    Ok(go("/reconcile"))
}

pub async fn stop(shared: web::Data<Shared>) -> HttpResponse {
    shared.reconcile.stop();
    go("/reconcile")
}
