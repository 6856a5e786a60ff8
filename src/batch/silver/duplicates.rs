//! Which of several copies of one event stays.
//!
//! Copies have the same event id in the same event-hour: a retried send bears the same timestamp. The one with the
//! least (kafka_timestamp, generation, partition, offset) stays, so that the order of arrival does not matter; a record
//! without a Kafka timestamp comes last.
//!
//! Nearly every event comes once. So rows are told apart by a number each, their [`Fingerprint`], and only those whose
//! number another row bears too are compared by their ids ([`Candidates`]). Events that share a number by chance are
//! looked at more closely, and both stay.

use std::hash::BuildHasher;

use datafusion::common::HashSet;
use datafusion::common::hash_utils::QualityRandomState;

use super::super::hour::Hour;
use crate::batch::BatchError;
use crate::config::{Pipeline, Role};

/// Bits of a fingerprint that are of the event's id; those above are its hour.
const ID_BITS: u32 = 43;
/// Hours since the epoch that have a place in a fingerprint: up to the year 2209. Bronze has events up to 2105.
const HOURS: u64 = 1 << (u64::BITS - ID_BITS);

/// An event's hour and a hash of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64);

/// Bytes that a fingerprint takes in memory.
pub const FINGERPRINT_BYTES: usize = size_of::<Fingerprint>();

impl Fingerprint {
    pub fn hour(self) -> Hour {
        // It has 21 bits.
        Hour((self.0 >> ID_BITS) as i64)
    }

    /// Which of `parts` an event falls into, so that many can be looked at in parts. All copies fall into the same.
    pub fn part(self, parts: u64) -> u64 {
        (self.0 & ((1 << ID_BITS) - 1)) % parts
    }
}

/// Takes fingerprints. The hash's key is random, so that nobody can make up ids that keep a run busy.
pub struct Fingerprints {
    /// The column of the event's id.
    pub event_id: String,
    hash: QualityRandomState,
    mask: u64,
}

impl Fingerprints {
    pub fn of(pipeline: &Pipeline) -> Result<Self, BatchError> {
        let event_id = pipeline.role(Role::EventId).map(|i| pipeline.fields[i].name.clone()).ok_or_else(|| {
            BatchError::refused(
                format!("pipeline {}", pipeline.name),
                "no field has the role `event_id`",
                "give the role to one field of pipeline.toml",
            )
        })?;
        Ok(Self { event_id, hash: QualityRandomState::with_seed(rand::random()), mask: (1 << ID_BITS) - 1 })
    }

    /// Fingerprints with so few bits of the id that different events share them.
    #[cfg(test)]
    pub fn colliding(self, bits: u32) -> Self {
        Self { mask: (1 << bits) - 1, ..self }
    }

    /// None where the hour is not one that an event can be of.
    pub fn take(&self, event_id: &str, hour: Hour) -> Option<Fingerprint> {
        let hour = u64::try_from(hour.0).ok().filter(|hour| *hour < HOURS)?;
        Some(Fingerprint(hour << ID_BITS | self.hash.hash_one(event_id) & self.mask))
    }
}

/// The fingerprints that several rows bear, and how many rows that are.
pub fn shared(mut all: Vec<Fingerprint>) -> (HashSet<Fingerprint>, u64) {
    all.sort_unstable();
    let mut rows = 0;
    let mut shared = HashSet::new();
    for alike in all.chunk_by(|a, b| a == b).filter(|alike| alike.len() > 1) {
        shared.insert(alike[0]);
        rows += alike.len() as u64;
    }
    (shared, rows)
}

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

/// A row that shares its fingerprint with another.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    fingerprint: Fingerprint,
    /// Where its id stands among [`Candidates::ids`].
    id: (usize, usize),
    rank: Rank,
    place: Place,
}

/// Bytes that a candidate takes in memory, about; ids are mostly of 36.
pub const CANDIDATE_BYTES: usize = size_of::<Candidate>() + 48;

