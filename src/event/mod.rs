//! Bytes to columns: what a record is, whether it is an event, and its fields as Arrow arrays. Pure: no I/O, no clock.

mod batch;

pub use batch::{Batch, Codes, Columns, Headers, PADDING, RawBatch};
