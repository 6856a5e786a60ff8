//! Writing changed totals, in the order that makes any stop harmless: intents, partials, positions.
//!
//! Every row carries the partition's position as its version, and a row of a given version is always the same row: a
//! repeated insert changes nothing, and one from a writer that was thought dead loses against newer ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::client::Client;
use super::error::Error;
use super::schema::{INTENTS, POSITIONS};
use super::store::WindowStore;
use super::tables::insert_target;
use crate::failpoint;
use crate::kafka::Source;
use crate::window::{AggregatePlan, FlushCells, PositionRow};

/// Days that one insert may span: each day is a partition of the table, and ClickHouse takes 100 at once.
const DAYS_PER_INSERT: usize = 100;
/// Bytes after which an insert is closed and another begun.
const BYTES_PER_INSERT: usize = 16 << 20;
/// Stands for "none" where a position has no closed horizon.
pub(super) const NO_HORIZON: i64 = i64::MIN;
const DAY: i64 = 86_400_000_000;

/// The changed totals of one aggregate of one partition.
#[derive(Debug, Clone)]
pub struct PartitionFlush {
    pub source: Arc<Source>,
    pub plan: Arc<AggregatePlan>,
    pub cells: FlushCells,
}

/// Writes the changed totals of any number of partitions and aggregates. One answer per flush, in order: where it is
/// `Ok`, totals and position are on the server's disk, and the window state may be told with
/// [`crate::window::WindowState::acknowledge`]. After an error the same flush, or a later one, may be tried at any time.
pub async fn flush(store: &impl WindowStore, flushes: &[PartitionFlush]) -> Vec<Result<(), Error>> {
    let mut answers = vec![Ok(()); flushes.len()];
    if flushes.is_empty() {
        return answers;
    }
    let all: Vec<&PartitionFlush> = flushes.iter().collect();
    if let Err(error) = store.insert_intents(&all).await {
        answers.fill(Err(error));
        return answers;
    }
    failpoint::hit("realtime.after_intents");

    let mut tables: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, flush) in flushes.iter().enumerate() {
        if !flush.cells.cells.is_empty() {
            tables.entry(&flush.plan.definition).or_default().push(index);
        }
    }
    let inserts = tables.values().map(|indexes| async move {
        let group: Vec<&PartitionFlush> = indexes.iter().map(|i| &flushes[*i]).collect();
        let answer = store.insert_partials(&group).await;
        // One aggregate's totals are there, another's may not be.
        failpoint::hit("realtime.between_partials");
        (indexes, answer)
    });
    for (indexes, answer) in futures::future::join_all(inserts).await {
        if let Err(error) = answer {
            indexes.iter().for_each(|i| answers[*i] = Err(error.clone()));
        }
    }
    failpoint::hit("realtime.after_partials");

    let indexes: Vec<usize> = (0..flushes.len()).filter(|i| answers[*i].is_ok()).collect();
    if indexes.is_empty() {
        return answers;
    }
    let written: Vec<&PartitionFlush> = indexes.iter().map(|i| &flushes[*i]).collect();
    if let Err(error) = store.insert_positions(&written).await {
        indexes.iter().for_each(|i| answers[*i] = Err(error.clone()));
    }
    failpoint::hit("realtime.after_positions");
    answers
}

/// Writes totals without the position that they belong to: each row is right by itself, and whoever recovers before the
/// position is written counts again.
pub(super) async fn write_totals(store: &impl WindowStore, flush: &PartitionFlush) -> Result<(), Error> {
    store.insert_intents(&[flush]).await?;
    store.insert_partials(&[flush]).await
}

impl Client {
    /// See [`flush`].
    pub async fn flush(&self, flushes: &[PartitionFlush]) -> Vec<Result<(), Error>> {
        flush(self, flushes).await
    }

    pub(super) async fn write_intents(&self, flushes: &[&PartitionFlush]) -> Result<(), Error> {
        let mut buffer = BytesMut::new();
        for flush in flushes {
            put_key(&mut buffer, flush);
            put_claim(&mut buffer, &flush.cells.position);
        }
        self.insert("insert into realtime.intents", INTENTS, buffer.freeze()).await
    }

