//! The commit protocol under a simulated log: several instances (zombies included) acquire and lose partitions, judge
//! and commit; stops between any two steps; PUTs that land late; lost answers; other writers' commits; settings
//! changed, and put in force anew by an operator's choice; the last commit lost; log entries cleaned up. In the end one
//! instance drains the topic. Then Bronze must hold every offset once, with the verdicts of a plain pass over the log,
//! and no position may ever have gone back. Where settings do not change, nobody ever stops for good.
//!
//! Here are the log that lies and the instances on it; `worlds` lets them run and looks at what is there in the end.

mod worlds;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::entry::{AddFile, EntryWriter, read_entry};
use super::settings::key;
use super::{Advance, BronzeError, CommitLog, KNOWN_AGE_MAX, Ledger, PutOutcome, TableState};
use crate::config::TimeSettings;
use crate::kafka::Source;
use crate::window::{EventClock, Verdict};

/// A rule of the protocol that is taken away, by a log that lies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Broken {
    /// A taken version is gone past without looking for a rival's txn.
    NoFence,
    /// A partition is acquired at the newest version without reading what lies between.
    JumpVersion,
    /// A missing answer is taken for a failure, and the batch put again one version higher.
    TrustError,
    /// What is known never grows too old.
    NoAge,
    /// Verdicts begin without Bronze's mark.
    NoMark,
}

const PARTITIONS: i32 = 2;
/// Entries older than this may be cleaned up; the ledger relies on its being longer than `KNOWN_AGE_MAX`.
const RETENTION: Duration = Duration::from_secs(2 * KNOWN_AGE_MAX.as_secs());

/// One record: its event time in seconds (none: unparsable) and its Kafka timestamp in seconds.
type Record = (Option<i64>, i64);

struct World {
    rng: ChaCha8Rng,
    broken: Option<Broken>,
    /// The table's true history: what a reader sees, through checkpoints too.
    history: Vec<Bytes>,
    /// The entries that are there to be read, with the time they were put.
    stored: BTreeMap<u64, (Bytes, Duration)>,
    /// PUTs whose answer is lost and that may land later.
    late: Vec<(u64, Bytes)>,
    now: Duration,
    ids: u64,
    topic: Vec<Vec<Record>>,
    errors: Vec<String>,
    /// Whether instances with other settings come.
    changes: bool,
    fenced: usize,
    /// Rounds that an operator's choice ended.
    renewed: usize,
    commits: usize,
}

impl World {
    fn new(seed: u64, broken: Option<Broken>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let topic = (0..PARTITIONS).map(|_| records(&mut rng)).collect();
        let mut world = Self {
            rng,
            broken,
            history: Vec::new(),
            stored: BTreeMap::new(),
            late: Vec::new(),
            now: Duration::ZERO,
            ids: 0,
            topic,
            errors: Vec::new(),
            changes: false,
            fenced: 0,
            renewed: 0,
            commits: 0,
        };
        let first = metadata_entry(&mut world, 0);
        world.land(0, first);
        world
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn fresh_id(&mut self) -> String {
        self.ids += 1;
        format!("id-{}", self.ids)
    }

    /// Put if absent: a version that cleanup has freed takes an entry that no reader will see.
    fn land(&mut self, version: u64, entry: Bytes) -> bool {
        if self.stored.contains_key(&version) || version > self.history.len() as u64 {
            return false;
        }
        if version == self.history.len() as u64 {
            self.history.push(entry.clone());
        }
        self.stored.insert(version, (entry, self.now));
        true
    }

    fn late_put_lands(&mut self) {
        if !self.late.is_empty() {
            let at = self.rng.random_range(0..self.late.len());
            let (version, entry) = self.late.swap_remove(at);
            self.land(version, entry);
        }
    }

    fn clean_up(&mut self) {
        let newest = self.history.len() as u64 - 1;
        let (now, keep) = (self.now, newest.saturating_sub(2));
        self.stored.retain(|version, (_, at)| *version >= keep || now.saturating_sub(*at) < RETENTION);
    }

    fn state(&self, ids: &[String]) -> TableState {
        let mut state =
            TableState { version: self.history.len() as u64 - 1, protocol: (1, 2), ..TableState::default() };
        for entry in &self.history {
            let effects = read_entry(entry).expect("the simulation writes sound entries");
            state.txns.extend(effects.txns.into_iter().filter(|(id, _)| ids.contains(id)));
            state.configuration = effects.configuration.unwrap_or(state.configuration);
        }
        state
    }
}

/// Mostly in order, sometimes far out of it, sometimes in the future or no event at all.
fn records(rng: &mut ChaCha8Rng) -> Vec<Record> {
    let mut clock = 1000;
    (0..rng.random_range(5..90))
        .map(|_| {
            clock += [0, 0, 0, 1, 1, 2, 15][rng.random_range(0..7)];
            let ahead = if rng.random_range(0..100) < 5 { [10, 500][rng.random_range(0..2)] } else { 0 };
            let behind = [0, 1, 2, 4, 9, 12, 30][rng.random_range(0..7)];
            ((rng.random_range(0..100) >= 5).then_some(clock - behind + ahead), clock)
        })
        .collect()
}

/// Small times, so that every case happens; the allowed lateness is what settings differ by.
fn time_settings(settings: usize) -> TimeSettings {
    TimeSettings {
        window: Duration::from_secs(10),
        bound: Duration::from_secs(3),
        allowed_lateness: Duration::from_secs([6, 2][settings]),
        future_guard: Duration::from_secs(20),
        idle_after: Duration::from_secs(60),
    }
}

fn judge(clock: &mut EventClock, record: Record) -> Verdict {
    let micros = |seconds: i64| seconds * 1_000_000;
    record.0.map_or(Verdict::Unparsed, |event_time| clock.judge(micros(event_time), record.1 * 1000))
}

fn source(partition: i32) -> Arc<Source> {
    Arc::new(Source { pipeline: "p".into(), topic: "t".into(), generation: 0, partition })
}

fn metadata_entry(world: &mut World, settings: usize) -> Bytes {
    let (id, epoch) = (world.fresh_id(), world.fresh_id());
    let mut entry = EntryWriter::new("SET TBLPROPERTIES", json!({}), false, &id, 0);
    let configuration = json!({key::EPOCH: epoch, key::SETTINGS_HASH: settings.to_string()});
    entry.action(json!({"metaData": {"configuration": configuration}}));
    entry.finish()
}

/// Lets the others run: a place to stop, or for a rival to come in.
async fn step() {
    let mut passed = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut passed, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await
}

/// The simulated log as one instance sees it.
#[derive(Clone)]
struct SimLog {
    world: Arc<Mutex<World>>,
    /// Bytes that this instance has put, for the lies.
    mine: Arc<Mutex<Vec<Bytes>>>,
    acquiring: Arc<Mutex<bool>>,
}

impl SimLog {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

impl CommitLog for SimLog {
    async fn load(&self, ids: &[String]) -> Result<Option<TableState>, BronzeError> {
        step().await;
        let state = self.world().state(ids);
        step().await;
        Ok(Some(state))
    }

