//! `boathouse dead-letters list`: the newest letters, or how often each reason came.

use std::io::Write;

use serde_json::json;

use super::Which;
use crate::cli::lake::Lake;
use crate::cli::output::{self, Grid, count, safe_bytes, safe_text, shorten};
use crate::config::Config;
use crate::letters::{Letter, Search, State, by_reason};

/// Characters of a payload in the list.
const PREVIEW: usize = 60;

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Only those that no corrected event has resolved yet.
    #[arg(long, conflicts_with = "resolved")]
    open: bool,
    /// Only those that a corrected event has resolved.
    #[arg(long)]
    resolved: bool,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Count by reason instead.
    #[arg(long)]
    reasons: bool,
}

impl List {
    pub async fn run(&self, config: &Config, lake: &Lake, json: bool) -> anyhow::Result<()> {
        let state = match (self.open, self.resolved) {
            (true, _) => Some(State::Open),
            (_, true) => Some(State::Resolved),
            _ => None,
        };
        let search = self.which.search(state, self.limit);
        if self.reasons {
            reasons(&search, config, lake, json).await
        } else {
            newest(&search, config, lake, json).await
        }
    }
}

async fn newest(search: &Search, config: &Config, lake: &Lake, json: bool) -> anyhow::Result<()> {
    let rows = search.newest(config, lake).await?;
    if json {
        return output::json(&rows.iter().map(Letter::json).collect::<Vec<_>>());
    }
    let mut out = output::stdout();
    if rows.is_empty() {
        writeln!(out, "No dead letters.")?;
    } else {
        let mut grid = Grid::new(&["source", "arrived", "status", "state", "reason", "payload"]);
        for letter in &rows {
            grid.row([
                safe_text(&letter.source()),
                letter.ingested.clone(),
                letter.status.clone(),
                letter.state().to_owned(),
                shorten(&safe_text(&letter.reason), 80),
                letter.value.as_deref().map_or_else(|| "–".into(), |p| shorten(&safe_bytes(p), PREVIEW)),
            ]);
        }
        grid.write(&mut out)?;
        if rows.len() == search.limit {
            writeln!(out, "The newest {}; --limit N shows more, --reasons counts all.", count(search.limit as i128))?;
        }
    }
    Ok(out.flush()?)
}

async fn reasons(search: &Search, config: &Config, lake: &Lake, json: bool) -> anyhow::Result<()> {
    let counted = by_reason(search, config, lake).await?;
    if json {
        let rows = counted.iter().map(|(pipeline, status, reason, n)| {
            json!({"pipeline": pipeline, "time_status": status, "reason": reason, "record_count": n})
        });
        return output::json(&rows.collect::<Vec<_>>());
    }
    let mut out = output::stdout();
    let mut grid = Grid::new(&["pipeline", "status", "records", "reason"]);
    for (pipeline, status, reason, n) in counted {
        grid.row([pipeline, status, count(n), shorten(&safe_text(&reason), 100)]);
    }
    grid.write(&mut out)?;
    Ok(out.flush()?)
}
