//! One record after the other: who does what, whether and how it is broken, as bytes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::clock::TimestampText;
use super::event::{self, uuid_text};
use super::fault::{Kind, Malformed, Mix, SHIFT_S};
use super::session::{EventType, Sessions};

/// How many of the last sound events a duplicate is chosen from.
const REMEMBERED: usize = 32;

/// What was written into the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// What the record is.
    pub kind: Kind,
    /// The user, whose id is the key.
    pub user_id: u32,
    /// What the user did; `None` for a malformed record.
    pub event_type: Option<EventType>,
    /// The value is null, not empty.
    pub tombstone: bool,
}

/// Makes the records of one run. The same seed, users, mix and times give the same bytes; the sessions are
/// the same whatever the mix.
#[derive(Debug, Clone)]
pub struct Generator {
    sessions: Sessions,
    users: u32,
    mix: Mix,
    rng: ChaCha8Rng,
    fault_rng: ChaCha8Rng,
    next_malformed: usize,
    remembered: Vec<Remembered>,
    next_remembered: usize,
    time: TimestampText,
    shifted_time: TimestampText,
}

#[derive(Debug, Clone)]
struct Remembered {
    value: Vec<u8>,
    user_id: u32,
    event_type: EventType,
}

impl Generator {
    /// A generator at its beginning, with users 1 to `users`.
    pub fn new(seed: u64, users: u32, mix: Mix) -> Self {
        let users = users.max(1);
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut fault_rng = rng.clone();
        fault_rng.set_stream(1);
        Self {
            sessions: Sessions::new(users),
            users,
            mix,
            rng,
            fault_rng,
            next_malformed: 0,
            remembered: Vec::new(),
            next_remembered: 0,
            time: TimestampText::default(),
            shifted_time: TimestampText::default(),
        }
    }

    /// Puts the next record's value into `value` (replacing what is there); the time is `at_s` seconds since
    /// 1970.
    pub fn next(&mut self, at_s: i64, value: &mut Vec<u8>) -> Written {
        value.clear();
        let kind = self.mix.kind(self.fault_rng.next_u32());
        match kind {
            Kind::Malformed => self.malformed(at_s, value),
            // Nothing to repeat yet: the first event itself.
            Kind::Duplicate if !self.remembered.is_empty() => self.duplicate(value),
            Kind::Duplicate => self.sound(Kind::Normal, at_s, value),
            Kind::Normal | Kind::Late | Kind::Future => self.sound(kind, at_s, value),
        }
    }

    fn sound(&mut self, kind: Kind, at_s: i64, value: &mut Vec<u8>) -> Written {
        let action = self.sessions.next(&mut self.rng);
        let id = uuid_text(random_128(&mut self.rng));
        let time = match kind {
            Kind::Late => self.shifted_time.of(at_s - SHIFT_S),
            Kind::Future => self.shifted_time.of(at_s + SHIFT_S),
            _ => self.time.of(at_s),
        };
        event::write(value, &id, &action, time);
        self.remember(value, action.user_id, action.event_type);
        Written { kind, user_id: action.user_id, event_type: Some(action.event_type), tombstone: false }
    }

    fn remember(&mut self, value: &[u8], user_id: u32, event_type: EventType) {
        if !self.mix.has_duplicates() {
            return;
        }
        if self.remembered.len() < REMEMBERED {
            self.remembered.push(Remembered { value: value.to_vec(), user_id, event_type });
            return;
        }
        let slot = &mut self.remembered[self.next_remembered];
        slot.value.clear();
        slot.value.extend_from_slice(value);
        (slot.user_id, slot.event_type) = (user_id, event_type);
        self.next_remembered = (self.next_remembered + 1) % REMEMBERED;
    }

    fn duplicate(&mut self, value: &mut Vec<u8>) -> Written {
        let index = self.fault_rng.next_u32() as usize % self.remembered.len();
        let again = &self.remembered[index];
        value.extend_from_slice(&again.value);
        Written { kind: Kind::Duplicate, user_id: again.user_id, event_type: Some(again.event_type), tombstone: false }
    }

