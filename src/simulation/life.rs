//! A world's life: daemons come, stall and die, others write to the table, storage and brokers lose things. Then calm, in
//! which one daemon reads everything to its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::prelude::*;
use serde_json::json;

use super::Rule;
use super::daemon::Daemon;
use super::delta::SimLog;
use super::held::{Task, poll};
use super::topic::PARTITIONS;
use super::world::{Counts, Shared, World, configuration, lock, source};
use crate::bronze::{
    Advance, BronzeError, EntryWriter, Gap, Ledger, Purpose, settings as bronze_settings, settings_hash, settle,
};

/// Daemons that live at a time.
const DAEMONS: usize = 3;
/// Most steps before the calm.
const STEPS: usize = 6000;
/// Steps in which the last daemon must come to its end, and how many may try.
const STEPS_LAST: usize = 20_000;
const TRIES_LAST: usize = 20;

/// What is wrong in the end, and what happened.
pub(super) fn live(world: World) -> (Vec<String>, Counts) {
    let world = Arc::new(Mutex::new(world));
    let mut life = Life { world, live: Vec::new(), asleep: None, operator: None };
    let steps = lock(&life.world).rng.random_range(100..STEPS);
    for now in 0..steps {
        life.step(now);
    }
    let last = life.last();
    let plans = last.as_ref().map(Daemon::plans).unwrap_or_default();
    let mut world = lock(&life.world);
    let mut errors = std::mem::take(&mut world.errors);
    match last {
        None => errors.push("the last daemon does not come to its end".into()),
        Some(_) => {
            world.check_bronze(&mut errors);
            world.check_views(&plans, &mut errors);
            if errors.is_empty() {
                // What stalled until now changes nothing any more.
                while world.late_insert_lands() {}
                world.check_views(&plans, &mut errors);
            }
        }
    }
    (errors, world.counts.clone())
}

struct Life {
    world: Shared,
    live: Vec<Daemon>,
    /// Stopped by SIGSTOP until that step.
    asleep: Option<(Daemon, usize)>,
    /// Somebody at the command line.
    operator: Option<Task<()>>,
}

impl Life {
    fn step(&mut self, now: usize) {
        if self.asleep.as_ref().is_some_and(|(_, until)| *until <= now)
            && let Some((daemon, _)) = self.asleep.take()
        {
            lock(&self.world).tell(|| format!("{} wakes up", daemon.name));
            self.live.push(daemon);
        }
        if poll(&mut self.operator).is_some() {
            self.operator = None;
        }
        let (dice, trouble) = {
            let mut world = lock(&self.world);
            (world.rng.random_range(0..1000), world.trouble)
        };
        match dice {
            _ if self.live.is_empty() => self.start(),
            0..3 if self.live.len() < DAEMONS => self.start(),
            7..10 => {
                let killed = self.live.swap_remove(dice % self.live.len());
                let mut world = lock(&self.world);
                world.counts.kills += 1;
                world.tell(|| format!("{} is killed", killed.name));
            }
            10..13 if self.asleep.is_none() => {
                let stopped = self.live.swap_remove(dice % self.live.len());
                let mut world = lock(&self.world);
                world.tell(|| format!("{} is stopped", stopped.name));
                let until = now + world.rng.random_range(10..1500);
                self.asleep = Some((stopped, until));
            }
            20..40 => lock(&self.world).late_put_lands(),
            40..66 => drop(lock(&self.world).late_insert_lands()),
            66..73 => lock(&self.world).others_commit(),
            73..76 => lock(&self.world).time_passes(),
            76..80 => lock(&self.world).clean_up(),
            80..100 => lock(&self.world).records_come(),
            100 if trouble.losses => {
                if lock(&self.world).chance(50) {
                    self.everybody_dies("as ClickHouse does");
                }
                lock(&self.world).lose_clickhouse();
            }
            112 if trouble.losses => lock(&self.world).lose_table(),
            101 if trouble.losses => {
                self.everybody_dies("a power cut takes Bronze's newest commit");
                lock(&self.world).lose_newest_commit();
            }
            102..104 if trouble.retention => lock(&self.world).retention_passes(),
            106..112 if trouble.retention && self.operator.is_none() => {
                self.operator = Some(Box::pin(accept_gap(self.world.clone())));
            }
            113..116 if trouble.choices && self.operator.is_none() => {
                self.operator = Some(Box::pin(accept_settings(self.world.clone())));
            }
            _ => {
                let at = lock(&self.world).rng.random_range(0..self.live.len());
                if let Err(error) = self.live[at].step() {
                    let ended = self.live.swap_remove(at);
                    lock(&self.world).ends(&ended.name, &error);
                    if error.reacquire() && !ended.ghost {
                        let (next, ghost) = ended.again();
                        self.live.push(next);
                        self.live.extend(ghost);
                    }
                }
            }
        }
    }

