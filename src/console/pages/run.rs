//! One run: its tasks, each attempt, and the log while it is written.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::batch::{attempt_state, cancel_one, retry_one, run_badge};
use super::run_id;
use crate::batch::history::{Attempt, History, Line, Run, RunState};
use crate::batch::run::graph::{Bronze, Kind, NoTask, Task};
use crate::console::live::Parts;
use crate::console::logs::{LINES_MAX, Wanted, search};
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{State, View, again, badge, empty, go, n, part, table, th};
use crate::console::words::{self, count};

/// The newest lines that fit a filter.
const FILTERED_MAX: usize = 2_000;

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    task: String,
    #[serde(default)]
    attempt: String,
    #[serde(default)]
    find: String,
}

impl Asked {
    /// Which lines are asked for; none where all are.
    fn wanted(&self) -> Result<Option<Wanted>, Problem> {
        let Self { task, attempt, find } = self;
        if [task, attempt, find].iter().all(|text| text.is_empty()) {
            return Ok(None);
        }
        Ok(Some(Wanted::new(task_named(task)?, attempt_numbered(attempt)?, find)))
    }
}

/// A task by its name in an address; an empty one is none.
pub fn task_named(name: &str) -> Result<Option<Task>, Problem> {
    if name.is_empty() {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|e: NoTask| Problem::refused(e.to_string()))
}

/// An attempt by its number in an address; an empty one is none.
pub fn attempt_numbered(number: &str) -> Result<Option<i64>, Problem> {
    if number.is_empty() {
        return Ok(None);
    }
    let wrong = |_| Problem::refused(format!("`{}` is no number of an attempt", words::begin(number, 20)));
    number.parse().map(Some).map_err(wrong)
}

/// A run with everything that is known of it.
struct Found {
    run: Run,
    attempts: Vec<Attempt>,
    lines: Arc<[Line]>,
    /// Lines that fit the filter and are older than those.
    left_out: usize,
}

/// What `read` finds of a run in the history.
pub async fn of<T, F>(
    shared: &Shared,
    id: &str,
    read: impl FnOnce(History, Run) -> F + Send + 'static,
) -> Result<T, Problem>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let missing = || Problem::missing("there is no such run; the batch page lists the newest");
    let asked = run_id(id).ok_or_else(missing)?.to_owned();
    let found = shared
        .desk
        .history(|history| async move {
            let Some(run) = history.run(&asked).await? else { return Ok(None) };
            read(history, run).await.map(Some)
        })
        .await?;
    found.ok_or_else(missing)
}

async fn find(shared: &Shared, id: &str, wanted: Option<Wanted>) -> Result<Found, Problem> {
    let logs = shared.logs.clone();
    of(shared, id, move |history, run| async move {
        let attempts = history.attempts(&run.run_id).await?;
        let (lines, left_out) = match wanted {
            None => (logs.newest(&history, &run.run_id).await?, 0),
            Some(wanted) => {
                let found = search(&history, &run.run_id, &wanted, FILTERED_MAX).await?;
                (found.lines.into(), found.left_out)
            }
        };
        Ok(Found { run, attempts, lines, left_out })
    })
    .await
}

pub async fn page(
    view: View,
    id: web::Path<String>,
    asked: web::Query<Asked>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let wanted = asked.wanted()?;
    let filtered = wanted.is_some();
    let found = find(&shared, &id, wanted).await?;
    let (run, now) = (&found.run, Utc::now());
    let live = format!("/live/run/{}", run.run_id);
    let body = html! {
        p.crumbs { a href="/batch" { "Batch" } " / " (run.pipeline) }
        h1 { "Run " (run.run_id) }
        @if view.operator() {
            div.actions {
                (view.form(&format!("/batch/runs/{}/cancel", run.run_id), html! { (view.shown()) button type="submit" { "Cancel" } }))
                (view.form(&format!("/batch/runs/{}/retry", run.run_id), html! { (view.shown()) button type="submit" { "Retry" } }))
                p.note { "Cancel stops it at its next step. Retry goes on at the task that failed." }
            }
        }
        (part("head", &head(run, now)))
        (part("tasks", &tasks(run, &found.attempts, now)))
        section aria-labelledby="log-title" {
            h2 #log-title { "Log" }
            form.filter method="get" {
                label for="task" { "Task" }
                select #task name="task" {
                    option value="" { "all" }
                    @for task in Task::ALL { option value=(task.as_str()) selected[task.as_str() == asked.task] { (task.as_str()) } }
                }
                label for="attempt" { "Attempt" }
                input #attempt name="attempt" value=(asked.attempt) inputmode="numeric" size="3" autocomplete="off";
                label for="find" { "Contains" }
                input #find name="find" value=(asked.find) spellcheck="false";
                button type="submit" { "Filter" }
                @if filtered { a href={ "/batch/runs/" (run.run_id) } { "All lines, live" } }
            }
            @if filtered {
                p.note role="status" {
                    (words::plural(found.lines.len() as i64, "line fits", "lines fit")) " in the whole log"
                    @if found.left_out > 0 { ", and " (count(found.left_out as i64)) " older ones that are not shown" } "."
                }
                (log(&found.lines, true))
            } @else { (part("log", &log(&found.lines, false))) }
        }
    };
    Ok(view.page(&format!("Run {}", run.run_id), Some(&live), body))
}