/// Rows that share their fingerprints with others.
#[derive(Debug, Default)]
pub struct Candidates {
    ids: String,
    rows: Vec<Candidate>,
}

impl Candidates {
    pub fn push(&mut self, fingerprint: Fingerprint, event_id: &str, rank: Rank, place: Place) {
        let begin = self.ids.len();
        self.ids.push_str(event_id);
        self.rows.push(Candidate { fingerprint, id: (begin, self.ids.len()), rank, place });
    }

    /// The rows that do not stay, each with its hour.
    pub fn losers(mut self) -> Vec<(Place, Hour)> {
        let ids = self.ids;
        let event = |c: &Candidate| (c.fingerprint, &ids[c.id.0..c.id.1]);
        self.rows.sort_unstable_by(|a, b| (event(a), a.rank, a.place).cmp(&(event(b), b.rank, b.place)));
        let pairs = self.rows.iter().zip(self.rows.iter().skip(1));
        pairs.filter(|(a, b)| event(a) == event(b)).map(|(_, b)| (b.place, b.fingerprint.hour())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::testing::pipeline;
    use super::*;

    proptest! {
        /// Of each (id, hour) exactly the least rank stays, whatever the order, in one part or in several, and however
        /// many events share a fingerprint.
        #[test]
        fn the_least_copy_stays(
            rows in proptest::collection::vec((0..20u8, 0..3i64, 0..4i64, 0..2i32, 0..3i32), 0..200),
            parts in 1..4u64,
            bits in prop_oneof![Just(0), Just(2), Just(ID_BITS)],
        ) {
            let fingerprints = Fingerprints::of(&pipeline()).unwrap().colliding(bits);
            let mut least: BTreeMap<(u8, i64), (Rank, u32)> = BTreeMap::new();
            let mut all = Vec::new();
            for (row, (id, hour, kafka_timestamp, generation, partition)) in rows.iter().enumerate() {
                let row = row as u32;
                let rank = Rank {
                    kafka_timestamp: if *kafka_timestamp == 3 { i64::MAX } else { *kafka_timestamp },
                    generation: *generation,
                    partition: *partition,
                    offset: i64::from(row),
                };
                let fingerprint = fingerprints.take(&id.to_string(), Hour(*hour)).unwrap();
                prop_assert_eq!(fingerprint.hour(), Hour(*hour));
                all.push((fingerprint, id.to_string(), rank, Place { file: 0, row }));
                let kept = least.entry((*id, *hour)).or_insert((rank, row));
                *kept = (*kept).min((rank, row));
            }
            let (shared, count) = shared(all.iter().map(|row| row.0).collect());
            prop_assert_eq!(all.iter().filter(|row| shared.contains(&row.0)).count() as u64, count);
            let mut stay: BTreeSet<u32> = (0..rows.len() as u32).collect();
            for part in 0..parts {
                let mut candidates = Candidates::default();
                for (fingerprint, id, rank, place) in &all {
                    if shared.contains(fingerprint) && fingerprint.part(parts) == part {
                        candidates.push(*fingerprint, id, *rank, *place);
                    }
                }
                for (place, hour) in candidates.losers() {
                    prop_assert!(stay.remove(&place.row));
                    prop_assert_eq!(hour, Hour(rows[place.row as usize].1));
                }
            }
            prop_assert_eq!(stay, least.values().map(|(_, row)| *row).collect::<BTreeSet<u32>>());
        }
    }

    #[test]
    fn hours_that_no_event_can_be_of_have_no_fingerprint() {
        let fingerprints = Fingerprints::of(&pipeline()).unwrap();
        let last = Hour(HOURS as i64 - 1);
        assert_eq!(fingerprints.take("a", last).map(Fingerprint::hour), Some(last));
        assert_eq!(fingerprints.take("a", Hour(HOURS as i64)), None);
        assert_eq!(fingerprints.take("a", Hour(-1)), None);
    }
}
