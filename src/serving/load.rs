//! Reading back what ClickHouse has of one aggregate of one partition.

use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;

use super::client::Client;
use super::error::{Error, ErrorKind};
use super::flush::{NO_HORIZON, PartitionFlush};
use super::store::{Refused, WindowStore};
use super::tables::{dimension_list, table};
use crate::kafka::Source;
use crate::window::{AggregatePlan, Claim, Combination, LastRecord, Loaded, LoadedCell, PositionRow, take_value};

#[derive(Row, Deserialize)]
struct Position {
    next_offset: u64,
    closed_horizon: i64,
    open_cells: u64,
    open_count: u64,
    last_offset: i64,
    last_timestamp: i64,
    last_checksum: u64,
    idle: u8,
    partials: String,
}

#[derive(Row, Deserialize)]
struct Comment {
    comment: String,
}

#[derive(Row, Deserialize)]
struct Intent {
    next_offset: u64,
    last_offset: i64,
    last_timestamp: i64,
    last_checksum: u64,
}

#[derive(Row, Deserialize)]
struct Reached {
    topic: String,
    generation: i32,
    partition: i32,
    next_offset: u64,
}

fn last(offset: i64, timestamp: i64, checksum: u64) -> Option<LastRecord> {
    (offset >= 0).then_some(LastRecord { offset, timestamp, checksum })
}

impl From<Position> for PositionRow {
    fn from(row: Position) -> Self {
        Self {
            next_offset: row.next_offset as i64,
            closed_horizon: (row.closed_horizon != NO_HORIZON).then_some(row.closed_horizon),
            open_cells: row.open_cells,
            open_count: row.open_count,
            last: last(row.last_offset, row.last_timestamp, row.last_checksum),
            idle: row.idle != 0,
            table: row.partials.into(),
        }
    }
}

impl From<Intent> for Claim {
    fn from(row: Intent) -> Self {
        Self { next_offset: row.next_offset as i64, last: last(row.last_offset, row.last_timestamp, row.last_checksum) }
    }
}

/// The key of positions and intents, up to the topic.
const KEY: &str = "pipeline = ? AND aggregate = ? AND definition = ?";

/// The table of one aggregate, its newest position of one partition, the flush that was begun last, and the position's
/// open cells, asked for in this order. What comes back may lag or be in the middle of another's flush; [`crate::window::Rebuild`]
/// judges that.
pub async fn load(store: &impl WindowStore, source: &Source, plan: &AggregatePlan) -> Result<Loaded, Error> {
    let table = store.table(plan).await?;
    let position = store.position(source, plan).await?;
    let intents = store.intent(source, plan).await?.into_iter().collect();
    let cells = match &position {
        None => Vec::new(),
        Some(position) => store.open_cells(source, plan, position).await?,
    };
    Ok(Loaded { table, position, cells, intents })
}

/// The key of one aggregate of one partition in positions and intents.
const KEY_OF_PARTITION: &str =
    "pipeline = ? AND aggregate = ? AND definition = ? AND topic = ? AND generation = ? AND partition = ?";

impl WindowStore for Client {
    async fn prepare(&self, pipeline: &str, plans: &[Arc<AggregatePlan>]) -> Result<Refused, Error> {
        Client::prepare(self, pipeline, plans).await
    }

    async fn table(&self, plan: &AggregatePlan) -> Result<Arc<str>, Error> {
        let what = format!("look at realtime.{}", plan.partials_table());
        let sql = "SELECT comment FROM system.tables WHERE database = 'realtime' AND name = ?";
        let rows: Vec<Comment> = self.rows(&what, self.query(sql).bind(plan.partials_table())).await?;
        let gone = || self.error(ErrorKind::Missing, &what, "there is no such table");
        Ok(rows.into_iter().next().ok_or_else(gone)?.comment.into())
    }

    async fn position(&self, source: &Source, plan: &AggregatePlan) -> Result<Option<PositionRow>, Error> {
        let what = format!("read the position of {} of {source}", plan.name);
        let sql = format!(
            "SELECT next_offset, closed_horizon, open_cells, open_count, last_offset, last_timestamp, last_checksum, idle, \
             partials FROM realtime.positions WHERE {KEY_OF_PARTITION} ORDER BY next_offset DESC, written_at DESC LIMIT 1"
        );
        let rows: Vec<Position> = self.rows(&what, self.keyed(&sql, source, plan)).await?;
        Ok(rows.into_iter().next().map(PositionRow::from))
    }

    async fn intent(&self, source: &Source, plan: &AggregatePlan) -> Result<Option<Claim>, Error> {
        let what = format!("read the intents of {} of {source}", plan.name);
        let sql = format!(
            "SELECT next_offset, last_offset, last_timestamp, last_checksum FROM realtime.intents \
             WHERE {KEY_OF_PARTITION} ORDER BY next_offset DESC LIMIT 1"
        );
        let rows: Vec<Intent> = self.rows(&what, self.keyed(&sql, source, plan)).await?;
        Ok(rows.into_iter().next().map(Claim::from))
    }

    async fn open_cells(
        &self,
        source: &Source,
        plan: &AggregatePlan,
        position: &PositionRow,
    ) -> Result<Vec<LoadedCell>, Error> {
        self.load_cells(source, plan, position).await
    }

    async fn positions(&self, plan: &AggregatePlan) -> Result<Vec<(Source, i64)>, Error> {
        Client::positions(self, plan).await
    }

    async fn insert_intents(&self, flushes: &[&PartitionFlush]) -> Result<(), Error> {
        self.write_intents(flushes).await
    }

