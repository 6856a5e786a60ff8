//! ClickHouse: ReplacingMergeTree tables, in which the highest version of a key wins whenever it comes; views; reads that
//! lag. Inserts stall and land late, or half, also when the daemon that sent them is dead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand::prelude::*;

use super::Rule;
use super::world::{Shared, World, lock, step};
use crate::kafka::Source;
use crate::serving::{Error, ErrorKind, PartitionFlush, Refused, WindowStore};
use crate::window::tests::properties::Totals;
use crate::window::{AggregatePlan, Claim, Combination, LoadedCell, PositionRow};

/// Definition and partition.
pub(super) type Key = (String, i32);
/// Window start, combination, partition.
type CellKey = (i64, Combination, i32);

/// A written version of a cell.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// When it was written, for reads that lag.
    at: u64,
    version: i64,
    count: u64,
}

/// A table of partial totals.
#[derive(Default)]
pub(super) struct Partials {
    /// Each table that is made gets its own.
    id: u64,
    cells: BTreeMap<CellKey, Vec<Written>>,
}

impl Partials {
    /// The rows that FINAL shows of a partition, as a read sees them that lags behind `upto`.
    fn rows(&self, partition: i32, upto: u64) -> impl Iterator<Item = LoadedCell> {
        self.cells.iter().filter(move |((_, _, p), _)| *p == partition).filter_map(move |((start, key, _), written)| {
            let newest = written.iter().filter(|w| w.at <= upto).max_by_key(|w| (w.version, w.at))?;
            let (window_start, combination) = (*start, key.clone());
            Some(LoadedCell { window_start, combination, count: newest.count, version: newest.version })
        })
    }
}

/// An insert under way.
#[derive(Debug, Clone)]
enum Insert {
    Intents(Vec<(Key, Claim)>),
    Partials(String, Vec<(CellKey, i64, u64)>),
    Positions(Vec<(Key, PositionRow)>),
}

#[derive(Default)]
pub(super) struct ClickHouse {
    /// By name; none while they do not exist.
    pub partials: BTreeMap<String, Partials>,
    shared: Option<Shares>,
    /// The definition that each aggregate's view shows.
    pub views: BTreeMap<String, Arc<AggregatePlan>>,
    /// Inserts that were sent and have not landed.
    sent: BTreeMap<u64, Insert>,
    /// How inserts ended that landed while nobody looked.
    ended: BTreeMap<u64, bool>,
    clock: u64,
}

/// `realtime.positions` and `realtime.intents`.
#[derive(Default)]
struct Shares {
    positions: BTreeMap<Key, Vec<(u64, PositionRow)>>,
    intents: BTreeMap<Key, Vec<(u64, Claim)>>,
}

impl ClickHouse {
    /// Whether the tables were there.
    fn apply(&mut self, insert: &Insert) -> bool {
        self.clock += 1;
        let at = self.clock;
        match (insert, &mut self.shared) {
            (Insert::Partials(table, rows), _) => {
                let Some(partials) = self.partials.get_mut(table) else { return false };
                for (key, version, count) in rows {
                    let written = Written { at, version: *version, count: *count };
                    partials.cells.entry(key.clone()).or_default().push(written);
                }
            }
            (_, None) => return false,
            (Insert::Intents(rows), Some(shares)) => {
                rows.iter().for_each(|(key, row)| shares.intents.entry(key.clone()).or_default().push((at, *row)));
            }
            (Insert::Positions(rows), Some(shares)) => {
                for (key, row) in rows {
                    shares.positions.entry(key.clone()).or_default().push((at, row.clone()));
                }
            }
        }
        true
    }

    /// What was sent may still land, in tables that are made anew.
    pub fn lose_everything(&mut self) {
        self.partials.clear();
        self.shared = None;
        self.views.clear();
    }

    /// What the view of an aggregate shows of one partition.
    pub fn served(&self, plan: &AggregatePlan, partition: i32) -> Totals {
        let mut totals = Totals::new();
        if let Some(partials) = self.partials.get(&plan.partials_table()) {
            for cell in partials.rows(partition, u64::MAX) {
                let key = cell.combination.values().into_iter().map(str::to_owned).collect();
                totals.entry(cell.window_start).or_default().insert(key, cell.count);
            }
        }
        totals
    }

