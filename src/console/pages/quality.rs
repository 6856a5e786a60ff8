//! How expectations were met over a range of time, and how many rows were refused in it for which reason.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::sql::rows;
use crate::batch::{KeptResult, Over, Stretch, kept_over, kept_results};
use crate::console::draw::result::{Series, over_time};
use crate::console::draw::strip::{self, Cell};
use crate::console::problem::Problem;
use crate::console::query::{Answer, On};
use crate::console::range::{self, Range};
use crate::console::shared::Shared;
use crate::console::view::{State, View, badge, empty, grid, n, th};
use crate::console::words::{self, count};

/// Expectations of so many of the newest runs are shown, even where they were not checked in the range.
const RUNS: usize = 12;
/// Lines that can be told apart.
const LINES_MAX: usize = 6;

/// The results of the newest runs, newest first; of a time alone, if a moment is given since which.
pub async fn results(shared: &Shared, runs: usize, since: Option<DateTime<Utc>>) -> anyhow::Result<Vec<KeptResult>> {
    let tables = shared.tables.clone();
    shared.desk.run(async move { Ok(kept_results(tables.lake()?, runs, since).await?) }).await
}

/// Every expectation over a range that ends now.
async fn over(shared: &Shared, range: Range, now: DateTime<Utc>) -> anyhow::Result<Vec<Over>> {
    let (tables, since) = (shared.tables.clone(), now - range.span());
    shared.desk.run(async move { Ok(kept_over(tables.lake()?, since, range.cell_seconds(), RUNS).await?) }).await
}

fn state(result: &KeptResult) -> (State, &'static str) {
    match (result.result.holds, result.result.severity.as_str()) {
        (true, _) => (State::Good, "holds"),
        (false, "fail") => (State::Wrong, "broken, stops serving"),
        (false, "quarantine") => (State::Watch, "broken, rows refused"),
        (false, _) => (State::Watch, "broken"),
    }
}

pub async fn page(
    view: View,
    asked: web::Query<range::Asked>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let (range, now) = (asked.or(Range::Week)?, Utc::now());
    let first = html! {
        h1 { "Quality" }
        p.lead { "Expectations are checked before anything is served; afterwards what ClickHouse serves is compared with Delta." }
        div.heading { h2 { "The last " (range.words()) } p.note { "UTC" } (range.links("/quality")) }
    };
    let user = view.caller.name.clone();
    let rest = async move {
        let (over, refused) = tokio::join!(over(&shared, range, now), refused(&shared, &user, range, now));
        let over = over?;
        Ok(html! {
            (expectations(&over, range, now))
            (lines(&over, range))
            @for (name, answer) in &refused { (refused_rows(name, answer, range)) }
        })
    };
    Ok(view.page_in_two("Quality", None, first, rest))
}

fn expectations(over: &[Over], range: Range, now: DateTime<Utc>) -> Markup {
    if over.is_empty() {
        return empty(
            "Nothing was checked yet",
            html! { "A " a href="/batch" { "batch run" } " checks before it serves. Expectations are " code { "[[expectation]]" } " sections in pipeline.toml and lines in the headers of models." },
        );
    }
    let strips = format!("The last {}, oldest first", range.words());
    let columns = [
        th("Expectation"),
        th("Table"),
        th("Newest"),
        th(&strips),
        th("Broken"),
        n("Rows checked"),
        n("Broken by"),
        th("What was looked at"),
    ];
    html! {
        @if over.iter().all(|of| of.stretches.is_empty()) {
            p.note role="status" { "Nothing was checked in the last " (range.words()) ". What is shown is the newest result of each." }
        }
        (grid("Expectations", &columns, html! { @for of in over { (row(of, range, now)) } }))
        p.note { span aria-hidden="true" { "A cell is a stretch of time: low where all its checks held, higher where one was broken, full where that stopped what is served, a line where nothing was checked." } }
    }
}

fn row(of: &Over, range: Range, now: DateTime<Utc>) -> Markup {
    let (newest, result) = (&of.newest, &of.newest.result);
    let (sign, word) = state(newest);
    let (checks, broken) = of.stretches.iter().fold((0, 0), |sum, s| (sum.0 + s.checks, sum.1 + s.broken));
    let label = match checks {
        0 => format!("not checked in the last {}", range.words()),
        _ => format!("broken in {} of {}", count(broken), words::plural(checks, "check", "checks")),
    };
    html! {
        tr {
            th scope="row" { (result.name) span.note { " " (result.check) } }
            td { a href={ "/data/" (result.table) } { (result.table) } }
            td {
                a href={ "/batch/runs/" (newest.run_id) } title={ "Run " (newest.run_id) } { (badge(sign, word)) }
                span.note { " " (words::ago(newest.checked_at, now)) }
            }
            td { (strip::draw(&label, &cells(&of.stretches, range, now))) }
            td {
                @if checks == 0 { "–" } @else { (count(broken)) " of " (count(checks)) }
                @if let Some(run) = &of.broken_by { span.note { ", last in " a href={ "/batch/runs/" (run) } { (run) } } }
            }
            td.n { (count(result.rows_checked)) } td.n { (count(result.rows_failed)) }
            td.wrap { (result.detail) }
        }
    }
}

