//! The actors: one file each, with its messages, its state and its supervision. An actor owns no arithmetic and no format;
//! mailboxes hold no durable state.

mod bronze;
pub mod budget;
mod consumer;
mod daemon;
mod disks;
mod mailbox;
mod pipeline;
mod realtime;
mod recount;
mod scheduler;
mod setup;
pub mod supervise;
mod upkeep;
mod windows;
mod witness;

pub use daemon::{keep_freed_memory, run};
