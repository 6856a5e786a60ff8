//! Bronze's storage: a Delta log in which entries are put if absent, data files, and cleanup. Answers are lost, PUTs land
//! late.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::prelude::*;
use serde_json::Value;

use super::Rule;
use super::world::{Shared, World, lock, step};
use crate::bronze::{
    BronzeError, CommitLog, EntryEffects, KNOWN_AGE_MAX, Ledger, PutOutcome, TableState, read_entry, table_key,
};
use crate::kafka::Source;
use crate::serving::{BronzeRows, RecoverError};
use crate::window::tests::{Record, ok_rows};
use crate::window::{MissingCodes, OkRows, RowsWanted, Standing, Verdict};

/// Entries older than this may be cleaned up; the ledger relies on its being longer than `KNOWN_AGE_MAX`.
const RETENTION: Duration = Duration::from_secs(2 * KNOWN_AGE_MAX.as_secs());

/// A row of a data file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub partition: i32,
    pub offset: i64,
    pub verdict: Verdict,
}

/// An entry of the table's true history: what a reader sees, through checkpoints too.
pub(super) struct Entry {
    pub effects: EntryEffects,
    pub files: Vec<String>,
    metadata: Option<Value>,
    /// Whether it goes on behind a gap.
    pub gap: bool,
}

#[derive(Default)]
pub(super) struct Delta {
    pub history: Vec<Entry>,
    /// The entries that are there to be read, with the time they were put.
    stored: BTreeMap<u64, (Bytes, Duration)>,
    /// PUTs whose answer is lost and that may land later.
    pub late: Vec<(u64, Bytes)>,
    pub files: BTreeMap<String, Vec<Row>>,
}

impl Delta {
    /// Put if absent: a version that cleanup has freed takes an entry that no reader will see.
    pub fn land(&mut self, version: u64, entry: Bytes, now: Duration) -> bool {
        if self.stored.contains_key(&version) || version > self.history.len() as u64 {
            return false;
        }
        if version == self.history.len() as u64 {
            self.history.push(parse(&entry));
        }
        self.stored.insert(version, (entry, now));
        true
    }

    pub fn clean_up(&mut self, now: Duration) {
        let keep = (self.history.len() as u64).saturating_sub(3);
        self.stored.retain(|version, (_, at)| *version >= keep || now.saturating_sub(*at) < RETENTION);
    }

    /// A power cut takes the newest entry.
    pub fn lose_newest(&mut self) {
        if self.history.len() > 1 {
            self.history.pop();
            let end = self.history.len() as u64;
            self.stored.retain(|version, _| *version < end);
        }
    }

    fn state(&self, ids: &[String]) -> Option<TableState> {
        let version = (self.history.len() as u64).checked_sub(1)?;
        let mut state = TableState { version, protocol: (1, 2), ..TableState::default() };
        for entry in &self.history {
            let wanted = entry.effects.txns.iter().filter(|(id, _)| ids.contains(id)).cloned();
            state.txns.extend(wanted);
            if let Some(configuration) = &entry.effects.configuration {
                state.configuration.clone_from(configuration);
            }
            if let Some(metadata) = &entry.metadata {
                state.metadata.clone_from(metadata);
            }
        }
        Some(state)
    }

    /// The epoch in force.
    pub fn epoch(&self) -> Option<String> {
        let configurations = self.history.iter().rev().filter_map(|entry| entry.effects.configuration.as_ref());
        configurations.filter_map(|configuration| configuration.get(table_key::EPOCH)).next().cloned()
    }

    /// Where a partition stands.
    pub fn position(&self, source: &Source) -> Option<i64> {
        let id = source.txn_id();
        self.history.iter().rev().flat_map(|e| &e.effects.txns).find(|(i, _)| *i == id).map(|(_, at)| *at)
    }

    /// The rows of a partition, in the order of commits.
    pub fn rows(&self, partition: i32) -> Vec<Row> {
        let files = self.history.iter().flat_map(|entry| &entry.files);
        files.flat_map(|file| &self.files[file]).filter(|row| row.partition == partition).copied().collect()
    }
}

fn parse(entry: &[u8]) -> Entry {
    let lines = entry.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let actions: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    let files = actions.iter().filter_map(|a| a["add"]["path"].as_str().map(str::to_owned)).collect();
    let metadata = actions.iter().find_map(|a| a.get("metaData").cloned());
    let effects = read_entry(entry).unwrap();
    let gap = metadata.is_some() && !effects.txns.is_empty();
    Entry { effects, files, metadata, gap }
}

impl World {
    pub fn late_put_lands(&mut self) {
        if !self.delta.late.is_empty() {
            let at = self.rng.random_range(0..self.delta.late.len());
            let (version, entry) = self.delta.late.swap_remove(at);
            let landed = self.delta.land(version, entry, self.now);
            self.counts.late_puts += usize::from(landed);
            self.tell(|| format!("a late PUT of version {version} lands: {landed}"));
        }
    }
}

