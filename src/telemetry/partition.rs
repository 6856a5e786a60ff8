//! What the board knows of one partition. Pure: every instant is an argument.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::window::Verdict;

/// What a partition's consumer is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum PartitionPhase {
    /// Assigned; its position is being looked up.
    Starting,
    /// Consuming.
    Running,
    /// An operator holds it: nothing is read until they let it go.
    Paused {
        by: String,
        since: DateTime<Utc>,
        /// When it goes on by itself.
        until: Option<DateTime<Utc>>,
        reason: String,
    },
    /// Its actor failed and is being rebuilt from the durable position, or its windows are being recounted.
    Recovering,
    /// Stopped for good until somebody acts: what happened, and the command that resolves it.
    Stopped { what: String, command: String },
}

impl PartitionPhase {
    /// The name in metrics and status.
    pub fn as_str(&self) -> &'static str {
        match self {
            PartitionPhase::Starting => "starting",
            PartitionPhase::Running => "running",
            PartitionPhase::Paused { .. } => "paused",
            PartitionPhase::Recovering => "recovering",
            PartitionPhase::Stopped { .. } => "stopped",
        }
    }

    /// All names, for metrics that show one series per phase.
    pub const NAMES: [&'static str; 5] = ["starting", "running", "paused", "recovering", "stopped"];
}

/// What is known of a partition when its consumer takes it up.
#[derive(Debug, Clone)]
pub struct Acquired {
    /// Next offset to read, which is Bronze's position.
    pub position: i64,
    /// Bronze's mark: greatest accepted event time, microseconds since the epoch.
    pub mark: Option<i64>,
    /// `time.bound` of the pipeline: the watermark is the mark less this.
    pub bound: Duration,
    /// `bronze.flush_interval` of the pipeline: rows wait this long for their commit in normal operation.
    pub bronze_flush_interval: Duration,
    /// `realtime.flush_interval` of the pipeline; none when it has no aggregates, so that nothing is owed.
    pub realtime_flush_interval: Option<Duration>,
}

/// One batch that a consumer has handed on.
#[derive(Debug, Clone, Default)]
pub struct Consumed {
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Records per verdict, indexed by `Verdict as usize`.
    pub verdicts: [u64; Verdict::ALL.len()],
    /// Position after the batch (exclusive).
    pub next: i64,
    /// The mark after the batch, microseconds since the epoch.
    pub mark: Option<i64>,
}

/// How far one stage has come, and since when it has owed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Next offset of the stage (exclusive).
    pub position: i64,
    /// When it last moved or last had nothing to do, if it is behind now; none while it is caught up.
    pub waiting_since: Option<Instant>,
}

impl Progress {
    fn at(position: i64) -> Self {
        Self { position, waiting_since: None }
    }

    fn moved(&mut self, position: i64, goal: i64, now: Instant) {
        if position != self.position {
            self.position = position;
            self.waiting_since = None;
        }
        self.aim(goal, now);
    }

    fn aim(&mut self, goal: i64, now: Instant) {
        if goal <= self.position {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
    }

    /// How long the stage has been behind without moving.
    pub fn waiting(&self, now: Instant) -> Option<Duration> {
        self.waiting_since.map(|since| now.saturating_duration_since(since))
    }
}

/// The live state of one partition.
#[derive(Debug, Clone)]
pub struct PartitionState {
    pub phase: PartitionPhase,
    /// Records handed to both sinks since this instance took the partition up.
    pub records: u64,
    /// Their bytes, keys and values.
    pub bytes: u64,
    /// Records per verdict, indexed by `Verdict as usize`.
    pub verdicts: [u64; Verdict::ALL.len()],
    /// The end of what may be read, as the broker tells it: its high watermark, or where a transaction that is open begins. None
    /// until it is known.
    pub end_offset: Option<i64>,
    /// Greatest accepted event time, microseconds since the epoch.
    pub mark: Option<i64>,
    /// Bytes that its window totals hold.
    pub windows_bytes: u64,
    /// Since when its windows are being counted again from Bronze; none when they are not.
    pub recounting_since: Option<Instant>,
    /// When the read position, Bronze's or realtime's last moved.
    pub last_progress: Instant,
    pub(super) bound: Duration,
    pub(super) bronze_flush_interval: Duration,
    pub(super) realtime_flush_interval: Option<Duration>,
    pub(super) read: Progress,
    pub(super) bronze: Progress,
    pub(super) realtime: Progress,
}

impl PartitionState {
    pub fn new(acquired: &Acquired, now: Instant) -> Self {
        Self {
            phase: PartitionPhase::Starting,
            records: 0,
            bytes: 0,
            verdicts: [0; Verdict::ALL.len()],
            end_offset: None,
            mark: acquired.mark,
            windows_bytes: 0,
            recounting_since: None,
            last_progress: now,
            bound: acquired.bound,
            bronze_flush_interval: acquired.bronze_flush_interval,
            realtime_flush_interval: acquired.realtime_flush_interval,
            read: Progress::at(acquired.position),
            bronze: Progress::at(acquired.position),
            realtime: Progress::at(acquired.position),
        }
    }

    /// Next offset to read.
    pub fn position(&self) -> i64 {
        self.read.position
    }

