//! `boathouse batch`: runs of the hourly batch, by hand, and their history.

mod backfill;
mod follow;
mod gaps;
mod plan;
pub(crate) mod range;
mod show;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::{Context, Outcome};
use super::{output, pipelines};
use crate::batch::history::{History, Run, RunState};
use crate::batch::run::graph::{GRAPH, GRAPH_ALIAS, Kind, Task};
use crate::config::Config;

/// The batch: bronze to silver to gold, and gold in ClickHouse. Start runs, look at them, stop them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With a daemon running, it does the work and this command asks it to, through the run history. Without one, `run` does the
work in its own process.

Examples:
  boathouse batch run --wait
  boathouse batch history
  boathouse batch history 20260206T140500Z-3f9a1c
  boathouse batch logs 20260206T140500Z-3f9a1c run_silver_to_gold
  boathouse batch retry 20260206T140500Z-3f9a1c --wait
  boathouse batch plan                        what the next run would recompute, and why
  boathouse batch gaps                        hours in which silver is not what Bronze gives
  boathouse batch backfill --from 2026-02-01 --to 2026-02-06 --dry-run")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Runs(Runs),
    Plan(plan::Args),
    Backfill(backfill::Args),
    Gaps(gaps::Args),
}

/// What goes through the run history.
#[derive(Debug, Subcommand)]
enum Runs {
    Run(RunArgs),
    History(HistoryArgs),
    Logs(LogsArgs),
    Pause(PauseArgs),
    Resume(PauseArgs),
    Cancel(CancelArgs),
    Retry(RetryArgs),
}

/// Run the batch now.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The graph; there is one, so that its name may be left out.
    #[arg(value_parser = graph, default_value = GRAPH, hide_default_value = true)]
    graph: String,
    /// The pipeline; without it, all of them.
    #[arg(long)]
    pipeline: Option<String>,
    /// Follow the run to its end, also where a daemon does the work.
    #[arg(long)]
    wait: bool,
}

/// The newest runs, or one run with its tasks: durations, rows, errors.
#[derive(Debug, clap::Args)]
struct HistoryArgs {
    /// A run, for its tasks.
    run_id: Option<String>,
    /// Runs of this pipeline alone.
    #[arg(long)]
    pipeline: Option<String>,
    /// How many runs.
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

/// What the tasks of a run have logged.
#[derive(Debug, clap::Args)]
struct LogsArgs {
    run_id: String,
    /// One task alone, such as run_silver_to_gold.
    task: Option<Task>,
}

/// Stop the schedule from starting runs, or let it go on; by hand the batch runs either way.
#[derive(Debug, clap::Args)]
struct PauseArgs {
    /// The pipeline; without it, all of them.
    #[arg(long)]
    pipeline: Option<String>,
}

/// Stop a run, or take one back that waits.
#[derive(Debug, clap::Args)]
struct CancelArgs {
    run_id: String,
}

/// Go on with a run that failed or was cancelled, from the task where it stopped.
#[derive(Debug, clap::Args)]
struct RetryArgs {
    run_id: String,
    /// Follow the run to its end, also where a daemon does the work.
    #[arg(long)]
    wait: bool,
}

fn graph(name: &str) -> Result<String, String> {
    if name == GRAPH || name == GRAPH_ALIAS {
        Ok(GRAPH.into())
    } else {
        Err(format!("there is one graph, {GRAPH} ({GRAPH_ALIAS} is accepted, too)"))
    }
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        match self.command {
            Command::Plan(args) => args.run(context),
            Command::Backfill(args) => args.run(context),
            Command::Gaps(args) => args.run(context),
            Command::Runs(command) => command.run(context),
        }
    }
}

