//! Random worlds, and what must hold in the end of each.
//!
//! `BOATHOUSE_SEEDS` sets the number of worlds (default 1,000), `BOATHOUSE_SEED` the first.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};

use super::super::BronzeError;
use super::super::entry::EntryWriter;
use super::{Broken, Instance, PARTITIONS, World, judge, metadata_entry, step, time_settings};
use crate::window::EventClock;

type Task = Pin<Box<dyn Future<Output = ()>>>;

fn poll(task: &mut Task) -> bool {
    task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Runs one world; returns what is wrong with it in the end, and (fenced instances, rounds that a choice ended, commits).
fn run(seed: u64, broken: Option<Broken>) -> (Vec<String>, (usize, usize, usize)) {
    let world = Arc::new(Mutex::new(World::new(seed, broken)));
    let mut live: Vec<Task> = Vec::new();
    // In a calm world hardly anybody comes to fence a sleeper, but maintenance goes on.
    let (steps, loses, changes, calm, chooses) = {
        let mut w = world.lock().unwrap();
        w.changes = w.chance(30);
        (w.rng.random_range(50..1500), w.chance(30), w.changes, w.chance(30), w.chance(30))
    };
    let mut asleep: Option<(Task, usize)> = None;
    for now in 0..steps {
        if asleep.as_ref().is_some_and(|(_, until)| *until <= now) {
            live.extend(asleep.take().map(|(task, _)| task));
        }
        let (dice, settings) = {
            let mut w = world.lock().unwrap();
            (w.rng.random_range(0..1000), w.rng.random_range(0..2))
        };
        match dice {
            // SIGSTOP for a while.
            110..120 if asleep.is_none() && !live.is_empty() => {
                let (at, steps) = (dice % live.len(), world.lock().unwrap().rng.random_range(10..500));
                asleep = Some((live.swap_remove(at), now + steps));
            }
            // Two or more alive: zombies.
            _ if live.is_empty() && (!calm || asleep.is_none()) => {
                live.push(daemon(&world, if changes { settings } else { 0 }))
            }
            0..19 if calm => others_commit(&world),
            0..20 => live.push(daemon(&world, if changes { settings } else { 0 })),
            20..30 if !live.is_empty() => drop(live.swap_remove(dice % live.len())),
            30..80 => world.lock().unwrap().late_put_lands(),
            80..90 => others_commit(&world),
            90..92 if loses => {
                asleep = None;
                lose_last_commit(&world, &mut live);
            }
            92..100 => time_passes(&world),
            100..110 => world.lock().unwrap().clean_up(),
            120..130 if chooses => choice(&world, if changes { settings } else { 0 }),
            _ if live.is_empty() => {}
            _ => {
                let at = world.lock().unwrap().rng.random_range(0..live.len());
                if poll(&mut live[at]) {
                    drop(live.swap_remove(at));
                }
            }
        }
    }
    drop((live, asleep));
    world.lock().unwrap().late.clear();
    let mut last: Task = Box::pin(drain(world.clone()));
    let finished = (0..200_000).any(|_| poll(&mut last));
    let mut world = world.lock().unwrap();
    if !finished {
        world.errors.push("stuck".into());
    }
    let mut errors = std::mem::take(&mut world.errors);
    check(&world, changes, loses, &mut errors);
    (errors, (world.fenced, world.renewed, world.commits))
}

/// Goes on by itself, round after round, until its settings are left behind.
fn daemon(world: &Arc<Mutex<World>>, settings: usize) -> Task {
    let world = world.clone();
    Box::pin(async move {
        while let Some(instance) = Instance::start(world.clone(), settings).await {
            if !instance.live().await {
                return;
            }
        }
    })
}

/// An operator's: settings are put in force anew.
fn choice(world: &Arc<Mutex<World>>, settings: usize) {
    let mut world = world.lock().unwrap();
    let (version, entry) = (world.history.len() as u64, metadata_entry(&mut world, settings));
    match world.chance(80) {
        true => drop(world.land(version, entry)),
        false => world.late.push((version, entry)),
    }
}

/// Some minutes, or long enough for everything to have grown too old.
fn time_passes(world: &Arc<Mutex<World>>) {
    let mut world = world.lock().unwrap();
    let hours = if world.chance(50) { 3 } else { 0 };
    world.now += Duration::from_secs(hours * 3600 + 1200);
}

/// Compaction: rows move from file to file.
fn others_commit(world: &Arc<Mutex<World>>) {
    let mut world = world.lock().unwrap();
    let id = world.fresh_id();
    let mut entry = EntryWriter::new("OPTIMIZE", json!({}), false, &id, 0);
    entry.action(json!({"remove": {"path": "a", "dataChange": false}}));
    let version = world.history.len() as u64;
    world.land(version, entry.finish());
}

/// A power cut takes the newest entry; every instance died with it.
fn lose_last_commit(world: &Arc<Mutex<World>>, live: &mut Vec<Task>) {
    live.clear();
    let mut world = world.lock().unwrap();
    world.late.clear();
    if world.history.len() > 1 {
        world.history.pop();
        let newest = world.history.len() as u64;
        world.stored.retain(|version, _| *version < newest);
    }
}

/// The last instance standing reads everything to its end, starting over as often as it is fenced.
async fn drain(world: Arc<Mutex<World>>) {
    loop {
        let Some(mut instance) = Instance::start(world.clone(), 0).await else { continue };
        let drained = async {
            for partition in 0..PARTITIONS {
                instance.acquire(partition).await?;
            }
            for _ in 0..20 {
                (0..instance.held.len()).for_each(|at| instance.consume(at, 7));
                instance.commit().await?;
            }
            Ok::<_, BronzeError>(())
        };
        match drained.await {
            Ok(()) => return,
            Err(BronzeError::Misuse { .. }) => return,
            Err(_) => step().await,
        }
    }
}

fn check(world: &World, changes: bool, loses: bool, errors: &mut Vec<String>) {
    let mut rows: HashMap<i64, Vec<(i64, String)>> = HashMap::new();
    let mut positions: HashMap<String, i64> = HashMap::new();
    for entry in &world.history {
        for line in entry.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let action: Value = serde_json::from_slice(line).unwrap();
            if let Some(stats) = action["add"]["stats"].as_str() {
                for row in serde_json::from_str::<Vec<(i64, i64, String)>>(stats).unwrap() {
                    rows.entry(row.0).or_default().push((row.1, row.2));
                }
            }
            if let (Some(id), Some(version)) = (action["txn"]["appId"].as_str(), action["txn"]["version"].as_i64())
                && let Some(before) = positions.insert(id.into(), version)
                && before > version
            {
                errors.push(format!("I2: {id} went back from {before} to {version}"));
            }
        }
    }
    for (partition, log) in (0i64..).zip(&world.topic) {
        let mine = rows.remove(&partition).unwrap_or_default();
        let offsets: Vec<i64> = mine.iter().map(|(offset, _)| *offset).collect();
        if offsets != (0..log.len() as i64).collect::<Vec<_>>() {
            errors.push(format!("I1: partition {partition} has offsets {offsets:?} of {}", log.len()));
            continue;
        }
        let mut clock = EventClock::new(&time_settings(0), None);
        let plain = log.iter().map(|record| judge(&mut clock, *record));
        if !changes && plain.zip(&mine).any(|(verdict, (_, stored))| verdict.as_str() != stored) {
            errors.push(format!("partition {partition}: verdicts differ from a plain pass (lost commits: {loses})"));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "settings of the test")]
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let first = number("BOATHOUSE_SEED").unwrap_or(0);
    first..first + number("BOATHOUSE_SEEDS").unwrap_or(1000)
}

