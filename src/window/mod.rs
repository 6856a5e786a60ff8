//! Event time and tumbling windows: verdicts, watermarks, partial totals. Pure: no I/O, no clock.
//!
//! A partition's windows are a function of its records in offset order, and of nothing else: `F(records below v)`.
//! [`WindowState`] holds that function's value at the consumer's position, [`FlushCells`] is what ClickHouse is given
//! of it, and [`Rebuild`] gets it back after a stop.

mod cluster;
mod combination;
mod complete;
mod flush;
mod partition;
mod plan;
mod recovery;
mod state;
mod tally;
mod verdict;

#[cfg(test)]
pub(crate) mod tests;

pub use cluster::{Cluster, Counter, Rule};
pub use combination::Combination;
pub(crate) use combination::take_value;
pub use complete::{PartitionHorizon, complete_horizon};
pub use flush::{Claim, FlushCell, FlushCells, LastRecord, PositionRow};
pub use partition::{PartitionWindows, Totals};
pub use plan::{AggregatePlan, DIMENSION_BYTES_MAX, Dimension, Filter, OTHER, PlanError, is_identifier};
pub use recovery::{Loaded, LoadedCell, OkRows, Rebuild, RowsWanted, Standing, Way, WhySure};
pub use state::{FoldError, WindowState};
pub use tally::MissingCodes;
pub use verdict::{EventClock, Verdict};
