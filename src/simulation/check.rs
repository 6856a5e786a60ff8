//! What must hold: in the end, and when a view changes over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Rule;
use super::topic::PARTITIONS;
use super::world::{World, configuration, source};
use crate::kafka::Source;
use crate::serving::PartitionFlush;
use crate::window::tests::properties::{Totals, recount};
use crate::window::tests::{Record, plain_verdict};
use crate::window::{AggregatePlan, Verdict};

impl World {
    /// A definition is found to be whole at these positions of Bronze.
    pub fn must_reach(&mut self, plan: &AggregatePlan, bronze: &[(Arc<Source>, i64)]) {
        let positions = bronze.iter().map(|(source, next)| (source.partition, *next)).collect();
        self.reaches.insert(plan.definition.clone(), positions);
    }

    /// A view that changes over must show at least what Bronze had when its definition was found to be whole. (Where two
    /// definitions are served at a time, each daemon points the view at its own.)
    pub fn view_changes(&mut self, plan: &AggregatePlan) {
        self.counts.views += 1;
        self.tell(|| format!("the view {} shows {}", plan.name, plan.definition));
        if self.trouble.definitions || self.trouble.losses {
            return;
        }
        for (partition, next) in self.reaches.get(&plan.definition).cloned().unwrap_or_default() {
            let want = self.recount(plan, partition, next);
            let got = self.clickhouse.served(plan, partition);
            let less = want.iter().any(|(start, cells)| {
                cells.iter().any(|(key, count)| got.get(start).and_then(|c| c.get(key)) < Some(count))
            });
            if less {
                self.errors.push(format!("the view {} changes over to {got:?}, Bronze has {want:?}", plan.name));
            }
        }
    }

    /// What is written with version `v` is the count of the records below `v`. (Where settings do not change and no gap
    /// is accepted, so that the log alone says what that is.)
    pub fn check_cells(&mut self, flush: &PartitionFlush) {
        let at = flush.cells.position.next_offset;
        let Some((truth, _)) = self.truth(flush) else { return };
        for cell in &flush.cells.cells {
            let key: Vec<String> = cell.combination.values().into_iter().map(str::to_owned).collect();
            if truth.get(&cell.window_start).and_then(|cells| cells.get(&key)) != Some(&cell.count) {
                self.errors.push(format!("untrue: {} of {} at {at}: {cell:?}", flush.plan.name, flush.source));
            }
        }
    }

    /// And so are the number and sum of the open cells that a position speaks of.
    pub fn check_position(&mut self, flush: &PartitionFlush) {
        let (row, plan) = (&flush.cells.position, &flush.plan);
        let Some((truth, mark)) = self.truth(flush) else { return };
        let horizon = plan.closed_horizon(mark);
        let open = truth.iter().filter(|(start, _)| horizon.is_none_or(|h| **start + plan.window > h));
        let counts: Vec<u64> = open.flat_map(|(_, cells)| cells.values().copied()).collect();
        let (number, sum) = (counts.len() as u64, counts.iter().sum::<u64>());
        if (row.closed_horizon, row.open_cells, row.open_count) != (horizon, number, sum) {
            let of = &flush.source;
            self.errors.push(format!("untrue: {} of {of}: {row:?}, should be {horizon:?}, {counts:?}", plan.name));
        }
    }

    /// Totals and mark of the records below a flush's position.
    fn truth(&self, flush: &PartitionFlush) -> Option<(Totals, Option<i64>)> {
        if self.trouble.settings || self.trouble.retention {
            return None;
        }
        let (mut mark, mut ok) = (None, Vec::new());
        let records = &self.topic[flush.source.partition as usize].records;
        for record in records.iter().filter(|r| r.offset < flush.cells.position.next_offset) {
            if plain_verdict(configuration(0, 0), record, &mut mark) == Verdict::Ok {
                ok.push(record);
            }
        }
        Some((recount(&flush.plan, &ok), mark))
    }

    /// What Bronze's `ok` rows of a partition below an offset give.
    fn recount(&self, plan: &AggregatePlan, partition: i32, below: i64) -> Totals {
        let records = self.records(partition);
        let rows = self.delta.rows(partition);
        let ok = rows.iter().filter(|row| row.verdict == Verdict::Ok && row.offset < below);
        recount(plan, &ok.map(|row| records[&row.offset]).collect::<Vec<_>>())
    }

