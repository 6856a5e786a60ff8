//! Counting a batch: one pass over its columns gives a short list of (window, combination, count).

use std::collections::HashMap;

use super::plan::AggregatePlan;
use super::verdict::Verdict;
use crate::event::Codes;

/// Columns of rows in offset order, as both a live batch and Bronze have them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// Microseconds since the epoch.
    pub event_time: &'a [i64],
    /// One per row; none where all rows are `ok`.
    pub verdicts: Option<&'a [Verdict]>,
    /// By field of the pipeline.
    pub codes: &'a [Option<Codes>],
}

/// A field that an aggregate needs came without codes: the decoder and the aggregate disagree about the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the batch holds no codes for field number {field}, which aggregate `{aggregate}` needs: restart the pipeline, so that its decoder is built from the same configuration"
)]
pub struct MissingCodes {
    pub aggregate: String,
    pub field: usize,
}

/// Rows of one window with the same dimension values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Number of the window: event time divided by its length.
    pub window: i64,
    combination: u64,
    /// The first of the rows; their dimension values can be read there.
    pub row: u32,
    pub count: u64,
}

/// The list, and the buffers that are kept from one batch to the next.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// In order of each group's first row.
    pub groups: Vec<Group>,
    /// Open addressing: index into `groups` + 1, or 0. A power of two, at least twice the number of groups.
    slots: Vec<u32>,
    combined: Vec<u64>,
}

/// Golden-ratio multiplication: consecutive windows and codes end up in different slots.
fn slot(window: i64, combination: u64, mask: usize) -> usize {
    let mixed = (window as u64 ^ combination.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize & mask
}

impl Tally {
    pub fn memory(&self) -> usize {
        self.groups.capacity() * size_of::<Group>() + self.slots.capacity() * 4 + self.combined.capacity() * 8
    }

    /// Counts the rows `range` that pass the plan's filters. The result is in `groups`.
    pub fn count(
        &mut self,
        plan: &AggregatePlan,
        rows: Rows<'_>,
        range: std::ops::Range<usize>,
    ) -> Result<(), MissingCodes> {
        self.groups.clear();
        self.slots.clear();
        self.slots.resize(64, 0);
        let codes = |field: usize| {
            rows.codes
                .get(field)
                .and_then(Option::as_ref)
                .ok_or_else(|| MissingCodes { aggregate: plan.name.clone(), field })
        };
        let mut allowed: Vec<(&[u32], Vec<bool>)> = Vec::with_capacity(plan.filters.len());
        for filter in &plan.filters {
            let column = codes(filter.field)?;
            let passes = column.values.iter().map(|v| filter.values.binary_search(v).is_ok()).collect();
            allowed.push((&column.codes, passes));
        }
        let passes = |row: usize| {
            rows.verdicts.is_none_or(|v| v[row] == Verdict::Ok)
                && allowed.iter().all(|(codes, passes)| passes.get(codes[row] as usize) == Some(&true))
        };
        match plan.dimensions.as_slice() {
            [] => self.pass(plan.window, rows.event_time, range, passes, |_| 0),
            [one] => {
                let column = &codes(one.field)?.codes;
                self.pass(plan.window, rows.event_time, range, passes, |row| u64::from(column[row]));
            }
            several => {
                let columns: Vec<&Codes> = several.iter().map(|d| codes(d.field)).collect::<Result<_, _>>()?;
                let mut combined = std::mem::take(&mut self.combined);
                combine(&columns, range.end, &mut combined);
                self.pass(plan.window, rows.event_time, range, passes, |row| combined[row]);
                self.combined = combined;
            }
        }
        Ok(())
    }

    fn pass(
        &mut self,
        window: i64,
        event_time: &[i64],
        range: std::ops::Range<usize>,
        passes: impl Fn(usize) -> bool,
        combination: impl Fn(usize) -> u64,
    ) {
        // The window of the row before: consecutive events are mostly in the same one, and a division costs more.
        let (mut number, mut start) = (0i64, 0i64);
        for row in range {
            if !passes(row) {
                continue;
            }
            let time = event_time[row];
            if (time.wrapping_sub(start) as u64) >= window as u64 {
                number = time.div_euclid(window);
                start = number * window;
            }
            self.add(number, combination(row), row as u32);
        }
    }

    fn add(&mut self, window: i64, combination: u64, row: u32) {
        let mask = self.slots.len() - 1;
        let mut at = slot(window, combination, mask);
        loop {
            match self.slots[at] {
                0 => break,
                index => {
                    let group = &mut self.groups[index as usize - 1];
                    if group.window == window && group.combination == combination {
                        group.count += 1;
                        return;
                    }
                }
            }
            at = (at + 1) & mask;
        }
        self.groups.push(Group { window, combination, row, count: 1 });
        self.slots[at] = self.groups.len() as u32;
        if self.groups.len() * 2 > self.slots.len() {
            self.grow();
        }
    }

    fn grow(&mut self) {
        let size = self.slots.len() * 4;
        self.slots.clear();
        self.slots.resize(size, 0);
        for (index, group) in self.groups.iter().enumerate() {
            let mut at = slot(group.window, group.combination, size - 1);
            while self.slots[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = index as u32 + 1;
        }
    }
}

/// One number per row that is equal for two rows exactly if all their codes are equal.
fn combine(columns: &[&Codes], rows: usize, combined: &mut Vec<u64>) {
    combined.clear();
    combined.resize(rows, 0);
    let mut size = 1u64;
    for column in columns {
        // One number more than there are values, for nulls.
        let values = column.values.len() as u64 + 1;
        if size.checked_mul(values).is_none() {
            size = compact(combined);
        }
        for (number, code) in combined.iter_mut().zip(&column.codes) {
            *number = *number * values + u64::from(*code).min(values - 1);
        }
        size = size.saturating_mul(values);
    }
}

/// Renumbers from 0 in order of appearance; returns how many numbers there are.
fn compact(combined: &mut [u64]) -> u64 {
    let mut numbers = HashMap::new();
    for number in combined {
        let next = numbers.len() as u64;
        *number = *numbers.entry(*number).or_insert(next);
    }
    numbers.len().max(1) as u64
}
