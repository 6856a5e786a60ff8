//! `boathouse tables drop`: takes away what is left of a model that was removed.

use std::fmt::Display;

use anyhow::bail;
use serde_json::json;

use super::super::Context;
use super::super::console::note;
use super::super::output::{self, count};
use super::parts;
use crate::batch::leftover::{delta_leftover, drop_delta, drop_served, served_leftovers};
use crate::batch::{Graph, Lake, Layer, check_models};
use crate::config::Config;
use crate::serving::Client;

/// Delete what is left of a gold model that was taken out of its folder: its Delta table, its view and its tables of rows
/// in ClickHouse. `boathouse doctor` lists them. Refused while a model of the configuration has the name.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model's table or view, such as gold.old_figure.
    table: String,
    /// Only say what.
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub fn run(self, context: &Context, config: &Config, lake: &Lake) -> anyhow::Result<()> {
        let Self { table, dry_run } = self;
        let (layer, name) = parts(&table)?;
        if layer != Layer::Gold {
            bail!("{table} is a pipeline's own table: only what is left of gold models is dropped here");
        }
        let graphs = check_models(&config.pipelines)?;
        let client = Client::new(&config.server.clickhouse)?;
        context.block_on(async {
            // Both are looked at before anything goes.
            let served = served_leftovers(&client, &graphs).await?.remove(name);
            let delta = delta_leftover(lake, &graphs, name).await?;
            if served.is_none() && delta.is_none() {
                bail!("{}", nothing(&graphs, name));
            }
            if !dry_run {
                if let Some(served) = &served {
                    drop_served(&client, name, served).await?;
                }
                if delta.is_some() {
                    drop_delta(lake, name).await?;
                }
                note(&config.server.data_dir, "tables drop", table.clone());
            }
            if context.json {
                let found = json!({"table": table, "dry_run": dry_run, "delta": delta, "clickhouse": served});
                return output::json(&found);
            }
            let done = if dry_run { "would be deleted" } else { "deleted" };
            if let Some(d) = delta {
                let held = held(d.rows, d.bytes);
                println!("Delta table {table}, version {}, {held} in {} files: {done}", d.version, d.files);
            }
            if let Some(s) = served {
                if let Some(pipeline) = s.pipeline {
                    println!("ClickHouse view {table} of pipeline {}: {done}", output::safe_text(&pipeline));
                }
                if !s.tables.is_empty() {
                    println!("ClickHouse tables {}, {}: {done}", s.tables.join(", "), held(s.rows, s.bytes));
                }
            }
            Ok(())
        })
    }
}

fn held(rows: u64, bytes: u64) -> impl Display {
    format!("{} rows of {} bytes", count(rows), count(bytes))
}

/// Why there is nothing to drop.
fn nothing(graphs: &[Graph], name: &str) -> String {
    let of = graphs.iter().flat_map(|graph| &graph.nodes).map(|node| &node.model);
    let mut of = of.filter(|m| m.name == name || m.header.clickhouse.as_deref() == Some(name));
    match of.next() {
        Some(model) => format!(
            "gold.{name} is in use: {} makes it; take the model out of the folder, and start the daemon again, first",
            model.file.display()
        ),
        None => format!(
            "nothing is left of a model gold.{name}, neither in the lakehouse nor in ClickHouse; `boathouse doctor` lists \
             what has no model"
        ),
    }
}
