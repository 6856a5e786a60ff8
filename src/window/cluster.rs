//! A cluster of bad records: where more than a share of the records that a partition has read last were refused, and its
//! pipeline asks for it (`[bad_records]`, off by default), the partition stops loudly behind the record that was one too many.
//!
//! *Where* it stops is a function of the partition's records and of one number, the offset below which somebody has accepted
//! whatever is bad. So a stop is not noted anywhere: whoever takes the partition up (after a restart, a rebalance, a crash
//! before the commit) counts Bronze's newest rows, and stops at the same place. *The decision* is that number, the one durable
//! thing: the version of an application id of its own in Bronze's log, put there like any other choice, and never lowered. All
//! instances read it, and deciding twice is deciding once.
//!
//! The reader cuts its batch at that place and reads no further; what lies before it goes the way of all batches. So the commit
//! protocol knows nothing of this, and counting windows again from Bronze, which no reader takes part in, never stops.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::Verdict;
use crate::config::BadRecords;
use crate::event::Columns;

/// When a partition stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Refused records among the last ones that are borne.
    borne: usize,
    /// How many last ones are looked at.
    pub of: usize,
}

impl Rule {
    /// The rule that a pipeline asks for, if it does.
    pub fn new(settings: &BadRecords) -> Option<Self> {
        let of = settings.of_last as usize;
        // 0.29 of 100 is 28.999…, and 29 are not more than that share.
        let borne = (settings.stop_share? * f64::from(settings.of_last) + 1e-6) as usize;
        Some(Self { borne, of })
    }
}

/// Counts what a partition reads, one record after the other in the order of their offsets.
#[derive(Debug, Clone)]
pub struct Counter {
    rule: Rule,
    /// Records below this offset are not counted.
    accepted: i64,
    /// Records counted so far.
    records: u64,
    /// The refused ones among the last `of` records: the number and the offset of each, and why.
    refused: VecDeque<(u64, i64, Arc<str>)>,
    /// How many of them were refused for what.
    kinds: BTreeMap<Arc<str>, usize>,
}

impl Counter {
    pub fn new(rule: Rule, accepted: i64) -> Self {
        Self { rule, accepted, records: 0, refused: VecDeque::new(), kinds: BTreeMap::new() }
    }

    /// Counts a record with its verdict, and what is wrong with it if it is no event; whether the partition stops behind it.
    pub fn count(&mut self, offset: i64, verdict: Verdict, error: Option<&str>) -> bool {
        let refused = match verdict {
            Verdict::Ok | Verdict::Late => None,
            Verdict::Future => Some("event time ahead of Kafka timestamp"),
            Verdict::Unparsed => Some(error.unwrap_or("no event")),
        };
        if offset < self.accepted {
            return false;
        }
        self.records += 1;
        while self.refused.front().is_some_and(|(number, ..)| number + self.rule.of as u64 <= self.records) {
            self.forget_first();
        }
        if let Some(why) = refused {
            let kind = kind_of(why);
            let kind = self.kinds.get_key_value(&*kind).map_or_else(|| Arc::from(kind), |(known, _)| known.clone());
            *self.kinds.entry(kind.clone()).or_default() += 1;
            self.refused.push_back((self.records, offset, kind));
        }
        self.is_over()
    }

    /// Counts a batch up to the record that is one too many; its row.
    pub fn count_batch(&mut self, columns: &Columns, verdicts: &[Verdict]) -> Option<usize> {
        let mut errors = columns.errors.iter().peekable();
        verdicts.iter().zip(&columns.raw.offsets).enumerate().find_map(|(row, (verdict, offset))| {
            let error = errors.next_if(|(at, _)| *at as usize == row).map(|(_, error)| error.as_str());
            self.count(*offset, *verdict, error).then_some(row)
        })
    }

