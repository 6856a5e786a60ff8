//! Whether the daemon does its work. A watchdog over progress, not a heartbeat: a daemon that is alive and moves
//! nothing, although there is something to move, is not ready. Pure: the instant is an argument.

use std::time::{Duration, Instant};

use super::board::{ActorPhase, Board, DaemonPhase, IN_A_ROW};
use super::partition::{PartitionPhase, PartitionState};
use super::sink::SinkCondition;
use crate::kafka::Source;

/// How long work may wait before it counts as stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// No progress of a partition, although there is lag; for a sink this comes on top of its flush interval. Also how
    /// long a sink or the broker may fail.
    pub stall: Duration,
    /// Longest time an actor may take to get from failure to running again before it counts.
    pub recovery: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { stall: Duration::from_secs(60), recovery: Duration::from_secs(60) }
    }
}

/// Failures in a row from which on an actor that runs again each time counts as one that does not.
const AGAIN_AND_AGAIN: u32 = 3;

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Readiness {
    pub ready: bool,
    /// Why not: what, where, and what to do where something can be done. Empty when ready.
    pub reasons: Vec<String>,
    /// Partitions among the reasons.
    pub stuck_partitions: usize,
}

/// Looks at everything on the board.
pub fn readiness(board: &Board, now: Instant, limits: Limits) -> Readiness {
    let mut reasons = Vec::new();
    match board.phase() {
        DaemonPhase::Starting => reasons.push("starting: tables and positions are being set up".to_owned()),
        DaemonPhase::Running => {}
        DaemonPhase::Stopping => reasons.push("stopping: draining what is in hand".to_owned()),
    }

    let mut stuck_partitions = 0;
    for (source, partition) in board.partitions() {
        if let Some(reason) = partition_reason(&source, &partition, now, limits) {
            stuck_partitions += 1;
            reasons.push(reason);
        }
    }

    for (id, actor) in board.actors() {
        let failure = actor.last_failure.as_ref();
        let why = failure.map_or("unknown failure", |(_, error)| error.as_str());
        let down_for = failure.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at));
        match actor.phase {
            ActorPhase::GaveUp => reasons.push(format!(
                "actor {} {} gave up after {} restarts: {why}; mend the cause and restart the daemon",
                id.kind, id.name, actor.restarts
            )),
            ActorPhase::BackingOff if down_for > limits.recovery => {
                reasons.push(format!("actor {} {} is down for {}: {why}", id.kind, id.name, seconds(down_for)));
            }
            ActorPhase::BackingOff | ActorPhase::Running => {
                // Each life is short and each pause is within the limit; all the same it does not do its work.
                if let (Some((first, count)), Some((last, _))) = (actor.failures, failure)
                    && count >= AGAIN_AND_AGAIN
                    && now.saturating_duration_since(*last) < IN_A_ROW
                    && last.saturating_duration_since(first) > limits.recovery
                {
                    reasons.push(format!(
                        "actor {} {} has failed {count} times in {}, and is made anew each time: {why}",
                        id.kind,
                        id.name,
                        seconds(now.saturating_duration_since(first))
                    ));
                }
            }
        }
    }

    for (name, sink) in board.sinks() {
        let for_long = now.saturating_duration_since(sink.since);
        match &sink.condition {
            SinkCondition::Refused { error } => reasons.push(format!(
                "{name} refuses us: {error}; correct its user and password in the configuration, nothing is lost meanwhile"
            )),
            SinkCondition::Retrying { error } if for_long > limits.stall => {
                reasons.push(format!("{name} has failed for {}: {error}; it is tried again", seconds(for_long)));
            }
            SinkCondition::Retrying { .. } | SinkCondition::Healthy => {}
        }
    }

    Readiness { ready: reasons.is_empty(), reasons, stuck_partitions }
}

