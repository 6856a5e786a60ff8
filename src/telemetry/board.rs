//! The live state of every partition, actor and sink, in one concurrent map that actors write and others read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};

use super::batch::BatchState;
use super::disk::Space;
use super::inbox::Inbox;
use super::partition::{Acquired, Consumed, PartitionPhase, PartitionState};
use super::reconcile::ReconcileState;
use super::sink::{SinkCondition, SinkState, worst};
use crate::kafka::Source;

/// Where the daemon as a whole stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum DaemonPhase {
    /// Tables, migrations and the group are being set up; not ready.
    Starting = 0,
    /// At work; ready unless something is stuck.
    Running = 1,
    /// Draining before it leaves; not ready.
    Stopping = 2,
}

impl DaemonPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            DaemonPhase::Starting => "starting",
            DaemonPhase::Running => "running",
            DaemonPhase::Stopping => "stopping",
        }
    }
}

/// Which actor: its kind, such as `partition_consumer`, and its own name, such as `user_events/user-events/0/2`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ActorId {
    pub kind: &'static str,
    pub name: Arc<str>,
}

impl ActorId {
    pub fn new(kind: &'static str, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }
}

/// The kinds of the actors that each partition has for itself, under the partition's name.
const PARTITION_ACTORS: [&str; 2] = ["partition_consumer", "window_aggregator"];

/// What an actor's supervisor knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorPhase {
    Running,
    /// Failed; the supervisor waits before it builds the actor again.
    BackingOff,
    /// Failed too often: it stays down, and the daemon is not ready.
    GaveUp,
}

impl ActorPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            ActorPhase::Running => "running",
            ActorPhase::BackingOff => "backing_off",
            ActorPhase::GaveUp => "gave_up",
        }
    }
}

/// The live state of one actor.
#[derive(Debug, Clone)]
pub struct ActorState {
    pub phase: ActorPhase,
    /// How often it was built again since the daemon started.
    pub restarts: u64,
    /// Why it failed last, and when.
    pub last_failure: Option<(Instant, String)>,
    /// When it failed first of the failures that came one soon after the other, and how many there were.
    pub failures: Option<(Instant, u32)>,
    /// What waits for it, in its present life.
    pub inbox: Inbox,
}

impl Default for ActorState {
    fn default() -> Self {
        Self { phase: ActorPhase::Running, restarts: 0, last_failure: None, failures: None, inbox: Inbox::default() }
    }
}

/// Failures that come sooner one after the other are one trouble: the longest pause before an actor is made anew, and how
/// long it must then run to count as recovered.
pub const IN_A_ROW: Duration = Duration::from_secs(90);

/// The board. Clones share one state. Writing to it costs one short lock of one entry: once a batch, never once a
/// record.
#[derive(Debug, Clone, Default)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    started: Instant,
    phase: AtomicU8,
    partitions: DashMap<Source, PartitionState>,
    actors: DashMap<ActorId, ActorState>,
    /// Those that ended and had failed before: when they come again, so does what is known of them.
    gone: DashMap<ActorId, ActorState>,
    /// By name, and by the pipeline that says it: no name for a sink that one has to itself.
    sinks: DashMap<(String, String), SinkState>,
    /// By pipeline.
    batches: DashMap<String, BatchState>,
    /// By place: `data`, `lakehouse`.
    disks: DashMap<&'static str, Space>,
    reconcile: Mutex<ReconcileState>,
    /// Bytes that each pipeline's Bronze writer holds.
    bronze_bytes: DashMap<String, u64>,
    memory_budget: AtomicU64,
    memory_batch: AtomicU64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(DaemonPhase::Starting as u8),
            partitions: DashMap::new(),
            actors: DashMap::new(),
            gone: DashMap::new(),
            sinks: DashMap::new(),
            batches: DashMap::new(),
            disks: DashMap::new(),
            reconcile: Mutex::default(),
            bronze_bytes: DashMap::new(),
            memory_budget: AtomicU64::new(0),
            memory_batch: AtomicU64::new(0),
        }
    }
}

/// Written by actors.
impl Board {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set_phase(&self, phase: DaemonPhase) {
        self.inner.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// A partition was assigned and its durable position is known; starts its entry afresh.
    pub fn acquired(&self, source: &Source, acquired: &Acquired) {
        self.inner.partitions.insert(source.clone(), PartitionState::new(acquired, Instant::now()));
    }

