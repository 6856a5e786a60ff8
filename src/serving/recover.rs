//! Getting window states back: what ClickHouse has, judged, and Bronze's rows counted where that is not enough.

use std::future::Future;
use std::sync::Arc;

use super::client::Client;
use super::error::Error;
use super::flush::PartitionFlush;
use crate::failpoint;
use crate::kafka::Source;
use crate::window::{
    AggregatePlan, Claim, Loaded, MissingCodes, OkRows, Rebuild, RowsWanted, Standing, Way, WindowState,
};

/// Bytes of totals that one call of [`count`] holds, nearly.
const REBUILD_BYTES_MAX: usize = 24 << 20;

/// Where Bronze's rows come from.
pub trait BronzeRows: Sync {
    /// Hands over the `ok` rows of `source` with offsets in `wanted.offsets`, in offset order, in chunks. `fields` are
    /// the fields of the pipeline whose values are needed as codes. More rows than wanted may come.
    fn ok_rows(
        &self,
        source: &Source,
        wanted: &RowsWanted,
        fields: &[usize],
        each: &mut (dyn FnMut(&OkRows) -> Result<(), MissingCodes> + Send),
    ) -> impl Future<Output = Result<(), RecoverError>> + Send;
}

/// Why window states did not come back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Serving(#[from] Error),
    #[error("count Bronze's rows again: {0}")]
    Bronze(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Codes(#[from] MissingCodes),
}

/// What ClickHouse has of the aggregates of one partition.
#[derive(Debug)]
pub struct LoadedPartition {
    pub source: Arc<Source>,
    /// One entry per plan.
    pub aggregates: Vec<(Arc<AggregatePlan>, Loaded)>,
}

/// A window state, and which way it came back.
#[derive(Debug)]
pub struct Recovered {
    pub state: WindowState,
    pub way: Way,
}

impl Client {
    /// Reads what ClickHouse has of these aggregates of a partition.
    pub async fn load_all(&self, source: &Arc<Source>, plans: &[Arc<AggregatePlan>]) -> Result<LoadedPartition, Error> {
        let loads = plans.iter().map(|plan| async move { Ok((plan.clone(), self.load(source, plan).await?)) });
        let aggregates = futures::future::try_join_all(loads).await?;
        failpoint::hit("recover.after_load");
        Ok(LoadedPartition { source: source.clone(), aggregates })
    }
}

impl LoadedPartition {
    /// Positions beyond Bronze's, each to be checked against the log before anything is consumed: the log must reach
    /// `next_offset` and hold the record `last`, else the broker has lost records that are counted already.
    pub fn claims_above(&self, next_offset: i64) -> Vec<Claim> {
        self.aggregates.iter().flat_map(|(_, loaded)| loaded.claims_above(next_offset)).collect()
    }

    /// The states at Bronze's position `at`, one per plan, in order. Bronze is read at most once. `now`: microseconds
    /// since the epoch, for the retention.
    pub async fn rebuild(
        self,
        client: &Client,
        bronze: &impl BronzeRows,
        at: Standing,
        now: i64,
    ) -> Result<Vec<Recovered>, RecoverError> {
        let rebuilds = self
            .aggregates
            .into_iter()
            .map(|(plan, loaded)| {
                let keep_from = plan.keep_from(now);
                Rebuild::new(plan, at, loaded, keep_from)
            })
            .collect();
        count(client, bronze, &self.source, rebuilds).await
    }
}

/// Feeds Bronze's rows to rebuilds of one partition, in one pass if their totals fit into memory: also for
/// [`WindowState::catch_up`]. Totals of a long history that do not fit go to ClickHouse in between, window by window.
pub async fn count(
    client: &Client,
    bronze: &impl BronzeRows,
    source: &Arc<Source>,
    mut rebuilds: Vec<Rebuild>,
) -> Result<Vec<Recovered>, RecoverError> {
    let bytes_max = REBUILD_BYTES_MAX / rebuilds.len().max(1);
    loop {
        if let Some(wanted) = union(rebuilds.iter().filter_map(Rebuild::wanted)) {
            let mut fields: Vec<usize> = rebuilds.iter().flat_map(|r| r.plan().fields()).collect();
            fields.sort_unstable();
            fields.dedup();
            let mut each = |rows: &OkRows| {
                rebuilds.iter_mut().try_for_each(|rebuild| {
                    rebuild.fold_rows(rows)?;
                    rebuild.shed(bytes_max);
                    Ok(())
                })
            };
            bronze.ok_rows(source, &wanted, &fields, &mut each).await?;
        }
        failpoint::hit("recover.after_count");
        let mut spilled = false;
        for rebuild in &mut rebuilds {
            if let Some(cells) = rebuild.spill() {
                let flush = PartitionFlush { source: source.clone(), plan: rebuild.plan().clone(), cells };
                client.write_totals(&flush).await?;
                failpoint::hit("recover.after_spill");
                rebuild.spilled(&flush.cells);
                spilled = true;
            }
        }
        if !spilled {
            break;
        }
    }
    Ok(rebuilds.into_iter().map(|r| Recovered { way: r.way().clone(), state: r.finish() }).collect())
}

/// Rows that contain all that is wanted.
fn union(wanted: impl Iterator<Item = RowsWanted>) -> Option<RowsWanted> {
    wanted.reduce(|a, b| RowsWanted {
        offsets: a.offsets.start.min(b.offsets.start)..a.offsets.end.max(b.offsets.end),
        event_time_from: a.event_time_from.min(b.event_time_from),
    })
}