fn partition_reason(source: &Source, p: &PartitionState, now: Instant, limits: Limits) -> Option<String> {
    if let PartitionPhase::Stopped { what, command } = &p.phase {
        return Some(format!("partition {source} stopped: {what}; to resolve it: {command}"));
    }
    let phase = p.phase.as_str();
    // What an operator holds is not stuck; what was read before must reach the sinks all the same.
    let paused = matches!(p.phase, PartitionPhase::Paused { .. });
    if let Some(waited) = p.read.waiting(now).filter(|w| !paused && *w > limits.stall) {
        let lag = p.lag().unwrap_or_default();
        return Some(format!(
            "partition {source} ({phase}) has {lag} records to read and none read for {}",
            seconds(waited)
        ));
    }
    let sinks = [
        ("bronze", p.bronze, p.bronze_flush_interval, "see the log for commit errors"),
        ("realtime", p.realtime, p.realtime_flush_interval.unwrap_or_default(), "see whether ClickHouse answers"),
    ];
    sinks.into_iter().find_map(|(sink, progress, interval, hint)| {
        let waited = progress.waiting(now).filter(|w| *w > interval + limits.stall)?;
        let pending = p.position() - progress.position;
        let hint = match p.recounting_since.filter(|_| sink == "realtime") {
            Some(since) => &format!(
                "its windows have been counted again from Bronze for {} and catch up by themselves",
                seconds(now.saturating_duration_since(since))
            ),
            None => hint,
        };
        Some(format!(
            "partition {source} ({phase}) has {pending} records that {sink} has not taken for {}; {hint}",
            seconds(waited)
        ))
    })
}

