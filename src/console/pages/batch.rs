//! The batch: the newest runs and their tasks as a grid; start, pause, cancel, retry.

use std::collections::{BTreeMap, HashMap};

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::letters::{choice, moment};
use super::{Said, run_id, ticked};
use crate::batch::history::{Attempt, AttemptState, Cause, Filter, History, Run, RunState};
use crate::batch::run::graph::{Bronze, Kind, Task};
use crate::console::live::Parts;
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::view::{self, State, View, again, badge, below, empty, go, n, part, table, th};
use crate::console::words;

/// Runs that are shown, of all graphs together.
const RUNS: u32 = 40;
/// The graphs, each with a grid of its own: what it is called, and what to say where it has no run yet.
const GRIDS: [(Kind, &str, &str); 3] = [
    (Kind::Batch, "Runs", "The schedule starts one when its slot comes, or start one with the button above."),
    (Kind::Backfill, "Backfills", ""),
    (Kind::Upkeep, "Upkeep of the tables", ""),
];

/// Which runs are asked for, as an address or a form has it.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
pub struct Asked {
    /// Runs of this pipeline alone.
    #[serde(default)]
    pub pipeline: String,
    /// `waiting`, `running`, `succeeded`, `skipped`, `failed` or `cancelled`; all without it.
    #[serde(default)]
    pub state: String,
    /// What started them: `schedule` or `manual`; both without it.
    #[serde(default)]
    pub cause: String,
    /// `lakehouse_batch_pipeline`, `lakehouse_backfill` or `lakehouse_upkeep`; all without it.
    #[serde(default)]
    pub graph: String,
    /// Runs of slots of this date or moment (RFC 3339) or later; a run by hand counts as of when it was asked for.
    #[serde(default)]
    pub from: String,
    /// Runs of slots before this date or moment.
    #[serde(default)]
    pub to: String,
    /// How many of the newest an answer has at most; 20 without it.
    pub limit: Option<u32>,
}

/// What a name stands for among some; an empty one for none of them.
fn named<T>(what: &str, name: &str, read: impl Fn(&str) -> Option<T>, names: &[&str]) -> Result<Option<T>, Problem> {
    if name.is_empty() {
        return Ok(None);
    }
    let wrong =
        || Problem::refused(format!("`{}` is no {what}; there is {}", words::begin(name, 40), names.join(", ")));
    read(name).map(Some).ok_or_else(wrong)
}

fn names<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Vec<&'static str> {
    all.iter().map(|one| name(*one)).collect()
}

impl Asked {
    /// What is looked for.
    pub fn filter(&self) -> Result<Filter, Problem> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Filter {
            pipeline: given(&self.pipeline),
            state: named("state of a run", &self.state, RunState::read, &names(RunState::ALL, RunState::as_str))?,
            cause: named("cause of a run", &self.cause, Cause::read, &names(Cause::ALL, Cause::as_str))?,
            kind: named("graph", &self.graph, Kind::read, &GRIDS.map(|(kind, ..)| kind.as_str()))?,
            from: given(&self.from).map(|text| moment(&text)).transpose()?,
            before: given(&self.to).map(|text| moment(&text)).transpose()?,
        })
    }

    /// The page's address with this filter, below a path.
    fn address(&self, path: &str) -> String {
        let fields = [
            ("pipeline", &self.pipeline),
            ("state", &self.state),
            ("cause", &self.cause),
            ("graph", &self.graph),
            ("from", &self.from),
            ("to", &self.to),
        ];
        below(path, fields.into_iter().filter(|(_, value)| !value.is_empty()))
    }

    fn form(&self, shared: &Shared) -> Markup {
        let pipelines = shared.pipeline_names();
        let of = |names: &[&'static str]| -> Vec<(&'static str, &'static str)> {
            [("", "all")].into_iter().chain(names.iter().map(|name| (*name, *name))).collect()
        };
        let graphs: Vec<(&str, &str)> =
            [("", "all")].into_iter().chain(GRIDS.map(|(kind, title, _)| (kind.as_str(), title))).collect();
        html! {
            form.filter method="get" {
                @if pipelines.len() > 1 {
                    label for="pipeline" { "Pipeline" }
                    select #pipeline name="pipeline" {
                        option value="" { "all" }
                        @for name in &pipelines { option value=(name) selected[*name == self.pipeline] { (name) } }
                    }
                }
                (choice("state", "State", &self.state, &of(&names(RunState::ALL, RunState::as_str))))
                (choice("cause", "Started by", &self.cause, &of(&names(Cause::ALL, Cause::as_str))))
                (choice("graph", "Kind", &self.graph, &graphs))
                span.field { label for="from" { "Slots from" } input #from name="from" type="date" value=(self.from); }
                span.field { label for="to" { "Before" } input #to name="to" type="date" value=(self.to); }
                button type="submit" { "Filter" }
            }
        }
    }
}