    fn start(&mut self) {
        let (settings, definitions, purpose) = {
            let mut world = lock(&self.world);
            let pick = |world: &mut World, may: bool| if may { world.rng.random_range(0..2) } else { 0 };
            let trouble = world.trouble;
            let (settings, definitions) = (pick(&mut world, trouble.settings), pick(&mut world, trouble.definitions));
            let accept = trouble.settings && world.chance(30);
            (settings, definitions, if accept { Purpose::AcceptSettings } else { Purpose::Start })
        };
        self.live.push(Daemon::new(&self.world, settings, definitions, purpose));
    }

    fn everybody_dies(&mut self, why: &str) {
        self.live.clear();
        self.asleep = None;
        self.operator = None;
        lock(&self.world).tell(|| format!("everybody dies: {why}"));
    }

    /// The last daemon, once it has read everything to its end: one that lived through it all, or a new one.
    fn last(&mut self) -> Option<Daemon> {
        let survivor = self.live.iter().position(|d| !d.ghost && d.configured == (0, 0));
        let mut survivor = survivor.map(|at| self.live.swap_remove(at)).filter(|_| lock(&self.world).chance(50));
        lock(&self.world).counts.survivors += usize::from(survivor.is_some());
        self.everybody_dies("the rest is calm");
        {
            let mut world = lock(&self.world);
            world.calm = true;
            world.delta.late.clear();
            world.topic.iter_mut().for_each(|log| log.end = log.last());
        }
        let mut purpose = Purpose::Start;
        for _ in 0..TRIES_LAST {
            if lock(&self.world).trouble.retention {
                let mut operator: Option<Task<()>> = Some(Box::pin(accept_gap(self.world.clone())));
                while operator.is_some() {
                    poll(&mut operator);
                }
            }
            let new = || Daemon::new(&self.world, 0, 0, purpose.clone());
            let mut daemon = survivor.take().unwrap_or_else(new);
            for step in 0..STEPS_LAST {
                if let Err(error) = daemon.step() {
                    let stopped = matches!(error, BronzeError::Stopped { .. });
                    purpose = if stopped { Purpose::AcceptSettings } else { Purpose::Start };
                    lock(&self.world).ends(&daemon.name, &error);
                    survivor = error.reacquire().then(|| daemon.again().0);
                    break;
                }
                if step % 40 == 0 && daemon.is_settled() {
                    return Some(daemon);
                }
            }
        }
        None
    }
}

impl World {
    fn ends(&mut self, name: &str, error: &BronzeError) {
        self.counts.ends += 1;
        self.tell(|| format!("{name} ends: {error}"));
        self.counts.renewed += usize::from(matches!(error, BronzeError::Renewed { .. }));
        // Where all have the same settings nothing is there that somebody must decide.
        let loud = matches!(error, BronzeError::Stopped { .. }) && !self.trouble.settings;
        if loud || matches!(error, BronzeError::Misuse { .. }) {
            self.errors.push(error.to_string());
        }
    }

    /// Compaction: rows move from file to file.
    fn others_commit(&mut self) {
        let (id, version, now) = (self.fresh_id(), self.delta.history.len() as u64, self.now);
        if version > 0 {
            let mut entry = EntryWriter::new("OPTIMIZE", json!({}), false, &id, 0);
            entry.action(json!({"remove": {"path": "a", "dataChange": false}}));
            self.delta.land(version, entry.finish(), now);
            self.tell(|| format!("somebody else commits version {version}"));
        }
    }

