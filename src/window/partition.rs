//! The windows of one partition, every aggregate of it. An aggregate is *live* or *down*; one that is down ignores batches
//! until it is counted again from Bronze and joins.

use std::sync::Arc;

use super::flush::FlushCells;
use super::state::{FoldError, WindowState};
use crate::event::Batch;

/// The changed totals of a partition, by the aggregate's place in the pipeline.
#[derive(Debug, Default)]
pub struct Totals {
    pub cells: Vec<(usize, FlushCells)>,
    /// What is served once these are: the least position of all aggregates; none while one is down.
    pub position: Option<i64>,
    /// The tables that the live states' cells are in.
    pub tables: Vec<(usize, Arc<str>)>,
}

/// See the file's head.
#[derive(Debug)]
pub struct PartitionWindows {
    /// By the aggregate's place in the pipeline; none for one that is down.
    slots: Vec<Option<Box<WindowState>>>,
}

impl PartitionWindows {
    /// All aggregates down.
    pub fn new(aggregates: usize) -> Self {
        Self { slots: (0..aggregates).map(|_| None).collect() }
    }

    /// The aggregates that are down.
    pub fn down(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|i| self.slots[*i].is_none()).collect()
    }

    /// Bytes held, nearly.
    pub fn memory(&self) -> usize {
        self.slots.iter().flatten().map(|state| state.memory()).sum()
    }

    /// Lets a state join that was counted up to where the consumer stands.
    pub fn join(&mut self, aggregate: usize, state: WindowState) {
        self.slots[aggregate] = Some(Box::new(state));
    }

    /// Counts a batch. An aggregate whose state does not go on where the batch begins goes down: its totals cannot be
    /// trusted. Answers the last such error.
    pub fn fold(&mut self, batch: &Batch) -> Result<(), FoldError> {
        let mut outcome = Ok(());
        for slot in &mut self.slots {
            if let Some(state) = slot
                && let Err(error) = state.fold(batch)
            {
                outcome = Err(error);
                *slot = None;
            }
        }
        outcome
    }

    /// Forgets all totals; answers how many aggregates were live.
    pub fn drop_all(&mut self) -> usize {
        self.slots.iter_mut().filter_map(Option::take).count()
    }

    /// What is to be written now. `idle`: the partition has had nothing new for a while.
    pub fn snapshot(&self, idle: bool) -> Totals {
        let mut totals = Totals { position: Some(i64::MAX), ..Totals::default() };
        for (aggregate, slot) in self.slots.iter().enumerate() {
            match slot {
                Some(state) => {
                    // Below the floor ClickHouse already has more than we have counted.
                    let position = state.position().max(state.floor());
                    totals.position = totals.position.map(|least| least.min(position));
                    totals.tables.push((aggregate, state.table().clone()));
                    totals.cells.extend(state.snapshot(idle).map(|cells| (aggregate, cells)));
                }
                None => totals.position = None,
            }
        }
        totals.position = totals.position.filter(|p| *p != i64::MAX);
        totals
    }

    /// These totals are in ClickHouse, positions included.
    pub fn acknowledge(&mut self, written: &[(usize, FlushCells)]) {
        for (aggregate, cells) in written {
            if let Some(state) = &mut self.slots[*aggregate] {
                state.acknowledge(cells);
            }
        }
    }

    /// The live states, for tests that take rules of the protocol away.
    #[cfg(test)]
    pub(crate) fn live(&mut self) -> impl Iterator<Item = &mut WindowState> {
        self.slots.iter_mut().flatten().map(|state| &mut **state)
    }
}
