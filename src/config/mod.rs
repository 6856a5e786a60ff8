//! Typed, validated configuration. Nothing else reads configuration files or the environment.

mod check;
pub mod docs;
mod env;
mod error;
mod expectation;
mod load;
mod pipeline;
mod places;
mod schedule;
mod server;
mod shape;
mod tree;
pub mod units;
mod validate;

pub use error::{ConfigError, ConfigErrors, Origin};
pub use expectation::{Check, Expectation, Severity};
pub use load::{DEFAULT_PATHS, Loaded, Setting, process_env, state_dir};

pub use pipeline::{
    Aggregate, AllowedValue, BadRecords, BronzeSettings, Field, FieldType, KeepPayload, ModelFile, Pipeline,
    RealtimeSettings, Retention, Role, StartAt, TimeSettings,
};
pub use schedule::{CatchUp, DatabaseUrl, History, Schedule};
pub use server::{
    Batch, ClickHouse, Console, Kafka, Lakehouse, Log, LogFormat, Memory, Metrics, Pipelines, Reconcile, Secret,
    Server, Shutdown, Upkeep,
};

pub use validate::BRONZE_COLUMNS;

use std::sync::Arc;

/// Everything a daemon or a command needs to know, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    /// The pipelines found in `pipelines.dir`, by name.
    pub pipelines: Vec<Arc<Pipeline>>,
}
