//! `boathouse bench batch`: what the hourly batch costs on this machine, from nothing and for an hour of new data behind
//! histories of different length; every figure with the verdict whether gold is right.

mod bronze;
pub(crate) mod measured;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::Utc;

use self::bronze::{Maker, size_of};
use super::meter::Meter;
use super::site::{Site, Wanted};
use super::{conclude, load_average, machine, own_folder, quiet_disk, say};
use crate::bench::{Account, BatchLoad, BatchReport, BatchRun, FIGURES, Incremental};
use crate::cli::clickhouse::Http;
use crate::cli::{Context, Outcome};
use crate::config::ClickHouse;
use crate::producer::fault::{Mix, Shares};
use crate::stop_signal::StopSignal;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
/// Hours of its day that stand before the hour of new data, whatever the history.
const HOURS_BEFORE: u32 = 12;
/// Nobody listens there, and no batch asks.
const NO_BROKER: &str = "127.0.0.1:1";

/// Measure the batch: CPU by task, memory, bytes, and whether gold is right.
///
/// Makes Bronze by the product's own writer from the producer's generator, without a broker, starts an engine, and runs
/// the graph in a process of its own: first from nothing, then for hours of new data behind histories of some days.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse bench batch --svg batch.svg                    5 million events, then hours behind 1, 10 and 50 days
  boathouse bench batch --events 50000000 --history ''     from nothing alone
  boathouse bench batch --events 1000000 --history 1,10    quickly")]
pub(crate) struct Args {
    /// Records of the full run, of all kinds together.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,

    /// Event time that they span.
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration)]
    span: Duration,

    /// Users, with ids from 1.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    users: u32,

    /// Share of records (0 to 1) that repeat one of the last 32 sound events.
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    duplicate: f64,

    /// Share of records with a time one hour back.
    #[arg(long, default_value_t = 0.02, value_name = "SHARE")]
    late: f64,

    /// Share of records that are no events.
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    malformed: f64,

    /// Share of records with a time one hour ahead.
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    future: f64,

    /// Records between two commits of Bronze.
    #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u32).range(1..))]
    commit: u32,

    /// Days of history before the day of the new hour, separated by commas; '' for none.
    #[arg(long, default_value = "1,10,50", value_parser = days)]
    history: Days,

    /// Records of each hour, of the history's and of the new ones.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    hour_events: u64,

    /// Hours of new data behind each history, a run each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=11))]
    hours: u32,

    /// `batch.memory` of the runs, such as 512MiB.
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,

    /// Write a picture too.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Where the run keeps its data while it lasts (0.2 KB an event); by default the system's folder for temporary files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What `--history` says.
#[derive(Debug, Clone)]
struct Days(Vec<u32>);

fn days(text: &str) -> Result<Days, String> {
    let one = |days: &str| match days.trim().parse::<u32>() {
        Ok(days) if (1..=3650).contains(&days) => Ok(days),
        _ => Err(format!("`{days}` is no number of days from 1 to 3650")),
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(one).collect::<Result<_, _>>().map(Days)
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let stop = StopSignal::listen().context("cannot listen for signals")?;
        let (_, folder) = own_folder("boathouse-bench-batch", self.data.as_deref())?;
        let bench = Bench { args: &self, stop: &stop, folder: &folder, load_average: load_average() };
        let report = context.block_on(bench.everything());
        let keep =
            |why: &str| eprintln!("boathouse bench batch: {why}; logs and data are kept in {}", folder.display());
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                keep("it could not be measured");
                return Err(error);
            }
        };
        match report.right {
            true => fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?,
            false => keep("gold is not right"),
        }
        let svg = self.svg.as_deref().map(|file| (file, report.svg()));
        conclude(context, &report, &report.text(), svg, report.right)
    }
}

struct Bench<'a> {
    args: &'a Args,
    stop: &'a StopSignal,
    folder: &'a Path,
    load_average: Option<f64>,
}