#[test]
fn every_world_is_exact() {
    let (mut fenced, mut renewed, mut commits) = (0, 0, 0);
    for seed in seeds() {
        let (errors, (f, r, c)) = run(seed, None);
        assert!(errors.is_empty(), "seed {seed}: {errors:#?}");
        fenced += f;
        renewed += r;
        commits += c;
    }
    // The worlds are worth nothing if nothing happens in them.
    let lively = fenced > 100 && renewed > 100 && commits > 1000;
    assert!(lively, "{fenced} instances were fenced, {renewed} of them by a choice, {commits} commits made");
}

fn is_noticed(broken: Broken) {
    let noticed = seeds().any(|seed| !run(seed, Some(broken)).0.is_empty());
    assert!(noticed, "{broken:?} goes unnoticed");
}

#[test]
fn going_past_a_rival_is_noticed() {
    is_noticed(Broken::NoFence);
}

#[test]
fn acquiring_without_reading_what_lies_between_is_noticed() {
    is_noticed(Broken::JumpVersion);
}

#[test]
fn taking_a_lost_answer_for_a_failure_is_noticed() {
    is_noticed(Broken::TrustError);
}

#[test]
fn committing_on_old_knowledge_is_noticed() {
    is_noticed(Broken::NoAge);
}

#[test]
fn judging_without_the_mark_is_noticed() {
    is_noticed(Broken::NoMark);
}
