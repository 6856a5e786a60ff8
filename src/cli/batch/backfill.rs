//! `boathouse batch backfill`: recompute dates of silver from Bronze, and what depends on them.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::json;

use super::super::output::{self, count};
use super::super::remote::Way;
use super::super::{Context, Outcome};
use super::pipelines;
use super::range::{checked, plan_range};
use crate::batch::Lake;
use crate::batch::run::graph::Kind;
use crate::batch::silver::{Quarantine, gaps_of_silver};

/// Recompute the event dates of a range from Bronze, then gold and what is served of them; and the refused rows that
/// were taken from Kafka on these dates.
///
/// A run in the history, by the daemon where one runs, in line with the pipeline's other runs. Every date is a commit of its
/// own in which silver notes how far the run has come: after an interruption it goes on behind it by itself, and
/// `boathouse batch retry RUN` goes on with one that failed.
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

    /// Follow the run to its end, also where a daemon does the work.
    #[arg(long)]
    wait: bool,
}

impl Args {
    pub fn run(self, context: &Context, way: Way) -> anyhow::Result<Outcome> {
        checked(self.from, self.to)?;
        if !self.dry_run {
            let dates = [("from", self.from), ("to", self.to)];
            let parameters: BTreeMap<String, String> =
                dates.map(|(name, date)| (name.to_owned(), date.to_string())).into_iter().collect();
            return super::start(context, way, Kind::Backfill, self.pipeline.as_deref(), &parameters, self.wait);
        }
        let config = context.config()?;
        let lake = Lake::new(&config.server)?;
        let mut done = Vec::new();
        for pipeline in pipelines::chosen(&config, self.pipeline.as_deref())? {
            let name = &pipeline.name;
            let plan = context.block_on(plan_range(&lake, pipeline, self.from, self.to))?;
            let gaps =
                context.block_on(async { Ok(gaps_of_silver(&lake, pipeline, &Quarantine::of(pipeline)?).await?) })?;
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
                let mebibytes = plan.bronze_bytes as f64 / f64::from(1 << 20);
                println!(
                    "  {} hours of silver are replaced; {} files of Bronze, {mebibytes:.1} MiB, are read, in about {:.0} s",
                    plan.hours.len(),
                    count(plan.bronze_files as u64),
                    plan.seconds_estimated
                );
                println!(
                    "  refused rows by the date on which they were taken from Kafka, as they may have no event date: {} are made again, too",
                    count(plan.refused_rows)
                );
            }
            done.push(
                json!({"pipeline": name, "dry_run": true, "dates": dates, "rows": rows, "hours_changed": hours.len(), "plan": plan}),
            );
        }
        if context.json {
            output::json(&done)?;
        }
        Ok(Outcome::Right)
    }
}
