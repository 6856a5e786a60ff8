//! What is wrong now, in words, with what to do. Pure: read from the status alone.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::meter::Lately;
use super::view::encoded;
use super::words::{count, plural, seconds};
use crate::telemetry::{ActorPhase, LayerDifference, PartitionPhase, SinkCondition, Status};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Expected to heal by itself.
    Watch,
    /// Somebody should act.
    Wrong,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Notice {
    pub level: Level,
    /// What happened and where.
    pub what: String,
    /// What to do, or what happens by itself.
    pub todo: String,
    /// The page that shows more.
    pub page: String,
}

impl Notice {
    fn new(level: Level, what: impl Into<String>, todo: impl Into<String>, page: impl Into<String>) -> Self {
        Self { level, what: what.into(), todo: todo.into(), page: page.into() }
    }
}

/// Everything that is not as it should be, the worst first.
pub fn notices(status: &Status, lately: &[Lately], now: DateTime<Utc>) -> Vec<Notice> {
    let mut found: Vec<Notice> = status.readiness.reasons.iter().map(|reason| from_readiness(reason)).collect();
    let told = |text: &str| status.readiness.reasons.iter().any(|reason| reason.contains(text));
    for sink in &status.sinks {
        if let SinkCondition::Retrying { error } = &sink.condition
            && !told(error)
        {
            let what = format!("{} has failed for {}: {error}", sink.name, seconds(sink.since_seconds_ago));
            let todo = "It is tried again by itself; nothing is lost meanwhile.";
            found.push(Notice::new(Level::Watch, what, todo, "/stream"));
        }
    }
    for p in &status.partitions {
        let name = format!("Partition {}/{} of {}", p.generation, p.partition, p.topic);
        match &p.phase {
            PartitionPhase::Recovering => found.push(Notice::new(
                Level::Watch,
                format!("{name} is recovering"),
                "Its position and windows are rebuilt from the tables; this ends by itself.",
                "/stream",
            )),
            PartitionPhase::Paused { by, since, until, reason } => {
                let ends = until.map_or_else(
                    || "Nothing is read from it until somebody resumes it.".to_owned(),
                    |until| format!("It goes on by itself at {}.", super::words::moment(until)),
                );
                let what =
                    format!("{name} is paused by {by} since {}{}", super::words::moment(*since), because(reason));
                found.push(Notice::new(Level::Watch, what, ends, "/stream"));
            }
            PartitionPhase::Starting | PartitionPhase::Running | PartitionPhase::Stopped { .. } => {}
        }
    }
    for actor in &status.actors {
        if actor.phase == ActorPhase::BackingOff && !told(&actor.name) {
            let error = actor.last_failure.as_deref().unwrap_or("unknown failure");
            let what = format!("{} {} failed: {error}", actor.kind, actor.name);
            found.push(Notice::new(Level::Watch, what, "It is made anew after a pause.", "/actors"));
        }
    }
    batches(status, now, &mut found);
    found.extend(clusters(lately));
    found.extend(differences(status));
    found.sort_by_key(|notice| std::cmp::Reverse(notice.level));
    found
}

/// A reason as the end of a sentence, where one was given.
pub fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn batches(status: &Status, now: DateTime<Utc>, found: &mut Vec<Notice>) {
    for batch in &status.batches {
        let (pipeline, state) = (&batch.pipeline, &batch.state);
        if let Some(error) = &state.history_error {
            let what = format!("No batch run of {pipeline} starts: {error}");
            let todo = "Bring the history's database back, or correct history.url; the stream is not affected.";
            found.push(Notice::new(Level::Wrong, what, todo, "/batch"));
        }
        if let Some(last) = state.last.as_ref().filter(|last| last.outcome == "failed") {
            let error = last.error.as_deref().unwrap_or("no reason was noted");
            let what = format!("The last batch run of {pipeline} failed: {error}");
            let todo = "Open the run, mend the cause, and retry it: it goes on at the task that failed.";
            found.push(Notice::new(Level::Wrong, what, todo, format!("/batch/runs/{}", last.run_id)));
        }
        if state.late {
            let what = format!("The newest slot of {pipeline} has no successful run although its deadline has passed");
            let todo = "See the runs; start one by hand if none is under way.";
            found.push(Notice::new(Level::Wrong, what, todo, "/batch"));
        }
        if let Some(since) = state.paused {
            let for_long = super::words::age(since, now);
            let what = format!("The schedule of {pipeline} has been paused for {for_long}");
            found.push(Notice::new(Level::Watch, what, "Resume it on the batch page.", "/batch"));
        }
    }
}