    /// The horizon of the newest position.
    pub fn closed_horizon(&self, key: &Key) -> Option<i64> {
        let rows = self.shared.as_ref()?.positions.get(key)?;
        rows.iter().max_by_key(|(_, row)| row.next_offset)?.1.closed_horizon
    }

    fn take_half(&mut self, id: u64) -> Option<Insert> {
        let half = |length: usize| length / 2;
        Some(match self.sent.get_mut(&id)? {
            Insert::Intents(rows) => Insert::Intents(rows.drain(..half(rows.len())).collect()),
            Insert::Partials(table, rows) => Insert::Partials(table.clone(), rows.drain(..half(rows.len())).collect()),
            Insert::Positions(rows) => Insert::Positions(rows.drain(..half(rows.len())).collect()),
        })
    }
}

impl World {
    /// Somebody drops a table by hand.
    pub fn lose_table(&mut self) {
        if let Some(table) = self.clickhouse.partials.keys().choose(&mut self.rng).cloned() {
            self.clickhouse.partials.remove(&table);
            self.tell(|| format!("table {table} is dropped by hand"));
        }
    }

    /// Answers whether there was one.
    pub fn late_insert_lands(&mut self) -> bool {
        let Some(id) = self.clickhouse.sent.keys().copied().choose(&mut self.rng) else { return false };
        if let Some(insert) = self.clickhouse.sent.remove(&id) {
            let landed = self.clickhouse.apply(&insert);
            self.counts.late_inserts += 1;
            self.clickhouse.ended.insert(id, landed);
            self.tell(|| format!("insert {id} lands late: {landed}"));
        }
        true
    }
}

/// ClickHouse as one daemon sees it.
#[derive(Clone)]
pub(super) struct SimStore {
    pub world: Shared,
    /// Cells that a lying position was made of.
    lies: Arc<Mutex<BTreeMap<Key, Vec<LoadedCell>>>>,
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, what, "the simulated server", "no answer")
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Missing, what, "the simulated server", "there is no such table")
}

fn key(source: &Source, plan: &AggregatePlan) -> Key {
    (plan.definition.clone(), source.partition)
}

fn is_open(window_start: i64, plan: &AggregatePlan, position: &PositionRow) -> bool {
    position.closed_horizon.is_none_or(|h| window_start + plan.window > h)
}

impl SimStore {
    pub fn new(world: &Shared) -> Self {
        Self { world: world.clone(), lies: Arc::default() }
    }

    /// A request that may fail on its way.
    async fn ask<T>(&self, what: &str, answer: impl FnOnce(&mut World) -> Option<T>) -> Result<T, Error> {
        step().await;
        let answer = {
            let mut world = lock(&self.world);
            if world.trouble(2) {
                return Err(unavailable(what));
            }
            answer(&mut world)
        };
        step().await;
        answer.ok_or_else(|| missing(what))
    }

    async fn insert(&self, what: &str, insert: Insert) -> Result<(), Error> {
        let id = {
            let mut world = lock(&self.world);
            world.ids += 1;
            let id = world.ids;
            world.tell(|| format!("insert {id}: {insert:?}"));
            world.clickhouse.sent.insert(id, insert);
            id
        };
        // Who is killed now has sent it all the same.
        step().await;
        while lock(&self.world).trouble(20) {
            step().await;
        }
        let landed = {
            let mut world = lock(&self.world);
            let dice = if world.calm { 99 } else { world.rng.random_range(0..100) };
            match dice {
                0..4 => {
                    world.clickhouse.sent.remove(&id);
                    world.tell(|| format!("insert {id} never arrives"));
                    return Err(unavailable(what));
                }
                4..10 => return Err(unavailable(what)),
                10..14 => {
                    if let Some(half) = world.clickhouse.take_half(id) {
                        let landed = world.clickhouse.apply(&half);
                        world.tell(|| format!("half of insert {id} lands: {landed}"));
                    }
                    return Err(unavailable(what));
                }
                _ => {}
            }
            match world.clickhouse.sent.remove(&id) {
                Some(insert) => {
                    let landed = world.clickhouse.apply(&insert);
                    world.tell(|| format!("insert {id} lands: {landed}"));
                    landed
                }
                // It landed while it seemed to stall.
                None => world.clickhouse.ended.remove(&id).unwrap_or(false),
            }
        };
        step().await;
        match landed {
            _ if lock(&self.world).trouble(5) => Err(unavailable(what)),
            true => Ok(()),
            false => Err(missing(what)),
        }
    }

