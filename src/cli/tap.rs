//! `boathouse tap`: events as they come, decoded as the daemon decodes them, with a filter.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::output::{self, safe_text};
use super::status;
use super::{Context, Outcome, pipelines};
use crate::config::{Config, Pipeline};
use crate::stop_signal::StopSignal;
use crate::tap::{Begin, Condition, Marks, Seen, Tap, Wanted};

/// Longest wait for a record before it is looked whether somebody wants to stop.
const WAIT: Duration = Duration::from_millis(100);

/// Show events as they come, decoded, with a filter, until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the topic itself: it needs no daemon, joins no group and changes nothing. Whether an event is late is judged by the
partition's event clock, which the daemon tells; without a daemon, from the records seen so far.

Examples:
  boathouse tap event_type=purchase
  boathouse tap 'user_id>90' source=web page~check
  boathouse tap --unparsed                  records that are no events, and why
  boathouse tap --late --future             events with odd times
  boathouse tap --json -n 100 | jq .page")]
pub(crate) struct Args {
    /// Conditions that must all hold: FIELD=VALUE, FIELD!=VALUE, FIELD~TEXT, FIELD<NUMBER, FIELD>NUMBER.
    #[arg(value_name = "CONDITION")]
    conditions: Vec<Condition>,

    /// The pipeline; by default the first one.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Only this partition.
    #[arg(long)]
    partition: Option<i32>,

    /// Late events (alone, or with the other verdicts that are named).
    #[arg(long)]
    late: bool,

    /// Events from the future.
    #[arg(long)]
    future: bool,

    /// Records that are no events.
    #[arg(long)]
    unparsed: bool,

    /// Begin with what the topic holds instead of what comes.
    #[arg(long)]
    from_beginning: bool,

    /// Stop after so many shown.
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let pipeline = self.pipeline(&config)?;
        let wanted = Wanted { verdicts: self.verdicts(), conditions: self.conditions };
        // Before anything that asks a server.
        wanted.check(&pipeline)?;
        // Before anything that waits, so that Ctrl-C is heard.
        let stop = StopSignal::listen().context("cannot listen for signals")?;
        let marks = context.block_on(async { Ok(marks(&config, &pipeline).await) })?;
        let begin = if self.from_beginning { Begin::Beginning } else { Begin::Now };
        let mut tap = Tap::open(&config.server.kafka, &pipeline, self.partition, begin, wanted, &marks)?;
        if !context.json {
            eprintln!("tapping {} ({} partitions); Ctrl-C stops", pipeline.topic, tap.partitions());
        }
        let (limit, mut shown, mut out) = (self.limit.unwrap_or(usize::MAX), 0, output::stdout());
        while shown < limit && !stop.asked() {
            for seen in tap.read(WAIT)?.iter().take(limit - shown) {
                shown += 1;
                if context.json {
                    writeln!(out, "{}", seen.json())?;
                } else {
                    show(&mut out, seen)?;
                }
            }
            out.flush()?;
        }
        if !context.json {
            eprintln!("{} of {} records shown", output::count(shown as u64), output::count(tap.seen));
        }
        Ok(Outcome::Right)
    }

    fn pipeline(&self, config: &Config) -> anyhow::Result<Arc<Pipeline>> {
        match &self.pipeline {
            Some(name) => pipelines::named(config, name).cloned(),
            None => config.pipelines.first().cloned().context("there is no pipeline"),
        }
    }

    /// The verdicts that are shown; none for all.
    fn verdicts(&self) -> Vec<String> {
        let asked = [(self.late, "late"), (self.future, "future"), (self.unparsed, "unparsed")];
        asked.iter().filter(|(asked, _)| *asked).map(|(_, verdict)| (*verdict).to_owned()).collect()
    }
}

/// The greatest event times that the daemon has accepted, by partition; none where no daemon answers.
async fn marks(config: &Config, pipeline: &Pipeline) -> Marks {
    let Ok(Some(status)) = status::ask(&config.server.metrics.listen).await else { return Marks::new() };
    let ours = status.partitions.iter().filter(|p| p.pipeline == pipeline.name);
    ours.filter_map(|p| Some((p.partition, p.mark_us?))).collect()
}

fn show(out: &mut impl Write, seen: &Seen) -> std::io::Result<()> {
    let arrived = chrono::DateTime::from_timestamp_millis(seen.timestamp_ms)
        .map_or_else(|| "-".to_owned(), |at| at.format("%H:%M:%S%.3f").to_string());
    write!(out, "{}:{}  {arrived}  {:8}", seen.partition, seen.offset, seen.verdict)?;
    match &seen.error {
        Some((error, value)) => write!(out, "  {}: {}", safe_text(error), output::shorten(value, 200))?,
        None => {
            for (name, value) in &seen.event {
                let text = value.as_str().map_or_else(|| value.to_string(), safe_text);
                write!(out, "  {name}={text}")?;
            }
        }
    }
    writeln!(out)
}