impl Runs {
    fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        context.block_on(async {
            let history = History::open(&config.server).await?;
            match self {
                Runs::Run(args) => {
                    let mut ids = Vec::new();
                    for pipeline in pipelines::chosen(&config, args.pipeline.as_deref())? {
                        ids.push((pipeline.clone(), history.request(&pipeline.name).await?));
                    }
                    follow::runs(&config, &history, ids, args.wait, context.json).await
                }
                Runs::Retry(args) => {
                    let run = known(&history, &args.run_id).await?;
                    if !history.retry(&run.run_id).await? {
                        bail!(
                            "run {} is {}; only one that failed or was cancelled is gone on with",
                            run.run_id,
                            run.state.as_str()
                        );
                    }
                    let pipeline = pipelines::named(&config, &run.pipeline)?.clone();
                    follow::runs(&config, &history, vec![(pipeline, run.run_id)], args.wait, context.json).await
                }
                Runs::History(args) => {
                    show::history(&history, args.run_id, args.pipeline, args.limit, context.json).await
                }
                Runs::Logs(args) => {
                    let run = known(&history, &args.run_id).await?;
                    show::logs(&history, &run, args.task, context.json).await
                }
                Runs::Pause(args) => pause(&config, &history, args.pipeline, true, context.json).await,
                Runs::Resume(args) => pause(&config, &history, args.pipeline, false, context.json).await,
                Runs::Cancel(args) => {
                    let run = known(&history, &args.run_id).await?;
                    if !history.cancel(&run.run_id).await? {
                        bail!("run {} is over: it is {}", run.run_id, run.state.as_str());
                    }
                    let now = known(&history, &args.run_id).await?;
                    if context.json {
                        output::json(&show::RunView::of(&now, &[]))?;
                    } else if now.state == RunState::Cancelled {
                        println!("run {} will not start", now.run_id);
                    } else {
                        println!("run {} stops at its next step", now.run_id);
                    }
                    Ok(Outcome::Right)
                }
            }
        })
    }
}

/// Asks for a run through a graph, of one pipeline or of all, and does it or leaves it to the daemon.
pub(super) fn start(
    context: &Context,
    kind: Kind,
    pipeline: Option<&str>,
    parameters: &BTreeMap<String, String>,
    wait: bool,
) -> anyhow::Result<Outcome> {
    let config = context.config()?;
    context.block_on(async {
        let history = History::open(&config.server).await?;
        let mut ids = Vec::new();
        for pipeline in pipelines::chosen(&config, pipeline)? {
            ids.push((pipeline.clone(), history.request_of(kind, &pipeline.name, parameters).await?));
        }
        follow::runs(&config, &history, ids, wait, context.json).await
    })
}

/// A run by its id, or an error that says how to find one.
async fn known(history: &History, run_id: &str) -> anyhow::Result<Run> {
    history.run(run_id).await?.with_context(|| {
        format!("there is no run `{run_id}` in {}; `boathouse batch history` lists them", history.address())
    })
}

async fn pause(
    config: &Config,
    history: &History,
    name: Option<String>,
    pause: bool,
    json: bool,
) -> anyhow::Result<Outcome> {
    let mut changed = Vec::new();
    for pipeline in pipelines::chosen(config, name.as_deref())? {
        changed.push((pipeline.name.clone(), history.pause(&pipeline.name, pause).await?));
    }
    if json {
        let rows: Vec<_> = changed
            .iter()
            .map(|(pipeline, changed)| serde_json::json!({"pipeline": pipeline, "paused": pause, "changed": changed}))
            .collect();
        output::json(&rows)?;
        return Ok(Outcome::Right);
    }
    let mut out = output::stdout();
    for (pipeline, changed) in changed {
        let text = match (pause, changed) {
            (true, true) => "paused: no slot starts a run until `boathouse batch resume`",
            (true, false) => "is paused already",
            (false, true) => "goes on; slots that passed are caught up as schedule.catch_up says",
            (false, false) => "was not paused",
        };
        writeln!(out, "{pipeline}: {text}")?;
    }
    out.flush()?;
    Ok(Outcome::Right)
}
