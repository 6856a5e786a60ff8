//! `boathouse batch …`: the hourly runs from Bronze to gold, planned, run and looked at by hand.

mod backfill;
mod gaps;
mod plan;

use std::sync::Arc;

use anyhow::bail;
use clap::Subcommand;

use super::{Context, Outcome};
use crate::config::{Config, Pipeline};

/// The hourly runs from Bronze to silver, gold and ClickHouse.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse batch plan                        what the next run would recompute, and why
  boathouse batch gaps                        hours in which silver is not what Bronze gives
  boathouse batch backfill --from 2026-02-01 --to 2026-02-06 --dry-run")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Plan(plan::Args),
    Backfill(backfill::Args),
    Gaps(gaps::Args),
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        match self.action {
            Action::Plan(args) => args.run(context),
            Action::Backfill(args) => args.run(context),
            Action::Gaps(args) => args.run(context),
        }
    }
}

/// The pipeline that was named, or all of them.
fn pipelines(config: &Config, named: Option<&str>) -> anyhow::Result<Vec<Arc<Pipeline>>> {
    let Some(name) = named else { return Ok(config.pipelines.clone()) };
    match config.pipelines.iter().find(|p| p.name == name) {
        Some(pipeline) => Ok(vec![pipeline.clone()]),
        None => {
            let known: Vec<&str> = config.pipelines.iter().map(|p| p.name.as_str()).collect();
            bail!("there is no pipeline `{name}`; the pipelines are {}", known.join(", "))
        }
    }
}