/// The simulated log as one daemon sees it.
#[derive(Clone)]
pub(super) struct SimLog {
    pub world: Shared,
    /// Bytes that this daemon has put, for the lies.
    mine: Arc<std::sync::Mutex<Vec<Bytes>>>,
    /// Whether partitions are being taken up, for the lies.
    pub acquiring: Arc<AtomicBool>,
}

impl SimLog {
    pub fn new(world: &Shared) -> Self {
        Self { world: world.clone(), mine: Arc::default(), acquiring: Arc::default() }
    }

    fn is_mine(&self, entry: &Bytes) -> bool {
        self.mine.lock().unwrap().contains(entry)
    }
}

impl CommitLog for SimLog {
    async fn load(&self, ids: &[String]) -> Result<Option<TableState>, BronzeError> {
        step().await;
        let state = {
            let mut world = lock(&self.world);
            if world.trouble(1) {
                return Err(BronzeError::io("the table cannot be loaded", "simulated"));
            }
            world.delta.state(ids)
        };
        step().await;
        Ok(state)
    }

    async fn read(&self, version: u64) -> Result<Option<Bytes>, BronzeError> {
        step().await;
        let mut world = lock(&self.world);
        if world.trouble(3) {
            return Err(BronzeError::io("the log cannot be read", "simulated"));
        }
        let Some((entry, _)) = world.delta.stored.get(&version) else { return Ok(None) };
        let harmless = || Ok(Some(Bytes::from_static(b"{\"commitInfo\":{}}\n")));
        match world.broken {
            Some(Rule::Fence) if !self.is_mine(entry) => harmless(),
            Some(Rule::ReadBetween) if self.acquiring.load(Ordering::Relaxed) => harmless(),
            Some(Rule::SameBytes) if self.is_mine(entry) => harmless(),
            _ => Ok(Some(entry.clone())),
        }
    }

    async fn put(&self, version: u64, entry: Bytes) -> PutOutcome {
        step().await;
        self.mine.lock().unwrap().push(entry.clone());
        let outcome = {
            let mut world = lock(&self.world);
            let dice = if world.calm { 99 } else { world.rng.random_range(0..100) };
            let now = world.now;
            match dice {
                0..15 => {
                    world.delta.late.push((version, entry));
                    PutOutcome::Unknown("timeout".into())
                }
                // S3's 409 although nothing landed.
                15..19 => PutOutcome::Taken,
                _ => {
                    let landed = world.delta.land(version, entry, now);
                    world.tell(|| format!("PUT of version {version}: landed {landed}, answered {}", dice >= 30));
                    match landed {
                        _ if dice < 30 => PutOutcome::Unknown("the answer is lost".into()),
                        true => PutOutcome::Landed,
                        false => PutOutcome::Taken,
                    }
                }
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
        let world = lock(&self.world);
        if world.broken == Some(Rule::Age) { Duration::ZERO } else { world.now }
    }

    fn fresh_id(&self) -> String {
        lock(&self.world).fresh_id()
    }

    fn name(&self) -> String {
        "the simulated table".into()
    }
}

/// Bronze as recovery reads it.
pub(super) struct SimBronze {
    pub log: SimLog,
    pub epoch: String,
    /// Their hash.
    pub settings: String,
}

impl SimBronze {
    /// A ledger of its own.
    pub fn ledger(&self) -> Ledger<SimLog> {
        Ledger::new(self.log.clone(), "p", &self.epoch, &self.settings)
    }
}

impl BronzeRows for SimBronze {
    async fn standing(&self, source: &Arc<Source>) -> Result<Standing, RecoverError> {
        let acquired = self.ledger().acquire(std::slice::from_ref(source)).await;
        let acquired = acquired.map_err(|e| RecoverError::Bronze(Box::new(e)))?;
        let unknown = || RecoverError::Bronze("Bronze does not know the partition".into());
        let position = acquired.positions[0].ok_or_else(unknown)?;
        Ok(Standing { next_offset: position.next_offset, mark: position.mark })
    }

    async fn ok_rows(
        &self,
        source: &Source,
        wanted: &RowsWanted,
        _: &[usize],
        each: &mut (dyn FnMut(&OkRows) -> Result<(), MissingCodes> + Send),
    ) -> Result<(), RecoverError> {
        step().await;
        let rows: Vec<Record> = {
            let world = lock(&self.log.world);
            let log = &world.topic[source.partition as usize];
            let by_offset: HashMap<i64, &Record> = log.records.iter().map(|r| (r.offset, r)).collect();
            let mut rows = world.delta.rows(source.partition);
            rows.retain(|row| row.verdict == Verdict::Ok && wanted.offsets.contains(&row.offset));
            rows.sort_by_key(|row| row.offset);
            let records = rows.iter().map(|row| by_offset[&row.offset].clone());
            records.filter(|r| wanted.event_time_from.is_none_or(|from| r.time >= from)).collect()
        };
        for chunk in rows.chunks(16) {
            if lock(&self.log.world).trouble(1) {
                return Err(RecoverError::Bronze("a file cannot be read".into()));
            }
            each(&ok_rows(&chunk.iter().collect::<Vec<_>>()))?;
            step().await;
        }
        Ok(())
    }
}
