//! How the windows of one aggregate of one partition come back: from ClickHouse where its rows are exactly the state at
//! a position (the fast way), else by counting Bronze again (the sure way).

use std::ops::Range;
use std::sync::Arc;

use super::combination::Combination;
use super::flush::{Claim, FlushCells, PositionRow};
use super::plan::AggregatePlan;
use super::state::{FoldError, WindowState};
use super::tally::{MissingCodes, Rows};
use crate::event::Codes;

/// Where the consumer stands: at Bronze's position, with Bronze's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub next_offset: i64,
    /// Greatest accepted event time below `next_offset`, microseconds since the epoch.
    pub mark: Option<i64>,
}

/// A cell as ClickHouse has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedCell {
    /// Microseconds since the epoch.
    pub window_start: i64,
    pub combination: Combination,
    pub count: u64,
    pub version: i64,
}

/// What ClickHouse has of one aggregate of one partition.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The identity of the table of cells, as it was before the rest was read. Each table that is made gets one of its
    /// own, so that a position of a table that was dropped since vouches for nothing.
    pub table: Arc<str>,
    /// The newest row of `realtime.positions` that was seen; any row ever written is correct.
    pub position: Option<PositionRow>,
    /// The cells of windows that `position` calls open.
    pub cells: Vec<LoadedCell>,
    /// Positions at which a flush was begun, whether or not it came to its end.
    pub intents: Vec<Claim>,
}

impl Loaded {
    /// Rows whose records Bronze does not have yet. Each must be checked against the log before its partition is
    /// consumed: where the log ends below `next_offset`, or has another record at `last.offset`, the broker has lost
    /// records that were already counted.
    pub fn claims_above(&self, next_offset: i64) -> Vec<Claim> {
        let position = self.position.as_ref().map(|p| Claim { next_offset: p.next_offset, last: p.last });
        position.into_iter().chain(self.intents.iter().copied()).filter(|c| c.next_offset > next_offset).collect()
    }
}

/// Which way a state came back, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// From ClickHouse's cells.
    Fast,
    /// By counting Bronze again, because of this.
    Sure(WhySure),
}

/// Why ClickHouse's cells could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhySure {
    #[error("ClickHouse has no position of this definition")]
    NoPosition,
    #[error("the table of totals was made anew since its last position")]
    AnotherTable,
    #[error("a cell has version {version}, above the position {position}: a flush did not come to its end")]
    CellAhead { version: i64, position: i64 },
    #[error("{cells} open cells with a count of {count} are there, {open_cells} with {open_count} are expected")]
    CellsDiffer { cells: u64, count: u64, open_cells: u64, open_count: u64 },
}

/// Bronze rows that a rebuild needs; rows beyond these may be handed over too and are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsWanted {
    /// Kafka offsets of the partition.
    pub offsets: Range<i64>,
    /// Only rows with an event time at or after this instant, microseconds; none for all.
    pub event_time_from: Option<i64>,
}

/// Bronze's `ok` rows of one partition: a chunk of them, by offset.
#[derive(Debug, Clone, Default)]
pub struct OkRows {
    pub offsets: Vec<i64>,
    /// Microseconds since the epoch.
    pub event_time: Vec<i64>,
    /// By field of the pipeline: the values of at least [`AggregatePlan::fields`]; [`Codes::NONE`] for a null.
    pub codes: Vec<Option<Codes>>,
}

/// A state that is being rebuilt from Bronze's rows.
#[derive(Debug)]
pub struct Rebuild {
    pub(super) state: WindowState,
    way: Way,
    at: Standing,
    pub(super) wanted: Range<i64>,
    /// Windows that end at or before it are left out.
    pub(super) horizon: Option<i64>,
    /// Windows that start at or after it are left out of this pass over the rows, for want of memory.
    until: Option<i64>,
}

impl Rebuild {
    /// Decides how to come back at `at`, given what ClickHouse has. `keep_from`: windows that end at or before it are
    /// beyond ClickHouse's retention.
    pub fn new(plan: Arc<AggregatePlan>, at: Standing, loaded: Loaded, keep_from: Option<i64>) -> Self {
        let Loaded { table, position, cells, .. } = loaded;
        let another = position.as_ref().is_some_and(|known| known.table != table);
        let position = position.filter(|_| !another);
        let why = match &position {
            None if another => WhySure::AnotherTable,
            None => WhySure::NoPosition,
            Some(known) => match differs(known, &cells) {
                None => return Self::fast(plan, at, known, cells),
                Some(why) => why,
            },
        };
        let horizon = match &position {
            None => None,
            // Bronze may be behind ClickHouse: what ClickHouse calls closed can still grow from Bronze's view.
            Some(known) => match (known.closed_horizon, plan.closed_horizon(at.mark)) {
                (Some(theirs), Some(ours)) => Some(theirs.min(ours)),
                _ => None,
            },
        };
        let floor = position.map_or(at.next_offset, |p| p.next_offset.max(at.next_offset));
        Self {
            state: WindowState::new(plan, table, at.next_offset, at.mark, floor),
            way: Way::Sure(why),
            at,
            wanted: 0..at.next_offset,
            horizon: horizon.max(keep_from),
            until: None,
        }
    }

