//! The command line: one file per subcommand.
//!
//! A command is a struct of its arguments with a `run(self, &Context) -> anyhow::Result<Outcome>`. Results go to
//! standard output, everything else (logs, progress, timings) to standard error.

pub(crate) mod batch;
mod bench;
pub(crate) mod bronze;
pub(crate) mod clickhouse;
mod console;
pub(crate) mod dead_letters;
pub mod demo;
mod doctor;
pub(crate) mod kafka;
pub(crate) mod lake;
mod mend;
pub(crate) mod output;
mod password;
mod pipelines;
mod quality;
mod reconcile;
mod remote;
mod run;
mod shell;
mod sql;
mod status;
mod stream;
mod tables;
mod tap;
mod top;
pub mod topic;
pub(crate) mod trace;
mod validate;

use std::cell::OnceCell;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigErrors, Lakehouse, Log, process_env};
use crate::storage;
use crate::telemetry::logs;

const EXAMPLES: &str = "\
Examples:
  boathouse validate --show                     check the configuration; every value and where it comes from
  boathouse run --config config/boathouse.toml  the daemon
  boathouse status                              is it healthy, how far behind is it
  boathouse top                                 the same, live; boathouse tap shows the events themselves
  boathouse doctor                              servers, rights, disks, clocks and settings, and what to do
  boathouse reconcile                           is it right: every layer compared with the one before
  boathouse trace EVENT_ID                      where did this event go
  boathouse sql \"select time_status, count(*) from bronze.user_events group by 1\"
  boathouse sql --on clickhouse                 an interactive shell on ClickHouse
  boathouse batch run --wait                    bronze to silver to gold to ClickHouse, now
  boathouse batch plan                          what the next hourly run would recompute, and why
  boathouse dead-letters list                   records that are no events, with the reason

Exit codes:
  0  done, and right
  1  a check failed: reconcile found a difference, status found the daemon unhealthy
  2  not done: wrong usage, a mistake in the configuration, or a server that could not be reached";

/// From a Kafka topic to a Delta lakehouse and ClickHouse, exactly once.
#[derive(Debug, Parser)]
#[command(name = "boathouse", version, after_help = EXAMPLES, max_term_width = 120)]
struct Cli {
    /// The configuration; without it config/boathouse.toml, then /etc/boathouse/boathouse.toml.
    #[arg(long, global = true, value_name = "FILE", env = "BOATHOUSE_CONFIG")]
    config: Option<PathBuf>,

    /// Print JSON, for programs: field names carry their units.
    #[arg(long, global = true)]
    json: bool,

    /// Log what the command does (-v), or in detail (-vv), to standard error.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Validate(validate::Args),
    Sql(sql::Args),
    Reconcile(reconcile::Args),
    Trace(trace::Args),
    Status(status::Args),
    Top(top::Args),
    Doctor(doctor::Args),
    Tap(tap::Args),
    Quality(quality::Args),
    DeadLetters(dead_letters::Args),
    Bronze(mend::Args),
    Console(console::Args),
    Stream(stream::Args),
    Topic(topic::TopicCommand),
    Batch(batch::Args),
    Tables(tables::Args),
    Demo(demo::DemoCommand),
    Bench(Box<bench::Args>),
    Completions(shell::Completions),
    Man(shell::Man),
    #[command(hide = true)]
    BenchConsume(bench::consume::Args),
    #[command(hide = true)]
    BenchBatchRun(bench::batch::measured::Args),
}

/// How a command that could be carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, and what it checked is right: exit code 0.
    Right,
    /// A check failed: exit code 1.
    Wrong,
}

/// What the global arguments say.
#[derive(Debug)]
pub(crate) struct Context {
    /// `--config`.
    pub config_path: Option<PathBuf>,
    /// `--json`.
    pub json: bool,
    runtime: OnceCell<tokio::runtime::Runtime>,
}

impl Context {
    /// The configuration; its mistakes are the error.
    pub fn config(&self) -> anyhow::Result<Config> {
        let config = Config::load(self.config_path.as_deref())?;
        storage::connect(&config.server.lakehouse);
        Ok(config)
    }

    /// The configuration and where each value comes from.
    pub fn loaded(&self) -> Result<crate::config::Loaded, ConfigErrors> {
        let loaded = crate::config::Loaded::load(self.config_path.as_deref(), process_env())?;
        storage::connect(&loaded.config.server.lakehouse);
        Ok(loaded)
    }

    /// Runs a future to its end on the command's multi-thread runtime; for commands that are no daemons. It is one
    /// runtime for the whole command: an opened Delta table goes on using the one that it was opened on.
    pub fn block_on<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
                let built = built.context("cannot start the I/O threads; is the limit on processes reached?")?;
                self.runtime.get_or_init(|| built)
            }
        };
        runtime.block_on(work)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A thread that sits in a foreign call must not hold up the end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The program.
pub fn main() -> ExitCode {
    // Both ring and aws-lc-rs are linked; rustls needs one chosen before the first connection.
    let _already_chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    // For commands that take an address and need no configuration: the environment has the settings then.
    storage::connect(&Lakehouse::default());
    let context = Context { config_path: cli.config, json: cli.json, runtime: OnceCell::new() };
    match execute(cli.command, cli.verbose, &context) {
        Ok(Outcome::Right) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::from(1),
        // Whoever reads the output has seen enough, as `head` does.
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            let (bold, plain) = if std::io::stderr().is_terminal() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
            eprintln!("{bold}boathouse:{plain} {e:#}");
            ExitCode::from(2)
        }
    }
}

fn execute(command: Command, verbose: u8, context: &Context) -> anyhow::Result<Outcome> {
    if !matches!(command, Command::Run(_)) {
        init_logs(verbose)?;
    }
    match command {
        Command::Run(args) => args.run(context),
        Command::Validate(args) => args.run(context),
        Command::Sql(args) => args.run(context),
        Command::Demo(command) => command.run(context),
        Command::Reconcile(args) => args.run(context),
        Command::Trace(args) => args.run(context),
        Command::Batch(args) => args.run(context),
        Command::Tables(args) => args.run(context),
        Command::Bench(args) => args.run(context),
        Command::BenchConsume(args) => args.run(context),
        Command::BenchBatchRun(args) => args.run(context),
        Command::Status(args) => args.run(context),
        Command::Top(args) => args.run(context),
        Command::Doctor(args) => args.run(context),
        Command::Tap(args) => args.run(context),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(),
        Command::Quality(args) => args.run(context),
        Command::DeadLetters(args) => args.run(context),
        Command::Bronze(args) => args.run(context),
        Command::Console(args) => args.run(context),
        Command::Stream(args) => args.run(context),
        Command::Topic(command) => command.run(context.config_path.as_deref(), context.json).map(|()| Outcome::Right),
    }
}

/// Logs of a command that is no daemon: warnings, unless asked for more.
fn init_logs(verbose: u8) -> anyhow::Result<()> {
    let filter = ["warn", "info", "debug"][usize::from(verbose.min(2))];
    Ok(logs::init(&Log { filter: filter.into(), ..Log::default() })?)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        super::Cli::command().debug_assert();
    }
}
