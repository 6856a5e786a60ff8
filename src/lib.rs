//! Boathouse: from a Kafka topic to a Delta lakehouse and ClickHouse in one daemon, exactly once.
//!
//! Follow one event through the rooms:
//!
//! 1. [`kafka`]: a partition's own thread takes it from librdkafka, in a batch of up to 10,000 records.
//! 2. [`event`]: one pass turns the batch's bytes into columns; a record that is no event keeps its bytes.
//! 3. [`window`]: the partition's event clock gives each record its verdict (ok, late, future, unparsed).
//! 4. [`actors`]: the partition's consumer hands the batch, shared, to both sinks and waits for both.
//! 5. [`bronze`]: the batch is appended to a Parquet file; one Delta commit carries rows and position.
//! 6. [`window`] again: the batch is folded into per-window partial totals.
//! 7. [`serving`]: dirty totals go to ClickHouse, versioned by position; views add them up.
//! 8. [`batch`]: every hour Bronze's new rows become silver, silver's touched dates become gold, gold is served.
//!
//! [`storage`] knows where the lakehouse is, a folder or a bucket;
//! [`config`] is the only room that reads files or the environment; [`telemetry`] names every metric;
//! [`console`] shows all of it in a browser; [`cli`] has one file per subcommand.

// A panic is survived by supervision, but it is no way to report an error; an exception says why it cannot happen.
#![warn(clippy::unwrap_used, clippy::expect_used)]
// The documentation is for readers of the code: it is built with private items, and links to them.
#![allow(rustdoc::private_intra_doc_links)]

pub mod actors;
pub mod batch;
pub mod bench;
pub mod bronze;
pub mod cli;
pub mod config;
pub mod console;
pub mod engine;
pub mod event;
pub mod failpoint;
pub mod holds;
pub mod kafka;
pub mod letters;
pub mod mend;
mod owned_file;
pub mod priority;
pub mod producer;
pub mod reconcile;
pub mod recount;
pub mod remedy;
pub mod servers;
pub mod serving;
#[cfg(test)]
mod simulation;
pub mod standstill;
pub mod stop_signal;
pub mod storage;
pub mod tap;
pub mod telemetry;
pub mod trace;
pub mod window;