    /// Counts everything that Bronze has, whatever ClickHouse has: what a recount compares with.
    pub fn recount(plan: Arc<AggregatePlan>, at: Standing) -> Self {
        Self::new(plan, at, Loaded::default(), None)
    }

    fn fast(plan: Arc<AggregatePlan>, at: Standing, known: &PositionRow, cells: Vec<LoadedCell>) -> Self {
        let reached = known.next_offset.max(at.next_offset);
        let mut state = WindowState::new(plan, known.table.clone(), at.next_offset, at.mark, reached);
        state.count_from = reached;
        if known.next_offset == at.next_offset {
            state.last = known.last;
        }
        for cell in cells {
            state.restore(cell.window_start, cell.combination, cell.count);
        }
        Self { state, way: Way::Fast, at, wanted: known.next_offset..at.next_offset, horizon: None, until: None }
    }

    pub fn way(&self) -> &Way {
        &self.way
    }

    pub fn plan(&self) -> &Arc<AggregatePlan> {
        self.state.plan()
    }

    /// Bytes held so far, nearly.
    pub fn memory(&self) -> usize {
        self.state.memory()
    }

    /// The rows that are needed; none when the state is complete already.
    pub fn wanted(&self) -> Option<RowsWanted> {
        (!self.wanted.is_empty()).then(|| RowsWanted {
            offsets: self.wanted.clone(),
            // A window that ends after the horizon holds no event before its own start.
            event_time_from: self.horizon.map(|h| self.state.plan().window_start(h)),
        })
    }

    /// Counts a chunk of Bronze's `ok` rows. Chunks come by offset: the cap keeps combinations first come.
    pub fn fold_rows(&mut self, rows: &OkRows) -> Result<(), MissingCodes> {
        let from = rows.offsets.partition_point(|o| *o < self.wanted.start);
        let to = rows.offsets.partition_point(|o| *o < self.wanted.end);
        if from >= to {
            return Ok(());
        }
        // Rows that came before are not counted again, should a reader hand one over twice.
        self.wanted.start = rows.offsets[to - 1] + 1;
        let columns = Rows { event_time: &rows.event_time, verdicts: None, codes: &rows.codes };
        self.state.count(columns, from..to, self.horizon, self.until)
    }

    /// Makes room where this rebuild holds more than `bytes_max`: the latest windows are forgotten and left to a further
    /// pass over the rows, see [`Rebuild::spill`]. Only totals that may be written at once can make room.
    pub fn shed(&mut self, bytes_max: usize) {
        let may_write = self.state.floor <= self.at.next_offset && matches!(self.way, Way::Sure(_));
        if may_write && self.state.memory() > bytes_max {
            // To the half, so that this is seldom. Windows kept from earlier passes stay.
            let kept_from_before = self.horizon.map_or(i64::MIN, |h| h - self.state.plan().window + 1);
            self.until = self.state.forget_latest(bytes_max / 2, kept_from_before).or(self.until);
        }
    }

    /// The rows are at their end. Where windows were left out of this pass: the totals that must be written, without a
    /// position, and then be told with [`Rebuild::spilled`], before the rows are asked for again.
    pub fn spill(&mut self) -> Option<FlushCells> {
        if self.until.is_some() {
            return self.state.snapshot(false);
        }
        self.wanted = self.at.next_offset..self.at.next_offset;
        None
    }

    /// A spill is in ClickHouse: closed windows make room for the next pass.
    pub fn spilled(&mut self, cells: &FlushCells) {
        self.state.written(cells);
        if let Some(until) = self.until.take() {
            self.horizon = Some(until);
            self.wanted = 0..self.at.next_offset;
        }
    }

    /// All rows that were wanted have been counted: the state is that of `at`.
    pub fn finish(self) -> WindowState {
        self.state
    }

    /// Where the state stands once it is finished.
    pub fn at(&self) -> Standing {
        self.at
    }
}

impl WindowState {
    /// Goes on to a later position of Bronze by counting the rows in between: for a state that was rebuilt while the
    /// consumer went on.
    pub fn catch_up(mut self, at: Standing) -> Result<Rebuild, FoldError> {
        if at.next_offset < self.position {
            return Err(FoldError::Gap {
                aggregate: self.plan().name.clone(),
                position: self.position,
                from: at.next_offset,
            });
        }
        let wanted = self.position.max(self.count_from)..at.next_offset;
        if at.next_offset > self.position {
            self.last = None;
        }
        self.position = at.next_offset;
        self.mark = at.mark;
        Ok(Rebuild { state: self, way: Way::Fast, at, wanted, horizon: None, until: None })
    }
}

/// Whether cells are not exactly what a position says of them. They are not when a flush stopped half way, when a
/// zombie wrote since, or when a replica lags.
fn differs(known: &PositionRow, cells: &[LoadedCell]) -> Option<WhySure> {
    if let Some(ahead) = cells.iter().find(|c| c.version > known.next_offset) {
        return Some(WhySure::CellAhead { version: ahead.version, position: known.next_offset });
    }
    let (number, count) = (cells.len() as u64, cells.iter().map(|c| c.count).sum::<u64>());
    (number != known.open_cells || count != known.open_count).then_some(WhySure::CellsDiffer {
        cells: number,
        count,
        open_cells: known.open_cells,
        open_count: known.open_count,
    })
}
