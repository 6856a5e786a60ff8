//! A run of silver, from the facts to the commits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use chrono::NaiveDate;
use serde_json::json;

use super::columns::{refused_schema, silver_schema};
use super::duplicates::Fingerprints;
use super::judge::{Judged, RefusedWriter, judge};
use super::properties::properties;
use super::reasons::{Quarantine, Rules};
use super::rewrite::{Rewriter, Rewritten};
use super::work::{Bronze, Definitions, Work, by_hour};
use crate::batch::entry::checkpoint;
use crate::batch::gold::days_since_epoch;
use crate::batch::lake::{Layer, refused_table};
use crate::batch::output::Layout;
use crate::batch::plan::{Course, Decision};
use crate::batch::target::{Change, Landing, TableFile};
use crate::batch::upkeep::retention::RETENTION_ID;
use crate::batch::{BatchError, Lake, TaskContext, TaskReport};
use crate::bronze::PARTITION_COLUMN;
use crate::config::Pipeline;
use crate::failpoint;

/// Times that a run plans anew because somebody else has committed meanwhile.
const PLANS: u32 = 10;

/// What a run has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SilverOutcome {
    /// Silver's version afterwards; none where there is no Bronze yet.
    pub silver_version: Option<u64>,
    /// The version of Bronze up to which silver holds everything.
    pub bronze_version: Option<u64>,
    /// The event dates whose rows have changed.
    pub dates: BTreeSet<NaiveDate>,
    /// Rows that entered Bronze since the last run.
    pub rows_in: u64,
    /// By how many rows silver has grown (from scratch: its rows).
    pub kept: u64,
    pub refused: u64,
    /// Refused rows by reason; a row with two reasons counts under both.
    pub refused_by_reason: BTreeMap<String, u64>,
    pub duplicates: u64,
    /// Why so much or so little was done.
    pub reason: String,
}

/// Brings a pipeline's silver up to Bronze's newest version. Run again after any failure, it finishes what is missing.
pub async fn run_silver(
    lake: &Lake,
    pipeline: &Pipeline,
    context: &TaskContext,
) -> Result<(SilverOutcome, TaskReport), BatchError> {
    run_silver_with(lake, pipeline, &Quarantine::of(pipeline)?, context).await
}

/// [`run_silver`] with these rules in place of the pipeline's expectations that quarantine rows.
pub async fn run_silver_with(
    lake: &Lake,
    pipeline: &Pipeline,
    quarantine: &[Quarantine],
    context: &TaskContext,
) -> Result<(SilverOutcome, TaskReport), BatchError> {
    let mut rules = Rules::compile(&lake.session(), pipeline, quarantine)?;
    let definitions = Definitions::new(pipeline, quarantine);
    let fingerprints = Fingerprints::of(pipeline)?;
    for _ in 0..PLANS {
        context.check()?;
        let Some(work) = Work::look(lake, pipeline, &definitions).await? else {
            let reason = Decision::nothing_to_read().reason;
            let outcome = SilverOutcome { reason, ..Default::default() };
            let report = report(&outcome);
            return Ok((outcome, report));
        };
        rules = rules.since(work.silver.horizon().max(work.begins));
        let (rules, definitions, fingerprints) = (&rules, &definitions, &fingerprints);
        let run = Run { lake, pipeline, rules, definitions, fingerprints, work, context };
        if let Some(outcome) = run.once().await? {
            let report = report(&outcome);
            return Ok((outcome, report));
        }
        context.info("another run has committed meanwhile; planning anew");
    }
    Err(BatchError::unavailable(
        format!("silver of {} cannot be committed", pipeline.name),
        "others commit all the time",
    ))
}

fn report(outcome: &SilverOutcome) -> TaskReport {
    let reasons: Vec<String> = outcome.refused_by_reason.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    let refused = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    TaskReport {
        rows_in: outcome.rows_in,
        rows_out: outcome.kept,
        rows_refused: outcome.refused + outcome.duplicates,
        rows_duplicate: outcome.duplicates,
        summary: format!(
            "{}: {} rows in, {} kept, {} refused{refused}, {} duplicates, {} dates touched",
            outcome.reason,
            outcome.rows_in,
            outcome.kept,
            outcome.refused,
            outcome.duplicates,
            outcome.dates.len()
        ),
    }
}

