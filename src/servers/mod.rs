//! The servers that Boathouse starts itself for the demo and the tests: a Kafka broker and the
//! ClickHouse engine, each a child process that dies with us.
//!
//! Everything here blocks (these are waits of seconds on other programs); from async code call it on a
//! blocking thread. What this room must not know: pipelines, tables, actors. It starts programs and says
//! whether they are up.

#![allow(
    clippy::disallowed_methods,
    reason = "no actor runs here: these are blocking waits on other programs, and where those are, only the environment says"
)]

pub mod broker;
pub mod child;
pub mod engine;
mod error;
mod kafka;
pub mod ports;
mod seat;
mod tansu;

pub use broker::{Broker, BrokerChoice, BrokerKind};
pub use child::Child;
pub use engine::Engine;
pub use error::ServerError;
