//! Recomputing a range of dates from Bronze, date by date, without moving what silver says it has read.

use chrono::NaiveDate;
use serde_json::json;

use super::columns::{refused_schema, silver_schema};
use super::duplicates::Fingerprints;
use super::judge::{RefusedWriter, judge};
use super::properties::properties;
use super::reasons::{Quarantine, Rules};
use super::rewrite::Rewriter;
use super::work::{Bronze, Definitions, by_hour};
use crate::batch::gold::days_since_epoch;
use crate::batch::hour::Hour;
use crate::batch::lake::{Lake, Layer};
use crate::batch::output::Layout;
use crate::batch::target::{Change, Landing, Target};
use crate::batch::upkeep::retention::{bronze_horizon, horizon};
use crate::batch::{BatchError, TaskContext, TaskReport};
use crate::config::Pipeline;
use crate::failpoint;

/// Times that a date is planned anew because somebody else has committed meanwhile.
const PLANS: u32 = 10;

/// What a backfill has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backfilled {
    /// Silver's version afterwards.
    pub silver_version: u64,
    /// The dates that were recomputed.
    pub dates: Vec<NaiveDate>,
    /// Rows of those dates before and after.
    pub rows_before: u64,
    pub rows_after: u64,
}

/// As [`backfill_silver`], for a run of the history: silver notes with each date that the run has come so far, so that the
/// run goes on behind it after an interruption.
pub async fn backfill_silver_of(
    lake: &Lake,
    pipeline: &Pipeline,
    run_id: &str,
    (from, to): (NaiveDate, NaiveDate),
    context: &TaskContext,
) -> Result<TaskReport, BatchError> {
    let id = format!("boathouse/backfill/{run_id}");
    let done = match lake.open(Layer::Silver, &pipeline.name).await? {
        Some(table) => horizon(lake, &table, &id)
            .await
            .map_err(|e| BatchError::unavailable(format!("table silver.{} cannot be read", pipeline.name), e))?,
        None => None,
    };
    let next = done.and_then(|done| done.succ_opt()).map_or(from, |next| next.max(from));
    if next > from {
        context.info(format!("{from} to {} are done; going on", next.pred_opt().unwrap_or(next)));
    }
    let quarantine = Quarantine::of(pipeline)?;
    Ok(backfill(lake, pipeline, &quarantine, (next, to), Some(id), context).await?.1)
}

/// Recomputes the event dates `from` to `to` (both included) from Bronze as of the version that silver has read. Every
/// date is a commit of its own, so a backfill that was cut off may be run again from where it stopped.
pub async fn backfill_silver(
    lake: &Lake,
    pipeline: &Pipeline,
    quarantine: &[Quarantine],
    from: NaiveDate,
    to: NaiveDate,
    context: &TaskContext,
) -> Result<(Backfilled, TaskReport), BatchError> {
    backfill(lake, pipeline, quarantine, (from, to), None, context).await
}

async fn backfill(
    lake: &Lake,
    pipeline: &Pipeline,
    quarantine: &[Quarantine],
    (from, to): (NaiveDate, NaiveDate),
    progress: Option<String>,
    context: &TaskContext,
) -> Result<(Backfilled, TaskReport), BatchError> {
    let rules = Rules::compile(&lake.session(), pipeline, quarantine)?;
    let definitions = Definitions::new(pipeline, quarantine);
    let backfill = Backfill { lake, pipeline, rules, definitions, progress, context };
    let mut done = Backfilled::default();
    let dates: Vec<NaiveDate> = from.iter_days().take_while(|date| *date <= to).collect();
    for (number, date) in dates.iter().enumerate() {
        context.check()?;
        let (before, after) = backfill.date(*date, &mut done).await?;
        context.info(format!("{date}: {before} rows before, {after} after ({} of {} dates)", number + 1, dates.len()));
    }
    let report = TaskReport {
        rows_in: done.rows_before,
        rows_out: done.rows_after,
        summary: format!("{} dates recomputed from Bronze", done.dates.len()),
        ..TaskReport::default()
    };
    Ok((done, report))
}

struct Backfill<'a> {
    lake: &'a Lake,
    pipeline: &'a Pipeline,
    rules: Rules,
    definitions: Definitions,
    /// The application id under which silver notes how far it has come.
    progress: Option<String>,
    context: &'a TaskContext,
}

