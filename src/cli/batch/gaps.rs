//! `boathouse batch gaps`: hours in which silver is not what Bronze gives.

use std::io::Write;

use serde_json::json;

use super::super::output::{self, Grid, count};
use super::super::{Context, Outcome};
use super::pipelines;
use crate::batch::Lake;
use crate::batch::silver::{Quarantine, gaps_of_silver};

/// Hours in which silver has another number of rows than Bronze gives, as far as silver has read Bronze.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pipeline; without it, all of them.
    #[arg(long)]
    pipeline: Option<String>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let lake = Lake::new(&config.server)?;
        let mut outcome = Outcome::Right;
        let mut found = Vec::new();
        let mut out = output::stdout();
        for pipeline in pipelines::chosen(&config, self.pipeline.as_deref())? {
            let gaps =
                context.block_on(async { Ok(gaps_of_silver(&lake, pipeline, &Quarantine::of(pipeline)?).await?) })?;
            let name = &pipeline.name;
            if !gaps.hours.is_empty() {
                outcome = Outcome::Wrong;
            }
            if context.json {
                let hours = gaps
                    .hours
                    .iter()
                    .map(|h| json!({"hour": h.hour.to_string(), "rows_expected": h.expected, "rows_there": h.there}));
                found.push(json!({"pipeline": name, "bronze_version": gaps.bronze_version, "hours": hours.collect::<Vec<_>>()}));
                continue;
            }
            match (gaps.hours.first(), gaps.hours.last()) {
                (Some(first), Some(last)) => {
                    let mut grid = Grid::new(&["hour", "rows expected", "rows there"]);
                    for h in &gaps.hours {
                        grid.row([h.hour.to_string(), count(h.expected), count(h.there)]);
                    }
                    grid.write(&mut out)?;
                    let (from, to) = (first.hour.date(), last.hour.date());
                    writeln!(
                        out,
                        "{name}: `boathouse batch backfill --pipeline {name} --from {from} --to {to}` recomputes them"
                    )?;
                }
                _ => writeln!(out, "{name}: no gaps up to version {} of Bronze", gaps.bronze_version)?,
            }
        }
        if context.json {
            output::json(&found)?;
        }
        out.flush()?;
        Ok(outcome)
    }
}
