//! The topic: a log of records per partition, whose beginning retention takes away.

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::window::OTHER;
use crate::window::tests::{Record, SECOND};

pub(super) const PARTITIONS: i32 = 2;

pub(super) struct Log {
    /// Offsets have gaps, as after transactions.
    pub records: Vec<Record>,
    /// Records below it are gone.
    pub start: i64,
    /// Records at or above it have not come yet.
    pub end: i64,
}

impl Log {
    /// Mostly in order, sometimes far out of it, sometimes in the future or no event at all.
    pub fn new(rng: &mut ChaCha8Rng) -> Self {
        let (mut clock, mut offset) = (100i64, 0);
        let kinds = [Some("a"), Some("b"), Some("c"), Some(OTHER), None];
        let records: Vec<Record> = (0..rng.random_range(5..90))
            .map(|_| {
                clock += *[0, 0, 0, 1, 1, 2, 15].choose(rng).unwrap();
                offset += *[1, 1, 1, 3].choose(rng).unwrap();
                let ahead = if rng.random_bool(0.05) { *[10, 500].choose(rng).unwrap() } else { 0 };
                let back = *[0, 1, 2, 4, 9, 12, 30].choose(rng).unwrap();
                let texts = [*kinds.choose(rng).unwrap(), None, None, None, None];
                Record {
                    offset,
                    time: (clock - back + ahead).max(0) * SECOND,
                    kafka_ms: clock * 1000,
                    texts: rng.random_bool(0.95).then_some(texts),
                }
            })
            .collect();
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
