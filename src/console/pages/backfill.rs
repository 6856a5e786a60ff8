//! Backfills: dates of silver made again from Bronze. The plan is shown before anything is started; runs one by one.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Days, NaiveDate, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::batch::{known, run_badge};
use crate::batch::history::{History, Run, RunState};
use crate::batch::run::graph::{Kind, Task};
use crate::cli::batch::range::{RangePlan, checked, plan_range};
use crate::console::live::Parts;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{View, empty, figure, go, n, part, table, th};
use crate::console::words::{self, count};

/// Runs among which backfills are looked for, and those that are shown.
const LOOKED_AT: u32 = 300;
const SHOWN: usize = 20;
/// Hours of a plan that are listed one by one.
const HOURS: usize = 48;
/// The newest log lines among which a run tells how far it is.
const LINES: u32 = 20;

#[derive(Deserialize, Default, schemars::JsonSchema)]
pub struct Asked {
    /// The pipeline; the first one without it.
    #[serde(default)]
    pub pipeline: String,
    /// The first event date, as `2026-02-01`.
    #[serde(default)]
    pub from: String,
    /// The last event date, included.
    #[serde(default)]
    pub to: String,
}

impl Asked {
    fn pipeline(&self, shared: &Shared) -> Result<String, Problem> {
        match (self.pipeline.as_str(), shared.pipelines.first()) {
            ("", Some(first)) => Ok(first.name.clone()),
            (name, _) => known(shared, name),
        }
    }

    fn dates(&self) -> Result<(NaiveDate, NaiveDate), Problem> {
        let date = |text: &str| {
            let wrong = || Problem::refused(format!("`{}` is no date; write it as 2026-02-01", words::begin(text, 20)));
            text.parse::<NaiveDate>().map_err(|_| wrong())
        };
        checked(date(&self.from)?, date(&self.to)?).map_err(|error| Problem::refused(error.to_string()))
    }
}

/// What a backfill of a range would do.
pub async fn plan(shared: &Shared, asked: &Asked) -> Result<RangePlan, Problem> {
    let (name, (from, to)) = (asked.pipeline(shared)?, asked.dates()?);
    let Some(pipeline) = shared.pipeline(&name).cloned() else { return Err(Problem::missing("the pipeline is gone")) };
    let tables = shared.tables.clone();
    Ok(shared.desk.run(async move { plan_range(tables.lake()?, &pipeline, from, to).await }).await?)
}

/// Asks for the run.
pub async fn request(shared: &Shared, asked: &Asked) -> Result<String, Problem> {
    let (name, (from, to)) = (asked.pipeline(shared)?, asked.dates()?);
    let parameters: BTreeMap<String, String> =
        [("from", from), ("to", to)].map(|(name, date)| (name.to_owned(), date.to_string())).into();
    let ask = move |history: History| async move { Ok(history.request_of(Kind::Backfill, &name, &parameters).await?) };
    Ok(shared.desk.history(ask).await?)
}

/// A backfill of the history and how far it is.
pub struct Backfill {
    run: Run,
    from: String,
    to: String,
    /// Dates that are done, and those that there are to do.
    dates: Option<(u64, u64)>,
}

async fn backfills(shared: &Shared) -> anyhow::Result<Vec<Backfill>> {
    shared
        .desk
        .history(|history| async move {
            let runs = history.runs(None, LOOKED_AT).await?;
            let mut found = Vec::new();
            for run in runs.into_iter().filter(|run| run.graph == Kind::Backfill.as_str()).take(SHOWN) {
                let mut parameters = history.parameters(&run.run_id).await?;
                let mut date = |name: &str| parameters.remove(name).unwrap_or_default();
                let (from, to) = (date("from"), date("to"));
                let dates = if run.state == RunState::Succeeded {
                    dates_of(&from, &to).map(|all| (all, all))
                } else {
                    let after = history.last_line(&run.run_id).await? - i64::from(LINES);
                    let lines = history.lines_at_most(&run.run_id, Some(Task::BackfillSilver), after, LINES).await?;
                    lines.iter().rev().find_map(|line| dates_done(&line.message))
                };
                found.push(Backfill { run, from, to, dates });
            }
            Ok(found)
        })
        .await
}