    /// Some minutes, or long enough for everything to have grown too old.
    fn time_passes(&mut self) {
        let hours = if self.chance(50) { 3 } else { 0 };
        self.now += Duration::from_secs(hours * 3600 + 1200);
        self.tell(|| format!("{hours} hours pass"));
    }

    fn clean_up(&mut self) {
        let now = self.now;
        self.delta.clean_up(now);
        self.tell(|| "the log is cleaned up".into());
    }

    fn records_come(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS as usize);
        let more = self.rng.random_range(1..20);
        let log = &mut self.topic[partition];
        log.end = (log.end + more).min(log.last());
    }

    fn retention_passes(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS as usize);
        let more = self.rng.random_range(1..25);
        let log = &mut self.topic[partition];
        log.start = (log.start + more).min(log.end);
        let start = log.start;
        self.tell(|| format!("the log of p{partition} begins at {start}"));
    }

    fn lose_clickhouse(&mut self) {
        self.clickhouse.lose_everything();
        self.tell(|| "ClickHouse loses its disk".into());
    }

    fn lose_newest_commit(&mut self) {
        self.delta.late.clear();
        self.delta.lose_newest();
    }
}

/// `boathouse bronze accept-gap`, for whatever partitions need it.
async fn accept_gap(world: Shared) {
    // What fails is tried again by hand.
    let _ = try_accept_gap(&world).await;
}

/// `boathouse bronze accept-settings --even-so`: what is in force is put in force anew.
async fn accept_settings(world: Shared) {
    let log = SimLog::new(&world);
    let settings = {
        let mut world = lock(&world);
        let other = world.trouble.settings && world.chance(50);
        usize::from(other)
    };
    // What fails is tried again by hand.
    if settle(&log, configuration(settings, 0), None, Purpose::AcceptSettings).await.is_ok() {
        let mut world = lock(&world);
        world.counts.choices += 1;
        world.tell(|| format!("settings {settings} are put in force anew"));
    }
}

async fn try_accept_gap(world: &Shared) -> Result<(), BronzeError> {
    let log = SimLog::new(world);
    let (settings, calm) = {
        let mut world = lock(world);
        let other = world.trouble.settings && world.trouble(50);
        (usize::from(other), world.calm)
    };
    let pipeline = configuration(settings, 0);
    let in_force = match settle(&log, pipeline, None, Purpose::Start).await {
        Err(BronzeError::Stopped { .. }) if calm => settle(&log, pipeline, None, Purpose::AcceptSettings).await?,
        other => other?,
    };
    let sources: Vec<_> = (0..PARTITIONS).map(source).collect();
    let hash = settings_hash(&bronze_settings(pipeline));
    let mut ledger = Ledger::new(log.clone(), "p", &in_force.epoch, hash);
    let positions = ledger.acquire(&sources).await?.positions;
    let starts: Vec<i64> = lock(world).topic.iter().map(|log| log.start).collect();
    let behind: Vec<_> = sources
        .into_iter()
        .zip(positions)
        .zip(starts)
        .filter_map(|((source, at), start)| Some((source, at?, start)))
        .filter(|(_, at, start)| at.next_offset < *start)
        .collect();
    if behind.is_empty() {
        return Ok(());
    }
    if lock(world).broken == Some(Rule::GapEpoch) {
        let advances: Vec<Advance> = behind
            .into_iter()
            .map(|(source, at, start)| Advance { source, from: at.next_offset, next_offset: start, mark: at.mark })
            .collect();
        ledger.commit(&[], &advances).await?;
        return Ok(());
    }
    let gap = |(source, at, to): &(std::sync::Arc<crate::kafka::Source>, crate::bronze::Position, i64)| Gap {
        id: source.txn_id(),
        from: at.next_offset,
        to: *to,
    };
    settle(&log, pipeline, None, Purpose::AcceptGap(behind.iter().map(gap).collect())).await?;
    let mut world = lock(world);
    world.counts.gaps += 1;
    world.tell(|| format!("gaps are accepted: {behind:?}"));
    Ok(())
}
