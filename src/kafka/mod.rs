//! Kafka: the client, one queue per partition, positions.

mod source;

pub use source::Source;
