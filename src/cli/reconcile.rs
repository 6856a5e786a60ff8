//! `boathouse reconcile`: is it right? The core is [`crate::reconcile`], which the daemon's own check uses, too.

mod daemon;

use std::sync::Mutex;

use anyhow::{Context as _, bail};
use chrono::NaiveDate;

use super::output::{self, Progress};
use super::remote::{Remote, Way};
use super::{Context, Outcome, pipelines};
use crate::batch::Lake;
use crate::batch::verify::{Scope, Watch};
use crate::reconcile::{Check, Means, Observer, Question, Verdict, reconcile};

/// Compare every layer with the one that it is made from; exit code 1 on any difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Kafka = Bronze: every record of the topic, from its first offset to Bronze's position, is read with a plain consumer
and compared with its row: key, time, headers, value or fields, verdict. Realtime = Bronze: the `ok` rows of Bronze are
counted again and compared with what the views serve: everything when nothing is running, under load the windows that
are closed at both positions, always within retention.realtime.

Silver = Bronze - refused - duplicates, gold = its models run over silver, ClickHouse gold = Delta gold: row by row, each
as of the version that it says it was made from. What came later is not yet run, which is no difference. Rows are sorted
within batch.memory; a date that does not fit is dealt out to files in batch.spill_dir and compared part by part.

Examples:
  boathouse reconcile                                     everything
  boathouse reconcile --only bronze                       Kafka against Bronze alone
  boathouse reconcile --only silver,gold,clickhouse-gold  what the batch makes
  boathouse reconcile --only silver --from 2026-02-01 --to 2026-02-06
  boathouse reconcile --by-daemon                         kept on the console's page and in the metrics
  boathouse reconcile --json                              for programs")]
pub(crate) struct Args {
    /// These checks alone, separated by commas.
    #[arg(long, visible_alias = "layer", value_enum, value_name = "CHECK", value_delimiter = ',')]
    only: Vec<Check>,

    /// The first event date (UTC) of silver and gold that is looked at, as 2026-02-01.
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,

    /// The last event date (UTC) of silver and gold that is looked at.
    #[arg(long, value_name = "DATE")]
    to: Option<NaiveDate>,

    /// One pipeline alone.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Let the daemon do it, beside its work: its verdict is kept, shown in the console, and in the metrics. Without it this
    /// command compares by itself, and asks the daemon nothing.
    #[arg(long, conflicts_with_all = ["only", "from", "to", "pipeline"])]
    by_daemon: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        if self.by_daemon {
            let verdict = context.block_on(async {
                let daemon = Remote::find(&config, Way::default()).await?;
                let daemon =
                    daemon.context("no daemon does it; without --by-daemon this command compares by itself")?;
                daemon::compare(&daemon, context.json).await
            })?;
            return ended(verdict);
        }
        let pipelines = pipelines::chosen(&config, self.pipeline.as_deref())?.into_iter().cloned().collect();
        let scope = Scope { from: self.from, to: self.to };
        let of_stream = |check: &Check| matches!(check, Check::Bronze | Check::Realtime);
        if !scope.is_everything() && (self.only.is_empty() || self.only.iter().any(of_stream)) {
            bail!("--from and --to are for silver and gold: add --only silver,gold,clickhouse-gold");
        }
        let (lake, bars) = (Lake::new(&config.server)?, Bars::default());
        let runtime = context.block_on(async { Ok(tokio::runtime::Handle::current()) })?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let means = Means { config: &config, lake: &lake, runtime: &runtime, observer: &bars };
        let report = reconcile(&means, &Question { pipelines, only: self.only, scope, threads });
        bars.finish();
        let report = report?;
        if context.json {
            output::json(&report)?;
        } else {
            let mut out = output::stdout();
            report.write(&mut out)?;
            std::io::Write::flush(&mut out)?;
        }
        ended(report.verdict)
    }
}

fn ended(verdict: Verdict) -> anyhow::Result<Outcome> {
    match verdict {
        Verdict::Same | Verdict::NotYetRun => Ok(Outcome::Right),
        Verdict::Different => Ok(Outcome::Wrong),
        Verdict::NotChecked => bail!("not everything could be checked, see above"),
    }
}

/// A bar on the terminal for what is being compared.
#[derive(Default)]
struct Bars(Mutex<Option<Progress>>);

impl Bars {
    fn set(&self, bar: Option<Progress>) {
        // A bar whose thread panicked is still a bar.
        let mut current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = current.take() {
            bar.finish();
        }
        *current = bar;
    }

    fn finish(&self) {
        self.set(None);
    }
}

impl Watch for Bars {
    fn begin(&self, table: &str, rows: u64) {
        self.set(Some(Progress::new(table, rows)));
    }

    fn rows(&self, done: u64) {
        let current = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = &*current {
            bar.advance(done);
        }
    }
}

impl Observer for Bars {
    /// Ctrl-C ends the program.
    fn is_stopped(&self) -> bool {
        false
    }
}
