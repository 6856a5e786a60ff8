//! One serving of a pipeline: the changed totals of all partitions go out together, and each partition is told what was
//! written of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::{Error, ErrorKind};
use super::flush::{PartitionFlush, flush};
use super::store::{Prepared, WindowStore};
use crate::kafka::Source;
use crate::window::{AggregatePlan, FlushCells, Totals};

/// What one partition's windows gave, and what became of it.
#[derive(Debug)]
pub struct PartitionTotals {
    pub source: Arc<Source>,
    /// What is to be written, by the aggregate's place in the pipeline; empty afterwards.
    pub cells: Vec<(usize, FlushCells)>,
    /// What is served once all of it is written; none while an aggregate is down, or where a part could not be written.
    pub position: Option<i64>,
    /// The tables that the live states' cells are in, by the aggregate's place in the pipeline.
    pub tables: Vec<(usize, Arc<str>)>,
    /// What was written, to be told to the windows: also where something else has failed.
    pub written: Vec<(usize, FlushCells)>,
}

impl PartitionTotals {
    pub fn new(source: Arc<Source>, totals: Totals) -> Self {
        let Totals { cells, position, tables } = totals;
        Self { source, cells, position, tables, written: Vec::new() }
    }
}

/// Writes all changed totals; answers how many rows of partials that was. After [`ErrorKind::Missing`] every window state
/// must be dropped: what was acknowledged went with the tables. `look`: whether to see first that no table has been made
/// anew since the states came back, by another daemon that found it missing; do so now and then.
pub async fn serve<S: WindowStore>(
    prepared: &Prepared<S>,
    totals: &mut [PartitionTotals],
    look: bool,
) -> Result<u64, Error> {
    let store = match ready(prepared, totals, look).await {
        Ok(store) => store,
        Err(error) => {
            totals.iter_mut().for_each(|t| t.position = None);
            return missed(prepared, error).await;
        }
    };
    let mut places = Vec::new();
    let mut flushes = Vec::new();
    for (partition, given) in totals.iter_mut().enumerate() {
        for (aggregate, cells) in given.cells.drain(..) {
            places.push((partition, aggregate));
            let plan = prepared.plans[aggregate].clone();
            flushes.push(PartitionFlush { source: given.source.clone(), plan, cells });
        }
    }
    let answers = flush(store, &flushes).await;
    let mut rows = 0;
    let mut failure = None;
    for (((partition, aggregate), flush), answer) in places.into_iter().zip(flushes).zip(answers) {
        match answer {
            Ok(()) => {
                rows += flush.cells.cells.len() as u64;
                totals[partition].written.push((aggregate, flush.cells));
            }
            Err(error) => {
                totals[partition].position = None;
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) => missed(prepared, error).await,
        None => Ok(rows),
    }
}

/// Where a table is gone, it is made again before the next use.
async fn missed<S: WindowStore>(prepared: &Prepared<S>, error: Error) -> Result<u64, Error> {
    if error.kind == ErrorKind::Missing {
        prepared.unprepared().await;
    }
    Err(error)
}

async fn ready<'a, S: WindowStore>(
    prepared: &'a Prepared<S>,
    totals: &[PartitionTotals],
    look: bool,
) -> Result<&'a S, Error> {
    if !look {
        return prepared.store().await;
    }
    let (store, _) = prepared.look_again().await?;
    same_tables(store, &prepared.plans, totals).await?;
    Ok(store)
}

/// Refuses states whose cells are in a table that has been dropped.
async fn same_tables(
    store: &impl WindowStore,
    plans: &[Arc<AggregatePlan>],
    totals: &[PartitionTotals],
) -> Result<(), Error> {
    for (aggregate, plan) in plans.iter().enumerate() {
        let live = tables_of(totals, aggregate);
        if live.is_empty() {
            continue;
        }
        let now = store.table(plan).await?;
        if live.contains(&now) && live.len() == 1 {
            continue;
        }
        let what = format!("look at realtime.{}", plan.partials_table());
        return Err(Error::new(ErrorKind::Missing, &what, "ClickHouse", "the table was dropped and made anew"));
    }
    Ok(())
}

/// The tables that the live states of one aggregate have their cells in.
fn tables_of(totals: &[PartitionTotals], aggregate: usize) -> BTreeSet<Arc<str>> {
    let live = totals.iter().flat_map(|t| &t.tables).filter(|(a, _)| *a == aggregate);
    live.map(|(_, table)| table.clone()).collect()
}
