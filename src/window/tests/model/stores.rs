//! What lasts: a simulated ClickHouse, and Bronze's commits.

use std::collections::{BTreeMap, HashMap};

use crate::window::{Combination, FlushCells, PositionRow, Standing, Verdict};

pub(super) type Cells = BTreeMap<(i64, Combination), (i64, u64)>;
/// Definition and partition.
pub(super) type Key = (String, usize);

/// ReplacingMergeTree: the highest version of a key wins, whenever it comes.
#[derive(Default)]
pub(super) struct ClickHouse {
    pub(super) cells: HashMap<Key, Cells>,
    pub(super) history: HashMap<Key, Vec<Cells>>,
    pub(super) positions: HashMap<Key, Vec<PositionRow>>,
}

impl ClickHouse {
    pub(super) fn upsert(&mut self, key: &Key, flushed: &FlushCells, cells: usize) {
        let mine = self.cells.entry(key.clone()).or_default();
        let version = flushed.position.next_offset;
        for cell in &flushed.cells[..cells] {
            let held = mine.entry((cell.window_start, cell.combination.clone())).or_insert((-1, 0));
            if held.0 <= version {
                *held = (version, cell.count);
            }
        }
        self.history.entry(key.clone()).or_insert_with(|| vec![Cells::new()]).push(mine.clone());
    }
}

pub(super) type Epoch = (u64, usize);

#[derive(Default, Clone)]
pub(super) struct Commit {
    pub(super) epoch: Option<Epoch>,
    pub(super) txn: BTreeMap<usize, Standing>,
    /// Partition, index in its log, verdict.
    pub(super) rows: Vec<(usize, usize, Verdict)>,
}

/// Bronze's commits: each is fenced by the positions that it goes on from.
#[derive(Default)]
pub(super) struct Bronze {
    pub(super) commits: Vec<Commit>,
}

impl Bronze {
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.commits.iter().rev().find_map(|c| c.epoch)
    }

    pub(super) fn standing(&self, partition: usize) -> Standing {
        let found = self.commits.iter().rev().find_map(|c| c.txn.get(&partition));
        found.copied().unwrap_or(Standing { next_offset: 0, mark: None })
    }

    pub(super) fn ok(&self, partition: usize) -> Vec<usize> {
        let rows = self.commits.iter().flat_map(|c| &c.rows);
        rows.filter(|(p, _, v)| *p == partition && *v == Verdict::Ok).map(|(_, i, _)| *i).collect()
    }
}
