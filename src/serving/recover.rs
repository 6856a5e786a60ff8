//! Getting window states back: what ClickHouse has, judged, and Bronze's rows counted where that is not enough.

use std::future::Future;
use std::sync::Arc;

use super::error::Error;
use super::flush::{PartitionFlush, write_totals};
use super::load::load;
use super::store::WindowStore;
use crate::failpoint;
use crate::kafka::Source;
use crate::window::{
    AggregatePlan, FoldError, Loaded, MissingCodes, OkRows, Rebuild, RowsWanted, Standing, Way, WindowState,
};

/// Bytes of totals that a recount of one partition may hold, nearly, where there is room enough.
pub const RECOUNT_BYTES_MAX: usize = 24 << 20;
/// Records that a recount beside the running consumer may leave to be counted while the consumer waits.
const CLOSE_ENOUGH: i64 = 500_000;

/// Where Bronze's rows come from.
pub trait BronzeRows: Sync {
    /// Where a partition stands in Bronze now.
    fn standing(&self, source: &Arc<Source>) -> impl Future<Output = Result<Standing, RecoverError>> + Send;

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
    /// Bronze stands before a state that was counted from it: the table went back.
    #[error(transparent)]
    Behind(#[from] FoldError),
}

/// A window state, and which way it came back.
#[derive(Debug)]
pub struct Recovered {
    pub state: WindowState,
    pub way: Way,
}

/// States by the aggregate's place in the pipeline.
pub type States = Vec<(usize, Recovered)>;

/// The recovery of one partition's windows.
pub struct Recovery<'a, S, B> {
    pub store: &'a S,
    pub bronze: &'a B,
    pub source: &'a Arc<Source>,
    /// Microseconds since the epoch, for the retention.
    pub now: i64,
    /// Bytes of totals that a recount may hold, nearly.
    pub bytes_max: usize,
}

impl<S: WindowStore, B: BronzeRows> Recovery<'_, S, B> {
    /// The states at the consumer's start, as far as they come back at once: aggregates that need more than `records` of
    /// Bronze's rows are left out, to be counted while the consumer runs.
    pub async fn fast(
        &self,
        plans: &[(usize, Arc<AggregatePlan>)],
        start: Standing,
        records: i64,
    ) -> Result<States, RecoverError> {
        let mut soon = Vec::new();
        for (aggregate, rebuild) in self.rebuilds(self.load(plans).await?, start) {
            let missing = rebuild.wanted().map_or(0, |wanted| wanted.offsets.end - wanted.offsets.start);
            if missing <= records {
                soon.push((aggregate, rebuild));
            } else if let Way::Sure(why) = rebuild.way() {
                let (source, name) = (self.source, &rebuild.plan().name);
                tracing::info!(%source, aggregate = name, %why, "windows are counted again from Bronze");
            }
        }
        self.counted(soon).await
    }

    /// Counts aggregates from what ClickHouse and Bronze have now, until little is missing to where the consumer is.
    pub async fn rebuild(&self, plans: &[(usize, Arc<AggregatePlan>)]) -> Result<States, RecoverError> {
        let loaded = self.load(plans).await?;
        let mut at = self.bronze.standing(self.source).await?;
        let mut states = self.counted(self.rebuilds(loaded, at)).await?;
        loop {
            let next = self.bronze.standing(self.source).await?;
            if next.next_offset - at.next_offset <= CLOSE_ENOUGH {
                return Ok(states);
            }
            at = next;
            states = self.go_on(states, at).await?;
        }
    }

    /// Brings rebuilt states to Bronze's position, where the consumer stands and waits.
    pub async fn catch_up(&self, states: States) -> Result<States, RecoverError> {
        let at = self.bronze.standing(self.source).await?;
        self.go_on(states, at).await
    }

    async fn go_on(&self, states: States, at: Standing) -> Result<States, RecoverError> {
        let rebuilds = states.into_iter().map(|(aggregate, back)| Ok((aggregate, back.state.catch_up(at)?)));
        self.counted(rebuilds.collect::<Result<_, FoldError>>()?).await
    }

    async fn load(
        &self,
        plans: &[(usize, Arc<AggregatePlan>)],
    ) -> Result<Vec<(usize, Arc<AggregatePlan>, Loaded)>, Error> {
        let loads = plans.iter().map(|(aggregate, plan)| async move {
            Ok::<_, Error>((*aggregate, plan.clone(), load(self.store, self.source, plan).await?))
        });
        let loaded = futures::future::try_join_all(loads).await?;
        failpoint::hit("recover.after_load");
        Ok(loaded)
    }

    fn rebuilds(&self, loaded: Vec<(usize, Arc<AggregatePlan>, Loaded)>, at: Standing) -> Vec<(usize, Rebuild)> {
        let rebuild = |(aggregate, plan, loaded): (usize, Arc<AggregatePlan>, Loaded)| {
            let keep_from = plan.keep_from(self.now);
            (aggregate, Rebuild::new(plan, at, loaded, keep_from))
        };
        loaded.into_iter().map(rebuild).collect()
    }

    async fn counted(&self, rebuilds: Vec<(usize, Rebuild)>) -> Result<States, RecoverError> {
        let (aggregates, rebuilds): (Vec<_>, Vec<_>) = rebuilds.into_iter().unzip();
        let states = count(self.store, self.bronze, self.source, rebuilds, self.bytes_max).await?;
        Ok(aggregates.into_iter().zip(states).collect())
    }
}

/// Feeds Bronze's rows to rebuilds of one partition, in one pass if their totals fit into memory: also for
/// [`WindowState::catch_up`]. Totals of a long history that do not fit go to ClickHouse in between, window by window.
pub async fn count(
    store: &impl WindowStore,
    bronze: &impl BronzeRows,
    source: &Arc<Source>,
    mut rebuilds: Vec<Rebuild>,
    bytes_max: usize,
) -> Result<Vec<Recovered>, RecoverError> {
    let bytes_max = bytes_max / rebuilds.len().max(1);
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
                write_totals(store, &flush).await?;
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
