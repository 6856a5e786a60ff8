//! Typed, validated configuration. Nothing else reads configuration files or the environment.

mod pipeline;
mod server;
pub mod units;

pub use pipeline::{
    Aggregate, AllowedValue, BronzeSettings, Field, FieldType, KeepPayload, Pipeline, RealtimeSettings, Retention,
    Role, StartAt, TimeSettings,
};
pub use server::{ClickHouse, Kafka, Lakehouse, Log, LogFormat, Memory, Metrics, Pipelines, Secret, Server, Shutdown};

use std::sync::Arc;

/// Everything a daemon or a command needs to know, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    /// The pipelines found in `pipelines.dir`, by name.
    pub pipelines: Vec<Arc<Pipeline>>,
}
