//! What the next run of silver would do, for people: `boathouse batch plan`.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;

use super::columns::silver_schema;
use super::reasons::Quarantine;
use super::work::{Definitions, Work};
use crate::batch::hour::Hour;
use crate::batch::plan::{Course, Decision};
use crate::batch::scan::unreadable;
use crate::batch::{BatchError, Lake, ModelPlan, plan_gold};
use crate::config::Pipeline;
use crate::event::EVENT_TIME_COLUMN;

/// Rows a second where no run has been measured yet.
const ROWS_PER_SECOND: f64 = 500_000.0;

/// An event-hour that the next run touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HourPlan {
    /// `YYYY-MM-DDTHH`, UTC.
    pub hour: String,
    /// Rows that are new to it, before rules and duplicates.
    pub rows_new: u64,
    /// Rows that silver has of it, which are read again.
    pub rows_held: u64,
}

/// What the next run of silver would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SilverPlan {
    pub pipeline: String,
    /// The newest version of Bronze; none where there is no table yet.
    pub bronze_version: Option<u64>,
    pub silver: Decision,
    pub refused: Decision,
    pub hours: Vec<HourPlan>,
    /// Files of Bronze and of silver that are read.
    pub files: usize,
    /// Their length.
    pub bytes: u64,
    /// Rows that are read.
    pub rows: u64,
    /// How long the run takes, by the pace of the last one.
    pub seconds_estimated: f64,
    /// What gold does then.
    pub gold: Vec<ModelPlan>,
}

/// Plans the next run of a pipeline's silver. Reads the new files' event times and nothing else of them.
pub async fn plan_silver(
    lake: &Lake,
    pipeline: &Pipeline,
    quarantine: &[Quarantine],
) -> Result<SilverPlan, BatchError> {
    let definitions = Definitions::new(pipeline, quarantine);
    let Some(work) = Work::look(lake, pipeline, &definitions).await? else {
        return Ok(SilverPlan {
            pipeline: pipeline.name.clone(),
            bronze_version: None,
            silver: Decision::nothing_to_read(),
            refused: Decision::nothing_to_read(),
            hours: Vec::new(),
            files: 0,
            bytes: 0,
            rows: 0,
            seconds_estimated: 0.0,
            gold: Vec::new(),
        });
    };
    let mut new: BTreeMap<Hour, u64> = BTreeMap::new();
    let columns = silver_schema(pipeline);
    let wanted = [EVENT_TIME_COLUMN, "time_status"];
    let fields: Vec<_> = wanted.iter().filter_map(|name| columns.field_with_name(name).ok().cloned()).collect();
    let wanted = std::sync::Arc::new(Schema::new(fields));
    let mut rows = 0;
    for file in work.files.iter().filter(|f| f.for_silver) {
        let open = file.file.open().await?;
        rows += open.rows as u64;
        let mut batches = open.batches(&wanted, None)?;
        while let Some(batch) = batches.try_next().await? {
            let wrong = || unreadable(&file.file.path, "it has no event times or verdicts");
            let times = batch.column(0).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?;
            let status = batch.column(1).as_string_opt::<i32>().ok_or_else(wrong)?;
            for row in (0..batch.num_rows()).filter(|row| times.is_valid(*row)) {
                if matches!(status.value(row), "ok" | "late") {
                    *new.entry(Hour::of_micros(times.value(row))).or_default() += 1;
                }
            }
        }
    }
    let held = work.held(|hour| new.contains_key(&hour))?;
    let mut held_rows: BTreeMap<Hour, u64> = BTreeMap::new();
    held.iter().for_each(|(hour, file)| *held_rows.entry(*hour).or_default() += file.rows);
    let rows = rows + held_rows.values().sum::<u64>();
    let bytes = work.files.iter().map(|f| f.file.size).sum::<u64>() + held.iter().map(|(_, f)| f.size).sum::<u64>();
    let dates = new.keys().map(|hour| hour.date()).collect();
    let gold = plan_gold(lake, pipeline, &dates, work.silver_course.course == Course::FromScratch).await?;
    let hours = new.into_iter().map(|(hour, rows_new)| HourPlan {
        hour: hour.to_string(),
        rows_new,
        rows_held: held_rows.get(&hour).copied().unwrap_or_default(),
    });
    Ok(SilverPlan {
        pipeline: pipeline.name.clone(),
        bronze_version: Some(work.bronze.facts.version),
        hours: hours.collect(),
        files: work.files.len() + held.len(),
        bytes,
        rows,
        seconds_estimated: Duration::from_secs_f64(rows as f64 / pace(&work).await).as_secs_f64(),
        gold,
        silver: work.silver_course,
        refused: work.refused_course,
    })
}

/// Rows a second of silver's last run.
async fn pace(work: &Work) -> f64 {
    let Some(found) = &work.silver.found else { return ROWS_PER_SECOND };
    let entry = work.silver.store.read_commit_entry(found.version).await.ok().flatten().unwrap_or_default();
    let info = entry.split(|b| *b == b'\n').find_map(|line| {
        let line: Value = serde_json::from_slice(line).ok()?;
        line.get("commitInfo").map(|info| info["operationParameters"].clone())
    });
    let info = info.unwrap_or_default();
    match (info["rowsRead"].as_u64(), info["elapsedMs"].as_u64()) {
        // A small run says more about its start than about its pace.
        (Some(rows), Some(ms)) if rows >= 100_000 && ms > 0 => rows as f64 * 1000.0 / ms as f64,
        _ => ROWS_PER_SECOND,
    }
}
