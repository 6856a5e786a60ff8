//! The windows of one aggregate of one partition, in memory.
//!
//! Invariants: every cell is the count of the partition's `ok` records below `position` (or below `count_from`, while
//! the position has not reached it), in windows not yet forgotten; nothing is handed out for writing while the
//! position is below `floor`; a window is forgotten only once its last total and a position behind it are in
//! ClickHouse.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::combination::{Combination, is_overflow_key, write_key, write_overflow_key};
use super::flush::{FlushCell, FlushCells, LastRecord, PositionRow};
use super::plan::AggregatePlan;
use super::tally::{MissingCodes, Rows, Tally};
use crate::event::{Batch, Codes};

/// Why a batch cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Records are missing between the position and the batch: rebuild the state from Bronze.
    #[error(
        "aggregate `{aggregate}` stands at offset {position}, the batch begins at {from}: drop the window state and rebuild it from Bronze"
    )]
    Gap { aggregate: String, position: i64, from: i64 },
    #[error(transparent)]
    Codes(#[from] MissingCodes),
}

#[derive(Debug, Default)]
pub(super) struct Window {
    cells: HashMap<Combination, Cell>,
    /// Cells other than the overflow cell.
    kept: usize,
    /// Whether a cell may have changed since it was written.
    changed: bool,
}

impl Window {
    /// Bytes that its cells take, nearly.
    fn bytes(&self) -> usize {
        self.cells.keys().map(|k| k.as_row_binary().len() + CELL_BYTES).sum()
    }
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    count: u64,
    /// The count that ClickHouse has acknowledged; 0 for none.
    served: u64,
}

/// Bytes that a cell takes besides its combination's, and a window besides its cells: measured generously.
const CELL_BYTES: usize = 80;
const WINDOW_BYTES: usize = 160;

#[derive(Debug)]
pub struct WindowState {
    plan: Arc<AggregatePlan>,
    /// The table that cells are served to, see [`super::Loaded::table`].
    table: Arc<str>,
    /// By window start, microseconds.
    pub(super) windows: BTreeMap<i64, Window>,
    /// Every record below this offset has been seen.
    pub(super) position: i64,
    /// Greatest accepted event time below the position, microseconds.
    pub(super) mark: Option<i64>,
    pub(super) last: Option<LastRecord>,
    /// Records below this offset are in the cells already.
    pub(super) count_from: i64,
    /// ClickHouse holds rows up to this version: nothing is written below it.
    pub(super) floor: i64,
    /// The newest position that ClickHouse has acknowledged from here, and whether it said idle.
    acknowledged: Option<(i64, bool)>,
    cell_bytes: usize,
    tally: Tally,
    key: Vec<u8>,
}

impl WindowState {
    /// An empty state at a position. Recovery fills it: see [`super::Rebuild`].
    pub(super) fn new(plan: Arc<AggregatePlan>, table: Arc<str>, position: i64, mark: Option<i64>, floor: i64) -> Self {
        Self {
            plan,
            table,
            windows: BTreeMap::new(),
            position,
            mark,
            last: None,
            count_from: position,
            floor,
            acknowledged: None,
            cell_bytes: 0,
            tally: Tally::default(),
            key: Vec::new(),
        }
    }

    pub fn plan(&self) -> &Arc<AggregatePlan> {
        &self.plan
    }

    /// The table that its cells are in.
    pub fn table(&self) -> &Arc<str> {
        &self.table
    }

    /// Every record of the partition below this offset has been seen.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Nothing is written while the position is below this offset.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// Windows that end at or before it are final, microseconds since the epoch.
    pub fn closed_horizon(&self) -> Option<i64> {
        self.plan.closed_horizon(self.mark)
    }

    /// Bytes held, nearly.
    pub fn memory(&self) -> usize {
        self.cell_bytes + self.windows.len() * WINDOW_BYTES + self.tally.memory()
    }

    /// Windows held, closed ones that are not yet written included.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Counts a batch's `ok` records and moves the position behind it. A batch that lies below the position is
    /// skipped, so that handing one over twice changes nothing.
    pub fn fold(&mut self, batch: &Batch) -> Result<(), FoldError> {
        if batch.from > self.position {
            return Err(FoldError::Gap {
                aggregate: self.plan.name.clone(),
                position: self.position,
                from: batch.from,
            });
        }
        if batch.next <= self.position {
            return Ok(());
        }
        let offsets = &batch.columns.raw.offsets;
        let first = offsets.partition_point(|o| *o < self.position.max(self.count_from));
        let rows = Rows {
            event_time: &batch.columns.event_time,
            verdicts: Some(&batch.verdicts),
            codes: &batch.columns.codes,
        };
        self.count(rows, first..batch.len(), None, None)?;
        self.position = batch.next;
        self.mark = batch.mark;
        if let Some(row) = batch.len().checked_sub(1) {
            self.last = Some(LastRecord::of(&batch.columns.raw, row));
        }
        Ok(())
    }

    /// Adds rows to their cells, leaving out windows that end at or before `horizon` or start at or after `until`.
    pub(super) fn count(
        &mut self,
        rows: Rows<'_>,
        range: std::ops::Range<usize>,
        horizon: Option<i64>,
        until: Option<i64>,
    ) -> Result<(), MissingCodes> {
        let mut tally = std::mem::take(&mut self.tally);
        let counted = tally.count(&self.plan, rows, range);
        if counted.is_ok() {
            for group in &tally.groups {
                let start = group.window * self.plan.window;
                if horizon.is_none_or(|h| start + self.plan.window > h) && until.is_none_or(|u| start < u) {
                    self.add(start, rows.codes, group.row as usize, group.count);
                }
            }
        }
        self.tally = tally;
        counted
    }

