//! How expectations were met over the newest runs, and how many rows were refused for which reason.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use maud::html;

use super::sql::rows;
use crate::batch::{KeptResult, kept_results};
use crate::console::problem::Problem;
use crate::console::query::On;
use crate::console::shared::Shared;
use crate::console::view::{State, View, badge, empty, grid, n, th};
use crate::console::words::{self, count};

/// Runs that the page looks back.
const RUNS: usize = 12;

/// The results of the newest runs, newest first.
pub async fn results(shared: &Shared, runs: usize) -> anyhow::Result<Vec<KeptResult>> {
    let tables = shared.tables.clone();
    shared.desk.run(async move { Ok(kept_results(tables.lake()?, runs).await?) }).await
}

fn state(result: &KeptResult) -> (State, &'static str) {
    match (result.result.holds, result.result.severity.as_str()) {
        (true, _) => (State::Good, "holds"),
        (false, "fail") => (State::Wrong, "broken, stops serving"),
        (false, "quarantine") => (State::Watch, "broken, rows refused"),
        (false, _) => (State::Watch, "broken"),
    }
}

pub async fn page(view: View, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let results = results(&shared, RUNS).await?;
    let mut runs: Vec<&str> = Vec::new();
    for result in &results {
        if !runs.contains(&result.run_id.as_str()) {
            runs.push(&result.run_id);
        }
    }
    runs.reverse();
    let mut by_name: BTreeMap<(&str, &str, &str), Vec<&KeptResult>> = BTreeMap::new();
    for result in &results {
        by_name.entry((&result.pipeline, &result.result.table, &result.result.name)).or_default().push(result);
    }
    let mut refused = Vec::new();
    for name in shared.pipeline_names() {
        let sql = format!(
            "select reason, count(*) as rows from (select unnest(reasons) as reason from silver.{name}_refused) \
             group by 1 order by 2 desc limit 50"
        );
        refused.push((name, shared.ask(&view.caller.name, On::Delta, &sql, 50).await));
    }
    let body = html! {
        h1 { "Quality" }
        p.lead { "Expectations are checked before anything is served; afterwards what ClickHouse serves is compared with Delta." }
        @if results.is_empty() {
            (empty("Nothing was checked yet", html! { "A " a href="/batch" { "batch run" } " checks before it serves. Expectations are " code { "[[expectation]]" } " sections in pipeline.toml and lines in the headers of models." }))
        } @else {
            @let over = format!("Over {} runs, oldest first", runs.len());
            @let columns =
                [th("Expectation"), th("Table"), th("Newest"), n("Rows checked"), n("Broken by"), th(&over), th("What was looked at")];
            (grid("Expectations", &columns, html! {
                @for ((_, table, name), kept) in &by_name {
                    @if let Some(newest) = kept.first() {
                        @let (sign, word) = state(newest);
                        tr {
                            th scope="row" { (name) span.note { " " (newest.result.check) } }
                            td { a href={ "/data/" (table) } { (table) } } td { (badge(sign, word)) }
                            td.n { (count(newest.result.rows_checked)) } td.n { (count(newest.result.rows_failed)) }
                            td { @for run in &runs {
                                @match kept.iter().find(|result| result.run_id == *run) {
                                    Some(result) => {
                                        @let (sign, word) = state(result);
                                        a class={ "tick " (sign.class()) } href={ "/batch/runs/" (run) } title={ (words::moment(result.checked_at)) ": " (word) } {
                                            span aria-hidden="true" { (sign.sign()) } span.sr { (words::moment(result.checked_at)) " " (word) }
                                        }
                                    }
                                    None => { span.tick.idle aria-hidden="true" { "·" } }
                                }
                            } }
                            td.wrap { (newest.result.detail) }
                        }
                    }
                }
            }))
        }
        @for (name, answer) in &refused {
            section aria-label={ "Refused rows of " (name) } {
                div.heading { h2 { "Refused rows by reason" } p.note { "silver." (name) "_refused" } }
                @match answer {
                    Ok(answer) if !answer.rows.is_empty() => { (rows(answer)) }
                    Ok(_) => { (empty("No row was refused", html! { "Rows that are no events, or break an expectation of severity quarantine, appear here." })) }
                    Err(_) => { (empty("No row was refused yet", html! { "The table comes with the first " a href="/batch" { "batch run" } "." })) }
                }
            }
        }
    };
    Ok(view.page("Quality", None, body))
}