impl Bench<'_> {
    async fn everything(&self) -> anyhow::Result<BatchReport> {
        let mut differences = Vec::new();
        let (load, full) = self.full(&mut differences).await?;
        let mut incremental = Vec::new();
        for days in &self.args.history.0 {
            incremental.push(self.incremental(*days, &mut differences).await?);
        }
        Ok(BatchReport {
            version: env!("CARGO_PKG_VERSION").into(),
            machine: machine(self.load_average, "none"),
            load,
            full,
            incremental,
            right: differences.is_empty(),
            differences,
        })
    }

    async fn full(&self, differences: &mut Vec<String>) -> anyhow::Result<(BatchLoad, BatchRun)> {
        let args = self.args;
        let mut site = self.site("full")?;
        let mut maker = self.maker(&site).await?;
        say(&format!("making {} events", args.events));
        let made = maker.make(args.events, midnight(2), args.span).await?;
        say("running from nothing");
        let run = self.measure(&mut site).await?;
        self.told("from nothing", &run);
        self.judge(&site, "from nothing", &run, &maker.account, Some(args.events), differences).await?;
        let server = &site.config.server;
        let load = BatchLoad {
            event_count: args.events,
            user_count: args.users,
            late_share: args.late,
            duplicate_share: args.duplicate,
            malformed_share: args.malformed,
            future_share: args.future,
            span_seconds: args.span.as_secs_f64(),
            bronze_bytes: made.bytes,
            bronze_file_count: made.files,
            memory_limit_bytes: server.batch.memory.0,
            batch_thread_count: server.batch.threads,
        };
        self.discard(site, differences)?;
        Ok((load, run))
    }

    async fn incremental(&self, days: u32, differences: &mut Vec<String>) -> anyhow::Result<Incremental> {
        let args = self.args;
        let name = format!("{days} days");
        let mut site = self.site(&name)?;
        let mut maker = self.maker(&site).await?;
        let begin = midnight(i64::from(days) + 2);
        let hours = u64::from(days) * 24 + u64::from(HOURS_BEFORE);
        let history = hours * args.hour_events;
        let span = DAY * days + HOUR * HOURS_BEFORE;
        say(&format!("making a history of {history} events"));
        maker.make(history, begin, span).await?;
        say("bringing gold up to it");
        let first = self.measure(&mut site).await?;
        self.judge(&site, &name, &first, &maker.account, Some(history), differences).await?;
        // Else the disk would be writing the history while the hours are measured, the longer the larger it is.
        quiet_disk().await?;
        let mut runs = Vec::new();
        for hour in 0..args.hours {
            let start = begin + (span + HOUR * hour).as_secs() as i64;
            maker.make(args.hour_events, start, HOUR).await?;
            let run = self.measure(&mut site).await?;
            let what = format!("a new hour behind {name}");
            self.told(&what, &run);
            self.judge(&site, &what, &run, &maker.account, Some(args.hour_events), differences).await?;
            runs.push(run);
        }
        self.discard(site, differences)?;
        Ok(Incremental { history_days: days, history_event_count: history, new_event_count: args.hour_events, runs })
    }

    fn site(&self, run: &str) -> anyhow::Result<Site> {
        if self.stop.asked() {
            bail!("stopped");
        }
        Site::new(Wanted {
            run: run.into(),
            folder: self.folder,
            brokers: NO_BROKER,
            topic: "user-events",
            realtime_flush: Duration::from_secs(1),
            bronze_flush: Duration::from_secs(30),
            settings: self.args.memory.iter().map(|size| ("BATCH__MEMORY", size.clone())).collect(),
        })
    }

    async fn maker(&self, site: &Site) -> anyhow::Result<Maker> {
        let Args { late, duplicate, malformed, future, .. } = *self.args;
        let mix = Mix::new(Shares { late, duplicate, malformed, future }).map_err(anyhow::Error::msg)?;
        Maker::new(&site.config, self.args.users, mix, self.args.commit as usize).await
    }

    /// One run in a process of its own.
    async fn measure(&self, site: &mut Site) -> anyhow::Result<BatchRun> {
        if self.stop.asked() {
            bail!("stopped");
        }
        let mut engine = site.engine.child().map(|child| Meter::new(child.pid()));
        let mut used = || {
            engine.as_mut().map_or(0.0, |meter| {
                meter.look();
                meter.cpu_seconds()
            })
        };
        let before = used();
        let mut command = tokio::process::Command::from(site.command(&["bench-batch-run"])?);
        let output = command.stdin(Stdio::null()).output().await.context("cannot run bench-batch-run")?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("the measured run failed: {text}");
        }
        let mut run: BatchRun =
            serde_json::from_slice(&output.stdout).context("bench-batch-run printed something else than its sample")?;
        run.clickhouse_cpu_seconds = used() - before;
        Ok(run)
    }

    fn told(&self, what: &str, run: &BatchRun) {
        say(&format!(
            "{what}: {} in {:.2} s, {:.2} CPU s, peak {} MiB, {:.1} MiB read",
            run.state,
            run.wall_seconds,
            run.cpu_seconds,
            run.peak_rss_bytes >> 20,
            run.bytes_read() as f64 / 1024.0 / 1024.0
        ));
    }

    /// Compares what is served and what was counted with the generator's account.
    async fn judge(
        &self,
        site: &Site,
        what: &str,
        run: &BatchRun,
        account: &Account,
        rows_in: Option<u64>,
        differences: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        if run.state != "succeeded" {
            differences.push(format!("{what}: the run {} ({})", run.state, run.error.as_deref().unwrap_or_default()));
            return Ok(());
        }
        let silver = run.tasks.iter().find(|t| t.task == "run_bronze_to_silver");
        let counted = silver.map(|t| (t.rows_in, t.rows_in == t.rows_out + t.rows_refused));
        if counted != rows_in.map(|n| (n, true)) {
            differences.push(format!("{what}: silver's rows do not add up"));
        }
        // From nothing all that was ever made is counted in this run.
        if let Some(t) = silver
            && t.rows_in == account.records
            && (t.rows_out, t.rows_duplicate) != (account.kept, account.duplicates)
        {
            differences.push(format!(
                "{what}: kept {} and {} duplicates, the generator says {} and {}",
                t.rows_out, t.rows_duplicate, account.kept, account.duplicates
            ));
        }
        let http = Http::new(&ClickHouse { url: site.engine.url(), ..ClickHouse::default() })?;
        for ((name, query), expected) in FIGURES.iter().zip(account.figures()) {
            let served = http.run(query, "TSV").await?.text().await.context("ClickHouse's answer broke off")?;
            if served != expected {
                let (rows, wanted) = (served.lines().count(), expected.lines().count());
                let differing = expected.lines().filter(|line| !served.lines().any(|s| s == *line)).count();
                differences.push(format!("{what}: {name}: {differing} of {wanted} rows differ, {rows} are served"));
            }
        }
        Ok(())
    }

    /// Takes a run's data away, unless it is to be looked at.
    fn discard(&self, mut site: Site, differences: &[String]) -> anyhow::Result<()> {
        site.engine.stop();
        let folder = site.folder().to_owned();
        let size = size_of(folder.clone());
        say(&format!("{} MiB in {} files, the engine's included", size.bytes >> 20, size.files));
        drop(site);
        if differences.is_empty() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        Ok(())
    }
}

/// The beginning of a day so many days ago, UTC, seconds since 1970.
fn midnight(days_ago: i64) -> i64 {
    let now = Utc::now().timestamp();
    now - now.rem_euclid(86_400) - days_ago * 86_400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_are_days_or_none() {
        assert_eq!(days("1, 10,50").unwrap().0, [1, 10, 50]);
        assert!(days("").unwrap().0.is_empty());
        for wrong in ["0", "-1", "x", "4000"] {
            assert!(days(wrong).is_err(), "{wrong}");
        }
    }
}