/// A cell for each stretch of the range; the first one may have begun before it.
fn cells(stretches: &[Stretch], range: Range, now: DateTime<Utc>) -> Vec<Cell> {
    let length = i64::from(range.cell_seconds());
    let place = |at: DateTime<Utc>| at.timestamp().div_euclid(length);
    let cell = |place_of: i64| {
        let stretch = stretches.iter().find(|stretch| place(stretch.at) == place_of)?;
        let state = match (stretch.broken, stretch.stopping) {
            (0, _) => State::Good,
            (_, 0) => State::Watch,
            _ => State::Wrong,
        };
        let checks = words::plural(stretch.checks, "check", "checks");
        let mut told = format!("from {}: {checks}", words::moment(stretch.at));
        if stretch.broken > 0 {
            told += &format!(", {} broken, by up to {} rows", count(stretch.broken), count(stretch.rows_failed));
        }
        Some((state, told))
    };
    (place(now - range.span())..=place(now)).map(cell).collect()
}

/// How many rows broke what was broken in the range.
fn lines(over: &[Over], range: Range) -> Markup {
    let most = |of: &&Over| of.stretches.iter().map(|stretch| stretch.rows_failed).max().unwrap_or_default();
    let mut broken: Vec<&Over> = over.iter().filter(|of| most(of) > 0).collect();
    broken.sort_by_key(|of| std::cmp::Reverse(most(of)));
    let series = |of: &&Over| -> Series {
        let points = of.stretches.iter().map(|stretch| (stretch.at, stretch.rows_failed as f64)).collect();
        (format!("{} on {}", of.newest.result.name, of.newest.result.table), points)
    };
    let shown: Vec<Series> = broken.iter().take(LINES_MAX).map(series).collect();
    html! {
        @if !shown.is_empty() {
            section aria-labelledby="lines-title" {
                div.heading {
                    h2 #lines-title { "Rows that broke an expectation" }
                    p.note { "the most of one check, each " (words::seconds(range.cell_seconds().into())) ", UTC"
                        @if broken.len() > LINES_MAX { "; the " (LINES_MAX) " of " (broken.len()) " that were broken by most" } }
                }
                (over_time(&shown, |value| count(value as i64)))
            }
        }
    }
}

type Refused = (String, anyhow::Result<Answer>);

/// The reasons for which rows were refused that arrived in a range, of every pipeline.
async fn refused(shared: &Shared, user: &str, range: Range, now: DateTime<Utc>) -> Vec<Refused> {
    let since = (now - range.span()).format("%Y-%m-%dT%H:%M:%S%.6fZ");
    let mut refused = Vec::new();
    for name in shared.pipeline_names() {
        let sql = format!(
            "select reason, count(*) as rows from \
             (select unnest(reasons) as reason from silver.{name}_refused where ingestion_time >= '{since}') \
             group by 1 order by 2 desc limit 50"
        );
        let answer = shared.ask(user, On::Delta, &sql, 50).await;
        refused.push((name, answer));
    }
    refused
}

fn refused_rows(name: &str, answer: &anyhow::Result<Answer>, range: Range) -> Markup {
    html! {
        section aria-label={ "Refused rows of " (name) } {
            div.heading { h2 { "Refused rows by reason" } p.note { "silver." (name) "_refused, of what arrived in the last " (range.words()) } }
            @match answer {
                Ok(answer) if !answer.rows.is_empty() => { (rows(answer)) }
                Ok(_) => { (empty(&format!("No row of the last {} was refused", range.words()), html! { "Rows that are no events, or break an expectation of severity quarantine, appear here." })) }
                Err(error) if no_table(error) => { (empty("No row was refused yet", html! { "The table comes with the first " a href="/batch" { "batch run" } "." })) }
                Err(error) => { p.error role="status" { "How many rows were refused cannot be said: " (format!("{error:#}")) } }
            }
        }
    }
}

/// Whether a query failed because its table is not there yet.
fn no_table(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("_refused' not found")
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_cell_tells_the_worst_of_its_stretch_and_nothing_where_nothing_was_checked() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let at = |hours| now - TimeDelta::hours(hours);
        let stretch = |at, broken, stopping| Stretch { at, checks: 3, broken, stopping, rows_failed: broken };
        let stretches = [stretch(at(20), 0, 0), stretch(at(10), 2, 0), stretch(at(0), 2, 1)];
        let cells = cells(&stretches, Range::Day, now);
        assert_eq!(cells.len(), 49, "half an hour each, and the one that has just begun");
        let known: Vec<_> = cells.iter().enumerate().filter_map(|(i, cell)| Some((i, cell.as_ref()?.0))).collect();
        assert_eq!(known, [(8, State::Good), (28, State::Watch), (48, State::Wrong)]);
        assert!(cells[28].as_ref().unwrap().1.contains("3 checks, 2 broken, by up to 2 rows"));
    }
}
