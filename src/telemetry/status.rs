//! The board as JSON: what `/status` answers and `boathouse status` reads. Field names carry their units.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::batch::BatchStatus;
use super::board::{ActorPhase, Board, DaemonPhase};
use super::health::{Limits, Readiness, readiness};
use super::partition::PartitionPhase;
use super::reconcile::ReconcileState;
use super::sink::SinkCondition;
use crate::window::Verdict;

/// Everything on the board at one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub phase: DaemonPhase,
    pub uptime_seconds: f64,
    pub readiness: Readiness,
    pub memory: MemoryStatus,
    pub partitions: Vec<PartitionStatus>,
    pub actors: Vec<ActorStatus>,
    pub sinks: Vec<SinkStatus>,
    pub batches: Vec<BatchStatus>,
    #[serde(default)]
    pub reconcile: ReconcileState,
}

/// The memory budget and the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemoryStatus {
    pub used_bytes: u64,
    pub budget_bytes: u64,
    pub resident_bytes: Option<u64>,
    pub cpu_seconds: Option<f64>,
}

/// One partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartitionStatus {
    pub pipeline: String,
    pub topic: String,
    pub generation: i32,
    pub partition: i32,
    #[serde(flatten)]
    pub phase: PartitionPhase,
    /// Next offsets, exclusive.
    pub position: i64,
    pub bronze_position: i64,
    pub realtime_position: i64,
    /// The end of what may be read: the broker's high watermark, or where an open transaction begins; none until it is known.
    pub end_offset: Option<i64>,
    pub lag_records: Option<i64>,
    pub records: u64,
    pub bytes: u64,
    pub ok_records: u64,
    pub late_records: u64,
    pub future_records: u64,
    pub unparsed_records: u64,
    /// Greatest accepted event time, microseconds since the epoch.
    pub mark_us: Option<i64>,
    pub watermark_delay_seconds: Option<f64>,
    pub last_progress_seconds_ago: f64,
}

/// One actor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ActorStatus {
    pub kind: String,
    pub name: String,
    pub phase: ActorPhase,
    pub restarts: u64,
    pub last_failure: Option<String>,
    pub last_failure_seconds_ago: Option<f64>,
    /// Messages that were sent to it and that it has not taken up.
    #[serde(default)]
    pub mailbox_messages: usize,
}

/// One sink.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SinkStatus {
    pub name: String,
    #[serde(flatten)]
    pub condition: SinkCondition,
    pub since_seconds_ago: f64,
}

/// Microseconds since the epoch, by the wall clock.
pub(super) fn wall_clock_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// Wall clock less watermark, in seconds.
pub(super) fn delay_seconds(watermark_us: i64, wall_us: i64) -> f64 {
    (wall_us - watermark_us) as f64 / 1e6
}

impl Status {
    /// Reads the board.
    pub fn of(board: &Board, limits: Limits) -> Self {
        let now = Instant::now();
        let wall_us = wall_clock_us();
        let ago = |t: Instant| now.saturating_duration_since(t).as_secs_f64();
        let (used_bytes, budget_bytes) = board.memory_bytes();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: board.phase(),
            uptime_seconds: ago(board.started()),
            readiness: readiness(board, now, limits),
            memory: MemoryStatus {
                used_bytes,
                budget_bytes,
                resident_bytes: super::process::resident_bytes(),
                cpu_seconds: super::process::cpu_seconds(),
            },
            partitions: board
                .partitions()
                .into_iter()
                .map(|(source, p)| PartitionStatus {
                    pipeline: source.pipeline.to_string(),
                    topic: source.topic.to_string(),
                    generation: source.generation,
                    partition: source.partition,
                    position: p.position(),
                    bronze_position: p.bronze_position(),
                    realtime_position: p.realtime_position(),
                    end_offset: p.end_offset,
                    lag_records: p.lag(),
                    records: p.records,
                    bytes: p.bytes,
                    ok_records: p.verdicts[Verdict::Ok as usize],
                    late_records: p.verdicts[Verdict::Late as usize],
                    future_records: p.verdicts[Verdict::Future as usize],
                    unparsed_records: p.verdicts[Verdict::Unparsed as usize],
                    mark_us: p.mark,
                    watermark_delay_seconds: p.watermark().map(|w| delay_seconds(w, wall_us)),
                    last_progress_seconds_ago: ago(p.last_progress),
                    phase: p.phase,
                })
                .collect(),
            actors: board
                .actors()
                .into_iter()
                .map(|(id, a)| ActorStatus {
                    kind: id.kind.to_owned(),
                    name: id.name.to_string(),
                    phase: a.phase,
                    restarts: a.restarts,
                    last_failure_seconds_ago: a.last_failure.as_ref().map(|f| ago(f.0)),
                    last_failure: a.last_failure.map(|f| f.1),
                    mailbox_messages: a.inbox.waiting(),
                })
                .collect(),
            sinks: board
                .sinks()
                .into_iter()
                .map(|(name, s)| SinkStatus { name, condition: s.condition, since_seconds_ago: ago(s.since) })
                .collect(),
            batches: board.batches().into_iter().map(|(pipeline, state)| BatchStatus { pipeline, state }).collect(),
            reconcile: board.reconcile(|state| state.clone()),
        }
    }
}
