//! Runs, their tasks and their logs, as text and as JSON.

use std::io::Write;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::known;
use crate::batch::history::{Attempt, AttemptState, Cause, History, Line, Run, RunState};
use crate::batch::run::graph::Task;
use crate::cli::Outcome;
use crate::cli::output::{self, Grid, count, safe_text, shorten};

/// A run as JSON.
#[derive(Debug, Serialize)]
pub(super) struct RunView<'a> {
    run_id: &'a str,
    pipeline: &'a str,
    graph: &'a str,
    cause: Cause,
    state: RunState,
    slot: Option<DateTime<Utc>>,
    requested: DateTime<Utc>,
    started: Option<DateTime<Utc>>,
    ended: Option<DateTime<Utc>>,
    duration_seconds: Option<f64>,
    runner: Option<&'a str>,
    tries: i64,
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<AttemptView<'a>>,
}

#[derive(Debug, Serialize)]
struct AttemptView<'a> {
    task: Task,
    attempt: i64,
    state: AttemptState,
    started: DateTime<Utc>,
    ended: Option<DateTime<Utc>>,
    duration_seconds: Option<f64>,
    rows_in: i64,
    rows_out: i64,
    rows_refused: i64,
    summary: Option<&'a str>,
    error: Option<&'a str>,
}

impl<'a> RunView<'a> {
    pub fn of(run: &'a Run, attempts: &'a [Attempt]) -> Self {
        Self {
            run_id: &run.run_id,
            pipeline: &run.pipeline,
            graph: &run.graph,
            cause: run.cause,
            state: run.state,
            slot: run.slot,
            requested: run.requested,
            started: run.started,
            ended: run.ended,
            duration_seconds: seconds(run.started, run.ended),
            runner: run.runner.as_deref(),
            tries: run.tries,
            error: run.error.as_deref(),
            tasks: attempts
                .iter()
                .map(|a| AttemptView {
                    task: a.task,
                    attempt: a.attempt,
                    state: a.state,
                    started: a.started,
                    ended: a.ended,
                    duration_seconds: seconds(Some(a.started), a.ended),
                    rows_in: a.rows_in,
                    rows_out: a.rows_out,
                    rows_refused: a.rows_refused,
                    summary: a.summary.as_deref(),
                    error: a.error.as_deref(),
                })
                .collect(),
        }
    }
}

fn seconds(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> Option<f64> {
    Some((to? - from?).num_microseconds()? as f64 / 1e6)
}

/// `1.2 s`, `3m 4s`; for what still runs, until now.
pub(super) fn took(from: DateTime<Utc>, to: Option<DateTime<Utc>>) -> String {
    let span = (to.unwrap_or_else(Utc::now) - from).to_std().unwrap_or_default();
    if span < Duration::from_secs(60) {
        format!("{:.1} s", span.as_secs_f64())
    } else {
        humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
    }
}

fn at(moment: Option<DateTime<Utc>>) -> String {
    moment.map_or_else(|| "–".into(), |m| m.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// The newest runs, or one run with its tasks.
pub(super) async fn history(
    history: &History,
    run_id: Option<String>,
    pipeline: Option<String>,
    limit: u32,
    json: bool,
) -> anyhow::Result<Outcome> {
    if let Some(run_id) = run_id {
        return one(history, &known(history, &run_id).await?, json).await;
    }
    let runs = history.runs(pipeline.as_deref(), limit).await?;
    if json {
        let views: Vec<RunView<'_>> = runs.iter().map(|run| RunView::of(run, &[])).collect();
        output::json(&views)?;
        return Ok(Outcome::Right);
    }
    let mut out = output::stdout();
    if runs.is_empty() {
        writeln!(out, "no run yet; `boathouse batch run` starts one")?;
    } else {
        let mut grid = Grid::new(&["run", "pipeline", "cause", "slot", "state", "started", "took", "error"]);
        for run in &runs {
            grid.row([
                run.run_id.clone(),
                run.pipeline.clone(),
                run.cause.as_str().into(),
                at(run.slot),
                run.state.as_str().into(),
                at(run.started),
                run.started.map_or_else(|| "–".into(), |started| took(started, run.ended)),
                run.error.as_deref().map_or_else(|| "–".into(), |e| shorten(&safe_text(e), 80)),
            ]);
        }
        grid.write(&mut out)?;
    }
    out.flush()?;
    Ok(Outcome::Right)
}

/// One run with its tasks.
pub(super) async fn one(history: &History, run: &Run, json: bool) -> anyhow::Result<Outcome> {
    let attempts = history.attempts(&run.run_id).await?;
    if json {
        output::json(&RunView::of(run, &attempts))?;
        return Ok(Outcome::Right);
    }
    let mut out = output::stdout();
    write_one(&mut out, run, &attempts)?;
    out.flush()?;
    Ok(Outcome::Right)
}

pub(super) fn write_one(out: &mut impl Write, run: &Run, attempts: &[Attempt]) -> anyhow::Result<()> {
    let slot = run.slot.map_or_else(String::new, |slot| format!(", slot {}", at(Some(slot))));
    writeln!(
        out,
        "{} of {}: {}, by {}{slot}{}",
        run.run_id,
        run.pipeline,
        run.state.as_str(),
        run.cause.as_str(),
        run.started.map_or_else(String::new, |started| format!(", {}", took(started, run.ended)))
    )?;
    if let Some(error) = &run.error {
        writeln!(out, "  {}", safe_text(error))?;
    }
    if attempts.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut grid = Grid::new(&["task", "attempt", "state", "started", "took", "rows in", "rows out", "refused", ""]);
    for a in attempts {
        let text = a.error.as_deref().or(a.summary.as_deref()).unwrap_or_default();
        grid.row([
            a.task.to_string(),
            a.attempt.to_string(),
            a.state.as_str().into(),
            a.started.format("%H:%M:%S").to_string(),
            took(a.started, a.ended),
            count(a.rows_in),
            count(a.rows_out),
            count(a.rows_refused),
            safe_text(text),
        ]);
    }
    grid.write(out)?;
    Ok(())
}

/// What the tasks of a run have logged.
pub(super) async fn logs(history: &History, run: &Run, task: Option<Task>, json: bool) -> anyhow::Result<Outcome> {
    let lines = history.lines(&run.run_id, task, 0).await?;
    if json {
        output::json(&lines)?;
        return Ok(Outcome::Right);
    }
    let mut out = output::stdout();
    for line in &lines {
        writeln!(out, "{}", text(line))?;
    }
    out.flush()?;
    if lines.is_empty() {
        // Silence would read as a broken command; a run that has just begun has nothing to say yet.
        let whose = task.map_or_else(String::new, |task| format!("{task} of "));
        let yet = if run.state.is_over() { "" } else { " yet" };
        eprintln!("{whose}{} ({}) has logged nothing{yet}", run.run_id, run.state.as_str());
    }
    Ok(Outcome::Right)
}

/// A log line as text.
pub(super) fn text(line: &Line) -> String {
    format!(
        "{} {:5} {}{}: {}",
        line.at.format("%H:%M:%S%.3f"),
        line.severity,
        line.task,
        if line.attempt > 1 { format!(" ({})", line.attempt) } else { String::new() },
        safe_text(&line.message)
    )
}
