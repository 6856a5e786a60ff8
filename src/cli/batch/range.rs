//! What a backfill of a range of dates would do, as the tables' own logs say: no data is read for it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use chrono::{DateTime, NaiveDate};
use serde::Serialize;
use serde_json::Value;

use crate::batch::hour::Hour;
use crate::batch::upkeep::retention::bronze_horizon;
use crate::batch::{Lake, Layer, ModelPlan, partition_date, plan_gold, refused_table};
use crate::bronze::PARTITION_COLUMN;
use crate::config::Pipeline;
use crate::event::EVENT_TIME_COLUMN;

/// Rows that a second judges, about.
const ROWS_PER_SECOND: f64 = 500_000.0;
/// What a date costs besides: it is planned and committed by itself.
const SECONDS_PER_DATE: f64 = 0.3;
/// Dates that one backfill goes through at most: ten years.
const DATES_MAX: i64 = 3_660;

/// What a backfill would do.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RangePlan {
    pub pipeline: String,
    pub from: NaiveDate,
    /// Included.
    pub to: NaiveDate,
    pub dates: usize,
    /// Why it would be refused; none where it would not.
    pub obstacle: Option<String>,
    /// Hours of the range that silver has, and what of them is replaced.
    pub hours: Vec<RangeHour>,
    /// Refused rows that were taken from Kafka on the dates of the range, which are made again, too: they may have no event
    /// date.
    pub refused_rows: u64,
    /// Files of Bronze that may hold events of the range. A file that holds several dates is read for each.
    pub bronze_files: usize,
    pub bronze_bytes: u64,
    pub bronze_rows: u64,
    pub seconds_estimated: f64,
    /// What gold does then.
    pub gold: Vec<ModelPlan>,
}

/// An hour of silver.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RangeHour {
    /// `YYYY-MM-DDTHH`, UTC.
    pub hour: String,
    pub files: usize,
    pub bytes: u64,
    pub rows: u64,
}

impl RangePlan {
    /// Rows and files of silver that are replaced.
    pub fn replaced(&self) -> (u64, usize) {
        (self.hours.iter().map(|h| h.rows).sum(), self.hours.iter().map(|h| h.files).sum())
    }
}

/// The dates of a range, or why it is none.
pub(crate) fn checked(from: NaiveDate, to: NaiveDate) -> anyhow::Result<(NaiveDate, NaiveDate)> {
    if from > to {
        bail!("the first date {from} is after the last date {to}");
    }
    if (to - from).num_days() >= DATES_MAX {
        bail!("{from} to {to} are more than {DATES_MAX} dates; do it in several backfills");
    }
    Ok((from, to))
}

/// Plans the dates `from` to `to`, both included.
pub(crate) async fn plan_range(
    lake: &Lake,
    pipeline: &Pipeline,
    from: NaiveDate,
    to: NaiveDate,
) -> anyhow::Result<RangePlan> {
    let (from, to) = checked(from, to)?;
    let dates: BTreeSet<NaiveDate> = from.iter_days().take_while(|date| *date <= to).collect();
    let mut plan = RangePlan {
        pipeline: pipeline.name.clone(),
        from,
        to,
        dates: dates.len(),
        obstacle: None,
        hours: Vec::new(),
        refused_rows: 0,
        bronze_files: 0,
        bronze_bytes: 0,
        bronze_rows: 0,
        seconds_estimated: 0.0,
        gold: Vec::new(),
    };
    let silver = lake.open(Layer::Silver, &pipeline.name).await?;
    let (Some(silver), Some(bronze)) = (silver, lake.open(Layer::Bronze, &pipeline.name).await?) else {
        plan.obstacle = Some("there is no silver table yet: a batch run makes it".to_owned());
        return Ok(plan);
    };
    if let Some(since) = bronze_horizon(lake, &pipeline.name).await?
        && from <= since
    {
        plan.obstacle = Some(format!(
            "Bronze has no date up to {since} whole any more, by retention.bronze: begin with a later date"
        ));
    }
    let mut hours: BTreeMap<Hour, RangeHour> = BTreeMap::new();
    for file in silver.snapshot()?.log_data().iter() {
        let values = file.partition_values_map().into_iter().collect();
        let Some(hour) = Hour::of_partition(&values).filter(|hour| dates.contains(&hour.date())) else { continue };
        let empty = || RangeHour { hour: hour.to_string(), files: 0, bytes: 0, rows: 0 };
        let of_hour = hours.entry(hour).or_insert_with(empty);
        of_hour.files += 1;
        of_hour.bytes += file.size() as u64;
        of_hour.rows += file.num_records().unwrap_or_default() as u64;
    }
    plan.hours = hours.into_values().collect();
    if let Some(refused) = lake.open(Layer::Silver, &refused_table(&pipeline.name)).await? {
        for file in refused.snapshot()?.log_data().iter() {
            let taken = partition_date(file.partition_values_map().get(PARTITION_COLUMN));
            if taken.is_some_and(|date| dates.contains(&date)) {
                plan.refused_rows += file.num_records().unwrap_or_default() as u64;
            }
        }
    }
    let mut rows_read = 0;
    for file in bronze.snapshot()?.log_data().iter() {
        let read_for = match event_dates(file.stats().as_deref()) {
            Some((first, last)) => dates.range(first..=last.max(first)).count() as u64,
            // Without statistics it may hold any of them.
            None => dates.len() as u64,
        };
        if read_for == 0 {
            continue;
        }
        let rows = file.num_records().unwrap_or_default() as u64;
        plan.bronze_files += 1;
        plan.bronze_bytes += file.size() as u64;
        plan.bronze_rows += rows;
        rows_read += rows * read_for;
    }
    plan.seconds_estimated = rows_read as f64 / ROWS_PER_SECOND + plan.dates as f64 * SECONDS_PER_DATE;
    plan.gold = plan_gold(lake, pipeline, &dates, false).await?;
    Ok(plan)
}

/// The dates of a file's earliest and latest event, by its statistics.
fn event_dates(stats: Option<&str>) -> Option<(NaiveDate, NaiveDate)> {
    let stats: Value = serde_json::from_str(stats?).ok()?;
    let date = |bound: &str| {
        let at = stats.get(bound)?.get(EVENT_TIME_COLUMN)?.as_str()?;
        Some(DateTime::parse_from_rfc3339(at).ok()?.to_utc().date_naive())
    };
    Some((date("minValues")?, date("maxValues")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_say_which_dates_a_file_holds() {
        let stats = r#"{"minValues":{"event_time":"2026-02-05T23:59:59.000Z"},"maxValues":{"event_time":"2026-02-06T00:10:00.000Z"}}"#;
        let date = |day| NaiveDate::from_ymd_opt(2026, 2, day).unwrap();
        assert_eq!(event_dates(Some(stats)), Some((date(5), date(6))));
        assert_eq!(event_dates(Some("{}")), None);
        assert_eq!(event_dates(None), None);
    }

    #[test]
    fn a_range_has_its_ends_in_order_and_an_end() {
        let date = |year| NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
        assert!(checked(date(2026), date(2026)).is_ok());
        assert!(checked(date(2027), date(2026)).is_err());
        assert!(checked(date(1971), date(2026)).is_err());
    }
}