/// How many dates a range has.
fn dates_of(from: &str, to: &str) -> Option<u64> {
    let (from, to): (NaiveDate, NaiveDate) = (from.parse().ok()?, to.parse().ok()?);
    u64::try_from((to - from).num_days() + 1).ok()
}

/// From a line such as `2026-02-06: 10 rows before, 12 after (3 of 7 dates)`.
fn dates_done(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.rsplit_once('(')?;
    let (done, of) = rest.strip_suffix(" dates)")?.split_once(" of ")?;
    Some((done.parse().ok()?, of.parse().ok()?))
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let wanted = !asked.from.is_empty() || !asked.to.is_empty();
    let today = Utc::now().date_naive();
    let or = |text: &str, default: NaiveDate| if text.is_empty() { default.to_string() } else { text.to_owned() };
    let (from, to) = (or(&asked.from, today.checked_sub_days(Days::new(1)).unwrap_or(today)), or(&asked.to, today));
    let first = html! {
        p.crumbs { a href="/batch" { "Batch" } }
        h1 { "Backfill" }
        p.lead { "Makes event dates of silver again from Bronze, then gold and what is served of them. Each date is a commit of its own; the refused rows that were taken from Kafka on these dates are made again, too." }
        form.filter method="get" {
            label for="pipeline" { "Pipeline" }
            select #pipeline name="pipeline" {
                @for name in shared.pipeline_names() { option value=(name) selected[name == asked.pipeline] { (name) } }
            }
            span.field { label for="from" { "From" } input #from name="from" type="date" value=(from) required; }
            span.field { label for="to" { "To, included" } input #to name="to" type="date" value=(to) required; }
            button.primary type="submit" { "Show the plan" }
        }
    };
    let viewer = view.clone();
    let rest = async move {
        let planned = if wanted { Some(plan(&shared, &asked).await) } else { None };
        let parts = parts(&shared).await?;
        Ok(html! {
            @match &planned {
                Some(Ok(plan)) => { (shown(&viewer, plan)) }
                Some(Err(problem)) => { p.said role="alert" { (problem.text) } }
                None => {}
            }
            @for (id, content) in &parts { (part(id, content)) }
        })
    };
    Ok(view.page_in_two("Backfill", Some("/live/backfill"), first, rest))
}

fn shown(view: &View, plan: &RangePlan) -> Markup {
    let (rows, files) = plan.replaced();
    html! {
        section aria-labelledby="plan-title" {
            div.heading { h2 #plan-title { "The plan" } p.note { (plan.pipeline) ", " (plan.from) " to " (plan.to) } }
            @if let Some(obstacle) = &plan.obstacle { p.said role="alert" { "This would be refused: " (obstacle) "." } }
            dl.figures {
                (figure("Dates", &count(plan.dates as i64), "", Some("a commit each")))
                (figure("Hours of silver", &count(plan.hours.len() as i64), "", Some(&format!("{} rows in {} are replaced", count(rows), words::plural(files as i64, "file", "files")))))
                (figure("Refused rows", &count(plan.refused_rows as i64), "", Some("taken from Kafka on these dates, made again, too")))
                (figure("Files of Bronze", &count(plan.bronze_files as i64), "", Some(&format!("{} to read", words::bytes(plan.bronze_bytes)))))
                (figure("Rows of Bronze", &count(plan.bronze_rows), "", Some("in these files")))
                (figure("Takes about", &words::seconds(plan.seconds_estimated), "", Some("and gold after it")))
            }
            p { "Why these: by their statistics these files of Bronze may hold events of the range; every hour of silver on these dates is put in place of what it was." }
            @if plan.obstacle.is_none() && view.operator() {
                (view.form("/batch/backfill", html! {
                    input type="hidden" name="pipeline" value=(plan.pipeline);
                    input type="hidden" name="from" value=(plan.from);
                    input type="hidden" name="to" value=(plan.to);
                    button.primary type="submit" { "Start this backfill" }
                }))
            }
            @if !plan.gold.is_empty() {
                (table("What gold does then", &[th("Model"), th("Dates computed anew"), th("Why")], html! {
                    @for model in &plan.gold {
                        tr {
                            th scope="row" { (model.model) }
                            td { @match (model.dates.first(), model.dates.last()) {
                                (Some(first), Some(last)) => { (words::plural(model.dates.len() as i64, "date", "dates")) ", " (first) " to " (last) }
                                _ => { (model.work) }
                            } }
                            td.wrap { (model.reason.as_deref().unwrap_or("silver changes on them")) }
                        }
                    }
                }))
            }
            @if !plan.hours.is_empty() {
                details.more {
                    summary { "Hours of silver that are replaced" }
                    (table("Hours", &[th("Hour (UTC)"), n("Rows"), n("Files"), n("Size")], html! {
                        @for hour in plan.hours.iter().rev().take(HOURS) {
                            tr { th scope="row" { (hour.hour) } td.n { (count(hour.rows)) } td.n { (count(hour.files as i64)) } td.n { (words::bytes(hour.bytes)) } }
                        }
                    }))
                    @if plan.hours.len() > HOURS { p.note { "The newest " (HOURS) " of " (plan.hours.len()) "." } }
                }
            }
        }
    }
}

pub async fn parts(shared: &Shared) -> anyhow::Result<Parts> {
    let found = backfills(shared).await?;
    Ok(vec![("backfills", runs(&found, Utc::now()))])
}

fn runs(found: &[Backfill], now: DateTime<Utc>) -> Markup {
    html! {
        section aria-labelledby="backfills-title" {
            h2 #backfills-title { "Backfills" }
            @if found.is_empty() {
                (empty("No backfill yet", html! { "Choose dates above; nothing starts before you have seen its plan." }))
            } @else {
                @let columns = [th("Run"), th("Dates"), th("State"), th("Progress"), th("Asked for (UTC)"), n("Took")];
                (table("Backfills, newest first", &columns, html! { @for one in found { (row(one, now)) } }))
            }
        }
    }
}

fn row(one: &Backfill, now: DateTime<Utc>) -> Markup {
    let run = &one.run;
    html! {
        tr {
            th scope="row" { a href={ "/batch/runs/" (run.run_id) } { (run.run_id) } span.note { " " (run.pipeline) } }
            td { (one.from) " to " (one.to) }
            td { (run_badge(run.state)) }
            td {
                @match one.dates {
                    Some((done, of)) => {
                        @if run.state == RunState::Running { progress value=(done) max=(of) aria-label={ "Dates of " (run.run_id) } {} " " }
                        (done) " of " (words::plural(of, "date", "dates"))
                    }
                    None => { "–" }
                }
            }
            td { (words::moment(run.requested)) }
            td.n { (run.started.map_or_else(|| "–".into(), |started| words::took(started, run.ended.unwrap_or(now)))) }
        }
    }
}

pub async fn start(asked: web::Form<Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let id = request(&shared, &asked).await?;
    Ok(go(&format!("/batch/runs/{id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_tells_how_far_it_is() {
        assert_eq!(dates_done("2026-02-06: 10 rows before, 12 after (3 of 7 dates)"), Some((3, 7)));
        assert_eq!(dates_done("2026-02-01 to 2026-02-03 are done; going on"), None);
        assert_eq!(dates_done("(a of b dates)"), None);
        assert_eq!(dates_of("2026-02-01", "2026-02-06"), Some(6));
    }
}
