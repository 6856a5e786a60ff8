//! How expectations were met over a time: what is newest of each, and how its checks went stretch by stretch. However many
//! runs there were, no more is read into memory than that.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use chrono::{DateTime, Utc};

use super::super::{BatchError, Lake};
use super::results::{COLUMNS, Kept, KeptResult, at_or_after, rows};

/// The checks of an expectation in one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// When it begins; from there it is as long as all are.
    pub at: DateTime<Utc>,
    pub checks: u64,
    pub broken: u64,
    /// Those of the broken ones that stop what is served.
    pub stopping: u64,
    /// The most rows that broke it in one check.
    pub rows_failed: u64,
}

/// An expectation over a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Over {
    /// Also from before that time, where there was no check in it.
    pub newest: KeptResult,
    /// Oldest first; a stretch without a check is not among them.
    pub stretches: Vec<Stretch>,
    /// The newest run of that time that broke it.
    pub broken_by: Option<String>,
}

/// Every expectation that was checked since a moment, or by one of the newest `runs`; a stretch is so many seconds from a
/// multiple of them since 1970.
pub async fn kept_over(
    lake: &Lake,
    since: DateTime<Utc>,
    stretch_seconds: u32,
    runs: usize,
) -> Result<Vec<Over>, BatchError> {
    let Some(kept) = Kept::open(lake).await? else { return Ok(Vec::new()) };
    let since = at_or_after(since);
    let newest = format!(
        "WITH newest AS (SELECT run_id FROM results GROUP BY run_id ORDER BY max(checked_at) DESC LIMIT {runs}), \
         numbered AS (SELECT *, row_number() OVER (PARTITION BY pipeline, \"table\", name ORDER BY checked_at DESC) AS place \
         FROM results WHERE {since} OR run_id IN (SELECT run_id FROM newest)) \
         SELECT {COLUMNS} FROM numbered WHERE place = 1 ORDER BY pipeline, \"table\", name"
    );
    let length = i64::from(stretch_seconds) * 1_000_000;
    let stretches = format!(
        "SELECT pipeline, \"table\", name, arrow_cast(checked_at, 'Int64') / {length} AS place, count(*) AS checks, \
         count(*) FILTER (WHERE NOT holds) AS broken, count(*) FILTER (WHERE NOT holds AND severity = 'fail') AS stopping, \
         max(rows_failed) AS rows_failed, max(run_id) FILTER (WHERE NOT holds) AS broken_by \
         FROM results WHERE {since} GROUP BY pipeline, \"table\", name, place ORDER BY place"
    );
    let mut over: BTreeMap<[String; 3], (Vec<Stretch>, Option<String>)> = BTreeMap::new();
    for batch in kept.ask(&stretches).await? {
        for (of, stretch, broken_by) in stretches_of(&batch, length) {
            let (stretches, newest) = over.entry(of).or_default();
            stretches.push(stretch);
            // A run's name begins with its moment.
            *newest = newest.take().max(broken_by);
        }
    }
    let newest: Vec<KeptResult> = kept.ask(&newest).await?.iter().flat_map(rows).collect();
    let whole = |newest: KeptResult| {
        let of = [&newest.pipeline, &newest.result.table, &newest.result.name].map(Clone::clone);
        let (stretches, broken_by) = over.remove(&of).unwrap_or_default();
        Over { newest, stretches, broken_by }
    };
    Ok(newest.into_iter().map(whole).collect())
}

