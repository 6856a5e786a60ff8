//! Runs and schedules.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::batch::history::{Attempt, History, Run};
use crate::batch::run::graph::Kind;
use crate::console::logs::Wanted;
use crate::console::pages::backfill;
use crate::console::pages::batch::{self, cancel_one, known, request, retry_one, set_paused};
use crate::console::pages::run::{of, task_named};
use crate::console::problem::Problem;
use crate::console::shared::Shared;
use crate::console::words;

/// Runs that one call answers where it does not say how many, and at most.
const RUNS: u32 = 20;
const RUNS_MAX: u32 = 1_000;

pub async fn runs(asked: web::Query<batch::Asked>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let (filter, limit) = (asked.filter()?, asked.limit.unwrap_or(RUNS).min(RUNS_MAX));
    let work = move |history: History| async move { Ok(history.runs_that(&filter, limit).await?) };
    let runs: Vec<Run> = shared.desk.history(work).await?;
    Ok(HttpResponse::Ok().json(runs))
}

/// A run and every attempt at its tasks.
#[derive(Serialize)]
pub struct WholeRun {
    #[serde(flatten)]
    run: Run,
    attempts: Vec<Attempt>,
}

pub async fn run(id: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let whole = of(&shared, &id, |history, run| async move {
        let attempts = history.attempts(&run.run_id).await?;
        Ok(WholeRun { run, attempts })
    });
    Ok(HttpResponse::Ok().json(whole.await?))
}

#[derive(Deserialize, schemars::JsonSchema)]
pub struct Lines {
    /// Lines of this task alone.
    task: Option<String>,
    /// Lines of this attempt at a task alone.
    attempt: Option<i64>,
    /// Lines after this number, to follow a log.
    after: Option<i64>,
    /// Only lines that contain this, in capitals or small letters.
    #[serde(default)]
    contains: String,
    /// How many at most, the oldest of them; 10,000 without it, which is the most.
    limit: Option<u32>,
}

/// Log lines that one call answers at most.
const LINES_MAX: u32 = 10_000;

pub async fn log(
    id: web::Path<String>,
    which: web::Query<Lines>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let task = task_named(which.task.as_deref().unwrap_or_default())?;
    let wanted = Wanted::new(task, which.attempt, &which.contains);
    let (mut after, limit) = (which.after.unwrap_or(0), which.limit.unwrap_or(LINES_MAX).min(LINES_MAX) as usize);
    let read = move |history: History, run: Run| async move {
        let mut found = Vec::new();
        loop {
            let lines = history.lines_at_most(&run.run_id, wanted.task(), after, LINES_MAX).await?;
            let is_last = lines.len() < LINES_MAX as usize;
            after = lines.last().map_or(after, |line| line.line);
            found.extend(lines.into_iter().filter(|line| wanted.fits(line)).take(limit - found.len()));
            if is_last || found.len() == limit {
                return Ok(found);
            }
        }
    };
    let lines = of(&shared, &id, read).await?;
    Ok(HttpResponse::Ok().json(lines))
}

/// A run to start.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The pipeline.
    pipeline: String,
    /// `lakehouse_batch_pipeline` (`lakehouse_batch_dag` is accepted, too), which it is without it, or `lakehouse_upkeep`;
    /// backfills have a call of their own.
    graph: Option<String>,
}

impl NewRun {
    fn kind(&self) -> Result<Kind, Problem> {
        let Some(name) = self.graph.as_deref() else { return Ok(Kind::Batch) };
        Kind::read(name).filter(|kind| *kind != Kind::Backfill).ok_or_else(|| {
            let (batch, upkeep) = (Kind::Batch.as_str(), Kind::Upkeep.as_str());
            Problem::refused(format!("`{}` is none of {batch} and {upkeep}", words::begin(name, 40)))
        })
    }
}

/// A run that was asked for.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Asked {
    run_id: String,
}

pub async fn trigger(new: web::Json<NewRun>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let run_id = request(&shared, new.kind()?, &new.pipeline).await?;
    Ok(HttpResponse::Accepted().json(Asked { run_id }))
}

pub async fn cancel(id: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    cancel_one(&shared, &id).await?;
    Ok(HttpResponse::Accepted().json(Asked { run_id: id.into_inner() }))
}

pub async fn retry(id: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    retry_one(&shared, &id).await?;
    Ok(HttpResponse::Accepted().json(Asked { run_id: id.into_inner() }))
}

/// A schedule after a change.
#[derive(Serialize, schemars::JsonSchema)]
pub struct Schedule {
    pipeline: String,
    paused: bool,
    /// False when it was so already.
    changed: bool,
}

async fn set(shared: &Shared, pipeline: &str, paused: bool) -> Result<HttpResponse, Problem> {
    let changed = set_paused(shared, pipeline, paused).await?;
    Ok(HttpResponse::Ok().json(Schedule { pipeline: known(shared, pipeline)?, paused, changed }))
}

pub async fn pause(pipeline: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    set(&shared, &pipeline, true).await
}

pub async fn resume(pipeline: web::Path<String>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    set(&shared, &pipeline, false).await
}

/// Dates to make again.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The pipeline.
    pipeline: String,
    /// The first event date, as `2026-02-01`.
    from: String,
    /// The last event date, included.
    to: String,
}

pub async fn backfill_plan(
    asked: web::Query<backfill::Asked>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(backfill::plan(&shared, &asked).await?))
}

pub async fn backfill(range: web::Json<Range>, shared: web::Data<Shared>) -> Result<HttpResponse, Problem> {
    let Range { pipeline, from, to } = range.into_inner();
    let run_id = backfill::request(&shared, &backfill::Asked { pipeline, from, to }).await?;
    Ok(HttpResponse::Accepted().json(Asked { run_id }))
}
