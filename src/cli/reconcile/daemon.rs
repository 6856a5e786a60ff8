//! The comparison done by the daemon: its verdict is kept, on the console's page and in the metrics.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::output::{self, Grid, Progress, count, safe_text};
use crate::cli::remote::Remote;
use crate::reconcile::Verdict;
use crate::reconcile::kept::Kept;

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Deserialize)]
struct Standing {
    running: Option<Running>,
    last: Option<Kept>,
    failed: Option<Failed>,
}

#[derive(Deserialize)]
struct Running {
    what: String,
    rows_done: u64,
    rows: u64,
}

#[derive(Deserialize)]
struct Failed {
    error: String,
}

/// Lets the daemon compare, and follows it to its verdict.
pub(super) async fn compare(daemon: &Remote, json: bool) -> anyhow::Result<Verdict> {
    daemon.post::<Value>(&["reconcile"], &json!({})).await?;
    let mut bar: Option<(String, u64, Progress)> = None;
    let standing = loop {
        let standing: Standing = daemon.get(&["reconcile"], &[]).await?;
        let Some(running) = &standing.running else { break standing };
        match &mut bar {
            Some((what, done, progress)) if *what == running.what => {
                progress.advance(running.rows_done.saturating_sub(*done));
                *done = running.rows_done;
            }
            _ => {
                if let Some((.., progress)) = bar.take() {
                    progress.finish();
                }
                bar = Some((running.what.clone(), 0, Progress::new(&running.what, running.rows)));
            }
        }
        tokio::time::sleep(LOOK).await;
    };
    if let Some((.., progress)) = bar {
        progress.finish();
    }
    if let Some(failed) = standing.failed {
        bail!("it came to no verdict: {}", failed.error);
    }
    let kept = standing.last.context("the daemon has kept no verdict; its log says why")?;
    if json {
        output::json(&kept)?;
    } else {
        show(&kept)?;
    }
    Ok(kept.verdict)
}

fn show(kept: &Kept) -> anyhow::Result<()> {
    let mut out = output::stdout();
    let mut grid = Grid::new(&["layer", "verdict", ""]);
    for layer in &kept.layers {
        grid.row([layer.title.clone(), layer.verdict.shown().to_owned(), safe_text(&layer.summary)]);
    }
    grid.write(&mut out)?;
    for check in kept.checks.iter().filter(|check| check.verdict == Verdict::Different) {
        writeln!(out, "{}: {} rows are wrong", check.what, count(check.wrong_rows()))?;
        for example in check.examples.iter().chain(&check.remedy) {
            writeln!(out, "  {}", safe_text(example))?;
        }
    }
    Ok(out.flush()?)
}