/// Of each row: pipeline, table and name of the expectation, its stretch, and the newest run that broke it.
fn stretches_of(batch: &RecordBatch, length: i64) -> Vec<([String; 3], Stretch, Option<String>)> {
    let text = |i: usize, row: usize| batch.column(i).as_string::<i32>().value(row).to_owned();
    let number = |i: usize, row: usize| batch.column(i).as_primitive::<Int64Type>().value(row);
    let count = |i: usize, row: usize| number(i, row).unsigned_abs();
    let one = |row: usize| {
        let at = DateTime::from_timestamp_micros(number(3, row).saturating_mul(length)).unwrap_or_default();
        let (checks, broken, stopping, rows_failed) = (count(4, row), count(5, row), count(6, row), count(7, row));
        let broken_by = batch.column(8).is_valid(row).then(|| text(8, row));
        ([0, 1, 2].map(|i| text(i, row)), Stretch { at, checks, broken, stopping, rows_failed }, broken_by)
    };
    (0..batch.num_rows()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::super::ExpectationResult;
    use super::super::results::{keep, kept_results};
    use super::*;

    fn result(name: &str, rows_failed: u64) -> ExpectationResult {
        ExpectationResult {
            name: name.into(),
            table: "silver.user_events".into(),
            check: "range".into(),
            severity: if name == "must" { "fail" } else { "warn" }.into(),
            holds: rows_failed == 0,
            rows_checked: 100,
            rows_failed,
            detail: format!("{rows_failed} rows"),
        }
    }

    #[tokio::test]
    async fn checks_are_told_stretch_by_stretch_of_the_time_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("lake");
        let lake = Lake::at(uri.to_str().unwrap(), 64 << 20, folder.path().join("spill")).unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let ago = |hours| now - TimeDelta::hours(hours);
        assert_eq!(kept_over(&lake, ago(24), 3_600, 2).await.unwrap(), [], "nothing was checked yet");
        let result_of = |hours: i64| match hours {
            // Long gone: neither of the time nor of the newest runs.
            200 => vec![result("gone", 1)],
            // Of the time, and of no newest run.
            20 => vec![result("once", 7), result("must", 0)],
            10 => vec![result("must", 3)],
            _ => vec![result("must", 0), result("other", 0)],
        };
        for (number, hours) in [200, 100, 20, 10, 10, 1].into_iter().enumerate() {
            // One after the other, each within its hour.
            let at = ago(hours) + TimeDelta::seconds(number as i64);
            keep(&lake, "user_events", &format!("run-{number}"), at, &result_of(hours)).await.unwrap();
        }
        let over = kept_over(&lake, ago(24), 3_600, 1).await.unwrap();
        let names: Vec<&str> = over.iter().map(|of| of.newest.result.name.as_str()).collect();
        assert_eq!(names, ["must", "once", "other"]);
        let stretch = |hours, checks, broken, stopping, rows_failed| Stretch {
            at: ago(hours),
            checks,
            broken,
            stopping,
            rows_failed,
        };
        let must = &over[0];
        assert_eq!(must.stretches, [stretch(20, 1, 0, 0, 0), stretch(10, 2, 2, 2, 3), stretch(1, 1, 0, 0, 0)]);
        assert_eq!((must.newest.run_id.as_str(), must.newest.checked_at), ("run-5", ago(1) + TimeDelta::seconds(5)));
        assert_eq!(must.broken_by.as_deref(), Some("run-4"));
        assert_eq!(over[1].stretches, [stretch(20, 1, 1, 0, 7)], "a warning stops nothing");
        assert_eq!((over[2].stretches.len(), over[2].broken_by.as_deref()), (1, None));
        // Of a time without a check the newest results are told all the same.
        let over = kept_over(&lake, now, 60, 1).await.unwrap();
        assert_eq!(over.iter().map(|of| of.stretches.len()).collect::<Vec<_>>(), [0, 0]);

        let runs = async |runs, since| {
            let mut found: Vec<String> =
                kept_results(&lake, runs, since).await.unwrap().into_iter().map(|kept| kept.run_id).collect();
            found.dedup();
            found
        };
        assert_eq!(runs(2, None).await, ["run-5", "run-4"]);
        assert_eq!(runs(1_000, Some(ago(20))).await, ["run-5", "run-4", "run-3", "run-2"]);
        assert_eq!(runs(1, Some(ago(20))).await, ["run-5"]);
        assert!(runs(1_000, Some(now)).await.is_empty());
    }
}
