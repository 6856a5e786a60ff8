//! The hourly medallion: bronze → silver → gold in Delta, then gold in ClickHouse.
//!
//! What to recompute is decided by a pure planner from the tables' own logs; progress lives in the tables, so that a run
//! is idempotent and restarts anywhere. The run history is for people.
//!
//! *Architecture invariant*: this room knows nothing of Kafka's consumer, of windows or of actors.

pub mod changes;
mod encoding;
mod entry;
mod error;
mod gold;
mod graph;
pub mod history;
pub mod hour;
mod lake;
pub mod leftover;
pub mod locate;
mod mark;
mod model;
mod opened;
mod output;
pub mod plan;
mod publish;
mod quality;
pub(crate) mod quoting;
pub mod run;
mod scan;
pub mod silver;
pub mod slots;
pub mod target;
mod task;
pub mod tasks;
mod txn;
pub mod upkeep;
pub mod verify;
mod yielding;

pub use error::BatchError;
pub(crate) use gold::partition_date;
pub use gold::{GoldOutcome, ModelOutcome, ModelPlan, Work, plan_gold, run_gold};
pub use graph::{Graph, Node, check as check_models, silver_columns};
pub use lake::{Lake, Layer, refused_table};
pub use model::{ColumnDoc, Header, Kind, Model};
pub use publish::publish_gold;
pub use quality::{
    ExpectationResult, KeptResult, Over, RESULTS, Stretch, check_served, data_quality_checks, kept_over, kept_results,
    quarantine, verdict,
};
pub use silver::run_silver;
pub use task::{LogLine, TaskContext, TaskReport};