    /// Up to when a read sees what was written.
    fn upto(world: &mut World) -> u64 {
        match world.trouble(15) {
            true => world.rng.random_range(0..=world.clickhouse.clock),
            false => u64::MAX,
        }
    }
}

impl WindowStore for SimStore {
    async fn prepare(&self, _: &str, plans: &[Arc<AggregatePlan>]) -> Result<Refused, Error> {
        self.ask("prepare", |world| {
            world.clickhouse.shared.get_or_insert_default();
            Some(())
        })
        .await?;
        for plan in plans {
            self.ask("prepare", |world| {
                world.ids += 1;
                let made = Partials { id: world.ids, ..Partials::default() };
                world.clickhouse.partials.entry(plan.partials_table()).or_insert(made);
                Some(())
            })
            .await?;
            self.ask("prepare", |world| {
                world.clickhouse.views.entry(plan.name.clone()).or_insert_with(|| plan.clone());
                Some(())
            })
            .await?;
        }
        Ok(Refused::new())
    }

    async fn table(&self, plan: &AggregatePlan) -> Result<Arc<str>, Error> {
        self.ask("look at a table", |world| {
            let id = world.clickhouse.partials.get(&plan.partials_table())?.id;
            Some(if world.broken == Some(Rule::SameTable) { "any".into() } else { id.to_string().into() })
        })
        .await
    }

    async fn position(&self, source: &Source, plan: &AggregatePlan) -> Result<Option<PositionRow>, Error> {
        let key = key(source, plan);
        self.ask("read a position", |world| {
            let upto = Self::upto(world);
            let rows = world.clickhouse.shared.as_ref()?.positions.get(&key);
            let seen = rows.into_iter().flatten().filter(|(at, _)| *at <= upto);
            let mut newest = seen.max_by_key(|(at, row)| (row.next_offset, *at)).map(|(_, row)| row.clone());
            if world.broken == Some(Rule::CellCheck)
                && let (Some(row), Some(partials)) =
                    (&mut newest, world.clickhouse.partials.get(&plan.partials_table()))
            {
                let mut cells: Vec<_> = partials.rows(source.partition, upto).collect();
                cells.retain(|cell| is_open(cell.window_start, plan, row));
                cells.iter_mut().for_each(|cell| cell.version = cell.version.min(row.next_offset));
                row.open_cells = cells.len() as u64;
                row.open_count = cells.iter().map(|cell| cell.count).sum();
                self.lies.lock().unwrap().insert(key.clone(), cells);
            }
            Some(newest)
        })
        .await
    }

    async fn intent(&self, source: &Source, plan: &AggregatePlan) -> Result<Option<Claim>, Error> {
        let key = key(source, plan);
        self.ask("read an intent", |world| {
            let rows = world.clickhouse.shared.as_ref()?.intents.get(&key);
            Some(rows.into_iter().flatten().map(|(_, claim)| *claim).max_by_key(|claim| claim.next_offset))
        })
        .await
    }

    async fn open_cells(
        &self,
        source: &Source,
        plan: &AggregatePlan,
        position: &PositionRow,
    ) -> Result<Vec<LoadedCell>, Error> {
        let key = key(source, plan);
        self.ask("load cells", |world| {
            if let Some(cells) = self.lies.lock().unwrap().remove(&key) {
                return Some(cells);
            }
            let upto = Self::upto(world);
            let partials = world.clickhouse.partials.get(&plan.partials_table())?;
            Some(
                partials
                    .rows(source.partition, upto)
                    .filter(|cell| is_open(cell.window_start, plan, position))
                    .collect(),
            )
        })
        .await
    }

