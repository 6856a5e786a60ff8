//! ClickHouse: tables and views of realtime windows, flushes, recovery.
//!
//! Totals are written per partition as upserts whose version is the partition's position, so that nothing here needs
//! to know who else writes: repeated, late and outdated inserts change nothing. This room knows nothing of Kafka and
//! Delta; Bronze's rows come through [`BronzeRows`].

mod client;
mod error;
mod flush;
mod freshness;
mod gold;
mod load;
mod look;
mod recover;
mod retention;
mod schema;
mod serve;
mod settle;
mod store;
mod tables;
mod views;

pub use client::Client;
pub use error::{Error, ErrorKind};
pub use flush::{PartitionFlush, flush};
pub(crate) use gold::literal;
pub use gold::{
    GoldLeftover, GoldReady, GoldRowError, GoldStanding, GoldSteps, LayerFreshness, Publication, ServedColumn,
    ServedModel, ServedType, SilverMark, gold_row_binary,
};
pub use load::load;
pub use look::PublishedDate;
pub use recover::{BronzeRows, RECOUNT_BYTES_MAX, RecoverError, Recovered, Recovery, States, count};
pub use serve::{PartitionTotals, serve};
pub use settle::Reach;
pub use store::{Prepared, Refused, WindowStore};
pub use views::ViewInForce;
