//! `boathouse dead-letters`: the records that silver refuses, or will; and sending them again, corrected.

mod list;
mod redrive;

use std::io::Write;

use anyhow::bail;
use chrono::{DateTime, NaiveDate, Utc};
use clap::Subcommand;
use serde_json::{Value, json};

use super::lake::Lake;
use super::output::{self, safe_bytes, safe_text};
use super::remote::Way;
use super::{Context, Outcome};
use crate::config::Config;
use crate::letters::{self, Letter, Search, State, Status, row_as_json};

/// Records that are no events (`unparsed`), whose clock is ahead (`future`), or that silver refuses (`refused`).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A dead letter is resolved when an event that corrects it has come: one that is ok or late, that silver keeps, and that bears
the letter's place in its header boathouse-origin. `redrive` sends such an event.

Examples:
  boathouse dead-letters list                              the newest, with the reason and the first bytes
  boathouse dead-letters list --open --status unparsed --since 1h
  boathouse dead-letters list --reasons                    how often each reason came
  boathouse dead-letters show user-events/0/2/1041         the whole record: topic/generation/partition/offset
  boathouse dead-letters redrive user-events/2/1041 --set user_id=7 --dry-run
  boathouse dead-letters redrive user-events/2/1041 --value corrected.json
  boathouse dead-letters redrive --reason 'source: missing' --set source=web --yes")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    way: Way,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The newest dead letters.
    List(list::List),
    /// One record, whole: `topic/generation/partition/offset`.
    Show {
        /// As `list` prints it; without the generation the newest.
        source: String,
    },
    Redrive(redrive::Redrive),
}

/// Which letters are meant.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Which {
    /// The pipeline; without it all.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// One kind alone.
    #[arg(long, value_enum)]
    status: Option<Status>,
    /// Only what arrived within this time, as 90m or 2d.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with = "from")]
    since: Option<std::time::Duration>,
    /// Only what arrived at this moment or later: 2026-02-06 or 2026-02-06T14:30:00Z.
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    from: Option<DateTime<Utc>>,
    /// Only what arrived before this moment.
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    to: Option<DateTime<Utc>>,
    /// Only where the reason contains this text.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// A date is its beginning in UTC.
fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    let date = || text.parse::<NaiveDate>().ok().and_then(|date| date.and_hms_opt(0, 0, 0)).map(|t| t.and_utc());
    let wrong = || format!("`{text}` is neither a date (2026-02-06) nor a moment (2026-02-06T14:30:00Z)");
    text.parse::<DateTime<Utc>>().ok().or_else(date).ok_or_else(wrong)
}

impl Which {
    fn search(&self, state: Option<State>, limit: usize) -> Search {
        Search {
            pipeline: self.pipeline.clone(),
            status: self.status,
            from: self.from.or_else(|| self.since.map(|since| Utc::now() - since)),
            to: self.to,
            reason: self.reason.clone(),
            state,
            limit,
        }
    }
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let lake = Lake::open(Some(&config.server.lakehouse.uri))?;
        context.block_on(async {
            match self.action {
                Action::List(list) => list.run(&config, &lake, context.json).await,
                Action::Show { source } => show(&config, &lake, &source, context.json).await,
                Action::Redrive(redrive) => redrive.run(&config, lake, self.way, context.json).await,
            }
        })?;
        Ok(Outcome::Right)
    }
}

/// Columns that the search adds.
fn is_own(name: &str) -> bool {
    !name.starts_with("letter_")
}

async fn show(config: &Config, lake: &Lake, source: &str, json: bool) -> anyhow::Result<()> {
    let (pipeline, batch) = letters::record(config, lake, &letters::place(source)?).await?;
    let Some(of) = config.pipelines.iter().find(|p| p.name == pipeline) else { bail!("no pipeline {pipeline}") };
    let letter = Letter::read(&pipeline, &of.fields, &batch, 0)?;
    let resolved_by = letters::resolutions(lake, of, Some(&letter.ingested)).await?.of(&letter.source());
    if json {
        let mut row = row_as_json(&pipeline, &batch)?;
        row.retain(|name, _| is_own(name));
        row.insert("resolved_by".into(), json!(resolved_by));
        return output::json(&Value::Object(row));
    }
    let mut out = output::stdout();
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).filter(|name| is_own(name)).collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    for name in names {
        let shown = match name {
            "headers" => letters::headers(&batch, 0)
                .map(|headers| {
                    let shown = |(key, value): &(String, Option<Vec<u8>>)| {
                        let value = value.as_deref().map_or_else(|| "null".into(), safe_bytes);
                        format!("{}: {value}", safe_text(key))
                    };
                    headers.iter().map(shown).collect::<Vec<_>>().join("; ")
                })
                .unwrap_or_else(|| "–".into()),
            _ => match letters::bytes(&batch, name, 0) {
                Some(bytes) => safe_bytes(&bytes),
                None => letters::text(&batch, name, 0)?.map_or_else(|| "–".into(), |t| safe_text(&t)),
            },
        };
        writeln!(out, "{name:width$}  {shown}")?;
    }
    if !resolved_by.is_empty() {
        writeln!(out, "{:width$}  by {}", "resolved", safe_text(&resolved_by.join(", ")))?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_dates_are_read() {
        assert_eq!(moment("2026-02-06").unwrap().to_rfc3339(), "2026-02-06T00:00:00+00:00");
        assert_eq!(moment("2026-02-06T14:30:00+01:00").unwrap().to_rfc3339(), "2026-02-06T13:30:00+00:00");
        assert!(moment("yesterday").unwrap_err().contains("neither a date"));
    }
}
