//! The report's last part: what the batch makes, and one line a layer.

use std::io::{self, Write};

use serde::Serialize;

use super::report::{Report, Verdict};
use crate::batch::verify::{self, Example, Kind, SilverCheck, TableCheck};
use crate::cli::output::{Grid, count, safe_text};

/// Dates on which rows differ that are listed.
const DATES: usize = 10;

/// A layer in one line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LayerVerdict {
    /// As the report's heading has it.
    pub layer: &'static str,
    /// `bronze`, `realtime`, `silver`, `gold` or `clickhouse_gold`.
    pub check: &'static str,
    pub verdict: Verdict,
    pub summary: String,
}

const KAFKA: &str = "Kafka = Bronze";
const REALTIME: &str = "Realtime = Bronze recounted";
const SILVER: &str = "Silver = Bronze − refused − duplicates";
const GOLD: &str = "Gold = its models over silver";
const SERVED: &str = "ClickHouse gold = Delta gold";

/// The worst of several layers; none where there is none. What the batch has not run yet takes nothing from what is the
/// same.
pub(crate) fn worst(verdicts: impl Iterator<Item = Verdict>) -> Option<Verdict> {
    let rank = |v: &Verdict| match v {
        Verdict::NotYetRun => 0,
        Verdict::Same => 1,
        Verdict::NotChecked => 2,
        Verdict::Different => 3,
    };
    verdicts.max_by_key(rank)
}

/// The worst of one layer's tables: where one is to be run first, the layer is.
fn worst_table(verdicts: impl Iterator<Item = Verdict>) -> Option<Verdict> {
    let rank = |v: &Verdict| match v {
        Verdict::Same => 0,
        Verdict::NotYetRun => 1,
        Verdict::NotChecked => 2,
        Verdict::Different => 3,
    };
    verdicts.max_by_key(rank)
}

pub(super) fn of_table(verdict: verify::Verdict) -> Option<Verdict> {
    match verdict {
        verify::Verdict::Same => Some(Verdict::Same),
        verify::Verdict::Different => Some(Verdict::Different),
        verify::Verdict::NotYetRun => Some(Verdict::NotYetRun),
        verify::Verdict::NotChecked => Some(Verdict::NotChecked),
        verify::Verdict::LeftOut => None,
    }
}

/// One line for each layer that was looked at.
pub(crate) fn verdicts(report: &Report) -> Vec<LayerVerdict> {
    let mut layers = Vec::new();
    let mut add = |(layer, check), verdicts: Vec<Verdict>, summary: String| {
        if let Some(verdict) = worst_table(verdicts.into_iter()) {
            layers.push(LayerVerdict { layer, check, verdict, summary });
        }
    };
    let records: u64 = report.bronze.iter().map(|c| c.tally.checked).sum();
    let partitions = report.bronze.len();
    let summary = format!("{partitions} partitions, {} records", count(records));
    add((KAFKA, "bronze"), report.bronze.iter().map(|c| c.verdict).collect(), summary);
    let events: u64 = report.realtime.iter().map(|c| c.events).sum();
    let summary = format!("{} views, {} events counted", report.realtime.len(), count(events));
    add((REALTIME, "realtime"), report.realtime.iter().map(|c| c.verdict).collect(), summary);
    let silver = &report.batch.silver;
    let tables = || silver.iter().map(|s| &s.table).chain(&report.batch.refused);
    add((SILVER, "silver"), tables().filter_map(|t| of_table(t.verdict)).collect(), silver_summary(silver));
    for (layer, tables, what) in [
        ((GOLD, "gold"), &report.batch.gold, "models"),
        ((SERVED, "clickhouse_gold"), &report.batch.clickhouse_gold, "views"),
    ] {
        let wrong: Vec<&str> =
            tables.iter().filter(|t| t.verdict == verify::Verdict::Different).map(|t| t.table.as_str()).collect();
        let rows: u64 = tables.iter().map(|t| t.checked_rows).sum();
        let summary = match wrong.is_empty() {
            true => format!("{} {what}, {} rows", tables.len(), count(rows)),
            false => format!("{} of {} {what}: {}", wrong.len(), tables.len(), wrong.join(", ")),
        };
        add(layer, tables.iter().filter_map(|t| of_table(t.verdict)).collect(), summary);
    }
    layers
}

fn silver_summary(silver: &[SilverCheck]) -> String {
    let sum = |of: fn(&SilverCheck) -> u64| count(silver.iter().map(of).sum::<u64>());
    format!(
        "{} rows = {} of Bronze − {} refused − {} duplicates",
        sum(|s| s.table.checked_rows),
        sum(|s| s.bronze_rows),
        sum(|s| s.refused_rows),
        sum(|s| s.duplicate_rows)
    )
}

