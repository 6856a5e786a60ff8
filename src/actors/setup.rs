//! What every actor of a pipeline is given when it is made.

use std::sync::Arc;

use actix_rt::ArbiterHandle;
use tokio::runtime::Handle;

use super::budget::Budget;
use crate::batch::upkeep::Clock;
use crate::config::{Pipeline, Server};
use crate::holds::Holds;
use crate::serving;
use crate::standstill::Standstill;
use crate::telemetry::Board;

/// Shared by the actors of one pipeline.
pub struct Setup {
    pub server: Arc<Server>,
    pub pipeline: Arc<Pipeline>,
    pub board: Board,
    /// Whether the stream stands still while somebody changes the table by hand.
    pub standstill: Standstill,
    /// What operators hold.
    pub holds: Holds,
    pub budget: Budget,
    /// The clock as it was when the daemon started: nothing is deleted for its age once it was set.
    pub clock: Clock,
    pub clickhouse: serving::Client,
    /// The multi-thread runtime where Delta, DataFusion and HTTP run.
    pub io: Handle,
    /// Where Bronze is encoded.
    pub bronze_arbiter: ArbiterHandle,
    /// Where consumers and windows run.
    pub stream_arbiter: ArbiterHandle,
    /// This instance's lasting name in the consumer group.
    pub instance: String,
}

impl Setup {
    /// What the board calls the pipeline's Bronze table.
    pub fn bronze_sink(&self) -> String {
        format!("bronze/{}", self.pipeline.name)
    }
}
