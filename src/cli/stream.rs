//! `boathouse stream`: pausing and resuming the reading of partitions: by the daemon where one answers, else through the
//! file in data_dir that it looks at.

mod daemon;

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chrono::Utc;
use clap::Subcommand;

use super::output::{self, Grid, safe_text};
use super::remote::{Remote, Way};
use super::{Context, Outcome, pipelines, status};
use crate::config::Config;
use crate::holds::{Hold, Holds};
use crate::telemetry::PartitionPhase;

/// How long a running daemon may take to do it: a partition that is about to leave is drained first.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause and resume the reading of partitions.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A pause is kept in data_dir: it survives the restart of the daemon, and one that is down starts paused. It is of one instance:
with several instances of a group, pause each, or a partition that moves to another one is read there. What was read is
committed; positions stay, nothing is lost as long as the topic keeps its records.

Examples:
  boathouse stream pause --for 15m --reason 'the disk is changed'
  boathouse stream pause --partition 2
  boathouse stream pauses
  boathouse stream resume")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    way: Way,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read nothing more until resumed.
    Pause {
        #[command(flatten)]
        which: Which,
        /// Go on by itself after this time, as 15m or 2h.
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        for_time: Option<Duration>,
        /// Why; shown to everybody who looks.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Read on.
    Resume {
        #[command(flatten)]
        which: Which,
    },
    /// What is paused.
    Pauses,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The pipeline; by default the only one.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// One partition; without it all.
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
}

impl Which {
    fn pipeline(&self, config: &Config) -> anyhow::Result<String> {
        match (&self.pipeline, &config.pipelines[..]) {
            (Some(name), _) => Ok(pipelines::named(config, name)?.name.clone()),
            (None, [only]) => Ok(only.name.clone()),
            (None, all) => {
                let names: Vec<&str> = all.iter().map(|p| p.name.as_str()).collect();
                bail!("which pipeline? --pipeline is one of {}", names.join(", "))
            }
        }
    }
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        context.block_on(async {
            let daemon = match self.action {
                // What only looks reads the file itself.
                Action::Pauses => None,
                _ => Remote::find(&config, self.way).await?,
            };
            let paused = match daemon {
                Some(daemon) => daemon::act(&daemon, &config, &self.action).await?,
                None => direct(&config, &self.action).await?,
            };
            list(&paused, context.json)
        })?;
        Ok(Outcome::Right)
    }
}

/// Through the file that a daemon looks at.
async fn direct(config: &Config, action: &Action) -> anyhow::Result<Vec<Hold>> {
    let data_dir = &config.server.data_dir;
    if !data_dir.is_dir() {
        bail!("there is no data_dir {}: is it the daemon's?", data_dir.display());
    }
    let holds = Holds::open(data_dir)?;
    match action {
        Action::Pause { which, for_time, reason } => {
            let (pipeline, since) = (which.pipeline(config)?, Utc::now());
            let until = for_time.map(|time| since + time);
            let by = super::console::operator();
            let hold = Hold { pipeline, partition: which.partition, by, since, until, reason: reason.clone() };
            let detail = format!("{}: {}", hold.what(), hold.reason);
            holds.hold(hold)?;
            super::console::note(data_dir, "stream pause", detail);
            seen(config, &holds.all(Utc::now())).await?;
        }
        Action::Resume { which } => {
            let released = holds.release(&which.pipeline(config)?, which.partition)?;
            let what: Vec<String> = released.iter().map(Hold::what).collect();
            super::console::note(data_dir, "stream resume", what.join(", "));
            seen(config, &holds.all(Utc::now())).await?;
        }
        Action::Pauses => {}
    }
    Ok(holds.all(Utc::now()))
}

fn list(all: &[Hold], json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&all);
    }
    let mut out = output::stdout();
    if all.is_empty() {
        writeln!(out, "Nothing is paused.")?;
    } else {
        let mut grid = Grid::new(&["paused", "by", "since", "until", "why"]);
        for hold in all {
            let moment = |at: chrono::DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S").to_string();
            grid.row([
                hold.what(),
                safe_text(&hold.by),
                moment(hold.since),
                hold.until.map_or_else(|| "resumed".into(), moment),
                safe_text(&hold.reason),
            ]);
        }
        grid.write(&mut out)?;
    }
    out.flush().context("the list cannot be written")
}

/// Waits until a running daemon has done what is asked; one that does not run does it when it starts.
async fn seen(config: &Config, holds: &[Hold]) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let Some(status) = status::ask(&config.server.metrics.listen).await? else {
            eprintln!("No daemon answers at {}; it starts so.", config.server.metrics.listen);
            return Ok(());
        };
        let now = Utc::now();
        let waits = status.partitions.iter().find(|p| {
            let wanted = holds.iter().any(|hold| hold.covers(&p.pipeline, p.partition, now));
            let is_paused = matches!(p.phase, PartitionPhase::Paused { .. });
            // What has stopped loudly, or has not begun, is not read either way.
            wanted != is_paused && matches!(p.phase, PartitionPhase::Paused { .. } | PartitionPhase::Running)
        });
        let Some(waits) = waits else { return Ok(()) };
        if begun.elapsed() > PATIENCE {
            bail!(
                "it is kept, but the daemon has not done it for partition {} of {} yet; is {} its data_dir?",
                waits.partition,
                waits.pipeline,
                config.server.data_dir.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