impl Backfill<'_> {
    async fn date(&self, date: NaiveDate, done: &mut Backfilled) -> Result<(u64, u64), BatchError> {
        for _ in 0..PLANS {
            if let Some(rows) = self.once(date, done).await? {
                return Ok(rows);
            }
            self.context.info(format!("{date}: another run has committed meanwhile; planning anew"));
        }
        Err(BatchError::unavailable(format!("{date} cannot be committed"), "others commit all the time"))
    }

    /// Rows before and after; none where somebody else has committed since the facts were read.
    async fn once(&self, date: NaiveDate, done: &mut Backfilled) -> Result<Option<(u64, u64)>, BatchError> {
        let run_first = |why: &str| {
            let what = format!("silver of {} cannot be backfilled", self.pipeline.name);
            BatchError::refused(what, why, "run `boathouse batch run` first: it makes silver up to date")
        };
        let Some(newest) = Bronze::pin(self.lake, self.pipeline).await? else {
            return Err(run_first("there is no Bronze table yet"));
        };
        let id = &newest.facts.table_id;
        let definition = &self.definitions.silver;
        let silver = Target::look(self.lake, (Layer::Silver, &self.pipeline.name), definition, id).await?;
        let facts = silver.facts().ok_or_else(|| run_first("there is no silver table yet"))?;
        let read_to = facts.read_to.ok_or_else(|| run_first("silver was made from another Bronze"))?;
        if facts.settings.as_ref() != Some(&definition.settings) {
            return Err(run_first("silver was made with other fields, allowed values or rules"));
        }
        let bronze_since = bronze_horizon(self.lake, &self.pipeline.name).await?.filter(|since| date <= *since);
        let silver_since = silver.horizon().filter(|since| date < *since);
        if bronze_since.is_some() || silver_since.is_some() {
            let (layer, key) = if bronze_since.is_some() { ("Bronze", "bronze") } else { ("silver", "silver") };
            return Err(BatchError::refused(
                format!("{date} of silver of {} cannot be backfilled", self.pipeline.name),
                format!("{layer} no longer has it whole: retention.{key} has passed it"),
                "begin with a later date",
            ));
        }
        if read_to > newest.facts.version {
            return Err(run_first("silver has read more of Bronze than there is"));
        }
        // Later rows are the next run's: it would meet them twice.
        let pinned = Bronze::at(self.lake, self.pipeline, Some(read_to)).await?;
        let Some(bronze) = pinned else { return Err(run_first("Bronze is gone")) };
        let mut files = bronze.files().await?;
        let (first, last) = (Hour::of_date(date, 0).micros().0, Hour::of_date(date, 23).micros().1);
        files.retain(|f| f.event_times.is_none_or(|(least, greatest)| least <= last && greatest >= first));
        files.iter_mut().for_each(|f| f.for_silver = true);

        let layout = |store, schema| Layout { store, schema, properties: properties(self.pipeline) };
        // The refused table has these rows already; nothing is written to it.
        let unused = layout(silver.store.clone(), refused_schema(self.pipeline));
        let mut refused = RefusedWriter::new(unused, self.pipeline);
        let (memory, fingerprints) = (self.lake.memory(), Fingerprints::of(self.pipeline)?);
        let mut judged = judge(&files, &self.rules, &fingerprints, memory / 4, &mut refused, self.context).await?;
        judged.hours.retain(|hour, _| hour.date() == date);
        let layout = layout(silver.store.clone(), silver_schema(self.pipeline));
        let rewriter = Rewriter::new(layout, &fingerprints, memory / 2, self.context);
        let rewritten = rewriter.rewrite(&judged.hours, &judged.files, &[]).await?;
        let replaced: Vec<_> =
            by_hour(silver.files())?.into_iter().filter(|(hour, _)| hour.date() == date).map(|(_, f)| f).collect();
        let before = replaced.iter().map(|f| f.rows).sum();
        let change = Change {
            operation: "WRITE",
            parameters: json!({"mode": "Overwrite", "backfill": date.to_string(), "bronzeVersion": read_to}),
            added: rewritten.added,
            removed: replaced.iter().map(|f| f.remove.clone()).collect(),
            read_to: None,
            progress: self.progress.clone().map(|id| (id, days_since_epoch(date).into())),
        };
        failpoint::hit("silver.before_backfill_commit");
        let landing = silver.commit(definition, id, change).await?;
        let Landing::Landed(version) = landing else { return Ok(None) };
        done.silver_version = version;
        done.dates.push(date);
        done.rows_before += before;
        done.rows_after += rewritten.rows_after;
        Ok(Some((before, rewritten.rows_after)))
    }
}
