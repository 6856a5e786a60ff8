//! What the board, the metrics and the log are told of runs and tables.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::batch::history::{AttemptState, History, HistoryError, Run, RunState};
use crate::batch::run::graph::{Kind, Task};
use crate::batch::run::{Event, Observer};
use crate::batch::upkeep;
use crate::config::Pipeline;
use crate::telemetry::{BatchEnded, BatchRunning, Board, TableState, names};

/// A table as the board has it.
pub(super) fn state(table: String, summary: &upkeep::TableSummary) -> TableState {
    TableState {
        table,
        version: summary.version,
        files: summary.files as u64,
        files_small: summary.files_small as u64,
        bytes: summary.bytes,
        rows: summary.rows,
        log_entries: summary.log_entries as u64,
    }
}

/// Tells the board what happened before this daemon started.
pub(super) async fn remember(board: &Board, history: &History, pipeline: &Pipeline) -> Result<(), HistoryError> {
    let runs = history.runs(Some(&pipeline.name), 50).await?;
    let newest = |of: &dyn Fn(&Run) -> bool| runs.iter().find(|run| run.state.is_over() && of(run)).map(ended_run);
    let is_upkeep = |run: &Run| run.graph == Kind::Upkeep.as_str();
    let (batch_last, upkeep_last) = (newest(&|run| !is_upkeep(run)), newest(&is_upkeep));
    let success = history.last_success(&pipeline.name).await?;
    let upkeep_success = history.last_success_of(Kind::Upkeep, &pipeline.name).await?;
    for task in Task::ALL {
        if let Some(since) = history.fresh_since(&pipeline.name, task).await? {
            freshen(board, &pipeline.name, task, since);
        }
    }
    board.batch(&pipeline.name, |batch| {
        batch.last = batch_last;
        batch.last_success = success.and_then(|run| run.ended);
        batch.upkeep.last = upkeep_last;
        batch.upkeep.last_success = upkeep_success.and_then(|run| run.ended);
    });
    Ok(())
}

fn ended_run(run: &Run) -> BatchEnded {
    BatchEnded {
        ended: run.ended.unwrap_or(run.requested),
        outcome: run.state.as_str().into(),
        run_id: run.run_id.clone(),
        error: run.error.clone(),
    }
}

/// Notes that a layer holds what its source had at a moment, if the task is one that brings a layer up to date.
fn freshen(board: &Board, pipeline: &str, task: Task, since: DateTime<Utc>) {
    board.batch(pipeline, |batch| match task {
        Task::RunBronzeToSilver => batch.fresh.silver = Some(since),
        Task::RunSilverToGold => batch.fresh.gold = Some(since),
        Task::GoldToClickhouse => batch.fresh.clickhouse = Some(since),
        _ => {}
    });
}

/// Writes a run's progress to the board, the metrics and the log.
pub(super) fn observer(board: Board) -> Observer {
    Arc::new(move |run: &Run, event: Event<'_>| {
        let (pipeline, run_id) = (&run.pipeline, &run.run_id);
        match event {
            Event::Began => {
                tracing::info!(pipeline, run_id, cause = run.cause.as_str(), "batch run");
                board.batch(pipeline, |batch| {
                    batch.running = Some(BatchRunning { run_id: run_id.clone(), task: None, since: Utc::now() });
                });
            }
            Event::TaskBegan { task, .. } => board.batch(pipeline, |batch| {
                if let Some(running) = &mut batch.running {
                    running.task = Some(task.to_string());
                }
            }),
            Event::TaskEnded { task, attempt, state, took, report, error } => {
                names::BATCH_TASK_SECONDS.observe(took, &[pipeline, task.as_str()]);
                if state == AttemptState::Succeeded {
                    freshen(&board, pipeline, task, Utc::now() - took);
                }
                let (state, took_ms) = (state.as_str(), took.as_millis() as u64);
                match error {
                    Some(error) => {
                        tracing::warn!(pipeline, run_id, %task, attempt, state, took_ms, error, "batch task")
                    }
                    None => {
                        tracing::info!(pipeline, run_id, %task, state, took_ms, summary = report.summary, "batch task")
                    }
                }
            }
            Event::Ended { state, error } => {
                let ended = Utc::now();
                let is_upkeep = run.graph == Kind::Upkeep.as_str();
                if state.is_over() {
                    let runs = if is_upkeep { &names::UPKEEP_RUNS } else { &names::BATCH_RUNS };
                    runs.add(1, &[pipeline, state.as_str()]);
                }
                match error {
                    Some(error) => tracing::warn!(pipeline, run_id, outcome = state.as_str(), error, "batch run ended"),
                    None => tracing::info!(pipeline, run_id, outcome = state.as_str(), "batch run ended"),
                }
                board.batch(pipeline, |batch| {
                    batch.running = None;
                    if !state.is_over() {
                        return;
                    }
                    let error = error.map(str::to_owned);
                    let outcome = state.as_str().to_owned();
                    let last = Some(BatchEnded { run_id: run_id.clone(), outcome, ended, error });
                    let success = (state == RunState::Succeeded).then_some(ended);
                    if is_upkeep {
                        batch.upkeep.last = last;
                        batch.upkeep.last_success = success.or(batch.upkeep.last_success);
                    } else {
                        batch.last = last;
                        batch.last_success = success.or(batch.last_success);
                    }
                });
            }
        }
    })
}