/// A task in the head of a grid; skipping is told by the run's state.
fn short(task: Task) -> &'static str {
    match task {
        Task::CheckBronzeExists => "check bronze",
        Task::SkipPipeline => "skip",
        Task::RunBronzeToSilver | Task::BackfillSilver => "silver",
        Task::RunSilverToGold => "gold",
        Task::GoldToClickhouse => "serve",
        Task::DataQualityChecks => "quality",
        Task::PipelineDone => "done",
        Task::ApplyRetention => "retention",
        Task::CompactTables => "compact",
        Task::CleanLogs => "logs",
        Task::VacuumTables => "vacuum",
    }
}

const SAID: [(&str, &str); 2] = [
    ("paused", "Paused: no slot starts a run until you resume. By hand the batch runs either way."),
    ("resumed", "Resumed: slots that passed are caught up as schedule.catch_up says."),
];

pub async fn page(
    view: View,
    said: web::Query<Said>,
    did: web::Query<ticked::Did>,
    asked: web::Query<Asked>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let parts = parts(&shared, &asked.filter()?, view.operator()).await?;
    let said = said.among(&SAID);
    let body = html! {
        h1 { "Batch" }
        p.lead { "Bronze to silver to gold, and gold in ClickHouse. What is recomputed is read from the tables' own logs." }
        @if let Some(said) = said { p.said.good role="status" { (said) } }
        (did.show(&view, &shared))
        @if view.operator() {
            div.actions {
                @for name in shared.pipeline_names() {
                    @let pipeline = html! { input type="hidden" name="pipeline" value=(name); };
                    (view.form("/batch/run", html! { (pipeline) button.primary type="submit" { "Run " (name) " now" } }))
                    @let paused = shared.board.batches().iter().any(|(n, state)| *n == name && state.paused.is_some());
                    @if paused {
                        (view.form("/batch/resume", html! { (pipeline) (view.shown()) button type="submit" { "Resume the schedule" } }))
                    } @else {
                        (view.form("/batch/pause", html! { (pipeline) (view.shown()) button type="submit" { "Pause the schedule" } }))
                    }
                }
            }
        }
        p { a href="/batch/backfill" { "Backfill" } span.note { " makes dates again from Bronze; its plan comes first" } }
        @for (id, content) in &parts {
            @if *id == "runs" {
                (asked.form(&shared))
                @if view.operator() { (ticked::form(&view, part(id, content))) } @else { (part(id, content)) }
            } @else { (part(id, content)) }
        }
    };
    Ok(view.page("Batch", Some(&asked.address("/live/batch")), body))
}

/// Runs that fit, newest first, each with its attempts.
async fn newest(shared: &Shared, filter: &Filter) -> anyhow::Result<Vec<(Run, Vec<Attempt>)>> {
    let filter = filter.clone();
    shared
        .desk
        .history(|history| async move {
            let runs = history.runs_that(&filter, RUNS).await?;
            let mut attempts: HashMap<String, Vec<Attempt>> = HashMap::new();
            for (run, attempt) in history.attempts_of(&runs).await? {
                attempts.entry(run).or_default().push(attempt);
            }
            let with_attempts = |run: Run| {
                let its = attempts.remove(&run.run_id).unwrap_or_default();
                (run, its)
            };
            Ok(runs.into_iter().map(with_attempts).collect())
        })
        .await
}

/// The parts that change; `ticks` are for those who may do something to a run.
pub async fn parts(shared: &Shared, filter: &Filter, ticks: bool) -> anyhow::Result<Parts> {
    let runs = newest(shared, filter).await?;
    Ok(vec![("schedules", schedules(shared)), ("runs", grids(&runs, filter, ticks, Utc::now()))])
}