    /// A partition was revoked: its entry goes with those of its actors, and its series with them.
    pub fn revoked(&self, source: &Source) {
        self.inner.partitions.remove(source);
        for kind in PARTITION_ACTORS {
            self.actor_gone(&ActorId::new(kind, source.to_string()));
        }
    }

    /// No partition of a pipeline is this instance's any more, stopped ones among them.
    pub fn forget(&self, pipeline: &str) {
        self.inner.partitions.retain(|source, _| &*source.pipeline != pipeline);
    }

    /// A batch was handed to both sinks.
    pub fn consumed(&self, source: &Source, batch: &Consumed) {
        self.with(source, |p| p.consumed(batch, Instant::now()));
    }

    /// The broker told where what may be read ends.
    pub fn end_offset(&self, source: &Source, end: i64) {
        self.with(source, |p| p.end_offset(end, Instant::now()));
    }

    /// Bronze holds everything below `position` durably.
    pub fn bronze_at(&self, source: &Source, position: i64) {
        self.with(source, |p| p.bronze_at(position, Instant::now()));
    }

    /// The windows of every aggregate in ClickHouse hold everything below `position`.
    pub fn realtime_at(&self, source: &Source, position: i64) {
        self.with(source, |p| p.realtime_at(position, Instant::now()));
    }

    /// The partition's windows are being counted again from Bronze, or no longer.
    pub fn recounting(&self, source: &Source, recounting: bool) {
        self.with(source, |p| {
            p.recounting_since = if recounting { p.recounting_since.or_else(|| Some(Instant::now())) } else { None };
        });
    }

    /// What the partition's consumer does now.
    pub fn partition_phase(&self, source: &Source, phase: PartitionPhase) {
        self.with(source, |p| p.phase = phase);
    }

    /// The partition is read again after a pause.
    pub fn resumed(&self, source: &Source) {
        self.with(source, |p| p.resumed(Instant::now()));
    }

    /// The partition stays down until somebody acts. Works for a partition that was never acquired, too: that its
    /// position could not be had is a reason to stop.
    pub fn stopped(&self, source: &Source, what: impl Into<String>, command: impl Into<String>) {
        let phase = PartitionPhase::Stopped { what: what.into(), command: command.into() };
        let unknown = Acquired {
            position: 0,
            mark: None,
            bound: Default::default(),
            bronze_flush_interval: Default::default(),
            realtime_flush_interval: Default::default(),
        };
        self.inner
            .partitions
            .entry(source.clone())
            .or_insert_with(|| PartitionState::new(&unknown, Instant::now()))
            .phase = phase;
    }

    /// An actor lives, and what waits for it is counted here.
    pub fn actor_lives(&self, id: &ActorId, inbox: &Inbox) {
        self.actor(id, |actor| actor.inbox = inbox.clone());
    }

    /// An actor runs; `restart` when it was built again after a failure.
    pub fn actor_running(&self, id: &ActorId, restart: bool) {
        self.actor(id, |actor| {
            actor.restarts += u64::from(restart || actor.phase != ActorPhase::Running);
            actor.phase = ActorPhase::Running;
        });
    }

    /// An actor failed; `gave_up` when its supervisor will not build it again.
    pub fn actor_failed(&self, id: &ActorId, error: impl Into<String>, gave_up: bool) {
        let now = Instant::now();
        self.actor(id, |actor| {
            actor.phase = if gave_up { ActorPhase::GaveUp } else { ActorPhase::BackingOff };
            let last = actor.last_failure.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < IN_A_ROW);
            actor.failures = match actor.failures.filter(|_| last.is_some()) {
                Some((first, count)) => Some((first, count + 1)),
                None => Some((now, 1)),
            };
            actor.last_failure = Some((now, error.into()));
        });
    }

    fn actor(&self, id: &ActorId, write: impl FnOnce(&mut ActorState)) {
        let known = || self.inner.gone.remove(id).map_or_else(ActorState::default, |(_, state)| state);
        write(&mut self.inner.actors.entry(id.clone()).or_insert_with(known));
    }

    /// An actor ended as it should, or is not this instance's any more; its entry goes.
    pub fn actor_gone(&self, id: &ActorId) {
        if let Some((id, state)) = self.inner.actors.remove(id)
            && state.last_failure.is_some()
        {
            self.inner.gone.insert(id, ActorState { inbox: Inbox::default(), ..state });
        }
    }