fn seconds(d: Duration) -> String {
    format!("{} s", d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Acquired, ActorId, Consumed};

    fn source(partition: i32) -> Source {
        Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition }
    }

    fn running_board() -> Board {
        let board = Board::new();
        board.set_phase(DaemonPhase::Running);
        board.acquired(
            &source(0),
            &Acquired {
                position: 10,
                mark: None,
                bound: Duration::from_secs(30),
                bronze_flush_interval: Duration::from_secs(30),
                realtime_flush_interval: Some(Duration::from_secs(1)),
            },
        );
        board.partition_phase(&source(0), PartitionPhase::Running);
        board
    }

    fn after(board: &Board, seconds: u64) -> Readiness {
        readiness(board, Instant::now() + Duration::from_secs(seconds), Limits::default())
    }

    #[test]
    fn a_daemon_is_ready_only_while_it_runs() {
        let board = Board::new();
        assert!(!after(&board, 0).ready);
        board.set_phase(DaemonPhase::Running);
        assert!(after(&board, 0).ready, "an instance without partitions stands by");
        board.set_phase(DaemonPhase::Stopping);
        assert!(!after(&board, 0).ready);
    }

    #[test]
    fn an_idle_partition_is_ready_for_ever() {
        let board = running_board();
        board.end_offset(&source(0), 10);
        assert_eq!(after(&board, 86_400).reasons, Vec::<String>::new());
    }

    #[test]
    fn lag_without_progress_is_stuck() {
        let board = running_board();
        board.end_offset(&source(0), 500);
        assert!(after(&board, 59).ready);
        let stuck = after(&board, 62);
        assert_eq!(stuck.stuck_partitions, 1);
        assert_eq!(
            stuck.reasons,
            ["partition user_events/user-events/0/0 (running) has 490 records to read and none read for 62 s"]
        );
    }

    #[test]
    fn what_is_paused_is_not_stuck_and_has_time_when_it_goes_on() {
        let board = running_board();
        board.end_offset(&source(0), 500);
        let pause = PartitionPhase::Paused {
            by: "ada".into(),
            since: chrono::DateTime::UNIX_EPOCH,
            until: None,
            reason: "the disk is changed".into(),
        };
        board.partition_phase(&source(0), pause);
        assert!(after(&board, 9_999).ready);
        board.resumed(&source(0));
        assert!(after(&board, 59).ready);
        assert_eq!(after(&board, 62).stuck_partitions, 1);
    }

    #[test]
    fn a_sink_that_takes_nothing_is_stuck_after_its_interval_and_the_limit() {
        let board = running_board();
        board.consumed(&source(0), &Consumed { records: 5, next: 15, ..Consumed::default() });
        board.realtime_at(&source(0), 15);
        assert!(after(&board, 89).ready, "bronze waits 30 s by configuration");
        let stuck = after(&board, 92);
        assert!(stuck.reasons[0].contains("5 records that bronze has not taken for 92 s"), "{:?}", stuck.reasons);
        board.bronze_at(&source(0), 15);
        assert!(after(&board, 9_999).ready);
    }

    #[test]
    fn windows_that_are_counted_again_are_behind_for_that_reason() {
        let board = running_board();
        board.consumed(&source(0), &Consumed { records: 5, next: 15, ..Consumed::default() });
        board.bronze_at(&source(0), 15);
        board.recounting(&source(0), true);
        assert!(after(&board, 60).ready);
        let behind = after(&board, 62).reasons.join("\n");
        assert!(behind.contains("5 records that realtime has not taken for 62 s"), "{behind}");
        assert!(behind.contains("counted again from Bronze for 62 s"), "{behind}");
        board.recounting(&source(0), false);
        assert!(after(&board, 62).reasons[0].ends_with("see whether ClickHouse answers"));
    }

    #[test]
    fn an_outage_counts_once_it_lasts() {
        let board = running_board();
        board.sink("kafka", SinkCondition::Retrying { error: "all brokers are down".into() });
        assert!(after(&board, 59).ready);
        assert_eq!(after(&board, 62).reasons, ["kafka has failed for 62 s: all brokers are down; it is tried again"]);
        board.sink("kafka", SinkCondition::Healthy);
        assert!(after(&board, 62).ready);
    }

    #[test]
    fn what_fails_again_and_again_is_not_ready_although_it_runs_each_time() {
        let board = running_board();
        let id = ActorId::new("pipeline", "user_events");
        let fail = || {
            board.actor_failed(&id, "a bad batch", false);
            board.actor_running(&id, true);
        };
        let at = |limits, seconds| readiness(&board, Instant::now() + Duration::from_secs(seconds), limits).reasons;
        let at_once = Limits { recovery: Duration::ZERO, ..Limits::default() };
        fail();
        fail();
        assert_eq!(at(at_once, 0), Vec::<String>::new(), "twice may happen");
        fail();
        let told = "actor pipeline user_events has failed 3 times in 5 s, and is made anew each time: a bad batch";
        assert_eq!(at(at_once, 5), [told]);
        assert_eq!(at(Limits::default(), 5), Vec::<String>::new(), "it may take a minute to recover");
        assert_eq!(at(at_once, IN_A_ROW.as_secs() + 1), Vec::<String>::new(), "it has recovered");
    }

    #[test]
    fn a_pipeline_that_fares_well_does_not_speak_for_another() {
        let board = running_board();
        board.shared_sink("clickhouse", "orders", SinkCondition::Retrying { error: "Code: 57".into() });
        board.shared_sink("clickhouse", "user_events", SinkCondition::Healthy);
        assert!(after(&board, 59).ready);
        let told = ["clickhouse has failed for 62 s: pipeline orders: Code: 57; it is tried again"];
        assert_eq!(after(&board, 62).reasons, told);
        board.shared_sink("clickhouse", "user_events", SinkCondition::Healthy);
        assert_eq!(after(&board, 62).reasons, told, "since it failed, not since another said it was well");
        board.shared_sink("clickhouse", "orders", SinkCondition::Healthy);
        assert!(after(&board, 62).ready);
    }

    #[test]
    fn loud_stops_say_what_to_do() {
        let board = running_board();
        board.stopped(&source(1), "retention overran the position", "boathouse topic adopt user_events");
        let id = ActorId::new("bronze_writer", "user_events");
        board.actor_running(&id, false);
        board.actor_failed(&id, "disk full", false);
        assert_eq!(after(&board, 1).reasons.len(), 1, "a restart in time is no reason");
        assert_eq!(after(&board, 100).reasons.len(), 2);
        board.actor_failed(&id, "disk full", true);
        board.sink("clickhouse", SinkCondition::Refused { error: "Code: 516".into() });
        let reasons = after(&board, 0).reasons.join("\n");
        for part in ["boathouse topic adopt user_events", "gave up", "disk full", "Code: 516", "password"] {
            assert!(reasons.contains(part), "{part} is missing in:\n{reasons}");
        }
    }
}
