//! Whether a partition's log is still the one that was read: its records against Bronze's last row, and against the
//! positions in ClickHouse that lie beyond Bronze's. A broker that lost its tail, or a topic that was made anew and has
//! grown past the position, would otherwise be read on as if nothing had happened.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use super::realtime::Served;
use super::setup::Setup;
use crate::bronze::LastRow;
use crate::config::Role;
use crate::kafka::{self, Placement, Source};
use crate::window::{Claim, LastRecord};

/// How long ClickHouse and the broker may take to answer; then the partition is read on without this check.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether to read on at `at`. What cannot be asked now does not hold the partition up.
pub async fn confirm(
    setup: &Arc<Setup>,
    served: &Arc<Served>,
    source: &Arc<Source>,
    at: i64,
    log: &Range<i64>,
) -> Placement {
    let io = setup.io.clone();
    let (setup, served, source, log) = (setup.clone(), served.clone(), source.clone(), log.clone());
    io.spawn(async move { compare(&setup, &served, &source, at, &log).await }).await.unwrap_or(Placement::Continue(at))
}

async fn compare(setup: &Setup, served: &Served, source: &Arc<Source>, at: i64, log: &Range<i64>) -> Placement {
    let row = match served.table.last_row(None, source).await {
        Ok(row) => row.filter(|row| log.contains(&row.offset)),
        Err(error) => {
            tracing::info!(%source, %error, "Bronze's last row cannot be compared with the log");
            None
        }
    };
    let claims = match tokio::time::timeout(LIMIT, claims(served, source, at)).await {
        Ok(Ok(claims)) => claims,
        Ok(Err(error)) => {
            tracing::info!(%source, %error, "ClickHouse's positions cannot be compared with the log");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let mut offsets: Vec<i64> = claims.iter().filter_map(|claim| claim.last).map(|last| last.offset).collect();
    offsets.extend(row.as_ref().map(|row| row.offset));
    offsets.retain(|offset| log.contains(offset));
    offsets.sort_unstable();
    offsets.dedup();
    let records = match lookup(setup, source, offsets).await {
        Ok(records) => records,
        Err(error) => {
            tracing::info!(%source, %error, "the log cannot be compared with what was read from it");
            Vec::new()
        }
    };
    let found = |offset: i64| records.iter().find(|record| record.offset() == offset);
    let claims: Vec<_> =
        claims.into_iter().map(|claim| (claim, claim.last.and_then(|last| found(last.offset)).map(seen))).collect();
    kafka::confirm(&kafka::Witness {
        name: &format!("{}/{}", source.topic, source.partition),
        pipeline: &source.pipeline,
        at,
        log_end: log.end,
        row: row.and_then(|row| found(row.offset).map(|record| (row.offset, same(setup, &row, record)))),
        claims: &claims,
    })
}

/// Positions in ClickHouse beyond Bronze's.
async fn claims(served: &Served, source: &Arc<Source>, at: i64) -> Result<Vec<Claim>, crate::serving::Error> {
    served.client().await?.claims_above(source, served.plans(), at).await
}

async fn lookup(setup: &Setup, source: &Arc<Source>, offsets: Vec<i64>) -> anyhow::Result<Vec<OwnedMessage>> {
    if offsets.is_empty() {
        return Ok(Vec::new());
    }
    let mut config = kafka::settings::client(&setup.server.kafka);
    config.set("group.id", format!("{}.{}", setup.server.kafka.group, source.pipeline));
    let source = source.clone();
    let read = move || kafka::records_at(&config, &source.topic, source.partition, &offsets, LIMIT);
    Ok(tokio::task::spawn_blocking(read).await??.into_iter().flatten().collect())
}

fn seen(record: &OwnedMessage) -> LastRecord {
    LastRecord {
        offset: record.offset(),
        timestamp: record.timestamp().to_millis().unwrap_or(-1),
        checksum: LastRecord::checksum(record.key(), record.payload()),
    }
}

/// Whether a record is the one of Bronze's row: its timestamp, and its event id if it is an event.
fn same(setup: &Setup, row: &LastRow, record: &OwnedMessage) -> bool {
    if row.kafka_timestamp != record.timestamp().to_millis().filter(|t| *t >= 0) {
        return false;
    }
    let Some(event_id) = &row.event_id else { return true };
    let field = setup.pipeline.role(Role::EventId).map(|field| setup.pipeline.fields[field].name.as_str());
    let value = record.payload().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok());
    match (value, field) {
        (Some(value), Some(field)) => value.get(field).and_then(serde_json::Value::as_str) == Some(event_id),
        _ => false,
    }
}
