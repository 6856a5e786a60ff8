//! What is to be recomputed, and why, from what the tables themselves say. Pure.
//!
//! A table that is made from another records, in the commit of its rows, the version of the other that it has read up to
//! (`txn`), and in its metadata the other's id and the settings that it was made with. From these [`decide`] takes the
//! narrowest course that is right. It widens, and says why, whenever the narrow course cannot be known to be right.

use std::collections::BTreeMap;

use serde::Serialize;

use super::hour::Hour;

/// The table that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceFacts {
    /// How people call it.
    pub name: String,
    /// Delta's id of the table.
    pub table_id: String,
    /// The version at which it is pinned for this run.
    pub version: u64,
}

/// The table that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFacts {
    /// Id of the table that its rows were made from; none where its metadata does not say.
    pub source_id: Option<String>,
    /// Version of the source up to which it holds everything; none where no commit says so for the source's id.
    pub read_to: Option<u64>,
    /// Mark of that version's log entry, see [`super::mark`]; none where none was noted.
    pub read_mark: Option<u64>,
    /// Hash of the settings that its rows were made with.
    pub settings: Option<String>,
}

/// What the source's log between the two versions says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFacts {
    NotRead,
    /// This entry is not there any more.
    Gap(u64),
    /// The version that was read up to is another commit now.
    Replaced,
    Read {
        /// The first version that took rows out of the source.
        rows_removed_at: Option<u64>,
        /// A file that entered the source meanwhile and is not in storage any more.
        gone: Option<String>,
    },
}

/// How a table is brought up to its source's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Course {
    /// It is there already.
    Nothing,
    /// With what entered the source after this version.
    Incremental { after: u64 },
    /// From everything that the source holds.
    FromScratch,
}

impl std::fmt::Display for Course {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing to do",
            Self::Incremental { .. } => "incremental",
            Self::FromScratch => "from scratch",
        })
    }
}

/// A course, and the reason for it in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    #[serde(flatten)]
    pub course: Course,
    pub reason: String,
}

impl Decision {
    /// What is decided where there is no source.
    pub fn nothing_to_read() -> Self {
        Self::new(Course::Nothing, "there is nothing to read yet")
    }

    fn new(course: Course, reason: impl Into<String>) -> Self {
        Self { course, reason: reason.into() }
    }

    fn from_scratch(reason: impl Into<String>) -> Self {
        Self::new(Course::FromScratch, reason)
    }
}

/// Decides how a table is brought up to date; `settings` is the hash of those in force.
pub fn decide(source: &SourceFacts, target: Option<&TargetFacts>, settings: &str, log: &LogFacts) -> Decision {
    let name = &source.name;
    let Some(target) = target else {
        return Decision::from_scratch("the table is not there: it is new, or somebody has deleted it");
    };
    match &target.source_id {
        None => return Decision::from_scratch("the table does not say what it was made from"),
        Some(id) if *id != source.table_id => {
            return Decision::from_scratch(format!(
                "the table was made from another {name} (id {id}; now {}): that one was made anew",
                source.table_id
            ));
        }
        Some(_) => {}
    }
    let Some(read_to) = target.read_to else {
        return Decision::from_scratch(format!("the table does not say up to which version of {name} it was made"));
    };
    if target.settings.as_deref() != Some(settings) {
        return Decision::from_scratch(
            "fields, allowed values, rules or models have changed since the table was made".to_string(),
        );
    }
    if read_to > source.version {
        return Decision::from_scratch(format!(
            "the table has read {name} up to version {read_to}, but {name} is at {}: its last commits were lost or it was \
             restored",
            source.version
        ));
    }
    match log {
        LogFacts::Replaced => Decision::from_scratch(format!(
            "version {read_to} of {name}, up to which the table was made, is another commit now: {name} was restored"
        )),
        _ if read_to == source.version => {
            Decision::new(Course::Nothing, format!("{name} has no commit after version {read_to}"))
        }
        LogFacts::Gap(version) => Decision::from_scratch(format!(
            "log entry {version} of {name} is gone (cleaned up), and the table was last made at version {read_to}"
        )),
        LogFacts::Read { rows_removed_at: Some(version), .. } => {
            Decision::from_scratch(format!("version {version} of {name} took rows out"))
        }
        LogFacts::Read { gone: Some(path), .. } => Decision::from_scratch(format!(
            "the file {path}, new in {name} since version {read_to}, was merged into another one and vacuumed"
        )),
        LogFacts::NotRead | LogFacts::Read { .. } => Decision::new(
            Course::Incremental { after: read_to },
            format!("only what entered {name} in versions {} to {}", read_to + 1, source.version),
        ),
    }
}

/// Rows of a file in an event-hour, and how many there are of each, before rules and duplicates.
pub type HourRows = BTreeMap<Hour, u64>;