fn schedules(shared: &Shared) -> Markup {
    let now = Utc::now();
    html! {
        section aria-labelledby="schedules-title" {
            h2 #schedules-title { "Schedules" }
            @let columns = [th("Pipeline"), th("State"), th("Next run"), th("Last run"), n("Silver"), n("Gold"), n("Served")];
            (table("Schedule of each pipeline", &columns, html! {
                @for (name, batch) in shared.board.batches() {
                    tr {
                        th scope="row" { (name) }
                        td {
                            @match (&batch.running, batch.paused, batch.enabled) {
                                (Some(running), ..) => { (badge(State::Busy, running.task.as_deref().unwrap_or("running"))) }
                                (None, Some(since), _) => { (badge(State::Watch, &format!("paused for {}", words::age(since, now)))) }
                                (None, None, true) => { (badge(State::Good, "waits for its slot")) }
                                (None, None, false) => { (badge(State::Idle, "by hand only")) }
                            }
                        }
                        td { @match batch.next_slot {
                            Some(slot) => { (words::moment(slot)) span.note { " in " (words::age(now, slot)) } }
                            None => { "–" }
                        } }
                        td { @match &batch.last {
                            Some(last) => { a href={ "/batch/runs/" (last.run_id) } { (last.outcome) } span.note { " " (words::ago(last.ended, now)) } }
                            None => { "none yet" }
                        } }
                        @for (_, since) in batch.fresh.layers() {
                            td.n { (since.map_or_else(|| "–".into(), |since| format!("{} old", words::age(since, now)))) }
                        }
                    }
                }
            }))
        }
    }
}

/// A run's state as a badge.
pub fn run_badge(state: RunState) -> Markup {
    let shown = match state {
        RunState::Waiting => State::Idle,
        RunState::Running => State::Busy,
        RunState::Succeeded | RunState::Skipped => State::Good,
        RunState::Failed => State::Wrong,
        RunState::Cancelled => State::Watch,
    };
    badge(shown, state.as_str())
}

/// An attempt's state, and its word.
pub fn attempt_state(state: AttemptState) -> (State, &'static str) {
    let shown = match state {
        AttemptState::Running => State::Busy,
        AttemptState::Succeeded => State::Good,
        AttemptState::FailedForNow | AttemptState::FailedForGood => State::Wrong,
        AttemptState::Cancelled | AttemptState::Stopped | AttemptState::Interrupted => State::Watch,
    };
    (shown, state.as_str())
}

/// The runs, a grid for each graph: their tasks are others.
fn grids(runs: &[(Run, Vec<Attempt>)], filter: &Filter, ticks: bool, now: DateTime<Utc>) -> Markup {
    if !filter.is_any() && runs.is_empty() {
        return empty("No run fits this filter", html! { a href="/batch" { "Show all" } });
    }
    html! {
        @if !filter.is_any() { p.note { "The newest " (words::plural(runs.len() as i64, "run", "runs")) " that fit. " a href="/batch" { "Show all" } } }
        @for (kind, title, none) in GRIDS {
            @let of_kind: Vec<_> = runs.iter().filter(|(run, _)| Kind::read(&run.graph).unwrap_or_default() == kind).collect();
            @if !of_kind.is_empty() || (!none.is_empty() && filter.is_any()) { (grid(kind, title, none, &of_kind, ticks, now)) }
        }
        @if !runs.is_empty() {
            p.note { "Each cell is a task's last attempt; a number is how often it was tried. "
                span aria-hidden="true" { "● done  ◐ running  ■ failed  ▲ stopped  ○ not begun" } }
        }
    }
}

fn grid(kind: Kind, title: &str, none: &str, runs: &[&(Run, Vec<Attempt>)], ticks: bool, now: DateTime<Utc>) -> Markup {
    let tasks = kind.path(Bronze::Filled);
    let mut columns = Vec::new();
    if ticks {
        columns.push(html! { th scope="col" { span.sr { "Tick" } } });
    }
    columns.extend([th("Run"), th("State"), th("Started (UTC)"), n("Took")]);
    columns.extend(tasks.iter().map(|task| html! { th.cell scope="col" { (short(*task)) } }));
    let id = format!("{}-title", kind.as_str());
    html! {
        section aria-labelledby=(id) data-key=(kind.as_str()) {
            h2 id=(id) { (title) }
            @if runs.is_empty() {
                (empty("No run yet", html! { (none) }))
            } @else {
                (view::grid(&format!("{title}, task by task"), &columns, html! { @for (run, attempts) in runs { (row(run, attempts, tasks, ticks, now)) } }))
            }
        }
    }
}

