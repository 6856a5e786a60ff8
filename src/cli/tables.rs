//! `boathouse tables`: the Delta tables, their history and their upkeep.

use std::io::Write;

use anyhow::{Context as _, bail};
use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::lake::Lake as Catalog;
use super::output::{self, Grid, count};
use super::{Context, Outcome};
use crate::batch::upkeep::{history, optimize, summary, vacuum};
use crate::batch::{Lake, Layer};

/// The Delta tables: what they hold, their history, merging small files, taking away files that nobody needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse tables                               every table: version, files, bytes, rows
  boathouse tables history silver.user_events    its newest commits
  boathouse tables optimize bronze.user_events   merge small files of closed dates
  boathouse tables vacuum silver.user_events --dry-run")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
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
    /// Merge a table's small files; of Bronze those of closed dates (UTC). Safe beside the daemon.
    Optimize {
        /// The table, such as bronze.user_events.
        table: String,
    },
    /// Delete files that left a table more than seven days ago.
    Vacuum {
        /// The table, such as silver.user_events.
        table: String,
        /// Only say which.
        #[arg(long)]
        dry_run: bool,
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
                let today = Utc::now().date_naive();
                let merged = context.block_on(async { Ok(optimize(&lake, layer, name, today).await?) })?;
                match context.json {
                    true => output::json(&merged)?,
                    false => println!("{table}: {} files merged into {}", merged.files_before, merged.files_after),
                }
            }
            Some(Action::Vacuum { table, dry_run }) => {
                let (layer, name) = parts(&table)?;
                let files = context.block_on(async { Ok(vacuum(&lake, layer, name, dry_run).await?) })?;
                if context.json {
                    output::json(&json!({"table": table, "dry_run": dry_run, "files": files}))?;
                } else {
                    files.iter().for_each(|file| println!("{}", output::safe_text(file)));
                    let done = if dry_run { "would be deleted" } else { "deleted" };
                    println!("{table}: {} files {done}", files.len());
                }
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
    let mut grid = Grid::new(&["table", "version", "files", "small files", "bytes", "rows"]);
    for (table, s) in found {
        let numbers = [s.version, s.files as u64, s.files_small as u64, s.bytes, s.rows];
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
    let layer = match layer {
        "bronze" => Layer::Bronze,
        "silver" => Layer::Silver,
        "gold" => Layer::Gold,
        _ => bail!("`{layer}` is no layer; the layers are bronze, silver and gold"),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        bail!("`{name}` is no table's name");
    }
    Ok((layer, name))
}
