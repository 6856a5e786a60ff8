//! What one flush of one aggregate of one partition writes.

use std::sync::Arc;

use super::combination::Combination;
use crate::event::RawBatch;

/// Which record a position stands behind: the last one below it. A log that has another record at this offset is not
/// the log that was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    pub offset: i64,
    /// Kafka timestamp, milliseconds since the epoch; -1 where there is none.
    pub timestamp: i64,
    /// Of key and value.
    pub checksum: u64,
}

impl LastRecord {
    /// The record in a row of a batch.
    pub fn of(raw: &RawBatch, row: usize) -> Self {
        Self {
            offset: raw.offsets[row],
            timestamp: raw.timestamps[row],
            checksum: Self::checksum(raw.key(row), (!raw.value_null[row]).then(|| raw.value(row))),
        }
    }

    /// The checksum of a record as it came from Kafka.
    pub fn checksum(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
        let part = |bytes: Option<&[u8]>| match bytes {
            None => 1,
            Some(bytes) => cityhash_rs::cityhash_102_128(bytes) as u64,
        };
        part(key).rotate_left(1) ^ part(value)
    }
}

/// A row of `realtime.positions`: up to where one aggregate of one partition is in ClickHouse, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    /// Every record of the partition below this offset is counted.
    pub next_offset: i64,
    /// Windows that end at or before it are final, microseconds since the epoch; none before the first event.
    pub closed_horizon: Option<i64>,
    /// Cells of windows that are not closed.
    pub open_cells: u64,
    /// The sum of their counts.
    pub open_count: u64,
    /// The last record below `next_offset`, where it is known.
    pub last: Option<LastRecord>,
    /// Whether the partition had nothing new for long enough not to hold back `complete`.
    pub idle: bool,
    /// Which table the cells are in: one that was dropped and made anew is another, see [`super::Loaded::table`].
    pub table: Arc<str>,
}

/// That records below a position were counted, up to this last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub next_offset: i64,
    /// The last record below `next_offset`, where it is known.
    pub last: Option<LastRecord>,
}

impl Claim {
    /// Whether a log is the one that was counted: it reaches the position, and where its record at the offset of the
    /// last one was `found`, it is the same. A record that is not found may have been compacted away.
    pub fn holds(&self, log_end: i64, found: Option<LastRecord>) -> bool {
        self.next_offset <= log_end && self.last.zip(found).is_none_or(|(last, found)| last == found)
    }
}

/// A cell's total as it is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushCell {
    /// Microseconds since the epoch, whole seconds.
    pub window_start: i64,
    pub combination: Combination,
    pub count: u64,
}

/// The changed totals of one aggregate of one partition, all at version `position.next_offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushCells {
    pub position: PositionRow,
    /// By window, earliest first.
    pub cells: Vec<FlushCell>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_fails_where_the_log_is_shorter_or_has_another_record() {
        let record =
            |value: &[u8]| LastRecord { offset: 8, timestamp: 5, checksum: LastRecord::checksum(None, Some(value)) };
        let claim = Claim { next_offset: 10, last: Some(record(b"a")) };
        assert!(claim.holds(10, Some(record(b"a"))));
        assert!(claim.holds(12, None), "compacted away");
        assert!(!claim.holds(9, None));
        assert!(!claim.holds(12, Some(record(b"b"))));
        assert!(Claim { last: None, ..claim }.holds(10, Some(record(b"b"))));
    }

    #[test]
    fn null_empty_and_swapped_parts_have_checksums_of_their_own() {
        let parts: [Option<&[u8]>; 3] = [None, Some(b""), Some(b"a")];
        let mut seen: Vec<u64> =
            parts.iter().flat_map(|key| parts.iter().map(|value| LastRecord::checksum(*key, *value))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 9);
    }
}