    async fn read(&self, version: u64) -> Result<Option<Bytes>, BronzeError> {
        step().await;
        let mut world = self.world();
        if world.chance(3) {
            return Err(BronzeError::io("the log cannot be read", "simulated"));
        }
        let Some((entry, _)) = world.stored.get(&version) else { return Ok(None) };
        let harmless = || Ok(Some(Bytes::from_static(b"{\"commitInfo\":{}}\n")));
        match world.broken {
            Some(Broken::NoFence) if !self.mine.lock().unwrap().contains(entry) => harmless(),
            Some(Broken::JumpVersion) if *self.acquiring.lock().unwrap() => harmless(),
            Some(Broken::TrustError) if self.mine.lock().unwrap().contains(entry) => harmless(),
            _ => Ok(Some(entry.clone())),
        }
    }

    async fn put(&self, version: u64, entry: Bytes) -> PutOutcome {
        step().await;
        self.mine.lock().unwrap().push(entry.clone());
        let outcome = {
            let mut world = self.world();
            match world.rng.random_range(0..100) {
                0..20 => {
                    world.late.push((version, entry));
                    PutOutcome::Unknown("timeout".into())
                }
                // S3's 409 although nothing landed.
                20..25 => PutOutcome::Taken,
                dice => match world.land(version, entry) {
                    _ if dice < 40 => PutOutcome::Unknown("the answer is lost".into()),
                    true => PutOutcome::Landed,
                    false => PutOutcome::Taken,
                },
            }
        };
        step().await;
        outcome
    }

    async fn sync(&self, _: u64) -> Result<(), BronzeError> {
        step().await;
        Ok(())
    }

    async fn pause(&self, _: u32) {
        step().await;
        step().await;
    }

    fn now(&self) -> Duration {
        let world = self.world();
        if world.broken == Some(Broken::NoAge) { Duration::ZERO } else { world.now }
    }

    fn fresh_id(&self) -> String {
        self.world().fresh_id()
    }

