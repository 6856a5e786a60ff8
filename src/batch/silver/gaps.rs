//! Where silver is not what Bronze gives: rows removed by hand, or a fault.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use super::columns::{refused_schema, silver_schema};
use super::duplicates::Fingerprints;
use super::judge::{RefusedWriter, judge};
use super::properties::properties;
use super::reasons::{Quarantine, Rules};
use super::rewrite::Rewriter;
use super::work::{Bronze, Definitions, by_hour};
use crate::batch::hour::Hour;
use crate::batch::lake::{Lake, Layer};
use crate::batch::output::Layout;
use crate::batch::target::Target;
use crate::batch::upkeep::retention::bronze_horizon;
use crate::batch::{BatchError, TaskContext};
use crate::config::Pipeline;

/// An hour in which silver has another number of rows than Bronze gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapHour {
    pub hour: Hour,
    /// Rows that Bronze gives: neither refused nor duplicates.
    pub expected: u64,
    /// Rows that silver has.
    pub there: u64,
}

/// What was found up to the version of Bronze that silver has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    pub bronze_version: u64,
    pub hours: Vec<GapHour>,
    /// Rows that Bronze gives, by event date.
    pub by_date: BTreeMap<NaiveDate, u64>,
}

/// Compares silver's rows in each event-hour with what Bronze gives, by reading all of Bronze's keys.
pub async fn gaps_of_silver(lake: &Lake, pipeline: &Pipeline, quarantine: &[Quarantine]) -> Result<Gaps, BatchError> {
    let mut rules = Rules::compile(&lake.session(), pipeline, quarantine)?;
    let definitions = Definitions::new(pipeline, quarantine);
    let Some(newest) = Bronze::pin(lake, pipeline).await? else { return Ok(Gaps::default()) };
    let place = (Layer::Silver, pipeline.name.as_str());
    let silver = Target::look(lake, place, &definitions.silver, &newest.facts.table_id).await?;
    let read_to = silver.facts().and_then(|f| f.read_to).filter(|v| *v <= newest.facts.version);
    let settings = silver.facts().and_then(|f| f.settings.as_ref());
    let (Some(read_to), true) = (read_to, settings == Some(&definitions.silver.settings)) else {
        return Err(BatchError::refused(
            format!("silver of {} cannot be compared", pipeline.name),
            "it was not made from this Bronze with these settings",
            "run `boathouse batch run` first: it makes silver up to date",
        ));
    };
    rules = rules.since(silver.horizon());
    let bronze_since = bronze_horizon(lake, &pipeline.name).await?;
    let Some(bronze) = Bronze::at(lake, pipeline, Some(read_to)).await? else {
        return Ok(Gaps::default());
    };
    let mut files = bronze.files().await?;
    files.iter_mut().for_each(|f| f.for_silver = true);
    let context = TaskContext::detached();
    let layout = |schema| Layout { store: silver.store.clone(), schema, properties: properties(pipeline) };
    // Reads alone: nothing is for the refused table.
    let mut refused = RefusedWriter::new(layout(refused_schema(pipeline)), pipeline);
    let (memory, fingerprints) = (lake.memory(), Fingerprints::of(pipeline)?);
    let judged = judge(&files, &rules, &fingerprints, memory / 4, &mut refused, &context).await?;
    let rewriter = Rewriter::new(layout(silver_schema(pipeline)), &fingerprints, memory / 2, &context);
    let expected = rewriter.count(&judged.hours, &judged.files).await?;
    let mut there: BTreeMap<Hour, u64> = BTreeMap::new();
    by_hour(silver.files())?.into_iter().for_each(|(hour, file)| *there.entry(hour).or_default() += file.rows);
    let mut gaps = Gaps { bronze_version: read_to, ..Gaps::default() };
    let hours: BTreeSet<Hour> = expected.keys().chain(there.keys()).copied().collect();
    for hour in hours {
        let of = |counts: &BTreeMap<Hour, u64>| counts.get(&hour).copied().unwrap_or_default();
        let (expected, there) = (of(&expected), of(&there));
        // Of these Bronze or silver has only some.
        if bronze_since.is_some_and(|since| hour.date() <= since) || silver.horizon().is_some_and(|h| hour.date() < h) {
            continue;
        }
        *gaps.by_date.entry(hour.date()).or_default() += expected;
        if expected != there {
            gaps.hours.push(GapHour { hour, expected, there });
        }
    }
    Ok(gaps)
}
