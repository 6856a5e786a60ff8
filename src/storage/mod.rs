//! Where the lakehouse is kept: a local folder, or a bucket of a store that speaks S3.
//!
//! Delta tables are opened by address through delta-rs, which finds the store of an address's scheme in its registry:
//! [`connect`] puts buckets there, with the options of the configuration. An entry of a table's log is put by a
//! conditional write (`If-None-Match: *`), so that no lock service is needed beside the bucket.

mod bucket;
mod place;
mod probe;
mod reader;

pub use bucket::{check_option, connect, is_half_a_key};
pub use place::{Place, StorageError};
pub use probe::{Conditional, conditional_writes};
pub use reader::{DataFile, FileAt};
