//! The seam between the commit state machine and the table's log, so that a simulation can stand in for storage.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::BronzeError;

/// The table as of one version, as far as the commit state machine cares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableState {
    pub version: u64,
    /// Versions of the application ids that were asked for and exist.
    pub txns: HashMap<String, i64>,
    /// The table's configuration.
    pub configuration: HashMap<String, String>,
    /// The whole `metaData` action's content.
    pub metadata: Value,
    /// (reader, writer) protocol versions.
    pub protocol: (i32, i32),
}

/// What became of a put-if-absent, as far as one can know.
#[derive(Debug, Clone, PartialEq)]
pub enum PutOutcome {
    /// The entry is there and is ours.
    Landed,
    /// The version exists already, said the storage. (S3 may say so wrongly: read before believing.)
    Taken,
    /// No telling: an error or a lost answer. The entry may be there, or may land later.
    Unknown(String),
}

/// A Delta table's log.
pub trait CommitLog: Send + Sync {
    /// Loads the newest version; none if there is no table. `ids` are the application ids whose versions are wanted.
    /// A damaged tail (zero-length entry, gap) is refused.
    fn load(&self, ids: &[String]) -> impl Future<Output = Result<Option<TableState>, BronzeError>> + Send;

    /// The entry of a version; none if there is none.
    fn read(&self, version: u64) -> impl Future<Output = Result<Option<Bytes>, BronzeError>> + Send;

    /// Puts an entry at a version if that version is absent.
    fn put(&self, version: u64, entry: Bytes) -> impl Future<Output = PutOutcome> + Send;

    /// Makes a landed entry survive a power cut, where that takes an extra step.
    fn sync(&self, version: u64) -> impl Future<Output = Result<(), BronzeError>> + Send;

    /// Waits before the `attempt`-th repetition (from 1), longer each time, with jitter.
    fn pause(&self, attempt: u32) -> impl Future<Output = ()> + Send;

    /// Time since some fixed instant; must go on while the machine sleeps.
    fn now(&self) -> Duration;

    /// A fresh unique id.
    fn fresh_id(&self) -> String;

    /// The table's name for errors.
    fn name(&self) -> String;
}
