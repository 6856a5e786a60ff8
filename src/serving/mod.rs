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
mod recover;
mod retention;
mod schema;
mod tables;
mod views;

pub use client::Client;
pub use error::{Error, ErrorKind};
pub use flush::PartitionFlush;
pub use gold::{
    GoldReady, GoldRowError, GoldStanding, LayerFreshness, Publication, ServedColumn, ServedModel, ServedType,
    SilverMark, gold_row_binary,
};
pub use recover::{BronzeRows, LoadedPartition, RecoverError, Recovered, count};
pub use views::ViewInForce;
