//! The seam between the protocol of realtime windows and ClickHouse, so that a simulation can stand in for the server.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::error::Error;
use super::flush::PartitionFlush;
use crate::kafka::Source;
use crate::window::{AggregatePlan, Claim, LoadedCell, PositionRow};

/// Aggregates that cannot be served until somebody acts, by their place in the pipeline, and what to do about each. The
/// others go on without them.
pub type Refused = Vec<(usize, Error)>;

/// What the protocol asks of ClickHouse, one request a call. Every insert may be repeated, may come late, and may have
/// landed although it failed; every read may lag.
pub trait WindowStore: Send + Sync {
    /// Makes tables and views ready for the aggregates of a pipeline. Answers which of them cannot be served.
    fn prepare(
        &self,
        pipeline: &str,
        plans: &[Arc<AggregatePlan>],
    ) -> impl Future<Output = Result<Refused, Error>> + Send;

    /// The identity of an aggregate's table of totals: each one that is made gets its own.
    fn table(&self, plan: &AggregatePlan) -> impl Future<Output = Result<Arc<str>, Error>> + Send;

    /// The newest position of one aggregate of one partition.
    fn position(
        &self,
        source: &Source,
        plan: &AggregatePlan,
    ) -> impl Future<Output = Result<Option<PositionRow>, Error>> + Send;

    /// The newest flush of one aggregate of one partition that was begun.
    fn intent(
        &self,
        source: &Source,
        plan: &AggregatePlan,
    ) -> impl Future<Output = Result<Option<Claim>, Error>> + Send;

    /// The cells of windows that a position calls open.
    fn open_cells(
        &self,
        source: &Source,
        plan: &AggregatePlan,
        position: &PositionRow,
    ) -> impl Future<Output = Result<Vec<LoadedCell>, Error>> + Send;

    /// How far every partition of an aggregate's definition is, in the table that there is now.
    fn positions(&self, plan: &AggregatePlan) -> impl Future<Output = Result<Vec<(Source, i64)>, Error>> + Send;

    /// Writes that flushes begin.
    fn insert_intents(&self, flushes: &[&PartitionFlush]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes the cells of several partitions of one aggregate.
    fn insert_partials(&self, group: &[&PartitionFlush]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes the positions that cells make true.
    fn insert_positions(&self, flushes: &[&PartitionFlush]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lets the view show this definition. Answers whether it changed anything.
    fn point_view(&self, plan: &AggregatePlan) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Drops the tables of other definitions of this aggregate; answers which.
    fn drop_superseded(&self, plan: &AggregatePlan) -> impl Future<Output = Result<Vec<String>, Error>> + Send;
}

/// A store whose tables are made before its first use, and again after one was found to be gone.
pub struct Prepared<S> {
    store: S,
    pipeline: String,
    /// In the pipeline's order.
    pub plans: Vec<Arc<AggregatePlan>>,
    /// None where the tables are to be made before the next use.
    found: Mutex<Option<Refused>>,
}

impl<S: WindowStore> Prepared<S> {
    pub fn new(store: S, pipeline: String, plans: Vec<Arc<AggregatePlan>>) -> Self {
        Self { store, pipeline, plans, found: Mutex::new(None) }
    }

    /// The store, once the tables are there, of all aggregates that can be served.
    pub async fn store(&self) -> Result<&S, Error> {
        let mut found = self.found.lock().await;
        if found.is_none() {
            *found = Some(self.store.prepare(&self.pipeline, &self.plans).await?);
        }
        Ok(&self.store)
    }

    /// As [`Self::store`]; aggregates that could not be served are looked at again. Answers those that still cannot.
    pub async fn look_again(&self) -> Result<(&S, Refused), Error> {
        let mut found = self.found.lock().await;
        let refused = match &*found {
            Some(refused) if refused.is_empty() => Refused::new(),
            _ => self.store.prepare(&self.pipeline, &self.plans).await?,
        };
        *found = Some(refused.clone());
        Ok((&self.store, refused))
    }

    /// The aggregates that could not be served when they were looked at last; none where that is not known now.
    pub async fn refused(&self) -> Option<Refused> {
        self.found.lock().await.clone()
    }

    /// A table is gone: they are made again before the next use.
    pub async fn unprepared(&self) {
        *self.found.lock().await = None;
    }
}
