//! The protocol of realtime windows under crashes: the real states and their recovery, with a simulated Bronze, a
//! simulated ClickHouse, several instances (zombies included), and a stop between any two steps. In the end every
//! total in ClickHouse must equal a recount of Bronze. With a rule taken away it must not.
//!
//! Here is the world and its life; `stores` is what lasts in it, `truth` what must hold.

mod stores;
mod truth;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;

use self::stores::{Bronze, ClickHouse, Commit, Epoch, Key};
use super::*;
use crate::window::{AggregatePlan, Claim, FlushCells, Loaded, LoadedCell, Rebuild, Standing, Way, WindowState};

/// A rule of the protocol, to be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Compare the number and sum of the loaded cells, and their versions, with the position.
    Check,
    /// Do not count the loaded cells' records again.
    CountOnce,
    /// The sure way counts windows that Bronze's own mark calls open.
    EarlierHorizon,
    /// Write nothing below the position that ClickHouse has.
    Floor,
    /// Forget a closed window only once it is written.
    ForgetLate,
    /// Positions come after partials.
    PositionsLast,
    /// Other settings, another definition.
    Epoch,
}

const AGGREGATES: &str = r#"
[realtime]
max_combinations = 2
[[aggregate]]
name = "all"
measure = "n"
[[aggregate]]
name = "some"
measure = "n"
filter = { kind = ["a"] }
[[aggregate]]
name = "by_kind"
measure = "n"
window = "20s"
dimensions = ["kind"]
"#;

/// Fenced: the instance ends.
struct Stop;

struct Held {
    source: Arc<Source>,
    position: i64,
    committed: i64,
    clock: EventClock,
    buffer: Vec<(usize, Verdict)>,
    /// One per plan; none while memory is short.
    windows: Vec<Option<WindowState>>,
}

/// A flush under way: what it writes, and how far it is.
struct Flight {
    partition: usize,
    aggregate: usize,
    flushed: FlushCells,
    stage: usize,
}

struct Instance {
    epoch: Epoch,
    plans: Vec<Arc<AggregatePlan>>,
    held: BTreeMap<usize, Held>,
    flights: Vec<Flight>,
}

struct World {
    rng: ChaCha8Rng,
    broken: Option<Rule>,
    /// By settings.
    pipelines: [Pipeline; 2],
    logs: [Vec<Record>; 2],
    bronze: Bronze,
    clickhouse: ClickHouse,
    /// States that came back the fast way, and all.
    fast: usize,
    recoveries: usize,
    /// Passes over Bronze that memory cut short.
    spills: usize,
    /// Whether instances with other settings come.
    changes: bool,
    /// What was written and is not the truth about its version.
    untrue: Vec<String>,
}

impl World {
    fn new(seed: u64, broken: Option<Rule>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let settings = |lateness: u32| {
            let time = "[time]\nwindow = \"10s\"\nbound = \"3s\"\nfuture_guard = \"20s\"\n";
            pipeline(&format!("{time}allowed_lateness = \"{lateness}s\"\n{AGGREGATES}"))
        };
        let logs = [random_records(&mut rng), random_records(&mut rng)];
        Self {
            rng,
            broken,
            pipelines: [settings(6), settings(2)],
            logs,
            bronze: Bronze::default(),
            clickhouse: ClickHouse::default(),
            fast: 0,
            recoveries: 0,
            spills: 0,
            changes: false,
            untrue: Vec::new(),
        }
    }

    fn start(&mut self, settings: usize) -> Instance {
        let epoch = match self.bronze.epoch() {
            Some(epoch) if epoch.1 == settings => epoch,
            _ => {
                let epoch = (self.rng.random(), settings);
                self.bronze.commits.push(Commit { epoch: Some(epoch), ..Commit::default() });
                epoch
            }
        };
        let mut plans = AggregatePlan::all(&self.pipelines[settings], &epoch.0.to_string()).unwrap();
        if self.broken == Some(Rule::Epoch) {
            for plan in &mut plans {
                *plan = Arc::new(AggregatePlan { definition: plan.name.clone(), ..(**plan).clone() });
            }
        }
        Instance { epoch, plans, held: BTreeMap::new(), flights: Vec::new() }
    }

