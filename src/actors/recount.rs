//! How windows come back from ClickHouse and Bronze: the I/O around [`crate::window::Rebuild`].

use std::sync::Arc;

use anyhow::anyhow;

use super::realtime::Served;
use crate::bronze::Table;
use crate::kafka::{Source, now_micros};
use crate::recount::TableRows;
use crate::serving::count;
use crate::window::{AggregatePlan, Loaded, Rebuild, Standing, Way, WindowState};

/// Records that the joining of rebuilt windows may leave to be counted while the partition waits.
const CLOSE_ENOUGH: i64 = 500_000;

/// States by the aggregate's place in the pipeline.
pub type States = Vec<(usize, WindowState)>;

/// The states that ClickHouse gives back at once, at the consumer's start. Aggregates that need more than `records` of
/// Bronze's rows are left out: they are counted while the consumer runs. The claims of positions beyond Bronze's come
/// with them.
pub async fn fast(
    served: &Served,
    source: &Arc<Source>,
    start: Standing,
    records: i64,
) -> anyhow::Result<(States, Vec<crate::window::Claim>)> {
    let plans: Vec<_> = served.plans.iter().cloned().enumerate().collect();
    let loaded = load(served, source, &plans).await?;
    let claims = loaded.iter().flat_map(|(_, _, loaded)| loaded.claims_above(start.next_offset)).collect();
    let mut soon = Vec::new();
    for (aggregate, plan, loaded) in loaded {
        let keep_from = plan.keep_from(now_micros());
        let rebuild = Rebuild::new(plan, start, loaded, keep_from);
        let missing = rebuild.wanted().map_or(0, |wanted| wanted.offsets.end - wanted.offsets.start);
        if missing <= records {
            soon.push((aggregate, rebuild));
        } else if let Way::Sure(why) = rebuild.way() {
            tracing::info!(%source, aggregate = rebuild.plan().name, %why, "windows are counted again from Bronze");
        }
    }
    Ok((counted(served, source, soon).await?, claims))
}

/// Counts aggregates from what ClickHouse and Bronze have now, until little is missing to where the consumer is.
pub async fn rebuild(
    served: &Served,
    source: &Arc<Source>,
    plans: Vec<(usize, Arc<AggregatePlan>)>,
) -> anyhow::Result<States> {
    let loaded = load(served, source, &plans).await?;
    let mut at = standing(&served.table, source).await?;
    let rebuilds = loaded
        .into_iter()
        .map(|(aggregate, plan, loaded)| {
            let keep_from = plan.keep_from(now_micros());
            (aggregate, Rebuild::new(plan, at, loaded, keep_from))
        })
        .collect();
    let mut states = counted(served, source, rebuilds).await?;
    loop {
        let next = standing(&served.table, source).await?;
        if next.next_offset - at.next_offset <= CLOSE_ENOUGH {
            return Ok(states);
        }
        at = next;
        states = go_on(served, source, states, at).await?;
    }
}

/// Brings rebuilt states to Bronze's position, where the consumer stands.
pub async fn catch_up(served: &Served, source: &Arc<Source>, states: States) -> anyhow::Result<States> {
    let at = standing(&served.table, source).await?;
    go_on(served, source, states, at).await
}

async fn go_on(served: &Served, source: &Arc<Source>, states: States, at: Standing) -> anyhow::Result<States> {
    let rebuilds = states.into_iter().map(|(aggregate, state)| Ok((aggregate, state.catch_up(at)?)));
    counted(served, source, rebuilds.collect::<anyhow::Result<Vec<_>>>()?).await
}

async fn load(
    served: &Served,
    source: &Arc<Source>,
    plans: &[(usize, Arc<AggregatePlan>)],
) -> anyhow::Result<Vec<(usize, Arc<AggregatePlan>, Loaded)>> {
    let client = served.client().await?;
    let loads = plans.iter().map(|(aggregate, plan)| async move {
        Ok::<_, anyhow::Error>((*aggregate, plan.clone(), client.load(source, plan).await?))
    });
    let loaded = futures::future::try_join_all(loads).await?;
    crate::failpoint::hit("recover.after_load");
    Ok(loaded)
}

async fn counted(served: &Served, source: &Arc<Source>, rebuilds: Vec<(usize, Rebuild)>) -> anyhow::Result<States> {
    let (aggregates, rebuilds): (Vec<_>, Vec<_>) = rebuilds.into_iter().unzip();
    let rows = TableRows { table: &served.table, version: None, pipeline: served.table.pipeline() };
    let states = count(served.client().await?, &rows, source, rebuilds).await?;
    Ok(aggregates.into_iter().zip(states.into_iter().map(|recovered| recovered.state)).collect())
}

/// Where a partition stands in Bronze now.
async fn standing(table: &Table, source: &Arc<Source>) -> anyhow::Result<Standing> {
    let acquired = table.ledger().acquire(std::slice::from_ref(source)).await?;
    let position = acquired.positions.first().copied().flatten();
    let position = position.ok_or_else(|| anyhow!("Bronze does not know {source} any more"))?;
    Ok(Standing { next_offset: position.next_offset, mark: position.mark })
}