    fn forget_first(&mut self) {
        let Some((_, _, kind)) = self.refused.pop_front() else { return };
        if let Some(times) = self.kinds.get_mut(&kind) {
            *times -= 1;
            if *times == 0 {
                self.kinds.remove(&kind);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.refused.len() > self.rule.borne
    }

    /// The cluster that the partition has stopped behind, if it has.
    pub fn cluster(&self) -> Option<Cluster> {
        let ((_, first, _), (_, last, _)) = (self.refused.front()?, self.refused.back()?);
        let (reason, times) = self.kinds.iter().max_by_key(|(_, times)| **times)?;
        let (_, example, _) = self.refused.iter().rev().find(|(_, _, kind)| kind == reason)?;
        self.is_over().then(|| Cluster {
            refused: self.refused.len(),
            records: self.rule.of.min(self.records as usize),
            first: *first,
            last: *last,
            reason: reason.clone(),
            times: *times,
            example: *example,
        })
    }
}

/// A reason without the numbers that differ from record to record.
fn kind_of(reason: &str) -> String {
    let mut kind = String::new();
    let mut rest = reason;
    while let Some(at) = ["byte ", "found ", ": "].iter().filter_map(|word| Some(rest.find(word)? + word.len())).min() {
        let (before, number) = rest.split_at(at);
        kind.push_str(before);
        rest = number;
        if number.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) {
            kind.push('…');
            rest = number.trim_start_matches(|c: char| c.is_ascii_digit() || "-+.eE".contains(c));
        }
    }
    kind + rest
}

/// Bad records that came close together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// How many were refused.
    pub refused: usize,
    /// Of how many.
    pub records: usize,
    /// Offset of the first that was refused.
    pub first: i64,
    /// Offset of the last that was refused.
    pub last: i64,
    /// The most frequent reason, how often it was the reason, and the offset of the last record that it was the reason of.
    pub reason: Arc<str>,
    pub times: usize,
    pub example: i64,
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, records, first, last, reason, times, example } = self;
        write!(
            f,
            "{refused} of the last {records} records were refused, from offset {first} to {last}, which is more than \
             bad_records.stop_share bears; {times} of them as \"{reason}\", such as the one at offset {example}"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts a record that is good, or bad for this reason.
    fn count(counter: &mut Counter, offset: i64, bad: Option<&str>) -> bool {
        counter.count(offset, if bad.is_some() { Verdict::Unparsed } else { Verdict::Late }, bad)
    }

    fn rule(share: f64, of_last: u32) -> Rule {
        Rule::new(&BadRecords { stop_share: Some(share), of_last }).unwrap()
    }

    /// Where it stops, by the rule's own words: the first record with which more than so many of the last ones, itself among
    /// them, were refused.
    fn stops(bad: &[bool], borne: usize, of: usize) -> Option<usize> {
        (0..bad.len())
            .find(|last| bad[(last + 1).saturating_sub(of)..=*last].iter().filter(|bad| **bad).count() > borne)
    }

    #[test]
    fn a_share_is_borne_and_one_more_is_not() {
        assert_eq!(Rule::new(&BadRecords::default()), None, "off by default");
        assert_eq!(rule(0.29, 100), Rule { borne: 29, of: 100 });
        assert_eq!(rule(0.0, 100), Rule { borne: 0, of: 100 });
        assert_eq!(rule(0.999, 1000).borne, 999);
        assert_eq!(rule(0.5, 3).borne, 1);
    }

    #[test]
    fn a_cluster_says_how_many_where_and_why() {
        let mut counter = Counter::new(rule(0.5, 4), 10);
        let reasons =
            [Some("not JSON: no value at byte 7"), None, Some("a: missing"), Some("not JSON: no value at byte 9")];
        assert!(!count(&mut counter, 9, Some("before anything counts")));
        let over: Vec<bool> = reasons.iter().zip(20..).map(|(why, offset)| count(&mut counter, offset, *why)).collect();
        assert_eq!(over, [false, false, false, true]);
        let cluster = counter.cluster().unwrap();
        let said = "3 of the last 4 records were refused, from offset 20 to 23, which is more than bad_records.stop_share \
                    bears; 2 of them as \"not JSON: no value at byte …\", such as the one at offset 23";
        assert_eq!(cluster.to_string(), said);
    }

    #[test]
    fn reasons_that_differ_in_numbers_alone_are_one() {
        for (reason, kind) in [
            ("not UTF-8 at byte 12", "not UTF-8 at byte …"),
            ("user_id: -1.5e+9 does not fit signed 64 bits", "user_id: … does not fit signed 64 bits"),
            ("user_id: expected int, found 1.5", "user_id: expected int, found …"),
            ("user_id: expected int, found a text", "user_id: expected int, found a text"),
            ("größe: missing", "größe: missing"),
            ("byte -", "byte -"),
        ] {
            assert_eq!(kind_of(reason), kind);
        }
    }

    proptest! {
        #[test]
        fn it_stops_where_the_rule_says_and_a_recount_finds_the_same(
            bad in prop::collection::vec(any::<bool>(), 0..200),
            gaps in prop::collection::vec(1..4_i64, 200),
            borne in 0..12_usize,
            of in 1..24_usize,
            accepted in 0..200_i64,
            from in 0..200_usize,
        ) {
            let rule = Rule { borne: borne.min(of - 1), of };
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let records: Vec<(i64, bool)> = offsets.iter().copied().zip(bad.iter().copied()).collect();
            let why = |bad: bool| bad.then_some("bad");
            let counted: Vec<(i64, bool)> = records.iter().copied().filter(|(offset, _)| *offset >= accepted).collect();
            let expected = stops(&counted.iter().map(|(_, bad)| *bad).collect::<Vec<_>>(), rule.borne, of)
                .map(|last| counted[last].0);

            let mut counter = Counter::new(rule, accepted);
            let found = records.iter().find(|(offset, bad)| count(&mut counter, *offset, why(*bad))).map(|(offset, _)| *offset);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(counter.cluster().map(|cluster| cluster.last), expected);

            // Somebody takes it up anywhere before or at the stop, with the last rows alone.
            let end = expected.map_or(records.len(), |stop| records.partition_point(|(offset, _)| *offset <= stop));
            let (before, after) = records[..end].split_at(from.min(end));
            let mut again = Counter::new(rule, accepted);
            for (offset, bad) in &before[before.len().saturating_sub(of)..] {
                count(&mut again, *offset, why(*bad));
            }
            let over = again.cluster().map(|cluster| cluster.last);
            let found = over.or_else(|| after.iter().find(|(offset, bad)| count(&mut again, *offset, why(*bad))).map(|(o, _)| *o));
            prop_assert_eq!(found, expected);
        }
    }
}