    /// Next offset that Bronze does not hold durably.
    pub fn bronze_position(&self) -> i64 {
        self.bronze.position
    }

    /// Next offset that ClickHouse's windows do not hold.
    pub fn realtime_position(&self) -> i64 {
        self.realtime.position
    }

    /// Offsets between the read position and that end: records not yet read, counting transaction markers and compacted
    /// offsets as records.
    pub fn lag(&self) -> Option<i64> {
        self.end_offset.map(|end| (end - self.read.position).max(0))
    }

    /// How long there has been something to read without the read position moving.
    pub fn read_waiting(&self, now: Instant) -> Option<Duration> {
        self.read.waiting(now)
    }

    /// The event-time watermark, microseconds since the epoch.
    pub fn watermark(&self) -> Option<i64> {
        self.mark.map(|mark| mark - self.bound.as_micros() as i64)
    }

    pub fn consumed(&mut self, batch: &Consumed, now: Instant) {
        self.records += batch.records;
        self.bytes += batch.bytes;
        for (total, n) in self.verdicts.iter_mut().zip(batch.verdicts) {
            *total += n;
        }
        self.mark = batch.mark;
        // What was read is there: without word from the broker, the position is the best known end.
        let end = self.end_offset.unwrap_or(batch.next).max(batch.next);
        self.end_offset = Some(end);
        self.progress(batch.next != self.read.position, now);
        self.read.moved(batch.next, end, now);
        self.bronze.aim(batch.next, now);
        if self.realtime_flush_interval.is_some() {
            self.realtime.aim(batch.next, now);
        } else {
            self.realtime.moved(batch.next, batch.next, now);
        }
    }

    /// It is read again after a pause: what has waited meanwhile has not been waiting for us.
    pub fn resumed(&mut self, now: Instant) {
        self.phase = PartitionPhase::Running;
        self.read.waiting_since = None;
        if let Some(end) = self.end_offset {
            self.read.aim(end, now);
        }
    }

    pub fn end_offset(&mut self, end: i64, now: Instant) {
        self.end_offset = Some(end);
        self.read.aim(end, now);
    }

    pub fn bronze_at(&mut self, position: i64, now: Instant) {
        self.progress(position != self.bronze.position, now);
        self.bronze.moved(position, self.read.position, now);
    }

    pub fn realtime_at(&mut self, position: i64, now: Instant) {
        self.progress(position != self.realtime.position, now);
        self.realtime.moved(position, self.read.position, now);
    }

    fn progress(&mut self, moved: bool, now: Instant) {
        if moved {
            self.last_progress = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquired() -> Acquired {
        Acquired {
            position: 100,
            mark: None,
            bound: Duration::from_secs(30),
            bronze_flush_interval: Duration::from_secs(30),
            realtime_flush_interval: Some(Duration::from_secs(1)),
        }
    }

    fn batch(next: i64) -> Consumed {
        Consumed { records: 10, bytes: 1000, verdicts: [7, 1, 0, 2], next, mark: Some(90_000_000) }
    }

    #[test]
    fn totals_add_up_and_lag_follows_the_broker() {
        let t = Instant::now();
        let mut p = PartitionState::new(&acquired(), t);
        assert_eq!(p.lag(), None);
        p.end_offset(500, t);
        p.consumed(&batch(110), t);
        p.consumed(&batch(120), t);
        assert_eq!((p.records, p.bytes, p.verdicts), (20, 2000, [14, 2, 0, 4]));
        assert_eq!(p.lag(), Some(380));
        assert_eq!(p.watermark(), Some(60_000_000));
        // A position beyond a stale end is no negative lag.
        p.consumed(&batch(600), t);
        assert_eq!(p.lag(), Some(0));
    }

    #[test]
    fn waiting_starts_when_work_arises_not_when_it_was_last_done() {
        let t = Instant::now();
        let s = Duration::from_secs;
        let mut p = PartitionState::new(&acquired(), t);
        p.end_offset(100, t);
        assert_eq!(p.read.waiting(t + s(3600)), None, "an idle partition owes nothing");
        p.end_offset(101, t + s(3600));
        assert_eq!(p.read.waiting(t + s(3605)), Some(s(5)));
        p.end_offset(102, t + s(3606));
        assert_eq!(p.read.waiting(t + s(3607)), Some(s(7)), "more work does not restart the wait");
        p.consumed(&batch(101), t + s(3608));
        assert_eq!(p.read.waiting(t + s(3609)), Some(s(1)), "progress does, while work is left");
        p.consumed(&batch(102), t + s(3610));
        assert_eq!(p.read.waiting(t + s(9999)), None);
    }

    #[test]
    fn each_sink_waits_for_itself() {
        let t = Instant::now();
        let s = Duration::from_secs;
        let mut p = PartitionState::new(&acquired(), t);
        p.consumed(&batch(110), t);
        p.realtime_at(110, t + s(1));
        assert_eq!(p.realtime.waiting(t + s(10)), None);
        assert_eq!(p.bronze.waiting(t + s(10)), Some(s(10)));
        p.bronze_at(110, t + s(11));
        assert_eq!(p.bronze.waiting(t + s(12)), None);
        assert_eq!(p.last_progress, t + s(11));
    }
}
