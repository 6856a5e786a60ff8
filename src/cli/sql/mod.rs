//! `boathouse sql`: statements on the Delta tables (DataFusion) or on ClickHouse, once or in a shell.

mod engine;
mod render;
mod shell;
mod statements;

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use self::engine::Engine;
use self::render::Target;
use super::{Context, Outcome};

/// Query the Delta tables, or ClickHouse with `--on clickhouse`; without a statement, a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Tables are named by layer, as bronze.user_events, or by path as in Spark, delta.`/path/to/table`
(at an earlier version: delta.`/path/to/table@v12`). The Delta tables are only read.

Examples:
  boathouse sql \"select time_status, count(*) from bronze.user_events group by 1\"
  boathouse sql 'select * from delta.`/data/lakehouse/bronze/user_events` limit 5'
  boathouse sql --on clickhouse \"select * from realtime.events_per_minute order by 1 desc limit 10\"
  boathouse sql --output june.parquet \"select * from bronze.user_events where event_time >= '2026-06-01'\"
  echo 'select 1; select 2' | boathouse sql --json
  boathouse sql                              a shell: history, completion with Tab, \\? for help")]
pub(crate) struct Args {
    /// One or more statements, separated by semicolons; from standard input if that is no terminal.
    statement: Option<String>,

    /// Where to run it.
    #[arg(long, value_enum, default_value = "delta", value_name = "ENGINE")]
    on: On,

    /// How to print rows; default: table, or what the ending of --output says.
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Write the rows to this file.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Rows to show of a table; 0 shows all. Default: 1000 on a terminal, else all.
    #[arg(long, value_name = "N")]
    max_rows: Option<usize>,

    /// The lakehouse's folder; default: lakehouse.uri of the configuration.
    #[arg(long, value_name = "DIR")]
    lakehouse: Option<String>,
}

/// What runs a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum On {
    Delta,
    Clickhouse,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// A header and comma-separated values.
    Csv,
    /// One JSON object a line.
    Json,
    /// A Parquet file; needs --output.
    Parquet,
}

/// Rows that a terminal is shown unless asked for more.
const TERMINAL_ROWS: usize = 1000;

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let target = self.target(context)?;
        let engine = self.engine(context)?;
        let text = match self.statement {
            Some(text) => Some(text),
            None if std::io::stdin().is_terminal() => None,
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("standard input is no text")?;
                Some(text)
            }
        };
        context.block_on(async move {
            match text {
                None => shell::run(engine, target).await?,
                Some(text) => {
                    let (statements, _) = statements::split(&text);
                    if statements.is_empty() {
                        bail!("there is no statement; try `boathouse sql \"show tables\"`");
                    }
                    if statements.len() > 1 && target.file.is_some() {
                        bail!("--output takes the rows of one statement; these are {}", statements.len());
                    }
                    for statement in statements {
                        engine.run(&statement, &target).await?;
                    }
                }
            }
            Ok(Outcome::Right)
        })
    }

    fn target(&self, context: &Context) -> anyhow::Result<Target> {
        let by_ending = match self.output.as_ref().and_then(|p| p.extension()).and_then(|e| e.to_str()) {
            Some("csv") => Some(Format::Csv),
            Some("json" | "jsonl" | "ndjson") => Some(Format::Json),
            Some("parquet") => Some(Format::Parquet),
            _ => None,
        };
        let default = if context.json { Format::Json } else { by_ending.unwrap_or(Format::Table) };
        let format = self.format.unwrap_or(default);
        if format == Format::Parquet && self.output.is_none() {
            bail!("Parquet is no text: name a file with --output FILE.parquet");
        }
        let terminal = self.output.is_none() && std::io::stdout().is_terminal();
        let max_rows = match self.max_rows {
            Some(0) => usize::MAX,
            Some(n) => n,
            None if terminal => TERMINAL_ROWS,
            None => usize::MAX,
        };
        let timings = std::io::stderr().is_terminal();
        Ok(Target { format, file: self.output.clone(), max_rows, terminal, vertical: false, timings })
    }

    fn engine(&self, context: &Context) -> anyhow::Result<Engine> {
        match self.on {
            On::Clickhouse => Engine::clickhouse(&context.config()?.server.clickhouse),
            On::Delta => match &self.lakehouse {
                Some(uri) => Engine::delta(Some(uri)),
                None => match context.config() {
                    Ok(config) => Engine::delta(Some(&config.server.lakehouse.uri)),
                    // Tables by path need no configuration, if none was asked for.
                    Err(_) if context.config_path.is_none() && self.names_paths_only() => Engine::delta(None),
                    Err(e) => Err(e),
                },
            },
        }
    }

    fn names_paths_only(&self) -> bool {
        self.statement.as_ref().is_some_and(|s| s.contains("delta.`"))
    }
}
