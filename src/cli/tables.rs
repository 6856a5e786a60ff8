//! `boathouse tables`: the Delta tables, their history and their upkeep.

mod drop;

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context as _, bail};
use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::console::note;
use super::lake::Lake as Catalog;
use super::output::{self, Grid, count};
use super::remote::Way;
use super::{Context, Outcome};
use crate::batch::run::graph::Kind;
use crate::batch::upkeep::tasks::tables_of;
use crate::batch::upkeep::{Merging, history, merge, summary, vacuum};
use crate::batch::{Lake, Layer, TaskContext};

/// The Delta tables: what they hold, their history, merging small files, taking away files that nobody needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse tables                               every table: version, files, small files, bytes, rows, log entries
  boathouse tables history silver.user_events    its newest commits
  boathouse tables optimize bronze.user_events   merge small files of closed dates
  boathouse tables vacuum silver.user_events --dry-run
  boathouse tables drop gold.old_figure --dry-run   what is left of a model that was taken out of its folder")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    way: Way,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The newest commits of a table.
    History {
        /// The table, such as silver.user_events.
        table: String,
        /// How many.
        #[arg(long, default_value_t = 20)]
        limit: u64,
    },
    /// Merge a table's small files, those of hours and dates that are over (UTC). Safe beside the daemon.
    Optimize {
        /// The table, such as bronze.user_events.
        table: String,
    },
    /// Delete files that no table has needed for `upkeep.vacuum_after`, seven days by default.
    Vacuum {
        /// The table, such as silver.user_events.
        table: String,
        /// Only say which.
        #[arg(long)]
        dry_run: bool,
    },
    Drop(drop::Args),
    /// Do now what the schedule of upkeep does: retention, merging, checkpoints, old log entries, vacuum. A run in the
    /// history, by the daemon where one runs.
    Upkeep {
        /// The pipeline whose tables; without it, those of all.
        #[arg(long)]
        pipeline: Option<String>,
        /// Follow the run to its end, also where a daemon does the work.
        #[arg(long)]
        wait: bool,
    },
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let lake = Lake::new(&config.server)?;
        match self.action {
            None => {
                let tables = Catalog::open(Some(&config.server.lakehouse.uri))?.tables();
                list(context, &lake, &tables)?;
            }
            Some(Action::History { table, limit }) => {
                let (layer, name) = parts(&table)?;
                let commits = context.block_on(async { Ok(history(&lake, layer, name, limit).await?) })?;
                if context.json {
                    output::json(&commits)?;
                } else {
                    let mut grid =
                        Grid::new(&["version", "at", "operation", "files added", "files removed", "rows added"]);
                    for c in commits {
                        grid.row([
                            c.version.to_string(),
                            c.at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default(),
                            output::safe_text(&c.operation),
                            count(c.files_added as u64),
                            count(c.files_removed as u64),
                            count(c.rows_added),
                        ]);
                    }
                    print(&grid)?;
                }
            }
            Some(Action::Optimize { table }) => {
                let (layer, name) = parts(&table)?;
                let upkeep = &config.server.upkeep;
                let merging = Merging { target: upkeep.file_size.0, now: Utc::now(), time: upkeep.merge_time };
                let pipeline = config
                    .pipelines
                    .iter()
                    .find(|p| tables_of(p).iter().any(|(l, n)| (*l, n.as_str()) == (layer, name)));
                let task = TaskContext::detached();
                let pipeline = pipeline.map(|p| &**p);
                let merged =
                    context.block_on(async { Ok(merge(&lake, layer, name, pipeline, merging, &task).await?) })?;
                let detail = format!("{table}: {} files into {}", merged.files_before, merged.files_after);
                note(&config.server.data_dir, "tables optimize", detail);
                if context.json {
                    output::json(&merged)?;
                } else {
                    println!("{table}: {} files merged into {}", merged.files_before, merged.files_after);
                    if let Some(left) = &merged.left {
                        println!("{table}: {}", output::safe_text(left));
                    }
                }
            }
            Some(Action::Vacuum { table, dry_run }) => {
                let (layer, name) = parts(&table)?;
                let keep = config.server.upkeep.vacuum_after;
                let task = TaskContext::detached();
                let files = context.block_on(async { Ok(vacuum(&lake, layer, name, keep, dry_run, &task).await?) })?;
                if !dry_run {
                    note(&config.server.data_dir, "tables vacuum", format!("{table}: {} files", files.len()));
                }
                if context.json {
                    output::json(&json!({"table": table, "dry_run": dry_run, "files": files}))?;
                } else {
                    files.iter().for_each(|file| println!("{} {}", count(file.bytes), output::safe_text(&file.path)));
                    let done = if dry_run { "would be deleted" } else { "deleted" };
                    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
                    println!("{table}: {} files of {} bytes {done}", files.len(), count(bytes));
                }
            }
            Some(Action::Drop(args)) => args.run(context, &config, &lake)?,
            Some(Action::Upkeep { pipeline, wait }) => {
                return super::batch::start(
                    context,
                    self.way,
                    Kind::Upkeep,
                    pipeline.as_deref(),
                    &BTreeMap::new(),
                    wait,
                );
            }
        }
        Ok(Outcome::Right)
    }
}

fn list(context: &Context, lake: &Lake, tables: &[String]) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for table in tables {
        let (layer, name) = parts(table)?;
        if let Some(summary) = context.block_on(async { Ok(summary(lake, layer, name).await?) })? {
            found.push((table, summary));
        }
    }
    if context.json {
        let tables = found.iter().map(|(table, summary)| {
            let mut entry = json!(summary);
            entry["table"] = json!(table);
            entry
        });
        return output::json(&tables.collect::<Vec<_>>());
    }
    let mut grid = Grid::new(&["table", "version", "files", "small files", "bytes", "rows", "log entries"]);
    for (table, s) in found {
        let numbers = [s.version, s.files as u64, s.files_small as u64, s.bytes, s.rows, s.log_entries as u64];
        grid.row(std::iter::once(table.clone()).chain(numbers.map(count)));
    }
    print(&grid)
}

fn print(grid: &Grid) -> anyhow::Result<()> {
    let mut out = output::stdout();
    grid.write(&mut out)?;
    Ok(out.flush()?)
}

/// Layer and name of a table such as `silver.user_events`.
fn parts(table: &str) -> anyhow::Result<(Layer, &str)> {
    let (layer, name) = table.split_once('.').with_context(|| format!("`{table}` is no layer.table"))?;
    let layer = Layer::named(layer)
        .with_context(|| format!("`{layer}` is no layer; the layers are bronze, silver and gold"))?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        bail!("`{name}` is no table's name");
    }
    Ok((layer, name))
}