    pub(super) async fn write_positions(&self, flushes: &[&PartitionFlush]) -> Result<(), Error> {
        let mut buffer = BytesMut::new();
        for flush in flushes {
            put_key(&mut buffer, flush);
            put_claim(&mut buffer, &flush.cells.position);
            put_totals(&mut buffer, &flush.cells.position);
        }
        self.insert("insert into realtime.positions", POSITIONS, buffer.freeze()).await
    }

    /// Writes the cells of several partitions of one aggregate.
    pub(super) async fn write_partials(&self, group: &[&PartitionFlush]) -> Result<(), Error> {
        let Some(plan) = group.first().map(|f| &f.plan) else { return Ok(()) };
        if group.iter().all(|f| f.cells.cells.is_empty()) {
            return Ok(());
        }
        let (target, what) = (insert_target(plan), format!("insert into realtime.{}", plan.partials_table()));
        // By window, whatever the partition, so that the days of an insert are consecutive.
        let mut rows: Vec<(i64, usize, usize)> = Vec::new();
        for (member, flush) in group.iter().enumerate() {
            rows.extend(flush.cells.cells.iter().enumerate().map(|(cell, c)| (c.window_start, member, cell)));
        }
        rows.sort_unstable();
        let mut buffer = BytesMut::new();
        let (mut days, mut day) = (0, i64::MIN);
        for (window_start, member, cell) in rows {
            if window_start.div_euclid(DAY) != day {
                day = window_start.div_euclid(DAY);
                days += 1;
            }
            if days > DAYS_PER_INSERT || buffer.len() > BYTES_PER_INSERT {
                self.insert(&what, &target, buffer.split().freeze()).await?;
                days = 1;
            }
            let flush = group[member];
            put_cell(&mut buffer, flush, cell);
        }
        self.insert(&what, &target, buffer.freeze()).await
    }
}

fn put_string(buffer: &mut BytesMut, text: &str) {
    let mut length = text.len();
    while length >= 0x80 {
        buffer.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    buffer.put_u8(length as u8);
    buffer.put_slice(text.as_bytes());
}

fn put_source(buffer: &mut BytesMut, source: &Source) {
    put_string(buffer, &source.topic);
    buffer.put_i32_le(source.generation);
    buffer.put_i32_le(source.partition);
}

/// The key of positions and intents.
fn put_key(buffer: &mut BytesMut, flush: &PartitionFlush) {
    put_string(buffer, &flush.source.pipeline);
    put_string(buffer, &flush.plan.name);
    put_string(buffer, &flush.plan.definition);
    put_source(buffer, &flush.source);
}

/// A position and the record that it stands behind.
fn put_claim(buffer: &mut BytesMut, position: &PositionRow) {
    let (offset, timestamp, checksum) =
        position.last.map_or((-1, -1, 0), |last| (last.offset, last.timestamp, last.checksum));
    buffer.put_i64_le(position.next_offset);
    buffer.put_i64_le(offset);
    buffer.put_i64_le(timestamp);
    buffer.put_u64_le(checksum);
}

/// The rest of a position.
fn put_totals(buffer: &mut BytesMut, position: &PositionRow) {
    buffer.put_i64_le(position.closed_horizon.unwrap_or(NO_HORIZON));
    buffer.put_u64_le(position.open_cells);
    buffer.put_u64_le(position.open_count);
    buffer.put_u8(u8::from(position.idle));
    put_string(buffer, &position.table);
}

/// A row of partials.
fn put_cell(buffer: &mut BytesMut, flush: &PartitionFlush, cell: usize) {
    let cell = &flush.cells.cells[cell];
    // Years 1970 to 2105 are events; a DateTime holds them in 32 bits.
    buffer.put_u32_le((cell.window_start / 1_000_000) as u32);
    buffer.put_slice(cell.combination.as_row_binary());
    put_source(buffer, &flush.source);
    buffer.put_u64_le(cell.count);
    buffer.put_i64_le(flush.cells.position.next_offset);
}