    /// Whether a sink takes what it is given. `since` moves only when the kind of condition changes.
    pub fn sink(&self, name: &str, condition: SinkCondition) {
        self.sink_of(name, String::new(), condition);
    }

    /// Whether a sink that all pipelines share takes what this one gives it: no other's word stands for it.
    pub fn shared_sink(&self, name: &str, pipeline: &str, condition: SinkCondition) {
        self.sink_of(name, pipeline.to_owned(), condition);
    }

    fn sink_of(&self, name: &str, pipeline: String, condition: SinkCondition) {
        let now = Instant::now();
        let mut sink = self
            .inner
            .sinks
            .entry((name.to_owned(), pipeline))
            .or_insert_with(|| SinkState { condition: condition.clone(), since: now });
        if sink.condition.as_str() != condition.as_str() {
            sink.since = now;
        }
        sink.condition = condition;
    }

    /// Something about a pipeline's batch changed.
    pub fn batch(&self, pipeline: &str, write: impl FnOnce(&mut BatchState)) {
        write(&mut self.inner.batches.entry(pipeline.to_owned()).or_default());
    }

    /// Changes what is known of the comparison of the layers, and gives what is.
    pub fn reconcile<T>(&self, change: impl FnOnce(&mut ReconcileState) -> T) -> T {
        change(&mut self.inner.reconcile.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The room on the disk of a place.
    pub fn disk(&self, place: &'static str, space: Space) {
        self.inner.disks.insert(place, space);
    }

    /// What batch queries hold, in bytes.
    pub fn memory_batch(&self, bytes: u64) {
        self.inner.memory_batch.store(bytes, Ordering::Relaxed);
    }

    /// The whole memory budget, in bytes.
    pub fn memory_budget(&self, bytes: u64) {
        self.inner.memory_budget.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that a pipeline's Bronze writer holds now: files being filled and written, batches that wait for room.
    pub fn bronze_holds(&self, pipeline: &str, bytes: u64) {
        match self.inner.bronze_bytes.get_mut(pipeline) {
            Some(mut held) => *held = bytes,
            None => drop(self.inner.bronze_bytes.insert(pipeline.to_owned(), bytes)),
        }
    }

    /// Bytes that the window totals of a partition hold now.
    pub fn windows_hold(&self, source: &Source, bytes: u64) {
        self.with(source, |p| p.windows_bytes = bytes);
    }

    fn with(&self, source: &Source, write: impl FnOnce(&mut PartitionState)) {
        // A word that comes after the partition was revoked is about nobody.
        if let Some(mut entry) = self.inner.partitions.get_mut(source) {
            write(&mut entry);
        }
    }
}

/// Read by metrics, health, status.
impl Board {
    pub fn phase(&self) -> DaemonPhase {
        match self.inner.phase.load(Ordering::Relaxed) {
            0 => DaemonPhase::Starting,
            1 => DaemonPhase::Running,
            _ => DaemonPhase::Stopping,
        }
    }

    /// When the board, and so the daemon, was made.
    pub fn started(&self) -> Instant {
        self.inner.started
    }

    /// One partition's state.
    pub fn partition(&self, source: &Source) -> Option<PartitionState> {
        self.inner.partitions.get(source).map(|entry| entry.clone())
    }

    /// Whether somebody counts a partition's windows here.
    pub fn counts_windows(&self, source: &Source) -> bool {
        self.inner.actors.contains_key(&ActorId::new("window_aggregator", source.to_string()))
    }

    /// All partitions of this instance, by pipeline, topic, generation, partition.
    pub fn partitions(&self) -> Vec<(Source, PartitionState)> {
        sorted(self.inner.partitions.iter().map(|e| (e.key().clone(), e.value().clone())))
    }

    /// All actors, by kind and name.
    pub fn actors(&self) -> Vec<(ActorId, ActorState)> {
        sorted(self.inner.actors.iter().map(|e| (e.key().clone(), e.value().clone())))
    }

    /// All sinks, by name; one that pipelines share is as the worst of them says.
    pub fn sinks(&self) -> Vec<(String, SinkState)> {
        let mut told: BTreeMap<String, Vec<(String, SinkState)>> = BTreeMap::new();
        for entry in &self.inner.sinks {
            let (name, pipeline) = entry.key().clone();
            told.entry(name).or_default().push((pipeline, entry.value().clone()));
        }
        told.into_iter().filter_map(|(name, all)| Some((name, worst(all)?))).collect()
    }

    /// The batches of all pipelines, by name.
    pub fn batches(&self) -> Vec<(String, BatchState)> {
        sorted(self.inner.batches.iter().map(|e| (e.key().clone(), e.value().clone())))
    }

    /// The room on the disks of the daemon's places.
    pub fn disks(&self) -> Vec<(&'static str, Space)> {
        sorted(self.inner.disks.iter().map(|e| (*e.key(), *e.value())))
    }

    /// Bytes of the memory budget in use, and the whole.
    pub fn memory_bytes(&self) -> (u64, u64) {
        let bronze: u64 = self.inner.bronze_bytes.iter().map(|held| *held.value()).sum();
        let windows: u64 = self.inner.partitions.iter().map(|p| p.windows_bytes).sum();
        let batch = self.inner.memory_batch.load(Ordering::Relaxed);
        (bronze + windows + batch, self.inner.memory_budget.load(Ordering::Relaxed))
    }
}

fn sorted<K: Ord, V>(entries: impl Iterator<Item = (K, V)>) -> Vec<(K, V)> {
    let mut all: Vec<_> = entries.collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_revoke_is_dropped() {
        let board = Board::new();
        let source =
            Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition: 1 };
        board.bronze_at(&source, 5);
        assert!(board.partitions().is_empty());
        board.stopped(&source, "the topic was made anew", "boathouse topic adopt user-events");
        assert_eq!(board.partition(&source).map(|p| p.phase.as_str()), Some("stopped"));
        board.revoked(&source);
        board.bronze_at(&source, 6);
        assert!(board.partitions().is_empty());
    }

    #[test]
    fn restarts_count_and_failures_are_kept() {
        let board = Board::new();
        let id = ActorId::new("bronze_writer", "user_events");
        board.actor_running(&id, false);
        board.actor_failed(&id, "disk full", false);
        board.actor_running(&id, true);
        board.actor_failed(&id, "disk full again", true);
        let (_, actor) = &board.actors()[0];
        assert_eq!((actor.phase, actor.restarts), (ActorPhase::GaveUp, 1));
        assert_eq!(actor.last_failure.as_ref().map(|f| f.1.as_str()), Some("disk full again"));
    }

    #[test]
    fn a_partitions_actors_go_with_it_and_come_again_with_what_is_known_of_them() {
        let board = Board::new();
        let source =
            Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition: 1 };
        let [consumer, windows] = PARTITION_ACTORS.map(|kind| ActorId::new(kind, source.to_string()));
        let (pipeline, inbox) = (ActorId::new("pipeline", "user_events"), Inbox::default());
        for id in [&consumer, &windows, &pipeline] {
            board.actor_lives(id, &inbox);
            board.actor_running(id, false);
        }
        let _sent = inbox.ticket();
        assert!(board.actors().iter().all(|(_, actor)| (actor.restarts, actor.inbox.waiting()) == (0, 1)));
        board.actor_failed(&consumer, "a bad batch", false);
        board.revoked(&source);
        assert_eq!(board.actors().into_iter().map(|(id, _)| id).collect::<Vec<_>>(), [pipeline]);
        for id in [&consumer, &windows] {
            board.actor_lives(id, &Inbox::default());
            board.actor_running(id, false);
        }
        let again = board.actors();
        let of = |id: &ActorId| again.iter().find(|(other, _)| other == id).map(|(_, actor)| actor.clone()).unwrap();
        assert_eq!((of(&consumer).phase, of(&consumer).restarts), (ActorPhase::Running, 1), "it was made anew");
        assert_eq!(of(&consumer).last_failure.map(|f| f.1).as_deref(), Some("a bad batch"));
        assert_eq!((of(&windows).restarts, of(&windows).inbox.waiting()), (0, 0));
    }

    #[test]
    fn a_sink_keeps_since_while_only_the_text_changes() {
        let board = Board::new();
        board.sink("clickhouse", SinkCondition::Retrying { error: "refused".into() });
        let first = board.sinks()[0].1.since;
        board.sink("clickhouse", SinkCondition::Retrying { error: "timeout".into() });
        assert_eq!(board.sinks()[0].1.since, first);
        assert_eq!(board.sinks()[0].1.condition.error(), Some("timeout"));
    }
}
