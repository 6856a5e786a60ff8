//! `boathouse trace`: where did event X go?

use std::io::Write;

use super::output::{self, safe_text, shorten};
use super::{Context, Outcome, pipelines};
use crate::trace::{EventCopy, Fate, Question, Trace, trace};

/// Longest shown line of what happened.
const WIDTH: usize = 400;

/// Follow one event from Kafka to what ClickHouse serves; exit code 1 if there is none of that id.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every copy of the event with its place in Kafka, its file and commit in Bronze, its verdict, its windows and what is
served of them, its row of silver or the reason why it has none, and the rows of gold that it is part of, in Delta and in
ClickHouse. By an id every file of Bronze is looked at: of merged ones a filter of their ids, of others one column. A
place is found by statistics.

Examples:
  boathouse trace 5f0c2f6e-7f0e-4a57-9a58-1a4bb4b0d7c1
  boathouse trace user-events/2/1041         topic/partition/offset, of the newest generation
  boathouse trace user-events/0/2/1041       topic/generation/partition/offset
  boathouse trace --json 5f0c2f6e-7f0e-4a57-9a58-1a4bb4b0d7c1")]
pub(crate) struct Args {
    /// The event's id, or the record's place.
    #[arg(value_name = "EVENT")]
    event: String,

    /// One pipeline alone.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        if let Some(name) = &self.pipeline {
            pipelines::named(&config, name)?;
        }
        let found = context.block_on(async { Ok(trace(&config, self.pipeline.as_deref(), &self.event).await?) })?;
        let outcome = if found.copies.is_empty() { Outcome::Wrong } else { Outcome::Right };
        if context.json {
            output::json(&found)?;
        } else if found.copies.is_empty() {
            eprintln!("boathouse: {}", unknown(&found));
        } else {
            let mut out = output::stdout();
            write(&found, &mut out)?;
            out.flush()?;
        }
        Ok(outcome)
    }
}

/// What to think of an event that is not there.
pub(crate) fn unknown(trace: &Trace) -> String {
    let asked = safe_text(&trace.asked);
    let question = Question::read(&trace.asked);
    let tables: Vec<String> = trace
        .looked_at
        .iter()
        .map(|l| match (l.bronze_version, l.next_offset) {
            (None, _) => format!("there is no bronze.{} yet", l.pipeline),
            (Some(version), Some(next)) => {
                format!("bronze.{} (version {version}) holds its partition up to offset {next}", l.pipeline)
            }
            (Some(version), None) if matches!(question, Question::Place(_)) => {
                format!("bronze.{} (version {version}) does not know its partition", l.pipeline)
            }
            (Some(version), None) => format!("looked through bronze.{} (version {version})", l.pipeline),
        })
        .collect();
    match question {
        Question::EventId(_) => format!(
            "no event has the id `{asked}`: {}; is it committed yet (`boathouse status`)? A record that is no event has no \
             id: `boathouse dead-letters list` shows its place, which `trace` takes, too",
            tables.join(", ")
        ),
        Question::Place(_) if tables.is_empty() => {
            format!("no pipeline reads the topic of `{asked}`; write topic/partition/offset")
        }
        Question::Place(_) => format!(
            "there is no record at `{asked}`: {}; offsets below that hold no record are transaction markers or were \
             compacted away",
            tables.join(", ")
        ),
    }
}

fn write(trace: &Trace, out: &mut impl Write) -> std::io::Result<()> {
    let copies = trace.copies.len();
    for (number, copy) in trace.copies.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        let of = if copies > 1 { format!(" (copy {} of {copies})", number + 1) } else { String::new() };
        let id = copy.event_id.as_deref().map_or_else(|| "no event".into(), safe_text);
        writeln!(out, "{id} of {} at {}{of}: {}", copy.pipeline, safe_text(&copy.place.to_string()), fate(copy))?;
        for step in &copy.timeline {
            let at = step.at.map_or_else(String::new, |at| at.format("%Y-%m-%d %H:%M:%S%.3f").to_string());
            writeln!(out, "  {at:23}  {:10}  {}", step.layer, shorten(&safe_text(&step.what), WIDTH))?;
        }
    }
    Ok(())
}

/// What became of a copy, in a word or two.
pub(crate) fn fate(copy: &EventCopy) -> &'static str {
    match &copy.silver {
        Fate::Kept { .. } if copy.verdict == "late" => "late, kept",
        Fate::Kept { .. } => "kept",
        Fate::Refused { .. } => "refused",
        Fate::Duplicate { .. } => "a duplicate",
        Fate::NotYetRun { .. } => "not yet run",
        Fate::Expired { .. } => "gone for its age",
        Fate::Missing { .. } => "MISSING in silver",
    }
}