    fn records(&self, partition: i32) -> HashMap<i64, &Record> {
        self.topic[partition as usize].records.iter().map(|record| (record.offset, record)).collect()
    }

    /// Every record is in Bronze once, in order, in the commit that moves its partition over it.
    pub fn check_bronze(&self, errors: &mut Vec<String>) {
        let mut positions: BTreeMap<i32, i64> = BTreeMap::new();
        for (version, entry) in self.delta.history.iter().enumerate() {
            let rows: Vec<_> = entry.files.iter().flat_map(|file| &self.delta.files[file]).collect();
            for partition in 0..PARTITIONS {
                let mine: Vec<i64> = rows.iter().filter(|r| r.partition == partition).map(|r| r.offset).collect();
                let id = source(partition).txn_id();
                let moved = entry.effects.txns.iter().find(|(i, _)| *i == id).map(|(_, at)| *at);
                let Some(to) = moved else {
                    if !mine.is_empty() {
                        errors.push(format!("I1: version {version} has rows {mine:?} of p{partition} and no position"));
                    }
                    continue;
                };
                // A genesis, or a gap, takes no records with it.
                let gap = entry.gap || (self.broken == Some(Rule::GapEpoch) && entry.files.is_empty());
                let from = if gap { to } else { positions.get(&partition).copied().unwrap_or(to) };
                let log = &self.topic[partition as usize].records;
                let want: Vec<i64> =
                    log.iter().map(|r| r.offset).filter(|offset| (from..to).contains(offset)).collect();
                if mine != want {
                    errors.push(format!("I1: version {version} moves p{partition} from {from} to {to} with {mine:?}"));
                }
                if positions.insert(partition, to).is_some_and(|before| before > to) {
                    errors.push(format!("I2: version {version} moves p{partition} back to {to}"));
                }
            }
        }
        for partition in 0..PARTITIONS {
            let end = self.topic[partition as usize].last();
            if positions.get(&partition) != Some(&end) {
                errors.push(format!("p{partition} ends at {:?}, its log at {end}", positions.get(&partition)));
            }
            if !self.trouble.settings {
                self.check_verdicts(partition, errors);
            }
        }
    }

    /// Verdicts are those of a plain pass over what could be read.
    fn check_verdicts(&self, partition: i32, errors: &mut Vec<String>) {
        let (records, mut mark) = (self.records(partition), None);
        for row in self.delta.rows(partition) {
            let plain = plain_verdict(configuration(0, 0), records[&row.offset], &mut mark);
            if plain != row.verdict {
                errors.push(format!("p{partition}, offset {}: {:?}, should be {plain:?}", row.offset, row.verdict));
            }
        }
    }

    /// Every view shows what a recount of Bronze gives.
    pub fn check_views(&self, plans: &[Arc<AggregatePlan>], errors: &mut Vec<String>) {
        for plan in plans {
            match self.clickhouse.views.get(&plan.name) {
                Some(shown) if shown.definition == plan.definition => {}
                shown => {
                    errors.push(format!("the view {} shows {:?}", plan.name, shown.map(|s| &s.definition)));
                    continue;
                }
            }
            for partition in 0..PARTITIONS {
                let want = self.recount(plan, partition, i64::MAX);
                let got = self.clickhouse.served(plan, partition);
                if got != want {
                    errors.push(format!("{} of p{partition} (got, want): {:?}", plan.name, differences(&got, &want)));
                }
            }
        }
    }
}

type Difference = (i64, Vec<String>, Option<u64>, Option<u64>);

fn differences(got: &Totals, want: &Totals) -> Vec<Difference> {
    let cells = |totals: &Totals| -> BTreeMap<(i64, Vec<String>), u64> {
        totals.iter().flat_map(|(start, cells)| cells.iter().map(|(k, n)| ((*start, k.clone()), *n))).collect()
    };
    let (got, want) = (cells(got), cells(want));
    let mut keys: Vec<_> = got.keys().chain(want.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    let pair = |key: (i64, Vec<String>)| {
        let (g, w) = (got.get(&key).copied(), want.get(&key).copied());
        (g != w).then_some((key.0, key.1, g, w))
    };
    keys.into_iter().filter_map(pair).collect()
}
