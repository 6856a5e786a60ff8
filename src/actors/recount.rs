//! How windows come back from ClickHouse and Bronze: [`Recovery`] on this pipeline's table and server.

use std::sync::Arc;

use super::realtime::Served;
use crate::kafka::{Source, now_micros};
use crate::recount::TableRows;
use crate::serving::{Client, RecoverError, Recovery, Refused, States};
use crate::window::{AggregatePlan, Standing};

/// See [`Recovery::fast`], of all aggregates that can be served.
pub async fn fast(
    served: &Served,
    source: &Arc<Source>,
    start: Standing,
    records: i64,
) -> Result<States, RecoverError> {
    let (client, refused) = served.look_again().await?;
    let plans: Vec<_> = served.plans().iter().cloned().enumerate().filter(|(a, _)| !names(&refused, *a)).collect();
    recovery(served, client, &rows(served), source).fast(&plans, start, records).await
}

/// See [`Recovery::rebuild`]. Of aggregates that cannot be served none comes back; where there are no others, it fails.
pub async fn rebuild(
    served: &Served,
    source: &Arc<Source>,
    plans: &[(usize, Arc<AggregatePlan>)],
) -> Result<States, RecoverError> {
    let (client, mut refused) = served.look_again().await?;
    let plans: Vec<_> = plans.iter().filter(|(a, _)| !names(&refused, *a)).cloned().collect();
    if plans.is_empty()
        && let Some((_, error)) = refused.pop()
    {
        return Err(error.into());
    }
    recovery(served, client, &rows(served), source).rebuild(&plans).await
}

fn names(refused: &Refused, aggregate: usize) -> bool {
    refused.iter().any(|(a, _)| *a == aggregate)
}

/// See [`Recovery::catch_up`].
pub async fn catch_up(served: &Served, source: &Arc<Source>, states: States) -> Result<States, RecoverError> {
    recovery(served, served.client().await?, &rows(served), source).catch_up(states).await
}

fn rows(served: &Served) -> TableRows<'_> {
    TableRows { table: &served.table, version: None, pipeline: served.table.pipeline() }
}

fn recovery<'a>(
    served: &Served,
    store: &'a Client,
    bronze: &'a TableRows<'a>,
    source: &'a Arc<Source>,
) -> Recovery<'a, Client, TableRows<'a>> {
    Recovery { store, bronze, source, now: now_micros(), bytes_max: served.recount_bytes }
}
