//! Follows runs that a daemon does, or does them where there is none.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::Utc;
use tokio::sync::watch;

use super::desk::Desk;
use super::show;
use crate::batch::history::{AttemptState, History, LeaseWatch, RunState};
use crate::batch::run::Runner;
use crate::batch::run::threads;
use crate::batch::tasks;
use crate::cli::Outcome;
use crate::cli::output::{self, safe_text};
use crate::config::{Config, Pipeline};
use crate::serving;

/// How often the history is looked at.
const LOOK: Duration = Duration::from_millis(300);
/// A daemon that has said nothing for this long does not run.
const SILENCE: Duration = Duration::from_secs(4);

/// Sees runs that were just asked for to their end, or leaves them to the daemon.
pub(super) async fn runs(
    config: &Config,
    desk: &Desk<'_>,
    runs: Vec<(Arc<Pipeline>, String)>,
    wait: bool,
    json: bool,
) -> anyhow::Result<Outcome> {
    let ids: Vec<String> = runs.iter().map(|(_, id)| id.clone()).collect();
    let history = match desk {
        Desk::History { history, .. } if !a_daemon_runs(history, &ids).await? => history,
        _ if wait => return follow(desk, &ids, json).await,
        _ => return asked(desk, &ids, json).await,
    };
    eprintln!("no daemon runs on {}: the batch runs in this process", history.address());
    let threads = threads::runtime(config.server.batch.threads).context("cannot start the batch threads")?;
    let (leave, leaving) = watch::channel(false);
    let mut followed = std::pin::pin!(follow(desk, &ids, json));
    let handle = threads.handle().clone();
    let mut work = std::pin::pin!(do_all(config, history, &runs, &handle, &leaving));
    let outcome = tokio::select! {
        outcome = &mut followed => outcome,
        done = &mut work => match done {
            Ok(()) => followed.await,
            Err(error) => Err(error),
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("stopping after the step in hand …");
            leave.send_replace(true);
            work.await?;
            for id in &ids {
                history.cancel(id).await?;
            }
            followed.await
        }
    };
    // What a task that would not stop still does, the next run does again.
    threads.shutdown_background();
    outcome
}

/// Whether somebody else takes the runs up: a daemon whose beat moves.
async fn a_daemon_runs(history: &History, ids: &[String]) -> anyhow::Result<bool> {
    let before = history.daemons().await?;
    let begun = Instant::now();
    while !before.is_empty() && begun.elapsed() < SILENCE {
        tokio::time::sleep(LOOK).await;
        let moved = history.daemons().await?.iter().any(|now| !before.contains(now));
        let mut taken = false;
        for id in ids {
            taken |= history.run(id).await?.is_some_and(|run| run.state != RunState::Waiting);
        }
        if moved || taken {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tells what was asked for.
async fn asked(desk: &Desk<'_>, ids: &[String], json: bool) -> anyhow::Result<Outcome> {
    let mut runs = Vec::new();
    for id in ids {
        runs.push(desk.run(id).await?.0);
    }
    if json {
        let views: Vec<show::RunView<'_>> = runs.iter().map(|run| show::RunView::of(run, &[])).collect();
        output::json(&views)?;
        return Ok(Outcome::Right);
    }
    let mut out = output::stdout();
    for run in &runs {
        writeln!(out, "asked the daemon for run {}; see `boathouse batch history {0}`", run.run_id)?;
    }
    out.flush()?;
    Ok(Outcome::Right)
}

/// Does the work in this process: what waits before these runs, too.
async fn do_all(
    config: &Config,
    history: &History,
    runs: &[(Arc<Pipeline>, String)],
    threads: &tokio::runtime::Handle,
    leaving: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let server = Arc::new(config.server.clone());
    let clickhouse = serving::Client::new(&server.clickhouse)?;
    let holder = format!("command-{}", uuid::Uuid::new_v4());
    let mut watch = LeaseWatch::default();
    for (pipeline, id) in runs {
        let runner = Runner {
            history: history.clone(),
            batch: threads.clone(),
            work: tasks::work(&server, pipeline, &clickhouse),
            observer: Arc::new(|_, _| {}),
            policy: Runner::policy(&pipeline.schedule),
            time_limit: pipeline.schedule.time_limit,
        };
        let mut told = false;
        while !*leaving.borrow() && !history.run(id).await?.is_none_or(|run| run.state.is_over()) {
            match history.take_up(&pipeline.name, &holder, &mut watch).await? {
                Some((run, lease)) => drop(runner.execute(&run, &lease, leaving.clone()).await?),
                None => {
                    if !std::mem::replace(&mut told, true) {
                        let who = history.held(&pipeline.name).await?.map(|held| held.holder).unwrap_or_default();
                        eprintln!("waiting for `{who}`, which runs the batch of {} or has died", pipeline.name);
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }
    Ok(())
}

/// Shows what happens in the runs until they are over.
async fn follow(desk: &Desk<'_>, ids: &[String], json: bool) -> anyhow::Result<Outcome> {
    let mut all_right = true;
    let mut views = Vec::new();
    for id in ids {
        let (mut line, mut shown) = (0, Vec::new());
        let run = loop {
            let (run, attempts) = desk.run(id).await?;
            for attempt in &attempts {
                let key = (attempt.task, attempt.attempt, attempt.state);
                if shown.contains(&key) {
                    continue;
                }
                shown.push(key);
                let text = attempt.error.as_deref().or(attempt.summary.as_deref()).unwrap_or_default();
                if attempt.state == AttemptState::Running {
                    eprintln!("{}       {} …", attempt.started.format("%H:%M:%S%.3f"), attempt.task);
                } else {
                    let took = show::took(attempt.started, attempt.ended);
                    let ended = attempt.ended.unwrap_or_else(Utc::now).format("%H:%M:%S%.3f");
                    eprintln!(
                        "{ended}       {} {} in {took}  {}",
                        attempt.task,
                        attempt.state.as_str(),
                        safe_text(text)
                    );
                }
            }
            for new in desk.lines(id, line).await? {
                line = new.line;
                eprintln!("{}", show::text(&new));
            }
            if run.state.is_over() {
                views.push((run.clone(), attempts));
                break run;
            }
            tokio::time::sleep(LOOK).await;
        };
        all_right &= matches!(run.state, RunState::Succeeded | RunState::Skipped);
    }
    if json {
        let views: Vec<show::RunView<'_>> = views.iter().map(|(run, tasks)| show::RunView::of(run, tasks)).collect();
        output::json(&views)?;
    } else {
        let mut out = output::stdout();
        for (run, attempts) in &views {
            show::write_one(&mut out, run, attempts)?;
        }
        out.flush()?;
    }
    Ok(if all_right { Outcome::Right } else { Outcome::Wrong })
}
