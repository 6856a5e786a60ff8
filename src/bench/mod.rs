//! The arithmetic of `boathouse bench`: percentiles, medians, what /proc says, and the report in its three forms. Pure: the
//! processes, the clock and the broker are in `cli/bench`.

mod account;
mod batch;
mod batch_text;
mod plot;
mod procfs;
mod report;
mod sample;
mod stats;
mod text;
mod viewers;

pub use account::{Account, FIGURES};
pub use batch::{BatchLoad, BatchReport, BatchRun, Incremental, TaskSample};
pub use procfs::{ProcessStat, peak_rss_bytes, process_stat, stage};
pub use report::{
    BesideBatch, ConsumeSample, Drains, Load, Machine, RateSample, ReconcileVerdict, Recovery, Report, Verdict,
};
pub use sample::DrainSample;
pub use stats::{LatencyMs, median};
pub use viewers::{BesideConsole, Turn};
