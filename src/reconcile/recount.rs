//! Windows counted again from Bronze's `ok` rows, by rules written a second time: what the daemon's window room holds
//! must come out the same. Pure.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use crate::window::{AggregatePlan, OTHER};

/// Longest dimension value with a cell of its own, in bytes.
const VALUE_BYTES: usize = 256;

/// A window's start (microseconds since the epoch) and its dimension values.
pub(super) type Cell = (i64, Vec<String>);

/// The counts of one partition under one aggregate. Rows must come in offset order: which combinations find room in a
/// window depends on who comes first.
pub(super) struct Recount<'a> {
    plan: &'a AggregatePlan,
    /// Codes of the dimension values seen, and the values by code.
    codes: HashMap<String, u32>,
    values: Vec<String>,
    /// By window: counts by combination of codes, in the order of their first rows.
    windows: HashMap<i64, Window>,
    combination: Vec<u32>,
}

#[derive(Default)]
struct Window {
    cells: HashMap<Vec<u32>, u64>,
    /// Cells but for the one of everything else.
    kept: usize,
}

impl<'a> Recount<'a> {
    pub fn new(plan: &'a AggregatePlan) -> Self {
        let mut recount =
            Self { plan, codes: HashMap::new(), values: Vec::new(), windows: HashMap::new(), combination: Vec::new() };
        recount.code(OTHER);
        recount
    }

    fn code(&mut self, value: &str) -> u32 {
        if value.len() > VALUE_BYTES {
            return 0;
        }
        match self.codes.get(value) {
            Some(code) => *code,
            None => {
                let code = self.values.len() as u32;
                self.codes.insert(value.to_string(), code);
                self.values.push(value.to_string());
                code
            }
        }
    }

    /// Counts the `ok` rows of a batch; none where it lacks a column.
    pub fn add(&mut self, batch: &RecordBatch) -> Option<()> {
        let status = batch.column_by_name("time_status")?.as_string_opt::<i32>()?;
        let times = batch.column_by_name("event_time")?.as_primitive_opt::<TimestampMicrosecondType>()?;
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
        let plan = self.plan;
        let mut filters = Vec::new();
        for filter in &plan.filters {
            filters.push((text(&filter.name)?, &filter.values));
        }
        let mut dimensions = Vec::new();
        for dimension in &plan.dimensions {
            dimensions.push(text(&dimension.name)?);
        }
        for row in 0..batch.num_rows() {
            let passes = status.value(row) == "ok"
                && filters
                    .iter()
                    .all(|(column, values)| column.is_valid(row) && values.iter().any(|v| v == column.value(row)));
            if !passes {
                continue;
            }
            let mut combination = std::mem::take(&mut self.combination);
            combination.clear();
            for column in &dimensions {
                // A null counts as the empty text.
                let value = if column.is_valid(row) { column.value(row) } else { "" };
                combination.push(self.code(value));
            }
            self.count(times.value(row).div_euclid(plan.window) * plan.window, &mut combination);
            self.combination = combination;
        }
        Some(())
    }

    fn count(&mut self, start: i64, combination: &mut [u32]) {
        let window = self.windows.entry(start).or_default();
        if combination.contains(&0) {
            combination.fill(0);
        }
        if let Some(count) = window.cells.get_mut(combination as &[u32]) {
            *count += 1;
            return;
        }
        let mut own = !combination.is_empty() && !combination.contains(&0);
        if own && window.kept >= self.plan.combinations_max {
            combination.fill(0);
            own = false;
        }
        window.kept += usize::from(own);
        *window.cells.entry(combination.to_vec()).or_default() += 1;
    }

    /// Adds the counts to totals over partitions.
    pub fn add_to(self, totals: &mut HashMap<Cell, u64>) {
        for (start, window) in self.windows {
            for (combination, count) in window.cells {
                let values = combination.iter().map(|code| self.values[*code as usize].clone()).collect();
                *totals.entry((start, values)).or_default() += count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray};

    use super::*;
    use crate::window::{Dimension, Filter};

    fn plan(combinations_max: usize) -> AggregatePlan {
        AggregatePlan {
            pipeline: "p".into(),
            name: "a".into(),
            measure: "n".into(),
            dimensions: vec![Dimension { name: "page".into(), field: 0 }],
            filters: vec![Filter { name: "kind".into(), field: 1, values: vec!["click".into()] }],
            window: 60_000_000,
            base_window: 60_000_000,
            closing: 0,
            combinations_max,
            retention: None,
            definition: "d".into(),
        }
    }

    /// Verdict, event time in seconds, page, kind.
    type TestRow<'a> = (&'a str, i64, Option<&'a str>, Option<&'a str>);

    fn batch(rows: &[TestRow<'_>]) -> RecordBatch {
        let text = |f: fn(&TestRow<'_>) -> Option<String>| -> ArrayRef {
            Arc::new(rows.iter().map(f).collect::<StringArray>())
        };
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1 * 1_000_000));
        RecordBatch::try_from_iter([
            ("time_status", text(|r| Some(r.0.to_string()))),
            ("event_time", Arc::new(times) as ArrayRef),
            ("page", text(|r| r.2.map(String::from))),
            ("kind", text(|r| r.3.map(String::from))),
        ])
        .unwrap()
    }

    fn counts(plan: &AggregatePlan, batches: &[RecordBatch]) -> Vec<(i64, String, u64)> {
        let mut recount = Recount::new(plan);
        for batch in batches {
            recount.add(batch).unwrap();
        }
        let mut totals = HashMap::new();
        recount.add_to(&mut totals);
        let mut out: Vec<_> =
            totals.into_iter().map(|((start, values), n)| (start / 1_000_000, values.join("|"), n)).collect();
        out.sort();
        out
    }

    #[test]
    fn only_ok_rows_that_pass_the_filter_count() {
        let rows = batch(&[
            ("ok", 0, Some("a"), Some("click")),
            ("ok", 59, Some("a"), Some("click")),
            ("ok", 60, Some("a"), Some("click")),
            ("late", 0, Some("a"), Some("click")),
            ("ok", 0, Some("a"), Some("login")),
            ("ok", 0, Some("a"), None),
            ("ok", 0, None, Some("click")),
            ("ok", -1, Some(""), Some("click")),
        ]);
        let expected = [(-60, "".into(), 1), (0, "".into(), 1), (0, "a".into(), 2), (60, "a".into(), 1)];
        assert_eq!(counts(&plan(1000), &[rows]), expected);
    }

    #[test]
    fn beyond_the_cap_first_come_first_kept() {
        let click = |page: &'static str| ("ok", 0, Some(page), Some("click"));
        let rows = batch(&[click("a"), click("__other__"), click("b"), click("c"), click("a"), click("c")]);
        let expected = [(0, "__other__".into(), 3), (0, "a".into(), 2), (0, "b".into(), 1)];
        assert_eq!(counts(&plan(2), &[rows]), expected);
    }

    #[test]
    fn values_too_long_have_no_cell_of_their_own() {
        let long = "x".repeat(257);
        let rows = batch(&[("ok", 0, Some(&long), Some("click")), ("ok", 0, Some(&long[..256]), Some("click"))]);
        assert_eq!(counts(&plan(10), &[rows]), [(0, "__other__".into(), 1), (0, long[..256].into(), 1)]);
    }
}