pub async fn parts(shared: &Shared, id: &str) -> anyhow::Result<Parts> {
    let found = find(shared, id, None).await.map_err(|problem| anyhow::anyhow!(problem.text))?;
    let now = Utc::now();
    Ok(vec![
        ("head", head(&found.run, now)),
        ("tasks", tasks(&found.run, &found.attempts, now)),
        ("log", log(&found.lines, false)),
    ])
}

fn head(run: &Run, now: DateTime<Utc>) -> Markup {
    html! {
        dl.facts {
            div { dt { "State" } dd { (run_badge(run.state)) @if run.cancel_asked && run.state == RunState::Running { span.note { " stops at its next step" } } } }
            div { dt { "Started by" } dd { (run.cause.as_str()) @if let Some(slot) = run.slot { ", slot " (words::moment(slot)) } } }
            div { dt { "Asked for" } dd { (words::moment(run.requested)) } }
            div { dt { "Took" } dd { (run.started.map_or_else(|| "–".into(), |started| words::took(started, run.ended.unwrap_or(now)))) } }
            div { dt { "Tries" } dd { (run.tries) } }
            @if let Some(runner) = &run.runner { div { dt { "Runner" } dd { (runner) } } }
        }
        @if let Some(error) = &run.error { p.error role="status" { (error) } }
    }
}

/// The graph with the state of each task, then every attempt.
fn tasks(run: &Run, attempts: &[Attempt], now: DateTime<Utc>) -> Markup {
    let skipped = run.state == RunState::Skipped;
    let bronze = if skipped { Bronze::Empty } else { Bronze::Filled };
    let path = Kind::read(&run.graph).unwrap_or_default().path(bronze).iter().copied();
    html! {
        section aria-labelledby="tasks-title" {
            h2 #tasks-title { "Tasks" }
            ol.graph {
                @for task in path {
                    @let last = attempts.iter().rev().find(|a| a.task == task);
                    @let (state, word) = last.map_or((State::Idle, "not begun"), |a| attempt_state(a.state));
                    li class=(state.class()) {
                        span.task { (task.as_str().replace('_', " ")) }
                        (badge(state, word))
                        @if let Some(last) = last { span.note { (words::took(last.started, last.ended.unwrap_or(now))) } }
                    }
                }
            }
            @if attempts.is_empty() {
                (empty("No task has begun", html! { "A daemon takes the run up within a second; another run of the pipeline may be under way." }))
            } @else {
                @let columns = [
                    th("Task"), n("Attempt"), th("State"), th("Started"),
                    n("Took"), n("Rows in"), n("Rows out"), n("Refused"), th("What it did"),
                ];
                (table("Attempts", &columns, html! {
                    @for a in attempts {
                        @let (state, word) = attempt_state(a.state);
                        tr {
                            th scope="row" { (a.task.as_str().replace('_', " ")) }
                            td.n { a href={ "/batch/runs/" (run.run_id) "?task=" (a.task.as_str()) "&attempt=" (a.attempt) } {
                                (a.attempt) span.sr { ": its log" }
                            } }
                            td { (badge(state, word)) }
                            td { (words::clock(a.started)) } td.n { (words::took(a.started, a.ended.unwrap_or(now))) }
                            td.n { (count(a.rows_in)) } td.n { (count(a.rows_out)) } td.n { (count(a.rows_refused)) }
                            td.wrap { @if let Some(error) = &a.error { span.error { (error) } } @else { (a.summary.as_deref().unwrap_or("")) } }
                        }
                    }
                }))
            }
        }
    }
}

fn log(lines: &[Line], filtered: bool) -> Markup {
    html! {
        @if lines.is_empty() {
            (empty("No line", html! { @if filtered { "No line fits this filter." } @else { "Tasks write here while they work." } }))
        } @else {
            @if !filtered && lines.len() == LINES_MAX {
                p.note { "The newest " (LINES_MAX) " lines. A filter looks through all; " code { "boathouse batch logs" } " has them." }
            }
            div.log tabindex="0" role="region" aria-label="Log lines" {
                @for line in lines {
                    div class={ "line " (line.severity.to_lowercase()) } {
                        span.at { (line.at.format("%H:%M:%S%.3f")) } span.of { (line.task) @if line.attempt > 1 { " (" (line.attempt) ")" } }
                        span.text { (line.message) }
                    }
                }
            }
        }
    }
}

/// What the forms of a run's page bring along.
#[derive(Deserialize)]
pub struct Shown {
    #[serde(default)]
    view: String,
}

pub async fn cancel(
    id: web::Path<String>,
    form: web::Form<Shown>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    cancel_one(&shared, &id).await?;
    Ok(go(&again(&format!("/batch/runs/{id}"), &form.view, &[])))
}

pub async fn retry(
    id: web::Path<String>,
    form: web::Form<Shown>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    retry_one(&shared, &id).await?;
    Ok(go(&again(&format!("/batch/runs/{id}"), &form.view, &[])))
}
