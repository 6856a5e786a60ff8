//! Kafka: the client, one queue and one reader per partition, positions.
//!
//! This room knows offsets and threads; it does not know what becomes of a batch.

pub mod cause;
mod client;
mod commit;
mod lookup;
mod placement;
mod queue;
mod reader;
pub mod settings;
mod source;
mod topic_id;

pub use client::{Assigned, Client, ClientEvent, Drained, Place};
pub use lookup::records_at;
pub use placement::{Known, Placement, Witness, confirm, place};
pub use queue::{BatchLimit, PartitionQueue, QueueError, Taken};
pub use reader::{ReadError, Reader, ReaderEvent, Start, now_micros};
pub use source::{BAD_RECORDS, Source};
pub use topic_id::topic_id;
