//! What must hold: of everything that is written, and of ClickHouse in the end.

use std::sync::Arc;

use super::World;
use crate::window::tests::properties::{Totals, recount};
use crate::window::tests::{Record, plain_verdict};
use crate::window::{AggregatePlan, FlushCells, PositionRow, Verdict};

impl World {
    /// The invariant behind it all: what is written with version `v` is exactly the count of the records below `v`.
    /// (Where settings do not change, so that the log alone says what that is.)
    pub(super) fn check_cells(&mut self, partition: usize, plan: &AggregatePlan, flushed: &FlushCells) {
        let (truth, _) = self.truth(partition, plan, flushed.position.next_offset);
        for cell in &flushed.cells {
            let key: Vec<String> = cell.combination.values().into_iter().map(str::to_owned).collect();
            if truth.get(&cell.window_start).and_then(|cells| cells.get(&key)) != Some(&cell.count) {
                self.untrue.push(format!("{} at {}: {cell:?}", plan.name, flushed.position.next_offset));
            }
        }
    }

    pub(super) fn check_position(&mut self, partition: usize, plan: &AggregatePlan, row: &PositionRow) {
        let (truth, mark) = self.truth(partition, plan, row.next_offset);
        let horizon = plan.closed_horizon(mark);
        let open = truth.iter().filter(|(start, _)| horizon.is_none_or(|h| **start + plan.window > h));
        let counts: Vec<u64> = open.flat_map(|(_, cells)| cells.values().copied()).collect();
        if (row.closed_horizon, row.open_cells, row.open_count) != (horizon, counts.len() as u64, counts.iter().sum()) {
            self.untrue.push(format!("{}: {row:?}, the truth is {horizon:?} and {counts:?}", plan.name));
        }
    }

    /// Totals and mark of the records below an offset.
    fn truth(&self, partition: usize, plan: &AggregatePlan, below: i64) -> (Totals, Option<i64>) {
        let (mut mark, mut ok) = (None, Vec::new());
        for record in self.logs[partition].iter().filter(|r| r.offset < below) {
            if plain_verdict(&self.pipelines[0], record, &mut mark) == Verdict::Ok {
                ok.push(record);
            }
        }
        (recount(plan, &ok), mark)
    }

    /// What is wrong once the logs are read to their end.
    pub(super) fn errors(&mut self, plans: &[Arc<AggregatePlan>]) -> Vec<String> {
        let mut errors = std::mem::take(&mut self.untrue);
        for (partition, log) in self.logs.iter().enumerate() {
            let ok: Vec<&Record> = self.bronze.ok(partition).into_iter().map(|i| &log[i]).collect();
            for plan in plans {
                let mut got = Totals::new();
                let cells = self.clickhouse.cells.get(&(plan.definition.clone(), partition));
                for ((start, combination), (_, count)) in cells.into_iter().flatten() {
                    let key = combination.values().into_iter().map(str::to_owned).collect();
                    got.entry(*start).or_default().insert(key, *count);
                }
                let want = recount(plan, &ok);
                if got != want {
                    errors.push(format!("partition {partition}, {}: got {got:?}, want {want:?}", plan.name));
                }
            }
        }
        errors
    }
}
