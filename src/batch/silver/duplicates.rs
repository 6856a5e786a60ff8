//! Which of several copies of one event stays.
//!
//! Copies have the same event id in the same event-hour: a retried send bears the same timestamp. The one with the
//! least (kafka_timestamp, generation, partition, offset) stays, so that the order of arrival does not matter; a record
//! without a Kafka timestamp comes last.

use std::hash::{BuildHasher, RandomState};

use super::super::hour::Hour;

/// Where a row is: the place of its file among those read, and its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: u32,
    pub row: u32,
}

/// By what copies of an event are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Microseconds since the epoch; the greatest number where there is none.
    pub kafka_timestamp: i64,
    pub generation: i32,
    pub partition: i32,
    pub offset: i64,
}

/// A row that may be a copy of another.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    identity: (u64, u64),
    rank: Rank,
    pub place: Place,
    pub hour: Hour,
}

/// Bytes that a candidate takes in memory.
pub const CANDIDATE_BYTES: usize = size_of::<Candidate>();

/// Tells events apart by 128 bits of their id and hour. The hash's keys are random, so that nobody can make up ids
/// that collide; by chance two of a billion events do with a probability of 10⁻²¹.
pub struct Identities(RandomState, RandomState);

impl Identities {
    pub fn new() -> Self {
        Self(RandomState::new(), RandomState::new())
    }

    pub fn candidate(&self, event_id: &str, hour: Hour, rank: Rank, place: Place) -> Candidate {
        let identity = (self.0.hash_one((event_id, hour)), self.1.hash_one((event_id, hour)));
        Candidate { identity, rank, place, hour }
    }

    /// Which of `buckets` an event falls into, so that a large hour can be looked at in parts. All copies of an event
    /// fall into the same.
    pub fn bucket(candidate: &Candidate, buckets: u64) -> u64 {
        candidate.identity.0 % buckets
    }
}

/// The candidates that do not stay. Sorts them.
pub fn losers(candidates: &mut [Candidate]) -> impl Iterator<Item = &Candidate> {
    candidates.sort_unstable_by_key(|c| (c.identity, c.rank, c.place));
    let candidates = &*candidates;
    candidates.iter().zip(candidates.iter().skip(1)).filter(|(a, b)| a.identity == b.identity).map(|(_, b)| b)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Of each (id, hour) exactly the least rank stays, whatever the order, in one part or in several.
        #[test]
        fn the_least_copy_stays(
            rows in proptest::collection::vec((0..20u8, 0..3i64, 0..4i64, 0..2i32, 0..3i32), 0..200),
            buckets in 1..4u64,
        ) {
            let identities = Identities::new();
            let mut least: BTreeMap<(u8, i64), (Rank, u32)> = BTreeMap::new();
            let mut candidates = Vec::new();
            for (row, (id, hour, kafka_timestamp, generation, partition)) in rows.iter().enumerate() {
                let row = row as u32;
                let rank = Rank {
                    kafka_timestamp: if *kafka_timestamp == 3 { i64::MAX } else { *kafka_timestamp },
                    generation: *generation,
                    partition: *partition,
                    offset: i64::from(row),
                };
                let place = Place { file: 0, row };
                candidates.push(identities.candidate(&id.to_string(), Hour(*hour), rank, place));
                let kept = least.entry((*id, *hour)).or_insert((rank, row));
                *kept = (*kept).min((rank, row));
            }
            let mut stay: BTreeSet<u32> = (0..rows.len() as u32).collect();
            for bucket in 0..buckets {
                let mut part: Vec<Candidate> =
                    candidates.iter().filter(|c| Identities::bucket(c, buckets) == bucket).copied().collect();
                for loser in losers(&mut part) {
                    prop_assert!(stay.remove(&loser.place.row));
                }
            }
            prop_assert_eq!(stay, least.values().map(|(_, row)| *row).collect::<BTreeSet<u32>>());
        }
    }
}
