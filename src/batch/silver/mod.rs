//! Bronze → silver: typed, valid, each event once; every refused row kept with its reasons.
//!
//! A run pins Bronze at a version V and reads the files that entered since the version that silver records. It judges
//! their rows ([`judge`]), commits the refused ones to `silver/<pipeline>_refused`, then rewrites the touched
//! event-hours ([`rewrite`]) in one commit of removes, adds and `txn` V. Each of the two tables records for itself how
//! far it has read Bronze, so a run may be cut off anywhere: the next one finds what is missing. [`columns`] says what
//! the tables hold.

mod backfill;
mod columns;
mod duplicates;
mod foresee;
mod gaps;
mod judge;
mod planned;
mod properties;
mod reasons;
mod rewrite;
mod run;
#[cfg(test)]
pub(crate) mod testing;
mod work;

pub use backfill::{Backfilled, backfill_silver, backfill_silver_of};
pub(super) use columns::delta_schema;
pub use columns::{EVENT_DATE, EVENT_HOUR, REASONS};
pub use foresee::RowRules;
pub use gaps::{GapHour, Gaps, gaps_of_silver};
pub use planned::{HourPlan, SilverPlan, plan_silver};
pub(crate) use properties::{properties as file_properties, searchable};
pub use reasons::Quarantine;
pub use run::{SilverOutcome, run_silver, run_silver_with};
pub(crate) use work::Definitions;