    fn name(&self) -> String {
        "the simulated table".into()
    }
}

/// A partition as its consumer holds it.
struct Consumer {
    source: Arc<Source>,
    clock: EventClock,
    from: i64,
    next: i64,
    rows: Vec<(i64, Verdict)>,
}

/// One daemon.
struct Instance {
    log: SimLog,
    settings: usize,
    ledger: Ledger<SimLog>,
    held: Vec<Consumer>,
}

impl Instance {
    async fn start(world: Arc<Mutex<World>>, settings: usize) -> Option<Self> {
        let log = SimLog { world, mine: Arc::default(), acquiring: Arc::default() };
        let mut state = log.load(&[]).await.ok()??;
        if state.configuration[key::SETTINGS_HASH] != settings.to_string() {
            let entry = metadata_entry(&mut log.world(), settings);
            log.put(state.version + 1, entry).await;
            state = log.load(&[]).await.ok()??;
            if state.configuration[key::SETTINGS_HASH] != settings.to_string() {
                return None;
            }
        }
        let ledger = Ledger::new(log.clone(), "p", &state.configuration[key::EPOCH], settings.to_string());
        Some(Self { log, settings, ledger, held: Vec::new() })
    }

    async fn acquire(&mut self, partition: i32) -> Result<(), BronzeError> {
        let source = source(partition);
        if self.held.iter().any(|c| c.source == source) {
            return Ok(());
        }
        *self.log.acquiring.lock().unwrap() = true;
        let acquired = self.ledger.acquire(std::slice::from_ref(&source)).await;
        *self.log.acquiring.lock().unwrap() = false;
        if acquired?.positions[0].is_none() {
            self.ledger.genesis(&[(source.clone(), 0)]).await?;
        }
        let position = self.ledger.position(&source).expect("acquired just now");
        let mark = position.mark.filter(|_| self.log.world().broken != Some(Broken::NoMark));
        let clock = EventClock::new(&time_settings(self.settings), mark);
        let (from, next) = (position.next_offset, position.next_offset);
        self.held.push(Consumer { source, clock, from, next, rows: Vec::new() });
        Ok(())
    }

    fn consume(&mut self, at: usize, records: usize) {
        let consumer = &mut self.held[at];
        let world = self.log.world();
        let log = &world.topic[consumer.source.partition as usize];
        for record in log.iter().skip(consumer.next as usize).take(records) {
            consumer.rows.push((consumer.next, judge(&mut consumer.clock, *record)));
            consumer.next += 1;
        }
    }

    /// Commits what is buffered of all partitions.
    async fn commit(&mut self) -> Result<(), BronzeError> {
        let moved: Vec<&Consumer> = self.held.iter().filter(|c| !c.rows.is_empty()).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let rows: Vec<Value> = moved
            .iter()
            .flat_map(|c| c.rows.iter().map(|(offset, v)| json!([c.source.partition, offset, v.as_str()])))
            .collect();
        let file = AddFile {
            path: self.log.fresh_id(),
            ingestion_date: "2026-02-06".into(),
            size: 1,
            modified_ms: 0,
            rows: rows.len(),
            stats: json!(rows).to_string(),
        };
        let no_mark = self.log.world().broken == Some(Broken::NoMark);
        let advances: Vec<Advance> = moved
            .iter()
            .map(|c| {
                // Without Bronze's mark the ledger itself would notice that it goes back.
                let known = self.ledger.position(&c.source).and_then(|p| p.mark);
                let mark = if no_mark { c.clock.mark().max(known) } else { c.clock.mark() };
                Advance { source: c.source.clone(), from: c.from, next_offset: c.next, mark }
            })
            .collect();
        self.ledger.commit(&[file], &advances).await?;
        self.log.world().commits += 1;
        for consumer in &mut self.held {
            consumer.rows.clear();
            consumer.from = consumer.next;
        }
        Ok(())
    }

    /// Whatever a daemon may do, until it is fenced. Whether it then goes on by itself, in a new round.
    async fn live(mut self) -> bool {
        loop {
            let (dice, pick) = {
                let mut world = self.log.world();
                (world.rng.random_range(0..100), world.rng.random_range(0..1000usize))
            };
            let done = match dice {
                _ if self.held.is_empty() => self.acquire(pick as i32 % PARTITIONS).await,
                0..5 => self.acquire(pick as i32 % PARTITIONS).await,
                5..8 => {
                    let consumer = self.held.swap_remove(pick % self.held.len());
                    self.ledger.release(&consumer.source);
                    Ok(())
                }
                8 => self.ledger.follow().await,
                9 => self.ledger.glance().await,
                10..60 => {
                    self.consume(pick % self.held.len(), 1 + pick % 11);
                    Ok(())
                }
                _ => self.commit().await,
            };
            match done {
                Ok(()) | Err(BronzeError::Io { .. }) => step().await,
                Err(e) => {
                    let mut world = self.log.world();
                    world.fenced += 1;
                    world.renewed += usize::from(matches!(e, BronzeError::Renewed { .. }));
                    let loud = matches!(e, BronzeError::Stopped { .. }) && !world.changes;
                    if loud || matches!(e, BronzeError::Misuse { .. }) {
                        world.errors.push(e.to_string());
                    }
                    return e.reacquire();
                }
            }
        }
    }
}