/// Bad records that come in a cluster: more than one in twenty of what a pipeline has read lately. It passes when they
/// cease.
fn clusters(lately: &[Lately]) -> impl Iterator<Item = Notice> {
    let bad = |of: &&Lately| of.refused > 50 && of.refused * 20 > of.records;
    lately.iter().filter(bad).map(|Lately { pipeline, records, refused }| {
        let what = format!(
            "{} of {} that {pipeline} has read in the last 15 minutes were refused",
            plural(*refused, "record", "records"),
            count(*records)
        );
        let todo = "More than one in twenty: see the reasons among the dead letters and tell the producer's owner. Pausing \
                    the partition on the stream page keeps more of them out; nothing is lost either way.";
        Notice::new(Level::Wrong, what, todo, format!("/dead-letters?pipeline={}", encoded(pipeline)))
    })
}

/// What the newest comparison of the layers has found.
fn differences(status: &Status) -> Option<Notice> {
    let last = status.reconcile.last.as_ref()?;
    let wrong: Vec<&LayerDifference> = last.layers.iter().filter(|layer| layer.rows > 0).collect();
    if wrong.is_empty() {
        return None;
    }
    let layers = wrong.iter().map(|l| format!("{} of {} by {}", l.layer, l.pipeline, plural(l.rows, "row", "rows")));
    let what = format!("Layers are not what they are made from: {}", layers.collect::<Vec<_>>().join(", "));
    let todo = "See what differs and what to do about it, then compare again.";
    Some(Notice::new(Level::Wrong, what, todo, "/reconcile"))
}

/// A reason of `/readyz` is a sentence: what, then what to do.
fn from_readiness(reason: &str) -> Notice {
    let (what, todo) = match reason.split_once("; to resolve it: ") {
        Some((what, command)) => (what, format!("To resolve it: {command}")),
        None => match reason.rsplit_once("; ") {
            Some((what, todo)) => (what, todo.to_owned()),
            None => (reason, "It should pass by itself; if it stays, the daemon's log says more.".to_owned()),
        },
    };
    let level =
        if reason.starts_with("starting") || reason.starts_with("stopping") { Level::Watch } else { Level::Wrong };
    let page = if what.starts_with("actor") { "/actors" } else { "/stream" };
    let capital = |text: &str| {
        let mut chars = text.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    Notice::new(level, capital(what), capital(&todo), page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{BatchEnded, Board, DaemonPhase, Limits};

    #[test]
    fn all_well_says_nothing() {
        let board = Board::new();
        board.set_phase(DaemonPhase::Running);
        assert_eq!(notices(&Status::of(&board, Limits::default()), &[], Utc::now()), []);
    }

    #[test]
    fn what_needs_hands_comes_first_and_says_what_to_do() {
        let board = Board::new();
        board.set_phase(DaemonPhase::Running);
        board.sink("clickhouse", SinkCondition::Retrying { error: "connection refused".into() });
        board.sink("bronze/user_events", SinkCondition::Refused { error: "no such bucket".into() });
        board.batch("user_events", |batch| {
            batch.last = Some(BatchEnded {
                run_id: "20260206T140500Z-3f9a1c".into(),
                outcome: "failed".into(),
                ended: Utc::now(),
                error: Some("disk full".into()),
            });
        });
        let found = notices(&Status::of(&board, Limits::default()), &[], Utc::now());
        let levels: Vec<Level> = found.iter().map(|n| n.level).collect();
        assert_eq!(levels, [Level::Wrong, Level::Wrong, Level::Watch]);
        assert!(found[0].what.contains("no such bucket"), "{found:?}");
        assert_eq!(found[1].page, "/batch/runs/20260206T140500Z-3f9a1c");
        assert!(found.iter().all(|n| !n.todo.is_empty()));
    }

    #[test]
    fn bad_records_are_told_while_they_come_in_a_cluster() {
        let lately = |records, refused| [Lately { pipeline: "user_events".into(), records, refused }];
        for (records, refused) in [(0, 0), (100, 50), (100_000, 5_000)] {
            assert_eq!(clusters(&lately(records, refused)).count(), 0, "{refused} of {records}");
        }
        let found: Vec<Notice> = clusters(&lately(1_000, 51)).collect();
        assert_eq!((found.len(), found[0].page.as_str()), (1, "/dead-letters?pipeline=user_events"));
        assert!(found[0].what.contains("51 records of 1,000"), "{found:?}");
    }

    #[test]
    fn a_reason_is_split_where_the_remedy_begins() {
        let notice = from_readiness("partition p stopped: retention; hours passed; to resolve it: `boathouse x`");
        assert_eq!(notice.what, "Partition p stopped: retention; hours passed");
        assert_eq!(notice.todo, "To resolve it: `boathouse x`");
    }
}
