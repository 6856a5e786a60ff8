//! Bronze: every record once in a Delta table, with its verdict, and the position in the same commit.
//!
//! [`Encoder`] turns batches into a Parquet file; [`Table`] writes the file; [`Ledger`] commits it together with the
//! positions of the partitions in it. Only the ledger decides whether a commit may happen; it does no I/O but through
//! [`CommitLog`].
//!
//! *Architecture invariant*: this room knows nothing of Kafka's consumer, of windows or of actors.

mod chunks;
mod delta_log;
mod durable;
mod encode;
mod entry;
mod error;
mod files;
mod filling;
mod find;
mod group;
mod ledger;
mod log;
mod metadata;
mod newest;
mod object_reader;
mod pages;
mod properties;
mod read;
mod repair;
mod schema;
mod settings;
mod settle;
#[cfg(test)]
mod simulation;
mod stats;
mod table;
pub mod upkeep;

pub(crate) use chunks::Chunks;
pub use delta_log::DeltaLog;
pub(crate) use durable::{fsync, has_log, local_path, put_new};
pub use encode::{Encoder, SealedFile, ingestion_date};
pub use entry::AddFile;
pub(crate) use entry::{EntryWriter, RETENTION};
pub use error::BronzeError;
pub use filling::{Advances, Flushes};
pub use find::{FoundRow, Lookup, Wanted};
pub use ledger::{Acquired, Advance, Committed, KNOWN_AGE_MAX, Ledger, Position};
pub use log::{CommitLog, PutOutcome, TableState};
pub(crate) use metadata::{first_protocol, table_metadata};
pub use newest::Judged;
pub(crate) use object_reader::ObjectReader;
pub use read::{LastRow, OkRows, first_event_time_after};
pub use repair::{DamagedTail, damaged_tail, repair_log};
pub(crate) use schema::own_fields;
pub use schema::{PARTITION_COLUMN, file_schema, reserved_columns};
pub use settings::{key as table_key, settings, settings_hash};
pub(crate) use table::SINGLE_SOURCE_PREFIX;
pub use table::Table;
#[cfg(test)]
pub(crate) use {
    entry::{EntryEffects, read_entry},
    metadata::{Gap, Purpose},
    settle::{InForce, settle},
};