    /// What a read of ClickHouse answers: a replica may lag, for positions and cells apart.
    fn load(&mut self, key: &Key, plan: &AggregatePlan) -> Loaded {
        let known = self.clickhouse.positions.get(key).cloned().unwrap_or_default();
        let newest = known.iter().max_by_key(|row| row.next_offset).cloned();
        let position = if self.rng.random_bool(0.8) { newest } else { known.choose(&mut self.rng).cloned() };
        let Some(position) = position else { return Loaded::default() };
        let now = self.clickhouse.cells.get(key).cloned().unwrap_or_default();
        let seen = match self.clickhouse.history.get(key) {
            Some(history) if self.rng.random_bool(0.3) => history.choose(&mut self.rng).cloned().unwrap(),
            _ => now,
        };
        let open = |start: i64| position.closed_horizon.is_none_or(|h| start + plan.window > h);
        let cells = seen
            .into_iter()
            .filter(|((start, _), _)| open(*start))
            .map(|((window_start, combination), (version, count))| LoadedCell {
                window_start,
                combination,
                count,
                version,
            })
            .collect();
        let intents = vec![Claim { next_offset: position.next_offset, last: position.last }];
        Loaded { table: position.table.clone(), position: Some(position), cells, intents }
    }

    fn recover(&mut self, partition: usize, plan: &Arc<AggregatePlan>, at: Standing) -> WindowState {
        let key = (plan.definition.clone(), partition);
        let mut loaded = self.load(&key, plan);
        let known = loaded.position.clone();
        if self.broken == Some(Rule::Check)
            && let Some(position) = &mut loaded.position
        {
            position.open_cells = loaded.cells.len() as u64;
            position.open_count = loaded.cells.iter().map(|c| c.count).sum();
            loaded.cells.iter_mut().for_each(|c| c.version = 0);
        }
        let mut rebuild = Rebuild::new(plan.clone(), at, loaded, None);
        self.recoveries += 1;
        self.fast += usize::from(*rebuild.way() == Way::Fast);
        match (self.broken, rebuild.way()) {
            (Some(Rule::CountOnce), Way::Fast) => {
                rebuild.wanted = 0..at.next_offset;
                rebuild.state.count_from = at.next_offset;
            }
            (Some(Rule::EarlierHorizon), Way::Sure(_)) => {
                rebuild.horizon = known.and_then(|row| row.closed_horizon);
            }
            (Some(Rule::Floor), _) => rebuild.state.floor = at.next_offset,
            _ => {}
        }
        self.feed(partition, rebuild)
    }

    /// Bronze's rows, in as many passes as memory asks for.
    fn feed(&mut self, partition: usize, mut rebuild: Rebuild) -> WindowState {
        let ok = self.bronze.ok(partition);
        let short_of_memory = self.rng.random_bool(0.2);
        loop {
            for chunk in ok.chunks(7) {
                let rows: Vec<&Record> = chunk.iter().map(|i| &self.logs[partition][*i]).collect();
                rebuild.fold_rows(&ok_rows(&rows)).unwrap();
                if short_of_memory && self.rng.random_bool(0.2) {
                    rebuild.shed(self.rng.random_range(0..3000));
                }
            }
            let Some(spilled) = rebuild.spill() else { return rebuild.finish() };
            let plan = rebuild.plan().clone();
            if !self.changes {
                self.check_cells(partition, &plan, &spilled);
            }
            self.clickhouse.upsert(&(plan.definition.clone(), partition), &spilled, spilled.cells.len());
            self.spills += 1;
            rebuild.spilled(&spilled);
        }
    }

    fn acquire(&mut self, instance: &mut Instance, partition: usize) -> Result<(), Stop> {
        if self.broken != Some(Rule::Epoch) && self.bronze.epoch() != Some(instance.epoch) {
            return Err(Stop);
        }
        let at = self.bronze.standing(partition);
        let windows = instance.plans.iter().map(|plan| Some(self.recover(partition, plan, at))).collect();
        let held = Held {
            source: source(partition as i32),
            position: at.next_offset,
            committed: at.next_offset,
            clock: EventClock::new(&self.pipelines[instance.epoch.1].time, at.mark),
            buffer: Vec::new(),
            windows,
        };
        instance.flights.retain(|f| f.partition != partition);
        instance.held.insert(partition, held);
        Ok(())
    }