/// Splits hours, with their rows, into groups of neighbours so that a group has at most `rows` rows and `hours` hours;
/// an hour with more rows is a group of its own.
pub fn groups(hours: &HourRows, rows: u64, hours_max: usize) -> Vec<Vec<Hour>> {
    let mut groups: Vec<Vec<Hour>> = Vec::new();
    let mut held = 0;
    for (hour, count) in hours {
        match groups.last_mut() {
            Some(group) if held + count <= rows && group.len() < hours_max => {
                group.push(*hour);
                held += count;
            }
            _ => {
                groups.push(vec![*hour]);
                held = *count;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(version: u64) -> SourceFacts {
        SourceFacts { name: "Bronze".into(), table_id: "b".into(), version }
    }

    fn target(read_to: u64) -> TargetFacts {
        let settings = Some("s".into());
        TargetFacts { source_id: Some("b".into()), read_to: Some(read_to), read_mark: Some(5), settings }
    }

    const READ: LogFacts = LogFacts::Read { rows_removed_at: None, gone: None };

    #[track_caller]
    fn check(target: Option<TargetFacts>, settings: &str, log: LogFacts, course: Course, reason: &str) {
        let decision = decide(&source(9), target.as_ref(), settings, &log);
        assert_eq!(decision.course, course, "{}", decision.reason);
        assert!(decision.reason.contains(reason), "{}", decision.reason);
    }

    #[test]
    fn each_widening_says_why() {
        let scratch = Course::FromScratch;
        check(Some(target(4)), "s", READ, Course::Incremental { after: 4 }, "versions 5 to 9");
        check(Some(target(9)), "s", LogFacts::NotRead, Course::Nothing, "no commit after version 9");
        check(None, "s", LogFacts::NotRead, scratch, "not there");
        check(Some(target(4)), "other", READ, scratch, "allowed values");
        check(Some(target(10)), "s", LogFacts::NotRead, scratch, "is at 9");
        check(Some(target(4)), "s", LogFacts::Gap(5), scratch, "log entry 5 of Bronze is gone");
        check(Some(target(4)), "s", LogFacts::Replaced, scratch, "version 4 of Bronze, up to which");
        check(Some(target(9)), "s", LogFacts::Replaced, scratch, "restored");
        let removed = LogFacts::Read { rows_removed_at: Some(7), gone: None };
        check(Some(target(4)), "s", removed, scratch, "version 7 of Bronze took rows out");
        let gone = LogFacts::Read { rows_removed_at: None, gone: Some("x.parquet".into()) };
        check(Some(target(4)), "s", gone, scratch, "x.parquet");
        let another = TargetFacts { source_id: Some("a".into()), read_to: None, ..target(4) };
        check(Some(another), "s", LogFacts::NotRead, scratch, "another Bronze");
        let unknown = TargetFacts { source_id: None, ..target(4) };
        check(Some(unknown), "s", LogFacts::NotRead, scratch, "made from");
        let no_txn = TargetFacts { read_to: None, ..target(4) };
        check(Some(no_txn), "s", LogFacts::NotRead, scratch, "which version");
    }

    fn any_log() -> impl Strategy<Value = LogFacts> {
        prop_oneof![
            Just(LogFacts::NotRead),
            Just(LogFacts::Replaced),
            (0..20u64).prop_map(LogFacts::Gap),
            (proptest::option::of(0..20u64), proptest::option::of("[a-z]{3}"))
                .prop_map(|(rows_removed_at, gone)| LogFacts::Read { rows_removed_at, gone }),
        ]
    }

    proptest! {
        /// The narrow courses are taken only where nothing speaks against them.
        #[test]
        fn narrow_only_when_known_to_be_right(
            version in 0..20u64,
            source_id in proptest::option::of("[ab]"),
            read_to in proptest::option::of(0..20u64),
            settings in proptest::option::of("[st]"),
            log in any_log(),
        ) {
            let target = TargetFacts { source_id, read_to, read_mark: None, settings };
            let decision = decide(&source(version), Some(&target), "s", &log);
            let known = target.source_id.as_deref() == Some("b") && target.settings.as_deref() == Some("s");
            let whole = matches!(log, LogFacts::NotRead | LogFacts::Read { rows_removed_at: None, gone: None });
            let expected = match target.read_to {
                Some(at) if known && at == version && log != LogFacts::Replaced => Course::Nothing,
                Some(at) if known && at < version && whole => Course::Incremental { after: at },
                _ => Course::FromScratch,
            };
            prop_assert_eq!(decision.course, expected);
            prop_assert!(!decision.reason.is_empty());
        }

        #[test]
        fn groups_hold_each_hour_once_within_the_bounds(
            hours in proptest::collection::btree_map((0..500i64).prop_map(Hour), 0..100u64, 0..60),
            rows in 1..300u64,
            hours_max in 1..10usize,
        ) {
            let groups = groups(&hours, rows, hours_max);
            let all: Vec<Hour> = groups.iter().flatten().copied().collect();
            prop_assert_eq!(all, hours.keys().copied().collect::<Vec<_>>());
            for group in &groups {
                let held: u64 = group.iter().map(|h| hours[h]).sum();
                prop_assert!(group.len() <= hours_max);
                prop_assert!(held <= rows || group.len() == 1);
            }
        }
    }
}
