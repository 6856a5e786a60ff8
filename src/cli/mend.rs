//! `boathouse bronze …`: what resolves a pipeline or partition that has stopped until somebody decides. Errors and
//! `/readyz` name these commands. Each is one commit to the Bronze table. A daemon that answers does it itself, while the
//! pipeline's stream stands still; one that runs on old knowledge notices.

use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;

use super::remote::{Remote, Way};
use super::{Context, Outcome, pipelines};
use crate::mend::{Choice, carry_out, look};

/// Decide what a stopped pipeline asks you: settings left behind, a topic made anew, a gap, bad records, a wrong
/// clock, a damaged log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A daemon that runs is asked to do it: the stream of the pipeline stands still for the moment and begins anew. Without one the
next start goes on from what was done. With --direct beside a daemon that runs, stop it first.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,

    /// Say what it would do, and do nothing.
    #[arg(long, global = true)]
    dry_run: bool,

    #[command(flatten)]
    way: Way,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Put this configuration's settings in force, although the table has left them behind.
    ///
    /// Verdicts that were given stay as they are; the windows are counted again under a new definition.
    AcceptSettings {
        /// The pipeline.
        pipeline: String,
        /// Even though they are in force: the windows are counted again from Bronze.
        #[arg(long)]
        even_so: bool,
    },
    /// Take on a topic that was deleted and made anew: its offsets begin again, under the next generation.
    ///
    /// Rows and totals of the old generation stay and add up.
    AdoptTopic {
        /// The pipeline.
        pipeline: String,
        /// Even though the topic still holds what Bronze read from it: all of it is then read and counted once more.
        #[arg(long)]
        even_so: bool,
    },
    /// Read on at the log's start where Kafka's retention has passed Bronze's position.
    ///
    /// The offsets in between are lost: nobody has them. The windows are counted again from Bronze under a new
    /// definition, for realtime may have counted some of those records. Another instance that has read some of a
    /// partition and not committed them yet lets go of them: where only one partition has stopped, name it.
    AcceptGap {
        /// The pipeline.
        pipeline: String,
        /// This partition alone; without it every one that lies behind the start of its log.
        #[arg(long, value_name = "N")]
        partition: Option<i32>,
    },
    /// Take the bad records that partitions have stopped for (`bad_records.stop_share`) as dead letters, and read on.
    ///
    /// The count begins anew: the next cluster stops a partition again.
    AcceptBadRecords {
        /// The pipeline.
        pipeline: String,
    },
    /// The same, also for whatever is bad up to the end of the log as it is now.
    AcceptBadBacklog {
        /// The pipeline.
        pipeline: String,
    },
    /// Set the event clock of partitions back, where a wrong clock has moved it so far that everything is late.
    ///
    /// Verdicts that were given stay as they are.
    LowerMark {
        /// The pipeline.
        pipeline: String,
        /// The greatest event time that is to count as seen, such as 2026-02-06T14:30:00Z.
        #[arg(long, value_name = "TIME")]
        to: DateTime<Utc>,
    },
    /// Take a damaged end off the Delta log, as a power cut leaves it. Its files are moved aside, not deleted.
    ///
    /// Positions go back with it, so that its records are read from Kafka again.
    RepairLog {
        /// The pipeline.
        pipeline: String,
        /// Even though sound entries above the damaged one go with it.
        #[arg(long)]
        even_so: bool,
    },
}

impl Action {
    fn choice(&self) -> (&str, Choice) {
        match self {
            Action::AcceptSettings { pipeline, .. } => (pipeline, Choice::AcceptSettings),
            Action::AdoptTopic { pipeline, even_so } => (pipeline, Choice::AdoptTopic { even_so: *even_so }),
            Action::AcceptGap { pipeline, partition } => (pipeline, Choice::AcceptGap { partition: *partition }),
            Action::AcceptBadRecords { pipeline } => (pipeline, Choice::AcceptBadRecords { backlog: false }),
            Action::AcceptBadBacklog { pipeline } => (pipeline, Choice::AcceptBadRecords { backlog: true }),
            Action::LowerMark { pipeline, to } => (pipeline, Choice::LowerMark { to: *to }),
            Action::RepairLog { pipeline, even_so } => (pipeline, Choice::RepairLog { even_so: *even_so }),
        }
    }

    /// Whether somebody insists.
    fn even_so(&self) -> bool {
        match self {
            Action::AcceptSettings { even_so, .. }
            | Action::AdoptTopic { even_so, .. }
            | Action::RepairLog { even_so, .. } => *even_so,
            Action::AcceptGap { .. }
            | Action::AcceptBadRecords { .. }
            | Action::AcceptBadBacklog { .. }
            | Action::LowerMark { .. } => false,
        }
    }
}

/// Lets the daemon do it; what it did.
async fn asked(daemon: &Remote, pipeline: &str, choice: Choice, even_so: bool) -> anyhow::Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Done {
        done: Vec<String>,
    }
    let (to, partition) = match choice {
        Choice::LowerMark { to } => (to.to_rfc3339(), None),
        Choice::AcceptGap { partition } => (String::new(), partition),
        _ => (String::new(), None),
    };
    let name = choice.name();
    let body = json!({ "pipeline": pipeline, "choice": name, "to": to, "partition": partition, "even_so": even_so });
    Ok(daemon.post::<Done>(&["stream", "choices"], &body).await?.done)
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let (name, choice) = self.action.choice();
        let pipeline = pipelines::named(&config, name)?;
        if self.dry_run {
            let outlook = context.block_on(look(&config, pipeline, choice))?;
            if context.json {
                println!("{}", json!({ "pipeline": name, "outlook": outlook }));
            } else {
                for line in outlook.would.iter().chain(&outlook.insist) {
                    println!("{name}: {line}");
                }
            }
            return Ok(Outcome::Right);
        }
        let done = context.block_on(async {
            if let Some(daemon) = Remote::find(&config, self.way).await? {
                return asked(&daemon, name, choice, self.action.even_so()).await;
            }
            let done = carry_out(&config, pipeline, choice).await?;
            let detail = format!("{name}: {}", done.join("; "));
            super::console::note(&config.server.data_dir, &format!("bronze {}", choice.name()), detail);
            Ok(done)
        })?;
        if context.json {
            println!("{}", json!({ "pipeline": name, "done": done }));
        } else {
            for line in done {
                println!("{name}: {line}");
            }
        }
        Ok(Outcome::Right)
    }
}