/// The tables that the batch makes, then one line a layer, then the conclusion.
pub(crate) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let silver: Vec<&TableCheck> = report.batch.silver.iter().map(|s| &s.table).chain(&report.batch.refused).collect();
    tables(SILVER, "Bronze", &silver, out)?;
    tables(GOLD, "silver", &report.batch.gold.iter().collect::<Vec<_>>(), out)?;
    tables(SERVED, "silver", &report.batch.clickhouse_gold.iter().collect::<Vec<_>>(), out)?;
    let mut grid = Grid::new(&["layer", "verdict", ""]);
    for layer in &report.layers {
        grid.row([layer.layer.to_owned(), layer.verdict.shown().to_owned(), layer.summary.clone()]);
    }
    grid.write(out)?;
    writeln!(out)?;
    let of = |verdict| report.layers.iter().filter(move |l| l.verdict == verdict).map(|l| l.layer).collect::<Vec<_>>();
    let conclusion = match report.verdict {
        Verdict::Same => "Everything compared is the same.",
        Verdict::Different => "There are DIFFERENCES.",
        Verdict::NotYetRun => "There is nothing to compare yet.",
        Verdict::NotChecked => "Not everything could be checked.",
    };
    let not_yet = of(Verdict::NotYetRun);
    let rest = if not_yet.is_empty() { String::new() } else { format!(" Not yet run: {}.", not_yet.join("; ")) };
    writeln!(out, "{conclusion}{rest} ({:.1} s)", report.elapsed_seconds)
}

/// The tables of one layer, with what differs and what to do.
fn tables(layer: &str, source: &str, checks: &[&TableCheck], out: &mut impl Write) -> io::Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    writeln!(out, "{layer}")?;
    let of = format!("as of {source}");
    let mut grid = Grid::new(&["table", "version", of.as_str(), "rows", "missing", "unknown", "differing", "verdict"]);
    let version = |v: Option<u64>| v.map_or_else(|| "–".into(), |v| v.to_string());
    for c in checks {
        grid.row([
            c.table.clone(),
            version(c.version),
            version(c.source_version),
            count(c.checked_rows),
            count(c.missing_rows),
            count(c.unknown_rows),
            count(c.differing_rows),
            shown(c.verdict).to_owned(),
        ]);
    }
    grid.write(out)?;
    for check in checks {
        for e in &check.examples {
            writeln!(out, "  {}: {}", check.table, example(e))?;
        }
        if !check.dates.is_empty() {
            let dates: Vec<String> = check
                .dates
                .iter()
                .take(DATES)
                .map(|d| format!("{} ({})", d.date, d.rows.missing_rows + d.rows.unknown_rows + d.rows.differing_rows))
                .collect();
            let more = check.dates.len().saturating_sub(DATES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            writeln!(out, "  {}: differing rows by date: {}{more}", check.table, dates.join(", "))?;
        }
        if let Some(remedy) = &check.remedy {
            writeln!(out, "  {}: {remedy}", check.table)?;
        }
    }
    // What is told of every table of a layer is told once.
    let mut told: Vec<&str> = Vec::new();
    for check in checks {
        for note in check.notes.iter().filter(|n| !n.is_empty()) {
            let all = checks.iter().all(|c| c.notes.contains(note));
            if !told.contains(&note.as_str()) || !all {
                let table = if all && checks.len() > 1 { "all of them" } else { &check.table };
                writeln!(out, "  {table}: {}", safe_text(note))?;
                told.push(note);
            }
        }
    }
    writeln!(out)
}

fn shown(verdict: verify::Verdict) -> &'static str {
    match verdict {
        verify::Verdict::Same => "same",
        verify::Verdict::Different => "DIFFERENT",
        verify::Verdict::NotYetRun => "not yet run",
        verify::Verdict::LeftOut => "left out",
        verify::Verdict::NotChecked => "not checked",
    }
}

pub(super) fn example(e: &Example) -> String {
    let value = |v: &Option<String>| safe_text(v.as_deref().unwrap_or("nothing"));
    let row = safe_text(&e.row);
    match e.kind {
        Kind::Missing => format!("{row} is missing: {}", value(&e.expected)),
        Kind::Unknown => format!("{row} should not be there: {}", value(&e.found)),
        Kind::Differing => format!(
            "{row}: {} should be {} and is {}",
            e.column.as_deref().unwrap_or_default(),
            value(&e.expected),
            value(&e.found)
        ),
    }
}
