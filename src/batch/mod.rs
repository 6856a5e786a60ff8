//! The hourly medallion: bronze → silver → gold in Delta, then gold in ClickHouse.
//!
//! What to recompute is decided by a pure planner from the tables' own logs; progress lives in the tables, so that a run
//! is idempotent and restarts anywhere. The run history is for people.
//!
//! *Architecture invariant*: this room knows nothing of Kafka's consumer, of windows or of actors.

pub mod changes;
mod error;
pub mod history;
pub mod hour;
mod lake;
mod output;
pub mod plan;
pub mod run;
mod scan;
pub mod silver;
pub mod slots;
pub mod target;
mod task;
pub mod upkeep;

pub use error::BatchError;
pub use lake::{Lake, Layer, refused_table};
pub use silver::run_silver;
pub use task::{LogLine, TaskContext, TaskReport};
