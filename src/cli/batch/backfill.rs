//! `boathouse batch backfill`: recompute dates of silver from Bronze.

use anyhow::bail;
use chrono::NaiveDate;
use serde_json::json;

use super::super::output::{self, count};
use super::super::{Context, Outcome};
use super::pipelines;
use crate::batch::silver::{Quarantine, backfill_silver, gaps_of_silver};
use crate::batch::{Lake, TaskContext};

/// Recompute the event dates of a range from Bronze.
///
/// Safe beside the daemon and its hourly runs. Every date is a commit of its own: after an interruption go on with
/// `--from` the date that was named last. Gold follows with the next run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pipeline; without it, all of them.
    #[arg(long)]
    pipeline: Option<String>,

    /// First event date (UTC), such as 2026-02-01.
    #[arg(long, value_name = "DATE")]
    from: NaiveDate,

    /// Last event date, included.
    #[arg(long, value_name = "DATE")]
    to: NaiveDate,

    /// Only say what would be recomputed, and where it would change anything.
    #[arg(long)]
    dry_run: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        if self.from > self.to {
            bail!("--from {} is after --to {}", self.from, self.to);
        }
        let config = context.config()?;
        let lake = Lake::new(&config.server)?;
        let mut done = Vec::new();
        for pipeline in pipelines(&config, self.pipeline.as_deref())? {
            let name = &pipeline.name;
            if self.dry_run {
                let gaps = context
                    .block_on(async { Ok(gaps_of_silver(&lake, &pipeline, &Quarantine::of(&pipeline)?).await?) })?;
                let within = |date: NaiveDate| date >= self.from && date <= self.to;
                let hours: Vec<_> = gaps.hours.iter().filter(|h| within(h.hour.date())).collect();
                let rows: u64 = gaps.by_date.iter().filter(|(date, _)| within(**date)).map(|(_, rows)| rows).sum();
                let dates = gaps.by_date.keys().filter(|date| within(**date)).count();
                if !context.json {
                    println!(
                        "{name}: {dates} dates with {} rows would be recomputed; {} hours would change",
                        count(rows),
                        hours.len()
                    );
                }
                done.push(json!({"pipeline": name, "dry_run": true, "dates": dates, "rows": rows, "hours_changed": hours.len()}));
                continue;
            }
            let task = TaskContext::detached();
            let (backfilled, report) = context.block_on(async {
                Ok(backfill_silver(&lake, &pipeline, &Quarantine::of(&pipeline)?, self.from, self.to, &task).await?)
            })?;
            let (before, after) = (backfilled.rows_before, backfilled.rows_after);
            if !context.json {
                println!("{name}: {}; {} rows before, {} after", report.summary, count(before), count(after));
            }
            done.push(json!({
                "pipeline": name,
                "dry_run": false,
                "dates": backfilled.dates,
                "rows_before": before,
                "rows_after": after,
                "silver_version": backfilled.silver_version,
            }));
        }
        if context.json {
            output::json(&done)?;
        }
        Ok(Outcome::Right)
    }
}