struct Run<'a> {
    lake: &'a Lake,
    pipeline: &'a Pipeline,
    rules: &'a Rules,
    definitions: &'a Definitions,
    fingerprints: &'a Fingerprints,
    work: Work,
    context: &'a TaskContext,
}

impl Run<'_> {
    /// None where somebody else has committed since the facts were read.
    async fn once(&self) -> Result<Option<SilverOutcome>, BatchError> {
        let work = &self.work;
        let reason = work.silver_course.reason.clone();
        let bronze = &work.bronze;
        let nothing = |c| c == Course::Nothing;
        if nothing(work.silver_course.course) && nothing(work.refused_course.course) {
            return Ok(Some(SilverOutcome {
                silver_version: work.silver.found.as_ref().map(|f| f.version),
                bronze_version: Some(bronze.facts.version),
                reason,
                ..Default::default()
            }));
        }
        self.context.info(format!("silver: {reason}; {} files to read", work.files.len()));
        if work.refused_course.reason != reason {
            self.context.info(format!("refused rows: {}", work.refused_course.reason));
        }
        let begun = Instant::now();
        let layout = Layout {
            store: work.refused.store.clone(),
            schema: refused_schema(self.pipeline),
            properties: properties(self.pipeline),
        };
        let mut refused = RefusedWriter::new(layout, self.pipeline);
        let memory = self.lake.memory() / 4;
        let judged = judge(&work.files, self.rules, self.fingerprints, memory, &mut refused, self.context).await?;
        if judged.too_old > 0 {
            let kept = work.silver.horizon().max(work.begins).map(|date| date.to_string()).unwrap_or_default();
            self.context.info(format!(
                "{} rows of events before {kept}, where silver begins by retention, are left alone",
                judged.too_old
            ));
        }
        if !self.commit_refused(bronze, refused).await? {
            return Ok(None);
        }
        failpoint::hit("silver.after_refused");
        if nothing(work.silver_course.course) {
            return Ok(Some(SilverOutcome {
                silver_version: work.silver.found.as_ref().map(|f| f.version),
                bronze_version: Some(bronze.facts.version),
                reason,
                ..Default::default()
            }));
        }
        let rewritten = self.rewrite(&judged).await?;
        check(&judged, &rewritten)?;
        self.commit_silver(bronze, judged, rewritten, begun).await
    }

    /// Where a silver that is made new begins, as retention would note it.
    fn begins(&self) -> Option<(String, i64)> {
        Some((RETENTION_ID.to_owned(), days_since_epoch(self.work.begins?).into()))
    }

    /// Whether the refused rows are in, with the version that they were read up to.
    async fn commit_refused(&self, bronze: &Bronze, refused: RefusedWriter) -> Result<bool, BatchError> {
        let course = self.work.refused_course.course;
        if course == Course::Nothing {
            return Ok(true);
        }
        let rows = refused.rows;
        let target = &self.work.refused;
        let removed = match course {
            Course::FromScratch => {
                // Rows that Bronze no longer has stay.
                let stays = |file: &TableFile| {
                    let date = file.partition.get(PARTITION_COLUMN).cloned().flatten();
                    let date = date.and_then(|d| d.parse::<NaiveDate>().ok());
                    self.work.refused_since.zip(date).is_some_and(|(since, date)| date < since)
                };
                target.files().iter().filter(|f| !stays(f)).map(|f| f.remove.clone()).collect()
            }
            Course::Incremental { .. } | Course::Nothing => Vec::new(),
        };
        let mode = if course == Course::FromScratch { "Overwrite" } else { "Append" };
        let change = Change {
            operation: "WRITE",
            parameters: json!({"mode": mode, "bronzeVersion": bronze.facts.version, "rows": rows}),
            added: refused.finish().await?,
            removed,
            read_to: Some(bronze.marked),
            progress: self.begins().filter(|_| target.horizon() < self.work.begins),
        };
        let files = change.added.len() + change.removed.len();
        let landing = target.commit(&self.definitions.refused, &bronze.facts.table_id, change).await?;
        if let Landing::Landed(version) = landing {
            let table = refused_table(&self.pipeline.name);
            checkpoint(self.lake, Layer::Silver, &table, version, files).await;
        }
        Ok(landing != Landing::Overtaken)
    }

    async fn rewrite(&self, judged: &Judged) -> Result<Rewritten, BatchError> {
        let layout = Layout {
            store: self.work.silver.store.clone(),
            schema: silver_schema(self.pipeline),
            properties: properties(self.pipeline),
        };
        // Half for telling duplicates, a quarter has the fingerprints of the new files, a quarter is for the files being
        // written and what is decoded.
        let rewriter = Rewriter::new(layout, self.fingerprints, self.lake.memory() / 2, self.context);
        let held = self.work.held(|hour| judged.hours.contains_key(&hour))?;
        let mut rewritten = rewriter.rewrite(&judged.hours, &judged.files, &held).await?;
        if self.work.silver_course.course == Course::FromScratch {
            match by_hour(self.work.silver.files()) {
                Ok(files) => {
                    for (hour, file) in files.into_iter().filter(|(hour, _)| !self.work.stays(*hour)) {
                        rewritten.hours.insert(hour);
                        rewritten.removed.push(file.remove.clone());
                    }
                }
                // A table that is not ours in shape is replaced all the same; only its dates are not known.
                Err(_) => rewritten.removed = self.work.silver.files().iter().map(|f| f.remove.clone()).collect(),
            }
        }
        Ok(rewritten)
    }

    async fn commit_silver(
        &self,
        bronze: &Bronze,
        judged: Judged,
        rewritten: Rewritten,
        begun: Instant,
    ) -> Result<Option<SilverOutcome>, BatchError> {
        let kept = judged.rows - judged.refused - rewritten.duplicates;
        let change = Change {
            operation: "WRITE",
            parameters: json!({
                "mode": "Overwrite",
                "bronzeVersion": bronze.facts.version,
                "hours": rewritten.hours.len(),
                // From these `batch plan` tells how long a run takes.
                "rowsRead": judged.rows + rewritten.rows_before,
                "elapsedMs": begun.elapsed().as_millis() as u64,
            }),
            added: rewritten.added,
            removed: rewritten.removed,
            read_to: Some(bronze.marked),
            progress: self.begins(),
        };
        let files = change.added.len() + change.removed.len();
        failpoint::hit("silver.before_commit");
        let landing = self.work.silver.commit(&self.definitions.silver, &bronze.facts.table_id, change).await?;
        let Landing::Landed(version) = landing else { return Ok(None) };
        failpoint::hit("silver.after_commit");
        checkpoint(self.lake, Layer::Silver, &self.pipeline.name, version, files).await;
        Ok(Some(SilverOutcome {
            silver_version: Some(version),
            bronze_version: Some(bronze.facts.version),
            dates: rewritten.hours.iter().map(|hour| hour.date()).collect(),
            rows_in: judged.rows,
            kept,
            refused: judged.refused,
            refused_by_reason: judged.by_reason,
            duplicates: rewritten.duplicates,
            reason: self.work.silver_course.reason.clone(),
        }))
    }
}

/// Rows in = rows kept + refused + duplicates, each counted where it happens. Where that does not hold nothing is
/// committed.
fn check(judged: &Judged, rewritten: &Rewritten) -> Result<(), BatchError> {
    let before = judged.rows + rewritten.rows_before;
    let after = rewritten.rows_after + judged.refused + rewritten.duplicates;
    if before == after {
        return Ok(());
    }
    Err(BatchError::refused(
        "silver does not add up",
        format!(
            "{} new rows and {} in the touched hours, but {} written, {} refused and {} duplicates",
            judged.rows, rewritten.rows_before, rewritten.rows_after, judged.refused, rewritten.duplicates
        ),
        "nothing was committed; this is a fault of the program: please report it",
    ))
}