/// A run's row, which stays the run's own while others come and go.
fn row(run: &Run, attempts: &[Attempt], tasks: &[Task], ticks: bool, now: DateTime<Utc>) -> Markup {
    html! {
        tr data-key=(run.run_id) {
            @if ticks { td { (ticked::tick(&run.run_id)) } }
            th scope="row" {
                a href={ "/batch/runs/" (run.run_id) } { (run.run_id) }
                span.note { " " (run.pipeline) ", " @match run.slot { Some(slot) => { "slot " (slot.format("%H:%M")) } None => { "by hand" } } }
            }
            td { (run_badge(run.state)) }
            td { (run.started.map_or_else(|| "–".into(), words::moment)) }
            td.n { (run.started.map_or_else(|| "–".into(), |started| words::took(started, run.ended.unwrap_or(now)))) }
            @for task in tasks.iter().copied() {
                @let name = short(task);
                @let tries = attempts.iter().filter(|a| a.task == task).count();
                td.cell {
                    @match attempts.iter().rev().find(|a| a.task == task) {
                        Some(last) => {
                            @let (state, word) = attempt_state(last.state);
                            a class={ "dot " (state.class()) } href={ "/batch/runs/" (run.run_id) "?task=" (task.as_str()) }
                                title={ (name) ": " (word) ", " (words::took(last.started, last.ended.unwrap_or(now))) } {
                                span aria-hidden="true" { (state.sign()) @if tries > 1 { sub { (tries) } } }
                                span.sr { (name) " " (word) }
                            }
                        }
                        None => { span.dot.idle { span aria-hidden="true" { "○" } span.sr { (name) " not begun" } } }
                    }
                }
            }
        }
    }
}

#[derive(Deserialize)]
pub struct Which {
    pipeline: String,
    #[serde(default)]
    view: String,
}

pub async fn trigger(form: web::Form<Which>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let id = request(&shared, Kind::Batch, &form.pipeline).await?;
    Ok(go(&format!("/batch/runs/{id}")))
}

/// Asks for a run of a pipeline that is known, through a graph that asks for nothing more.
pub async fn request(shared: &Shared, kind: Kind, pipeline: &str) -> Result<String, Problem> {
    let name = known(shared, pipeline)?;
    let ask = move |history: History| async move { Ok(history.request_of(kind, &name, &BTreeMap::new()).await?) };
    Ok(shared.desk.history(ask).await?)
}

/// The name of a pipeline that there is.
pub fn known(shared: &Shared, pipeline: &str) -> Result<String, Problem> {
    let found = shared.pipeline(pipeline).map(|pipeline| pipeline.name.clone());
    found.ok_or_else(|| {
        Problem::missing(format!("there is no pipeline `{pipeline}`; there is {}", shared.pipeline_names().join(", ")))
    })
}

pub async fn pause(form: web::Form<Which>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    set_paused(&shared, &form.pipeline, true).await?;
    Ok(go(&again("/batch", &form.view, &[("said", "paused")])))
}

pub async fn resume(form: web::Form<Which>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    set_paused(&shared, &form.pipeline, false).await?;
    Ok(go(&again("/batch", &form.view, &[("said", "resumed")])))
}

/// Pauses a schedule or lets it go on, and tells the board at once, so that the next page shows it.
pub async fn set_paused(shared: &Shared, pipeline: &str, pause: bool) -> Result<bool, Problem> {
    let name = known(shared, pipeline)?;
    let asked = name.clone();
    let changed = shared.desk.history(move |history| async move { Ok(history.pause(&asked, pause).await?) }).await?;
    shared.board.batch(&name, |batch| batch.paused = if pause { batch.paused.or(Some(Utc::now())) } else { None });
    Ok(changed)
}

async fn find(shared: &Shared, id: &str) -> Result<Run, Problem> {
    let missing = || Problem::missing(format!("there is no run `{}`", id.chars().take(60).collect::<String>()));
    let asked = run_id(id).ok_or_else(missing)?.to_owned();
    shared.desk.history(|history| async move { Ok(history.run(&asked).await?) }).await?.ok_or_else(missing)
}

/// Asks a run to stop.
pub async fn cancel_one(shared: &Shared, id: &str) -> Result<(), Problem> {
    let run = find(shared, id).await?;
    let asked = run.run_id.clone();
    if shared.desk.history(|history| async move { Ok(history.cancel(&asked).await?) }).await? {
        return Ok(());
    }
    Err(Problem::refused(run.no_cancel()))
}

/// Asks a run to go on.
pub async fn retry_one(shared: &Shared, id: &str) -> Result<(), Problem> {
    let run = find(shared, id).await?;
    let asked = run.run_id.clone();
    if shared.desk.history(|history| async move { Ok(history.retry(&asked).await?) }).await? {
        return Ok(());
    }
    Err(Problem::refused(run.no_retry()))
}
