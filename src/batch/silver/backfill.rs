//! Recomputing a range of dates from Bronze, date by date, without moving what silver says it has read.
//!
//! Of each date the rows of silver whose event date it is, and the refused rows that were taken from Kafka on it: what is
//! refused may have no event date, and its table is partitioned by the other one. Refused rows go first, as in a run.

use std::time::Instant;

use arrow::datatypes::SchemaRef;
use chrono::NaiveDate;
use deltalake::logstore::LogStoreRef;
use serde_json::json;

use super::columns::{refused_schema, silver_schema};
use super::duplicates::Fingerprints;
use super::judge::{Judged, RefusedWriter, SourceFile, judge};
use super::properties::properties;
use super::reasons::{Quarantine, Rules};
use super::rewrite::Rewriter;
use super::work::{Bronze, Definitions, by_hour};
use crate::batch::gold::days_since_epoch;
use crate::batch::hour::Hour;
use crate::batch::lake::{Lake, Layer, refused_table};
use crate::batch::mark::replaced;
use crate::batch::output::Layout;
use crate::batch::target::{Change, Landing, TableFile, Target};
use crate::batch::upkeep::retention::{bronze_horizon, horizon};
use crate::batch::{BatchError, TaskContext, TaskReport};
use crate::bronze::PARTITION_COLUMN;
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
    /// Refused rows that were taken from Kafka on those dates, before and after.
    pub refused_before: u64,
    pub refused_after: u64,
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
    let begun = Instant::now();
    for (number, date) in dates.iter().enumerate() {
        context.check()?;
        let of = backfill.date(*date).await?;
        let (so_far, left) = (number + 1, dates.len() - number - 1);
        let seconds = begun.elapsed().as_secs_f64() / so_far as f64 * left as f64;
        context.info(format!(
            "{date}: {} rows before, {} after; refused {} before, {} after ({so_far} of {} dates, about {seconds:.0} s left)",
            of.rows_before,
            of.rows_after,
            of.refused_before,
            of.refused_after,
            dates.len()
        ));
        done.silver_version = of.silver_version;
        done.dates.push(*date);
        done.rows_before += of.rows_before;
        done.rows_after += of.rows_after;
        done.refused_before += of.refused_before;
        done.refused_after += of.refused_after;
    }
    let report = TaskReport {
        rows_in: done.rows_before,
        rows_out: done.rows_after,
        rows_refused: done.refused_after,
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
    async fn date(&self, date: NaiveDate) -> Result<Backfilled, BatchError> {
        for _ in 0..PLANS {
            if let Some(done) = self.once(date).await? {
                return Ok(done);
            }
            self.context.info(format!("{date}: another run has committed meanwhile; planning anew"));
        }
        Err(BatchError::unavailable(format!("{date} cannot be committed"), "others commit all the time"))
    }

    /// What was done; none where somebody else has committed since the facts were read.
    async fn once(&self, date: NaiveDate) -> Result<Option<Backfilled>, BatchError> {
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
        if replaced(&newest.store, read_to, facts.read_mark).await? {
            return Err(run_first("Bronze was restored after silver had read it"));
        }
        let place = refused_table(&self.pipeline.name);
        let refused = Target::look(self.lake, (Layer::Silver, &place), &self.definitions.refused, id).await?;
        let refused_to = self.refused_to(&refused, date, newest.facts.version);
        let mut writer =
            RefusedWriter::new(self.layout(refused.store.clone(), refused_schema(self.pipeline)), self.pipeline);
        let fingerprints = Fingerprints::of(self.pipeline)?;
        // Between the two commits of a run they have not read the same version.
        if let Some(refused_to) = refused_to.filter(|at| *at != read_to) {
            let mut files = self.files(refused_to).await?;
            files.iter_mut().for_each(|f| f.for_refused = f.ingestion_date == date.to_string());
            self.judge(files, &fingerprints, &mut writer).await?;
        }
        // Later rows are the next run's: it would meet them twice.
        let mut files = self.files(read_to).await?;
        let (first, last) = (Hour::of_date(date, 0).micros().0, Hour::of_date(date, 23).micros().1);
        for file in &mut files {
            file.for_silver = file.event_times.is_none_or(|(least, greatest)| least <= last && greatest >= first);
            file.for_refused = refused_to == Some(read_to) && file.ingestion_date == date.to_string();
        }
        let mut judged = self.judge(files, &fingerprints, &mut writer).await?;
        let mut done = Backfilled::default();
        if refused_to.is_some() && !self.replace_refused(date, &refused, writer, id, &mut done).await? {
            return Ok(None);
        }

        judged.hours.retain(|hour, _| hour.date() == date);
        let memory = self.lake.memory();
        let layout = self.layout(silver.store.clone(), silver_schema(self.pipeline));
        let rewriter = Rewriter::new(layout, &fingerprints, memory / 2, self.context);
        let rewritten = rewriter.rewrite(&judged.hours, &judged.files, &[]).await?;
        let replaced: Vec<_> =
            by_hour(silver.files())?.into_iter().filter(|(hour, _)| hour.date() == date).map(|(_, f)| f).collect();
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
        done.rows_before = replaced.iter().map(|f| f.rows).sum();
        done.rows_after = rewritten.rows_after;
        Ok(Some(done))
    }

    fn layout(&self, store: LogStoreRef, schema: SchemaRef) -> Layout {
        Layout { store, schema, properties: properties(self.pipeline) }
    }

    /// The version of Bronze that the refused rows are of; none where they are left to the next run, which makes their
    /// table anew, or where retention has passed the date.
    fn refused_to(&self, refused: &Target, date: NaiveDate, newest: u64) -> Option<u64> {
        let facts = refused.facts()?;
        let is_ours = facts.settings.as_ref() == Some(&self.definitions.refused.settings);
        let is_kept = refused.horizon().is_none_or(|since| date >= since);
        facts.read_to.filter(|read_to| is_ours && is_kept && *read_to <= newest)
    }

    /// The files of a version of Bronze.
    async fn files(&self, version: u64) -> Result<Vec<SourceFile>, BatchError> {
        match Bronze::at(self.lake, self.pipeline, Some(version)).await? {
            Some(bronze) => bronze.files().await,
            None => Err(BatchError::refused(
                format!("silver of {} cannot be backfilled", self.pipeline.name),
                "Bronze is gone",
                "bring it back",
            )),
        }
    }

    /// Judges those of the files that are for anything.
    async fn judge(
        &self,
        mut files: Vec<SourceFile>,
        fingerprints: &Fingerprints,
        writer: &mut RefusedWriter,
    ) -> Result<Judged, BatchError> {
        files.retain(|f| f.for_silver || f.for_refused);
        files.sort_by(|a, b| (&a.ingestion_date, &a.file.path).cmp(&(&b.ingestion_date, &b.file.path)));
        judge(&files, &self.rules, fingerprints, self.lake.memory() / 4, writer, self.context).await
    }

    /// Puts the refused rows that were found in the place of those that are there; false where somebody else has
    /// committed since.
    async fn replace_refused(
        &self,
        date: NaiveDate,
        refused: &Target,
        writer: RefusedWriter,
        source_id: &str,
        done: &mut Backfilled,
    ) -> Result<bool, BatchError> {
        let day = Some(date.to_string());
        let is_of_date = |f: &&TableFile| f.partition.get(PARTITION_COLUMN) == Some(&day);
        let replaced: Vec<&TableFile> = refused.files().iter().filter(is_of_date).collect();
        done.refused_before = replaced.iter().map(|f| f.rows).sum();
        done.refused_after = writer.rows;
        let added = writer.finish().await?;
        if added.is_empty() && replaced.is_empty() {
            return Ok(true);
        }
        let change = Change {
            operation: "WRITE",
            parameters: json!({"mode": "Overwrite", "backfill": date.to_string()}),
            added,
            removed: replaced.iter().map(|f| f.remove.clone()).collect(),
            ..Change::default()
        };
        failpoint::hit("silver.before_backfill_refused");
        Ok(matches!(refused.commit(&self.definitions.refused, source_id, change).await?, Landing::Landed(_)))
    }
}
