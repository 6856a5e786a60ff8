//! The topic: a log of records per partition, whose beginning retention takes away.

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::window::tests::{Record, random_records};

pub(super) const PARTITIONS: i32 = 2;

pub(super) struct Log {
    pub records: Vec<Record>,
    /// Records below it are gone.
    pub start: i64,
    /// Records at or above it have not come yet.
    pub end: i64,
}

impl Log {
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        let records = random_records(rng);
        let end = records[rng.random_range(0..records.len())].offset;
        Self { records, start: 0, end }
    }

    /// Behind the last record that there will ever be.
    pub fn last(&self) -> i64 {
        self.records.last().map_or(0, |r| r.offset + 1)
    }

    /// The next records from a position, and the position behind them. Without any the position may still move, over
    /// transaction markers.
    pub fn read(&self, position: i64, most: usize) -> (&[Record], i64) {
        let from = self.records.partition_point(|r| r.offset < position);
        let to = self.records.partition_point(|r| r.offset < self.end).min(from + most).max(from);
        let next = self.records[from..to].last().map_or(position, |r| r.offset + 1);
        (&self.records[from..to], next)
    }

    pub fn at(&self, offset: i64) -> Option<&Record> {
        let found = self.records.binary_search_by_key(&offset, |r| r.offset);
        found.ok().map(|index| &self.records[index]).filter(|r| r.offset >= self.start && r.offset < self.end)
    }
}