    async fn positions(&self, plan: &AggregatePlan) -> Result<Vec<(Source, i64)>, Error> {
        self.ask("read positions", |world| {
            let table = world.clickhouse.partials.get(&plan.partials_table())?.id.to_string();
            let any = world.broken == Some(Rule::SameTable);
            let shares = world.clickhouse.shared.as_ref()?;
            let mine = shares.positions.iter().filter(|((definition, _), _)| *definition == plan.definition);
            Some(
                mine.filter_map(|((_, partition), rows)| {
                    let same = rows.iter().filter(|(_, row)| any || *row.table == *table);
                    let newest = same.map(|(_, row)| row.next_offset).max()?;
                    Some(((*super::world::source(*partition)).clone(), newest))
                })
                .collect(),
            )
        })
        .await
    }

    async fn insert_intents(&self, flushes: &[&PartitionFlush]) -> Result<(), Error> {
        if lock(&self.world).broken == Some(Rule::PositionsLast) {
            self.insert("positions", positions_of(flushes)).await?;
        }
        let claim = |row: &PositionRow| Claim { next_offset: row.next_offset, last: row.last };
        let rows = flushes.iter().map(|f| (key(&f.source, &f.plan), claim(&f.cells.position))).collect();
        self.insert("intents", Insert::Intents(rows)).await
    }

    async fn insert_partials(&self, group: &[&PartitionFlush]) -> Result<(), Error> {
        group.iter().for_each(|flush| lock(&self.world).check_cells(flush));
        let mut rows: Vec<(CellKey, i64, u64)> = Vec::new();
        for flush in group {
            rows.extend(flush.cells.cells.iter().map(|cell| {
                let key = (cell.window_start, cell.combination.clone(), flush.source.partition);
                (key, flush.cells.position.next_offset, cell.count)
            }));
        }
        // The order of cells within a window is a hash map's; a world must be the same each time.
        rows.sort();
        let Some(first) = group.first().filter(|_| !rows.is_empty()) else { return Ok(()) };
        self.insert("partials", Insert::Partials(first.plan.partials_table(), rows)).await
    }

    async fn insert_positions(&self, flushes: &[&PartitionFlush]) -> Result<(), Error> {
        flushes.iter().for_each(|flush| lock(&self.world).check_position(flush));
        if lock(&self.world).broken == Some(Rule::PositionsLast) {
            return Ok(());
        }
        self.insert("positions", positions_of(flushes)).await
    }

    async fn point_view(&self, plan: &AggregatePlan) -> Result<bool, Error> {
        self.ask("point a view", |world| {
            let shown = world.clickhouse.views.get(&plan.name).map(|shown| shown.definition.clone());
            if shown.as_ref() == Some(&plan.definition) {
                return Some(false);
            }
            if !world.clickhouse.partials.contains_key(&plan.partials_table()) {
                return None;
            }
            world.view_changes(plan);
            world.clickhouse.views.insert(plan.name.clone(), Arc::new(plan.clone()));
            Some(true)
        })
        .await
    }

    async fn drop_superseded(&self, plan: &AggregatePlan) -> Result<Vec<String>, Error> {
        self.ask("drop tables", |world| {
            let (prefix, kept) = (format!("{}_partials_", plan.name), plan.partials_table());
            let tables = world.clickhouse.partials.keys();
            let old: Vec<String> = tables.filter(|t| t.starts_with(&prefix) && **t != kept).cloned().collect();
            for table in &old {
                world.clickhouse.partials.remove(table);
                world.tell(|| format!("table {table} is dropped"));
            }
            Some(old)
        })
        .await
    }
}

fn positions_of(flushes: &[&PartitionFlush]) -> Insert {
    Insert::Positions(flushes.iter().map(|f| (key(&f.source, &f.plan), f.cells.position.clone())).collect())
}