    fn malformed(&mut self, at_s: i64, value: &mut Vec<u8>) -> Written {
        let malformed = Malformed::ALL[self.next_malformed];
        self.next_malformed = (self.next_malformed + 1) % Malformed::ALL.len();
        let user_id = 1 + self.fault_rng.next_u32() % self.users;
        let id = uuid_text(random_128(&mut self.fault_rng));
        malformed.write(value, &id, user_id, self.time.of(at_s));
        Written { kind: Kind::Malformed, user_id, event_type: None, tombstone: malformed == Malformed::Tombstone }
    }
}

fn random_128(rng: &mut impl Rng) -> u128 {
    u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::producer::fault::Shares;

    const SHARES: Shares = Shares { late: 0.1, duplicate: 0.1, malformed: 0.1, future: 0.1 };

    fn records(seed: u64, shares: Shares, count: usize) -> Vec<(Written, Vec<u8>)> {
        let mut generator = Generator::new(seed, 100, Mix::new(shares).unwrap());
        let mut value = Vec::new();
        (0..count)
            .map(|i| {
                let written = generator.next(1_770_388_200 + i as i64, &mut value);
                (written, value.clone())
            })
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        assert_eq!(records(11, SHARES, 5_000), records(11, SHARES, 5_000));
        assert_ne!(records(11, SHARES, 5_000), records(12, SHARES, 5_000));
    }

    /// Pinned, so that a change that would make recorded runs differ does not go unnoticed.
    #[test]
    fn the_first_record_of_a_seed_stays_what_it_is() {
        let first = String::from_utf8(records(42, Shares::default(), 1).remove(0).1).unwrap();
        assert_eq!(
            first,
            r#"{"event_id":"f3453fc6-2579-4188-ad71-b708c5b6538c","user_id":23,"event_type":"login","page":"/login","timestamp":"2026-02-06T14:30:00","source":"mobile"}"#
        );
    }

    #[test]
    fn sessions_do_not_depend_on_the_mix() {
        let ids = |shares| -> HashSet<Vec<u8>> {
            let sound = |w: &Written| matches!(w.kind, Kind::Normal | Kind::Late | Kind::Future);
            records(5, shares, 1_000).into_iter().filter(|(w, _)| sound(w)).map(|(_, v)| v[13..49].to_vec()).collect()
        };
        let (plain, mixed) = (ids(Shares::default()), ids(SHARES));
        assert!(mixed.is_subset(&plain));
    }

    #[test]
    fn every_kind_is_what_it_says() {
        let all = records(3, SHARES, 20_000);
        let mut counts = [0usize; 5];
        let mut sound: HashSet<Vec<u8>> = HashSet::new();
        let mut ids: HashSet<Vec<u8>> = HashSet::new();
        for (i, (written, value)) in all.into_iter().enumerate() {
            counts[written.kind as usize] += 1;
            let at = 1_770_388_200 + i as i64;
            let shift = match written.kind {
                Kind::Normal => 0,
                Kind::Late => -SHIFT_S,
                Kind::Future => SHIFT_S,
                Kind::Duplicate => {
                    assert!(sound.contains(&value));
                    continue;
                }
                Kind::Malformed => continue,
            };
            let event: serde_json::Value = serde_json::from_slice(&value).unwrap();
            assert_eq!(event["user_id"], written.user_id);
            let time = chrono::NaiveDateTime::parse_from_str(event["timestamp"].as_str().unwrap(), "%Y-%m-%dT%H:%M:%S");
            assert_eq!(time.unwrap().and_utc().timestamp(), at + shift);
            assert!(ids.insert(value[13..49].to_vec()), "ids are unique");
            sound.insert(value);
        }
        for (kind, count) in Kind::ALL.into_iter().zip(counts) {
            let wanted = if kind == Kind::Normal { 12_000 } else { 2_000 };
            assert!(count.abs_diff(wanted) < wanted / 10, "{kind:?}: {count}");
        }
    }
}