    async fn insert_partials(&self, group: &[&PartitionFlush]) -> Result<(), Error> {
        self.write_partials(group).await
    }

    async fn insert_positions(&self, flushes: &[&PartitionFlush]) -> Result<(), Error> {
        self.write_positions(flushes).await
    }

    async fn point_view(&self, plan: &AggregatePlan) -> Result<bool, Error> {
        Client::point_view(self, plan).await
    }

    async fn drop_superseded(&self, plan: &AggregatePlan) -> Result<Vec<String>, Error> {
        Client::drop_superseded(self, plan).await
    }
}

impl Client {
    /// A query by [`KEY_OF_PARTITION`].
    fn keyed(&self, sql: &str, source: &Source, plan: &AggregatePlan) -> clickhouse::query::Query {
        self.query(sql)
            .bind(&*source.pipeline)
            .bind(plan.name.as_str())
            .bind(plan.definition.as_str())
            .bind(&*source.topic)
            .bind(source.generation)
            .bind(source.partition)
    }

    /// The cells of windows that a position calls open.
    async fn load_cells(
        &self,
        source: &Source,
        plan: &AggregatePlan,
        position: &PositionRow,
    ) -> Result<Vec<LoadedCell>, Error> {
        let what = format!("load the open windows of {} of {source}", plan.name);
        // A window is open if it ends after the horizon. Whole seconds: the horizon is cut, so that one window too
        // many may come, which is left out below.
        let open_from = position.closed_horizon.map_or(0, |h| (h - plan.window).max(0) / 1_000_000);
        let sql = format!(
            "SELECT window_start, {}partial_count, partial_version FROM {} FINAL \
             WHERE window_start >= toDateTime(?, 'UTC') AND topic = ? AND generation = ? AND partition = ?",
            dimension_list(plan),
            table(&plan.partials_table()),
        );
        let query =
            self.query(&sql).bind(open_from).bind(&*source.topic).bind(source.generation).bind(source.partition);
        let bytes = self.row_binary(&what, query).await?;
        let mut cells = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let cell = read_cell(&mut rest, plan.dimensions.len()).ok_or_else(|| {
                self.error(ErrorKind::Permanent, &what, "the answer is not the rows that were asked for")
            })?;
            if position.closed_horizon.is_none_or(|h| cell.window_start + plan.window > h) {
                cells.push(cell);
            }
        }
        Ok(cells)
    }

    /// The greatest position of each of these aggregates of a partition that lies beyond `next_offset`, whether its flush
    /// came to its end or not: what the log must still hold.
    pub async fn claims_above(
        &self,
        source: &Source,
        plans: &[Arc<AggregatePlan>],
        next_offset: i64,
    ) -> Result<Vec<Claim>, Error> {
        if plans.is_empty() {
            return Ok(Vec::new());
        }
        // Names and definitions are checked identifiers and hexadecimal digits.
        let pairs: Vec<String> = plans.iter().map(|p| format!("('{}', '{}')", p.name, p.definition)).collect();
        let rows = |table: &str| {
            format!(
                "SELECT aggregate, next_offset AS v, last_offset AS o, last_timestamp AS t, last_checksum AS c \
                 FROM realtime.{table} WHERE pipeline = ? AND (aggregate, definition) IN ({}) \
                 AND topic = ? AND generation = ? AND partition = ?",
                pairs.join(", ")
            )
        };
        let sql = format!(
            "SELECT max(v) AS next_offset, argMax(o, v) AS last_offset, argMax(t, v) AS last_timestamp, \
             argMax(c, v) AS last_checksum FROM ({} UNION ALL {}) GROUP BY aggregate HAVING next_offset > ?",
            rows("positions"),
            rows("intents")
        );
        let bind = |query: clickhouse::query::Query| {
            query.bind(&*source.pipeline).bind(&*source.topic).bind(source.generation).bind(source.partition)
        };
        let query = bind(bind(self.query(&sql))).bind(next_offset);
        let rows: Vec<Intent> = self.rows(&format!("read the positions of {source}"), query).await?;
        Ok(rows.into_iter().map(Claim::from).collect())
    }

    /// How far every partition of an aggregate's definition is: what decides when its view may change over.
    pub async fn positions(&self, plan: &AggregatePlan) -> Result<Vec<(Source, i64)>, Error> {
        let sql = format!(
            "SELECT topic, generation, partition, max(next_offset) AS next_offset FROM realtime.positions \
             WHERE {KEY} AND partials = ? GROUP BY topic, generation, partition ORDER BY topic, generation, partition"
        );
        let table = WindowStore::table(self, plan).await?;
        let query = self.query(&sql).bind(&*plan.pipeline).bind(plan.name.as_str()).bind(plan.definition.as_str());
        let query = query.bind(&*table);
        let rows: Vec<Reached> = self.rows(&format!("read the positions of {}", plan.name), query).await?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let source = Source {
                    pipeline: plan.pipeline.clone(),
                    topic: row.topic.into(),
                    generation: row.generation,
                    partition: row.partition,
                };
                (source, row.next_offset as i64)
            })
            .collect())
    }
}

fn read_cell(rest: &mut &[u8], dimensions: usize) -> Option<LoadedCell> {
    let window_start = i64::from(u32::from_le_bytes(take(rest)?)) * 1_000_000;
    let before = *rest;
    for _ in 0..dimensions {
        take_value(rest)?;
    }
    let combination = Combination::from_row_binary(&before[..before.len() - rest.len()], dimensions)?;
    let count = u64::from_le_bytes(take(rest)?);
    let version = i64::from_le_bytes(take(rest)?);
    Some(LoadedCell { window_start, combination, count, version })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}