    fn consume(&mut self, held: &mut Held, partition: usize, records: usize) {
        let log = &self.logs[partition];
        let from = log.partition_point(|r| r.offset < held.position);
        let to = log.len().min(from + records);
        let next = log[from..to].last().map_or(held.position, |r| r.offset + 1);
        let batch = batch(&held.source, &mut held.clock, &log[from..to], held.position, next);
        held.buffer.extend((from..to).zip(batch.verdicts.iter().copied()));
        held.position = next;
        for state in held.windows.iter_mut().flatten() {
            state.fold(&batch).unwrap();
            if self.broken == Some(Rule::ForgetLate) {
                let (horizon, window) = (state.closed_horizon(), state.plan().window);
                state.windows.retain(|start, _| horizon.is_none_or(|h| *start + window > h));
            }
        }
    }

    fn flush_bronze(&mut self, instance: &mut Instance) -> Result<(), Stop> {
        let fenced = instance.held.iter().any(|(p, held)| self.bronze.standing(*p).next_offset != held.committed);
        if fenced || (self.broken != Some(Rule::Epoch) && self.bronze.epoch() != Some(instance.epoch)) {
            return Err(Stop);
        }
        let mut commit = Commit::default();
        for (partition, held) in &mut instance.held {
            if !held.buffer.is_empty() {
                commit.txn.insert(*partition, Standing { next_offset: held.position, mark: held.clock.mark() });
                commit.rows.extend(held.buffer.drain(..).map(|(index, verdict)| (*partition, index, verdict)));
                held.committed = held.position;
            }
        }
        self.bronze.commits.push(commit);
        Ok(())
    }

    /// Memory is short, or was: states are dropped, and come back where the consumer stands at Bronze's position,
    /// some by way of an earlier position of Bronze.
    fn drop_or_rebuild(&mut self, instance: &mut Instance, partition: usize) {
        let Some(held) = instance.held.get_mut(&partition) else { return };
        let aggregate = self.rng.random_range(0..held.windows.len());
        if held.windows[aggregate].is_some() {
            if self.rng.random_bool(0.3) {
                held.windows[aggregate] = None;
            }
        } else if held.position == held.committed && self.bronze.standing(partition).next_offset == held.committed {
            let at = Standing { next_offset: held.committed, mark: held.clock.mark() };
            let plan = instance.plans[aggregate].clone();
            let earlier: Vec<Standing> =
                self.bronze.commits.iter().filter_map(|c| c.txn.get(&partition).copied()).collect();
            let state = match earlier.choose(&mut self.rng) {
                Some(earlier) if earlier.next_offset < at.next_offset && self.rng.random_bool(0.5) => {
                    let state = self.recover(partition, &plan, *earlier);
                    self.feed(partition, state.catch_up(at).unwrap())
                }
                _ => self.recover(partition, &plan, at),
            };
            held.windows[aggregate] = Some(state);
        }
    }

    fn begin_flush(&mut self, instance: &mut Instance, partition: usize) {
        let Some(held) = instance.held.get(&partition) else { return };
        if instance.flights.iter().any(|f| f.partition == partition) {
            return;
        }
        for (aggregate, state) in held.windows.iter().enumerate() {
            if let Some(flushed) = state.as_ref().and_then(|s| s.snapshot(false)) {
                if !self.changes {
                    self.check_cells(partition, &instance.plans[aggregate], &flushed);
                    self.check_position(partition, &instance.plans[aggregate], &flushed.position);
                }
                instance.flights.push(Flight { partition, aggregate, flushed, stage: 0 });
            }
        }
    }

    /// One durable step of the oldest flush under way.
    fn go_on(&mut self, instance: &mut Instance) {
        let Some(flight) = instance.flights.first_mut() else { return };
        let key = (instance.plans[flight.aggregate].definition.clone(), flight.partition);
        let positions = [self.broken == Some(Rule::PositionsLast), self.broken != Some(Rule::PositionsLast)];
        let all = flight.flushed.cells.len();
        match flight.stage {
            0 | 3 => {
                if positions[flight.stage / 3] {
                    self.clickhouse.positions.entry(key).or_default().push(flight.flushed.position.clone());
                }
            }
            1 => self.clickhouse.upsert(&key, &flight.flushed, all / 2),
            2 => self.clickhouse.upsert(&key, &flight.flushed, all),
            _ => {
                let flight = instance.flights.remove(0);
                if let Some(held) = instance.held.get_mut(&flight.partition)
                    && let Some(state) = &mut held.windows[flight.aggregate]
                {
                    state.acknowledge(&flight.flushed);
                }
                return;
            }
        }
        flight.stage += 1;
    }

