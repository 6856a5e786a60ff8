//! `boathouse batch`: runs of the hourly batch, by hand, and their history.

mod backfill;
mod desk;
mod follow;
mod gaps;
mod plan;
pub(crate) mod range;
mod show;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::Context as _;
use clap::Subcommand;

use self::desk::Desk;
use super::remote::Way;
use super::{Context, Outcome};
use super::{output, pipelines};
use crate::batch::history::{History, Run, RunState};
use crate::batch::run::graph::{GRAPH, GRAPH_ALIAS, Kind, Task};
use crate::config::Config;

/// The batch: bronze to silver to gold, and gold in ClickHouse. Start runs, look at them, stop them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With a daemon running, it does the work and this command asks it to: by its API where its console answers, else through
the run history. Without one, `run` does the work in its own process.

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
    #[command(flatten)]
    way: Way,
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
    match Kind::read(name) {
        Some(Kind::Batch) => Ok(GRAPH.into()),
        _ => Err(format!("there is one graph, {GRAPH} ({GRAPH_ALIAS} is accepted, too)")),
    }
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        match self.command {
            Command::Plan(args) => args.run(context),
            Command::Backfill(args) => args.run(context, self.way),
            Command::Gaps(args) => args.run(context),
            Command::Runs(command) => command.run(context, self.way),
        }
    }
}

impl Runs {
    fn run(self, context: &Context, way: Way) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        context.block_on(async {
            // What only looks reads the history itself.
            match self {
                Runs::History(args) => {
                    let history = History::open(&config.server).await?;
                    return show::history(&history, args.run_id, args.pipeline, args.limit, context.json).await;
                }
                Runs::Logs(args) => {
                    let history = History::open(&config.server).await?;
                    let run = known(&history, &args.run_id).await?;
                    return show::logs(&history, &run, args.task, context.json).await;
                }
                _ => {}
            }
            let desk = Desk::open(&config, way).await?;
            match self {
                Runs::Run(args) => {
                    let (pipeline, none) = (args.pipeline.as_deref(), BTreeMap::new());
                    request(&config, &desk, Kind::Batch, pipeline, &none, args.wait, context.json).await
                }
                Runs::Retry(args) => {
                    let (run, _) = desk.run(&args.run_id).await?;
                    let pipeline = pipelines::named(&config, &run.pipeline)?.clone();
                    desk.retry(&run).await?;
                    follow::runs(&config, &desk, vec![(pipeline, run.run_id)], args.wait, context.json).await
                }
                Runs::Pause(args) => pause(&config, &desk, args.pipeline, true, context.json).await,
                Runs::Resume(args) => pause(&config, &desk, args.pipeline, false, context.json).await,
                Runs::Cancel(args) => {
                    let (run, _) = desk.run(&args.run_id).await?;
                    desk.cancel(&run).await?;
                    let (now, _) = desk.run(&run.run_id).await?;
                    if context.json {
                        output::json(&show::RunView::of(&now, &[]))?;
                    } else if now.state == RunState::Cancelled {
                        println!("run {} will not start", now.run_id);
                    } else {
                        println!("run {} stops at its next step", now.run_id);
                    }
                    Ok(Outcome::Right)
                }
                Runs::History(_) | Runs::Logs(_) => Ok(Outcome::Right),
            }
        })
    }
}

/// Asks for a run through a graph, of one pipeline or of all, and does it or leaves it to the daemon.
pub(super) fn start(
    context: &Context,
    way: Way,
    kind: Kind,
    pipeline: Option<&str>,
    parameters: &BTreeMap<String, String>,
    wait: bool,
) -> anyhow::Result<Outcome> {
    let config = context.config()?;
    context.block_on(async {
        let desk = Desk::open(&config, way).await?;
        request(&config, &desk, kind, pipeline, parameters, wait, context.json).await
    })
}

async fn request(
    config: &Config,
    desk: &Desk<'_>,
    kind: Kind,
    pipeline: Option<&str>,
    parameters: &BTreeMap<String, String>,
    wait: bool,
    json: bool,
) -> anyhow::Result<Outcome> {
    let mut ids = Vec::new();
    for pipeline in pipelines::chosen(config, pipeline)? {
        ids.push((pipeline.clone(), desk.request(kind, &pipeline.name, parameters).await?));
    }
    follow::runs(config, desk, ids, wait, json).await
}

/// A run by its id, or an error that says how to find one.
async fn known(history: &History, run_id: &str) -> anyhow::Result<Run> {
    history.run(run_id).await?.with_context(|| {
        format!("there is no run `{run_id}` in {}; `boathouse batch history` lists them", history.address())
    })
}

async fn pause(
    config: &Config,
    desk: &Desk<'_>,
    name: Option<String>,
    pause: bool,
    json: bool,
) -> anyhow::Result<Outcome> {
    let mut changed = Vec::new();
    for pipeline in pipelines::chosen(config, name.as_deref())? {
        changed.push((pipeline.name.clone(), desk.pause(&pipeline.name, pause).await?));
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
