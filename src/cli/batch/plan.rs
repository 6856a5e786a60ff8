//! `boathouse batch plan`: what the next run would recompute, and why.

use std::io::Write;

use super::super::output::{self, Grid, count};
use super::super::{Context, Outcome};
use super::pipelines;
use crate::batch::Lake;
use crate::batch::silver::{Quarantine, SilverPlan, plan_silver};

/// Hours that are listed one by one unless asked for all.
const HOURS_SHOWN: usize = 24;

/// What the next run would recompute, and why: hours, files, bytes, rows, estimated time.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pipeline; without it, all of them.
    #[arg(long)]
    pipeline: Option<String>,

    /// List every hour, however many there are.
    #[arg(long)]
    all: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let lake = Lake::new(&config.server)?;
        let mut plans = Vec::new();
        for pipeline in pipelines::chosen(&config, self.pipeline.as_deref())? {
            plans
                .push(context.block_on(async { Ok(plan_silver(&lake, pipeline, &Quarantine::of(pipeline)?).await?) })?);
        }
        if context.json {
            output::json(&plans)?;
            return Ok(Outcome::Right);
        }
        let mut out = output::stdout();
        for plan in &plans {
            self.print(plan, &mut out)?;
        }
        out.flush()?;
        Ok(Outcome::Right)
    }

    fn print(&self, plan: &SilverPlan, out: &mut impl Write) -> anyhow::Result<()> {
        let SilverPlan { pipeline, silver, refused, .. } = plan;
        let bronze = plan.bronze_version.map_or("no Bronze yet".into(), |v| format!("Bronze at version {v}"));
        writeln!(out, "{pipeline}: {bronze}")?;
        writeln!(out, "  silver        {}: {}", silver.course, silver.reason)?;
        if refused != silver {
            writeln!(out, "  refused rows  {}: {}", refused.course, refused.reason)?;
        }
        let (rows, mebibytes) = (count(plan.rows), plan.bytes as f64 / f64::from(1 << 20));
        let (hours, files) = (plan.hours.len(), count(plan.files as u64));
        writeln!(
            out,
            "  {hours} hours, {files} files, {mebibytes:.1} MiB, {rows} rows to read, about {:.1} s",
            plan.seconds_estimated
        )?;
        for model in &plan.gold {
            let what = match (model.dates.first(), model.dates.last(), &model.reason) {
                (Some(first), Some(last), _) if first == last => format!("1 date, {first}"),
                (Some(first), Some(last), _) => format!("{} dates, {first} to {last}", model.dates.len()),
                (_, _, Some(why)) => format!("{}: {why}", model.work),
                _ => model.work.to_owned(),
            };
            writeln!(out, "  gold          {}: {what}", model.model)?;
        }
        if plan.hours.is_empty() {
            return Ok(());
        }
        let shown = if self.all { plan.hours.len() } else { HOURS_SHOWN.min(plan.hours.len()) };
        let mut grid = Grid::new(&["hour", "new rows", "rows there"]);
        // The newest hours are the ones that people ask about.
        for hour in &plan.hours[plan.hours.len() - shown..] {
            grid.row([hour.hour.clone(), count(hour.rows_new), count(hour.rows_held)]);
        }
        grid.write(out)?;
        if shown < plan.hours.len() {
            writeln!(out, "({} earlier hours; --all lists them)", plan.hours.len() - shown)?;
        }
        Ok(())
    }
}