    /// What a daemon may do next.
    fn step(&mut self, instance: &mut Instance) -> Result<(), Stop> {
        if !instance.flights.is_empty() && self.rng.random_bool(0.7) {
            self.go_on(instance);
            return Ok(());
        }
        if instance.held.is_empty() || self.rng.random_bool(0.05) {
            let partition = self.rng.random_range(0..self.logs.len());
            return self.acquire(instance, partition);
        }
        let partition = *instance.held.keys().choose(&mut self.rng).unwrap();
        if self.rng.random_bool(0.03) {
            instance.held.remove(&partition);
            instance.flights.retain(|f| f.partition != partition);
            return Ok(());
        }
        match self.rng.random_range(0..6) {
            0..3 => {
                let records = self.rng.random_range(1..12);
                let mut held = instance.held.remove(&partition).unwrap();
                self.consume(&mut held, partition, records);
                instance.held.insert(partition, held);
            }
            3 => return self.flush_bronze(instance),
            4 => self.begin_flush(instance, partition),
            _ => self.drop_or_rebuild(instance, partition),
        }
        Ok(())
    }

    fn run(&mut self) -> Vec<String> {
        let mut live: Vec<Instance> = Vec::new();
        let (loses, changes) = (self.rng.random_bool(0.3), self.rng.random_bool(0.3));
        self.changes = changes;
        for _ in 0..self.rng.random_range(10..400) {
            if live.is_empty() || self.rng.random_bool(0.05) {
                let settings = if changes { self.rng.random_range(0..2) } else { 0 };
                let instance = self.start(settings);
                live.push(instance);
            }
            if loses && self.rng.random_bool(0.02) {
                self.clickhouse = ClickHouse::default();
                live.clear();
            } else if loses && self.rng.random_bool(0.02) {
                self.bronze.commits.pop();
                live.clear();
            } else if self.rng.random_bool(0.04) {
                live.swap_remove(self.rng.random_range(0..live.len()));
            } else {
                let index = self.rng.random_range(0..live.len());
                let mut instance = live.swap_remove(index);
                if self.step(&mut instance).is_ok() {
                    live.push(instance);
                }
            }
        }
        self.drain()
    }

    /// One instance is left and comes to the end of the logs. Returns what is wrong then.
    fn drain(&mut self) -> Vec<String> {
        let mut last = self.start(0);
        for partition in 0..self.logs.len() {
            if self.acquire(&mut last, partition).is_err() {
                return vec!["the last instance was fenced".into()];
            }
        }
        for _ in 0..100 {
            for partition in 0..self.logs.len() {
                let mut held = last.held.remove(&partition).unwrap();
                self.consume(&mut held, partition, 7);
                last.held.insert(partition, held);
                self.begin_flush(&mut last, partition);
            }
            while !last.flights.is_empty() {
                self.go_on(&mut last);
            }
            if self.flush_bronze(&mut last).is_err() {
                return vec!["the last instance was fenced".into()];
            }
        }
        self.errors(&last.plans)
    }
}

/// More by hand: `BOATHOUSE_MODEL_SEEDS=100000 cargo test --release --lib window::tests::model`.
fn seeds() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "a setting of the test")]
    let asked = std::env::var("BOATHOUSE_MODEL_SEEDS");
    asked.ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

#[test]
fn windows_are_exact_whatever_stops() {
    let (mut fast, mut recoveries, mut spills) = (0, 0, 0);
    for seed in 0..seeds() {
        let mut world = World::new(seed, None);
        let errors = world.run();
        assert!(errors.is_empty(), "seed {seed}: {errors:#?}");
        fast += world.fast;
        recoveries += world.recoveries;
        spills += world.spills;
    }
    println!("{fast} of {recoveries} states came back the fast way; {spills} passes over Bronze cut short");
    assert!(spills > 100, "short memory must be tried");
    assert!(fast * 10 > recoveries && fast * 10 < recoveries * 9, "both ways must be tried: {fast} of {recoveries}");
}

/// The test above is worth something only if it notices each rule that is missing.
#[test]
fn every_rule_is_needed() {
    use Rule::*;
    for rule in [Check, CountOnce, EarlierHorizon, Floor, ForgetLate, PositionsLast, Epoch] {
        let noticed = (0..2000).find(|seed| {
            let run = std::panic::catch_unwind(|| World::new(*seed, Some(rule)).run());
            run.map_or(true, |errors| !errors.is_empty())
        });
        println!("without {rule:?}: seed {noticed:?} is wrong");
        assert!(noticed.is_some(), "without the rule {rule:?} nothing went wrong");
    }
}
