//! Which files of a table are merged with which. Pure.
//!
//! Files are merged within a partition of the table, and only where nothing more comes: in an open date those of an hour
//! that is over, once; in a date that is over all that are still small. So a row is rewritten twice at most, however
//! often upkeep comes by.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Timelike, Utc};

/// Rows taken over midnight or the full hour may still be on their way into the table for this long.
const SLACK: TimeDelta = TimeDelta::minutes(10);

/// A data file, as far as merging cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The partition of the table, as text.
    pub partition: String,
    /// The date that the partition is of, where it is one that rows of now go to; none for other partitions.
    pub written_on: Option<NaiveDate>,
    /// When its newest row was taken from Kafka, as its statistics say; none where they do not.
    pub newest_row: Option<DateTime<Utc>>,
    /// Order of its rows among those of other files.
    pub order: (i64, i64, String),
    /// Length in bytes.
    pub size: u64,
}

/// An hour of a date.
type Hour = (NaiveDate, u32);

/// Groups of files, by their index, each of which becomes one file of about `target` bytes.
pub fn merges(files: &[Candidate], target: u64, now: DateTime<Utc>) -> Vec<Vec<usize>> {
    // By partition, and in an open date by hour, which is none for what is over.
    let mut groups: BTreeMap<(&str, Option<Hour>), Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        // What is half full already gains little by being written once more.
        if file.size * 2 > target {
            continue;
        }
        let hour = match file.written_on {
            Some(date) if !date_is_over(date, now) => {
                let Some(newest) = file.newest_row.filter(|newest| hour_is_over(*newest, now)) else { continue };
                Some((newest.date_naive(), newest.hour()))
            }
            _ => None,
        };
        groups.entry((&file.partition, hour)).or_default().push(index);
    }
    let mut merges = Vec::new();
    for (_, mut group) in groups {
        group.sort_by(|a, b| files[*a].order.cmp(&files[*b].order));
        let mut bin: Vec<usize> = Vec::new();
        let mut held = 0;
        for index in group {
            if held + files[index].size > target && !bin.is_empty() {
                merges.push(std::mem::take(&mut bin));
                held = 0;
            }
            held += files[index].size;
            bin.push(index);
        }
        merges.push(bin);
    }
    merges.retain(|bin| bin.len() > 1);
    merges
}

fn date_is_over(date: NaiveDate, now: DateTime<Utc>) -> bool {
    date < (now - SLACK).date_naive()
}

fn hour_is_over(moment: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    let hour = |t: DateTime<Utc>| (t.date_naive(), t.hour());
    hour(moment) < hour(now - SLACK)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn file(newest: &str, size: u64) -> Candidate {
        let newest = at(newest);
        Candidate {
            partition: newest.date_naive().to_string(),
            written_on: Some(newest.date_naive()),
            newest_row: Some(newest),
            order: (newest.timestamp_micros(), 0, String::new()),
            size,
        }
    }

    #[test]
    fn an_hour_is_merged_once_it_is_over_and_a_date_once_more() {
        let files = [
            file("2026-02-06T10:59:00Z", 10),
            file("2026-02-06T10:01:00Z", 10),
            file("2026-02-06T11:01:00Z", 10),
            file("2026-02-06T11:02:00Z", 10),
            file("2026-02-06T12:02:00Z", 10),
        ];
        let merged = |now: &str| merges(&files, 100, at(now));
        assert_eq!(merged("2026-02-06T11:05:00Z"), Vec::<Vec<usize>>::new(), "rows may be on their way");
        assert_eq!(merged("2026-02-06T11:35:00Z"), [[1, 0]]);
        assert_eq!(merged("2026-02-06T12:35:00Z"), [[1, 0], [2, 3]]);
        assert_eq!(merged("2026-02-07T00:09:00Z"), [[1, 0], [2, 3]]);
        assert_eq!(merged("2026-02-07T00:35:00Z"), [[1, 0, 2, 3, 4]]);
        // What came out of an hour's merge is no candidate again as long as its date is open.
        let hours = [file("2026-02-06T10:59:00Z", 20), file("2026-02-06T11:02:00Z", 20)];
        assert_eq!(merges(&hours, 100, at("2026-02-06T15:35:00Z")), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn bins_keep_to_the_target_and_large_files_stay() {
        let files: Vec<Candidate> = [30, 40, 60, 40, 20].map(|size| file("2026-02-06T10:00:00Z", size)).to_vec();
        assert_eq!(merges(&files, 100, at("2026-02-08T00:00:00Z")), [vec![0, 1], vec![3, 4]]);
    }

    #[test]
    fn files_without_statistics_wait_for_the_end_of_their_date() {
        let mut files = [file("2026-02-06T10:00:00Z", 1), file("2026-02-06T10:01:00Z", 1)];
        files.iter_mut().for_each(|f| f.newest_row = None);
        assert_eq!(merges(&files, 100, at("2026-02-06T20:00:00Z")), Vec::<Vec<usize>>::new());
        assert_eq!(merges(&files, 100, at("2026-02-07T20:00:00Z")), [[0, 1]]);
        files.iter_mut().for_each(|f| f.written_on = None);
        assert_eq!(merges(&files, 100, at("2026-02-06T10:02:00Z")), [[0, 1]], "no partition that rows of now go to");
    }

    proptest! {
        /// Hour by hour: no file is merged twice within an open date, each group stays within its partition and the
        /// target, and once a date is over no two neighbours that would fit stay apart for ever.
        #[test]
        fn rewriting_ends(sizes in prop::collection::vec((0u32..26 * 60, 1u64..60), 1..60)) {
            let start = at("2026-02-06T00:00:00Z");
            let mut files: Vec<(Candidate, u32)> = Vec::new();
            let mut to_come: Vec<_> = sizes;
            to_come.sort_unstable();
            for hour in 1..60 {
                let now = start + TimeDelta::hours(hour) + TimeDelta::minutes(35);
                let come = to_come.iter().position(|(minute, _)| start + TimeDelta::minutes((*minute).into()) > now);
                for (minute, size) in to_come.drain(..come.unwrap_or(to_come.len())) {
                    let newest = start + TimeDelta::minutes(minute.into());
                    files.push((file(&newest.to_rfc3339(), size), 0));
                }
                let all: Vec<Candidate> = files.iter().map(|(f, _)| f.clone()).collect();
                let plan = merges(&all, 100, now);
                let mut gone = Vec::new();
                for group in &plan {
                    let of: Vec<&(Candidate, u32)> = group.iter().map(|i| &files[*i]).collect();
                    prop_assert!(of.iter().all(|(f, _)| f.partition == of[0].0.partition));
                    let size = of.iter().map(|(f, _)| f.size).sum();
                    prop_assert!(size <= 100);
                    let rewritten = of.iter().map(|(_, n)| n + 1).max().unwrap();
                    prop_assert!(rewritten <= 2, "a row is rewritten twice at most");
                    let newest = of.iter().filter_map(|(f, _)| f.newest_row).max().unwrap();
                    let mut merged = file(&newest.to_rfc3339(), size);
                    merged.order = of[0].0.order.clone();
                    files.push((merged, rewritten));
                    gone.extend(group.clone());
                }
                gone.sort_unstable();
                gone.iter().rev().for_each(|i| drop(files.remove(*i)));
            }
            let all: Vec<Candidate> = files.into_iter().map(|(f, _)| f).collect();
            prop_assert_eq!(merges(&all, 100, start + TimeDelta::days(9)), Vec::<Vec<usize>>::new());
        }
    }
}
