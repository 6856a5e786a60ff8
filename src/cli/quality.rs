//! `boathouse quality`: how expectations were met.

use std::io::Write;

use super::output::{self, Grid, count, safe_text};
use super::{Context, Outcome};
use crate::batch::{KeptResult, Lake, kept_results};

/// What the last runs found when they checked expectations; exit code 1 if the newest run broke one that must hold.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Expectations are [[expectation]] sections in pipeline.toml and `-- expect` lines in the headers of models. They are
checked before anything is served; afterwards what ClickHouse serves is compared with Delta.

Examples:
  boathouse quality                 the newest run
  boathouse quality --runs 20 --broken
  boathouse sql \"select name, count(*) from gold.expectation_results where not holds group by 1\"")]
pub(crate) struct Args {
    /// How many runs to show.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,

    /// Show only what does not hold.
    #[arg(long)]
    broken: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let results = context.block_on(async {
            let lake = Lake::new(&config.server)?;
            Ok(kept_results(&lake, self.runs.into(), None).await?)
        })?;
        let newest = results.first().map(|r| r.run_id.clone());
        let stopped =
            |r: &KeptResult| Some(&r.run_id) == newest.as_ref() && !r.result.holds && r.result.severity == "fail";
        let outcome = if results.iter().any(stopped) { Outcome::Wrong } else { Outcome::Right };
        let shown: Vec<&KeptResult> = results.iter().filter(|r| !(self.broken && r.result.holds)).collect();
        if context.json {
            output::json(&shown)?;
            return Ok(outcome);
        }
        let mut out = output::stdout();
        if results.is_empty() {
            writeln!(out, "nothing was checked yet: a batch run checks before it serves")?;
        } else if shown.is_empty() {
            writeln!(out, "everything holds")?;
        } else {
            let mut grid =
                Grid::new(&["checked at", "run", "expectation", "table", "severity", "holds", "broken by", "detail"]);
            for KeptResult { run_id, checked_at, result, .. } in shown {
                grid.row([
                    checked_at.format("%F %T").to_string(),
                    safe_text(run_id),
                    result.name.clone(),
                    result.table.clone(),
                    result.severity.clone(),
                    if result.holds { "yes" } else { "no" }.to_owned(),
                    count(result.rows_failed),
                    safe_text(&result.detail),
                ]);
            }
            grid.write(&mut out)?;
        }
        out.flush()?;
        Ok(outcome)
    }
}
