//! Bytes to columns: what a record is, whether it is an event, and its fields as Arrow arrays. Pure: no I/O, no clock.

mod batch;
mod bytes;
mod codes;
mod columns;
mod decoder;
mod float;
mod general;
mod json;
mod literal;
mod members;
mod path;
mod refusal;
mod scan;
mod schema;
mod timestamp;
mod values;

pub use batch::{Batch, Codes, Columns, Headers, PADDING, RawBatch};
pub(crate) use codes::Coder;
pub use decoder::{DECODER_VERSION, Decoder, MAX_BATCH_BYTES};
pub use members::{Member, members};
pub use schema::{EVENT_TIME_COLUMN, Schema, arrow_type, bronze_fields, coded_fields};
