//! What a daemon asks before it reads a partition on, and what it looks after beside.

use std::sync::Arc;

use super::Rule;
use super::clickhouse::SimStore;
use super::delta::SimBronze;
use super::topic::PARTITIONS;
use super::world::{Shared, lock, source};
use crate::bronze::BronzeError;
use crate::kafka::{Placement, Source, Witness, confirm};
use crate::serving::{Error, Prepared, Reach, WindowStore, load};
use crate::window::LastRecord;

/// Whether the log is still the one that was read.
pub(super) async fn witness(
    world: &Shared,
    prepared: &Prepared<SimStore>,
    source: &Arc<Source>,
    at: i64,
    log_end: i64,
) -> Placement {
    let mut claims = Vec::new();
    if let Ok(store) = prepared.store().await {
        for plan in &prepared.plans {
            claims.extend(load(store, source, plan).await.map(|l| l.claims_above(at)).unwrap_or_default());
        }
    }
    let world = lock(world);
    let seen = |offset: i64| {
        let record = world.topic[source.partition as usize].at(offset)?;
        let checksum = LastRecord::checksum(None, Some(&record.time.to_le_bytes()));
        Some(LastRecord { offset, timestamp: record.kafka_ms, checksum })
    };
    let claims: Vec<_> =
        claims.into_iter().map(|claim| (claim, claim.last.and_then(|last| seen(last.offset)))).collect();
    confirm(&Witness { name: "t", pipeline: "p", at, log_end, row: None, claims: &claims })
}

/// Views change over where their totals are whole.
pub(super) async fn look_after(bronze: &SimBronze, prepared: &Prepared<SimStore>) -> Result<(), BronzeError> {
    let failed = |e: Error| BronzeError::io("upkeep", e);
    let store = prepared.store().await.map_err(failed)?;
    let sources: Vec<Arc<Source>> = (0..PARTITIONS).map(source).collect();
    // Positions of Bronze first.
    let acquired = bronze.ledger().acquire(&sources).await?;
    let world = &bronze.log.world;
    let known = sources.into_iter().zip(acquired.positions);
    let bronze: Vec<(Arc<Source>, i64)> = known.filter_map(|(s, at)| Some((s, at?.next_offset))).collect();
    for plan in &prepared.plans {
        let reach = Reach::of(store, plan).await.map_err(failed)?;
        let hasty = lock(world).broken == Some(Rule::ViewWaits);
        if hasty || reach.is_whole(&bronze, 0, |_| false) {
            lock(world).must_reach(plan, &bronze);
            store.point_view(plan).await.map_err(failed)?;
            store.drop_superseded(plan).await.map_err(failed)?;
        }
    }
    Ok(())
}