    fn add(&mut self, start: i64, codes: &[Option<Codes>], row: usize, count: u64) {
        let dimensions = &self.plan.dimensions;
        // A null is counted as the empty string, and so is an empty string.
        let values = dimensions.iter().map(|d| {
            codes[d.field].as_ref().map_or("", |c| c.values.get(c.codes[row] as usize).map_or("", String::as_str))
        });
        let window = self.windows.entry(start).or_default();
        window.changed = true;
        let mut overflows = write_key(&mut self.key, values);
        if let Some(cell) = window.cells.get_mut(self.key.as_slice()) {
            cell.count += count;
            return;
        }
        if !overflows && !dimensions.is_empty() && window.kept >= self.plan.combinations_max {
            write_overflow_key(&mut self.key, dimensions.len());
            overflows = true;
            if let Some(cell) = window.cells.get_mut(self.key.as_slice()) {
                cell.count += count;
                return;
            }
        }
        window.kept += usize::from(!overflows);
        window.cells.insert(Combination::from_key(&self.key), Cell { count, served: 0 });
        self.cell_bytes += self.key.len() + CELL_BYTES;
    }

    /// Puts a cell in place that ClickHouse has already.
    pub(super) fn restore(&mut self, window_start: i64, combination: Combination, count: u64) {
        let window = self.windows.entry(window_start).or_default();
        window.kept += usize::from(!is_overflow_key(combination.as_row_binary()));
        self.cell_bytes += combination.as_row_binary().len() + CELL_BYTES;
        window.cells.insert(combination, Cell { count, served: count });
    }

    /// What is to be written now: changed cells, and the position that they make true. None below the floor, and where
    /// nothing has changed since the last acknowledged flush. `idle`: the partition has had nothing new for a while.
    pub fn snapshot(&self, idle: bool) -> Option<FlushCells> {
        let unchanged =
            || self.acknowledged == Some((self.position, idle)) && !self.windows.values().any(|w| w.changed);
        if self.position < self.floor || unchanged() {
            return None;
        }
        let horizon = self.closed_horizon();
        let (mut cells, mut open_cells, mut open_count) = (Vec::new(), 0, 0);
        for (&window_start, window) in &self.windows {
            if horizon.is_none_or(|h| window_start + self.plan.window > h) {
                open_cells += window.cells.len() as u64;
                open_count += window.cells.values().map(|c| c.count).sum::<u64>();
            }
            if window.changed {
                let changed = window.cells.iter().filter(|(_, cell)| cell.count != cell.served);
                cells.extend(changed.map(|(combination, cell)| FlushCell {
                    window_start,
                    combination: combination.clone(),
                    count: cell.count,
                }));
            }
        }
        let position = PositionRow {
            next_offset: self.position,
            closed_horizon: horizon,
            open_cells,
            open_count,
            last: self.last,
            idle,
            table: self.table.clone(),
        };
        Some(FlushCells { position, cells })
    }

    /// A snapshot is in ClickHouse, its position included: cells that have not changed since are clean, and windows
    /// that were closed in it are forgotten.
    pub fn acknowledge(&mut self, flushed: &FlushCells) {
        self.written(flushed);
        let position = &flushed.position;
        if self.acknowledged.is_none_or(|(v, _)| v <= position.next_offset) {
            self.acknowledged = Some((position.next_offset, position.idle));
        }
    }

    /// The cells of a snapshot are in ClickHouse.
    pub(super) fn written(&mut self, flushed: &FlushCells) {
        for cell in &flushed.cells {
            if let Some(window) = self.windows.get_mut(&cell.window_start)
                && let Some(held) = window.cells.get_mut(cell.combination.as_row_binary())
            {
                // A count never falls, so the same count means that nothing was added.
                held.served = held.served.max(cell.count);
            }
        }
        let horizon = flushed.position.closed_horizon;
        let window_length = self.plan.window;
        let mut freed = 0;
        self.windows.retain(|start, window| {
            window.changed = window.cells.values().any(|c| c.count != c.served);
            let closed = horizon.is_some_and(|h| start + window_length <= h) && !window.changed;
            if closed {
                freed += window.bytes();
            }
            !closed
        });
        self.cell_bytes -= freed;
    }

    /// Forgets the latest windows that start after `after`, but for one, until no more than `bytes_max` is held.
    /// Returns the start of the earliest that was forgotten.
    pub(super) fn forget_latest(&mut self, bytes_max: usize, after: i64) -> Option<i64> {
        let mut earliest = None;
        let mut droppable = self.windows.range(after..).count();
        while self.memory() > bytes_max && droppable > 1 {
            let (start, window) = self.windows.pop_last()?;
            self.cell_bytes -= window.bytes();
            earliest = Some(start);
            droppable -= 1;
        }
        earliest
    }

    /// Every cell held: (window start in microseconds, combination, count), by window.
    pub fn totals(&self) -> impl Iterator<Item = (i64, &Combination, u64)> {
        self.windows
            .iter()
            .flat_map(|(start, window)| window.cells.iter().map(move |(combination, c)| (*start, combination, c.count)))
    }
}
