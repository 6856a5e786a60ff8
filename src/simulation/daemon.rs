//! One daemon, for one life of its table, client and actors, a round: after an error the next one begins, or another daemon
//! comes. What it does side by side are tasks; the decisions are the real rooms'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::prelude::*;
use rand_chacha::ChaCha8Rng;
use tokio::sync::Mutex;

use super::Rule;
use super::care::{look_after, witness};
use super::clickhouse::SimStore;
use super::delta::{Row, SimBronze, SimLog};
use super::held::{Back, Comeback, Held, Task, poll};
use super::topic::PARTITIONS;
use super::world::{Shared, World, configuration, lock, source, step};
use crate::bronze::{
    AddFile, Advances, BronzeError, Flushes, InForce, Ledger, Position, Purpose, settings, settings_hash, settle,
};
use crate::config::{Pipeline, StartAt};
use crate::kafka::{Known, Placement, place};
use crate::serving::{Error, ErrorKind, PartitionTotals, Prepared, serve};
use crate::window::tests::batch;
use crate::window::{AggregatePlan, EventClock, PartitionWindows, Standing};

/// The file being filled.
#[derive(Default)]
struct Filling {
    advances: Advances,
    rows: Vec<Row>,
    /// Where it brings each partition, for the lies.
    upto: BTreeMap<i32, i64>,
}

/// Totals on their way, with the tokens of the holdings that gave them.
type Served = (Vec<u64>, Vec<PartitionTotals>, Result<u64, Error>);

pub(super) struct Daemon {
    pub name: String,
    world: Shared,
    log: SimLog,
    /// What it is configured with: (settings, definitions).
    pub configured: (usize, usize),
    pipeline: Arc<Pipeline>,
    opening: Option<Task<Result<InForce, BronzeError>>>,
    running: Option<Running>,
    /// What an ended round had under way: it ends for good with its next error.
    pub ghost: bool,
    /// For the lie: the epoch that the round before counted its windows under.
    counted_under: Option<String>,
    pub dice: ChaCha8Rng,
}

/// The partition that came, and where it begins; none where it went, or stopped.
type Placed = Result<Option<(i32, Position)>, BronzeError>;

/// A thing under way.
enum Lane {
    Committing,
    Serving,
    Placing,
    Following,
    Upkeep,
    Held(i32),
}

struct Running {
    pipeline: Arc<Pipeline>,
    epoch: String,
    /// The same, unless a rule is broken.
    counted_under: String,
    ledger: Arc<Mutex<Ledger<SimLog>>>,
    back: Back,
    held: BTreeMap<i32, Held>,
    filling: Option<Filling>,
    flushes: Flushes,
    committing: Option<Task<Result<(), BronzeError>>>,
    serving: Option<Task<Served>>,
    /// A partition that is being taken up, or let go.
    placing: Option<Task<Placed>>,
    following: Option<Task<Result<(), BronzeError>>>,
    upkeep: Option<Task<()>>,
}

impl Daemon {
    pub fn new(world: &Shared, settings: usize, definitions: usize, purpose: Purpose) -> Self {
        let (log, pipeline) = (SimLog::new(world), configuration(settings, definitions).clone());
        let (name, dice) = {
            let mut world = lock(world);
            let name = format!("d{}", world.fresh_id().trim_start_matches("id-"));
            world.tell(|| format!("{name} starts with settings {settings}, definitions {definitions}, {purpose:?}"));
            (name, ChaCha8Rng::from_rng(&mut world.rng))
        };
        let opening: Task<_> = {
            let (log, pipeline) = (log.clone(), pipeline.clone());
            Box::pin(async move { settle(&log, &pipeline, None, purpose).await })
        };
        let configured = (settings, definitions);
        let (opening, world) = (Some(opening), world.clone());
        Self { name, world, log, configured, pipeline, opening, running: None, ghost: false, counted_under: None, dice }
    }

    /// The same daemon's next round: settings and epoch are read anew, nothing is held. What the round before had under way
    /// goes on beside it, or does not.
    pub fn again(self) -> (Self, Option<Self>) {
        let mut next = Self::new(&self.world, self.configured.0, self.configured.1, Purpose::Start);
        next.name = format!("{}, again {}", self.name.split(',').next().unwrap_or_default(), next.name);
        next.counted_under = self.running.as_ref().map(|running| running.counted_under.clone());
        let goes_on = self.running.is_some() && !lock(&self.world).calm && next.dice.random_bool(0.3);
        (next, goes_on.then_some(Self { ghost: true, ..self }))
    }

    /// Whatever it may do next. An error ends it.
    pub fn step(&mut self) -> Result<(), BronzeError> {
        if self.opening.is_some() {
            if let Some(in_force) = poll(&mut self.opening) {
                let lie = lock(&self.world).broken == Some(Rule::EpochAnew);
                let counted_under = self.counted_under.take().filter(|_| lie);
                self.running = Some(Running::new(&self.log, &self.pipeline, in_force?, counted_under));
            }
            return Ok(());
        }
        let Some(running) = &mut self.running else { return Ok(()) };
        let partition = self.dice.random_range(0..PARTITIONS);
        match self.dice.random_range(0..100) {
            0..60 => running.go_on(&mut self.dice)?,
            60..75 => running.consume(partition, self.dice.random_range(1..12))?,
            75..80 => running.start_flush(),
            80..87 => running.start_serving(),
            87..91 => running.take_up(partition),
            91..93 => {
                let (drained, dice) = (self.dice.random_bool(0.5), self.dice.random_bool(0.3));
                if dice && !lock(&self.world).calm {
                    running.let_go(partition, drained);
                }
            }
            93..96 => running.rebuild(partition),
            96 if self.dice.random_bool(0.3) && !lock(&self.world).calm => running.drop_windows(partition),
            97 => running.look_at_log(self.dice.random_bool(0.7)),
            98 => running.look_after(),
            _ => {}
        }
        Ok(())
    }

    /// Whether everything is read, committed and served, and every view shows it.
    pub fn is_settled(&self) -> bool {
        let Some(running) = &self.running else { return false };
        let world = lock(&self.world);
        running.is_settled(&world)
    }

    /// The aggregates that it is to serve, under the epoch in force.
    pub fn plans(&self) -> Vec<Arc<AggregatePlan>> {
        let world = lock(&self.world);
        match (world.delta.epoch(), &self.running) {
            (Some(epoch), Some(running)) => running.plans_under(&world, &epoch),
            _ => Vec::new(),
        }
    }
}

impl Running {
    fn new(log: &SimLog, pipeline: &Arc<Pipeline>, in_force: InForce, counted_under: Option<String>) -> Self {
        let counted_under = counted_under.unwrap_or_else(|| in_force.epoch.clone());
        let plans = plans(&lock(&log.world), pipeline, &counted_under);
        let prepared = Arc::new(Prepared::new(SimStore::new(&log.world), "p".into(), plans));
        let settings = settings_hash(&settings(pipeline));
        let bronze =
            Arc::new(SimBronze { log: log.clone(), epoch: in_force.epoch.clone(), settings: settings.clone() });
        Self {
            pipeline: pipeline.clone(),
            ledger: Arc::new(Mutex::new(Ledger::new(log.clone(), "p", &in_force.epoch, settings))),
            epoch: in_force.epoch,
            counted_under,
            back: Back { prepared, bronze },
            held: BTreeMap::new(),
            filling: None,
            flushes: Flushes::default(),
            committing: None,
            serving: None,
            placing: None,
            following: None,
            upkeep: None,
        }
    }

    fn plans_under(&self, world: &World, epoch: &str) -> Vec<Arc<AggregatePlan>> {
        plans(world, &self.pipeline, epoch)
    }

    fn log(&self) -> &SimLog {
        &self.back.bronze.log
    }

    fn world(&self) -> Shared {
        self.log().world.clone()
    }

    /// One step of one of the things under way.
    fn go_on(&mut self, dice: &mut ChaCha8Rng) -> Result<(), BronzeError> {
        let mut under_way = Vec::new();
        under_way.extend(self.committing.as_ref().map(|_| Lane::Committing));
        under_way.extend(self.serving.as_ref().map(|_| Lane::Serving));
        under_way.extend(self.placing.as_ref().map(|_| Lane::Placing));
        under_way.extend(self.following.as_ref().map(|_| Lane::Following));
        under_way.extend(self.upkeep.as_ref().map(|_| Lane::Upkeep));
        under_way.extend(self.held.values().filter(|h| h.is_under_way()).map(|h| Lane::Held(h.source.partition)));
        match under_way.choose(dice) {
            None => {}
            Some(Lane::Committing) => {
                if let Some(outcome) = poll(&mut self.committing) {
                    outcome?;
                    self.flushes.end();
                    lock(&self.world()).counts.commits += 1;
                }
            }
            Some(Lane::Serving) => {
                if let Some(served) = poll(&mut self.serving) {
                    self.served(served);
                }
            }
            Some(Lane::Placing) => {
                if let Some(outcome) = poll(&mut self.placing)
                    && let Some((partition, at)) = outcome?
                {
                    self.launch(partition, at);
                }
            }
            Some(Lane::Following) => poll(&mut self.following).unwrap_or(Ok(()))?,
            Some(Lane::Upkeep) => poll(&mut self.upkeep).unwrap_or(()),
            Some(Lane::Held(partition)) => self.go_on_with(*partition),
        }
        Ok(())
    }

    fn go_on_with(&mut self, partition: i32) {
        let (awaited, flushes) = (self.flushes.awaited(self.filling.is_some()), &self.flushes);
        let Some(held) = self.held.get_mut(&partition) else { return };
        held.come_back(&self.back, awaited, |number| flushes.ended(number));
        if matches!(held.leaving, Some(number) if number.is_none_or(|n| flushes.ended(n))) {
            self.release(partition);
        } else if matches!(held.comeback, Comeback::Flushing(..)) || held.leaving.is_some() {
            self.start_flush();
        }
    }

    fn consume(&mut self, partition: i32, most: usize) -> Result<(), BronzeError> {
        let world = self.world();
        let mut world = lock(&world);
        let Some(held) = self.held.get_mut(&partition).filter(|held| held.may_consume()) else { return Ok(()) };
        let log = &world.topic[partition as usize];
        if held.position < log.start {
            // Retention has overtaken the reader.
            held.stopped = true;
            world.counts.stopped += 1;
            world.tell(|| format!("{} stops at {}", held.source, held.position));
            return Ok(());
        }
        let (records, next) = log.read(held.position, most);
        let mut batch = batch(&held.source, &mut held.clock, records, held.position, next);
        if batch.is_empty() && next == held.position {
            return Ok(());
        }
        let filling = self.filling.get_or_insert_default();
        let upto = filling.upto.insert(partition, next).filter(|_| world.broken == Some(Rule::Contiguous));
        let from = std::mem::replace(&mut batch.from, upto.unwrap_or(held.position));
        filling.advances.extend(&batch)?;
        batch.from = from;
        filling.rows.extend(batch.columns.raw.offsets.iter().zip(&batch.verdicts).map(|(offset, verdict)| Row {
            partition,
            offset: *offset,
            verdict: *verdict,
        }));
        world.tell(|| format!("{} reads {}..{next}", held.source, held.position));
        held.position = next;
        held.uncounted = Some(Arc::new(batch));
        held.count(&mut world);
        Ok(())
    }

    /// Freezes the file and commits it, unless one is being committed.
    fn start_flush(&mut self) {
        if self.flushes.writing() {
            return;
        }
        let Some(filling) = self.filling.take() else { return };
        self.flushes.begin();
        let (world, ledger) = (self.world(), self.ledger.clone());
        let advances = filling.advances.into_vec();
        self.committing = Some(Box::pin(async move {
            let mut adds = Vec::new();
            if !filling.rows.is_empty() {
                step().await;
                let mut world = lock(&world);
                if world.trouble(2) {
                    return Err(BronzeError::io("a file cannot be written", "simulated"));
                }
                let path = world.fresh_id();
                adds.push(AddFile {
                    path: path.clone(),
                    ingestion_date: "2026-02-06".into(),
                    size: 1,
                    modified_ms: 0,
                    rows: filling.rows.len(),
                    stats: String::new(),
                });
                world.delta.files.insert(path, filling.rows);
            }
            ledger.lock().await.commit(&adds, &advances).await.map(drop)
        }));
    }

    /// Changed totals of all partitions go out together.
    fn start_serving(&mut self) {
        if self.serving.is_some() {
            return;
        }
        // Windows that are starting do not answer yet.
        let givers = self.held.values().filter(|held| !matches!(held.comeback, Comeback::Starting(_)));
        let (tokens, mut totals): (Vec<u64>, Vec<_>) = givers
            .map(|held| (held.token, PartitionTotals::new(held.source.clone(), held.windows.snapshot(false))))
            .unzip();
        let prepared = self.back.prepared.clone();
        let look = lock(&self.back.bronze.log.world).chance(20);
        self.serving = Some(Box::pin(async move {
            let outcome = serve(&prepared, &mut totals, look).await;
            (tokens, totals, outcome)
        }));
    }

    fn served(&mut self, (tokens, totals, outcome): Served) {
        for (token, given) in tokens.into_iter().zip(totals) {
            if let Some(held) = self.held.values_mut().find(|held| held.token == token) {
                held.windows.acknowledge(&given.written);
            }
        }
        if matches!(outcome, Err(error) if error.kind == ErrorKind::Missing) {
            for held in self.held.values_mut() {
                held.windows.drop_all();
            }
        }
    }

    /// A partition comes: it is placed where Bronze stands.
    fn take_up(&mut self, partition: i32) {
        if self.placing.is_some() || self.held.contains_key(&partition) {
            return;
        }
        let (log, ledger, prepared) = (self.log().clone(), self.ledger.clone(), self.back.prepared.clone());
        self.placing = Some(Box::pin(async move {
            let source = source(partition);
            let acquired = {
                let mut ledger = ledger.lock().await;
                log.acquiring.store(true, Ordering::Relaxed);
                let acquired = ledger.acquire(std::slice::from_ref(&source)).await;
                log.acquiring.store(false, Ordering::Relaxed);
                acquired?
            };
            let position = acquired.positions[0];
            let range = {
                let world = lock(&log.world);
                let topic = &world.topic[partition as usize];
                topic.start..topic.end
            };
            let mut placement = place(&Known {
                name: "t",
                pipeline: "p",
                log: range.clone(),
                bronze: position.map(|p| p.next_offset),
                pipeline_has_begun: true,
                start_at: StartAt::Earliest,
                committed_table: None,
                our_table: "table",
            });
            if let Placement::Continue(at) = placement {
                placement = witness(&log.world, &prepared, &source, at, range.end).await;
            }
            match placement {
                Placement::Continue(_) => Ok(position.map(|at| (partition, at))),
                Placement::Begin(offset) => {
                    ledger.lock().await.genesis(&[(source, offset)]).await?;
                    Ok(Some((partition, Position { next_offset: offset, mark: None })))
                }
                Placement::Stop { what, .. } => {
                    let mut world = lock(&log.world);
                    world.counts.stopped += 1;
                    world.tell(|| format!("stops: {what}"));
                    Ok(None)
                }
            }
        }));
    }

    fn launch(&mut self, partition: i32, at: Position) {
        let source = source(partition);
        let world = self.world();
        let (token, mark) = {
            let mut world = lock(&world);
            world.tell(|| format!("{source} is taken up at {at:?}"));
            world.ids += 1;
            (world.ids, at.mark.filter(|_| world.broken != Some(Rule::Mark)))
        };
        let start = Standing { next_offset: at.next_offset, mark };
        let held = Held {
            token,
            position: at.next_offset,
            clock: EventClock::new(&self.pipeline.time, mark),
            windows: PartitionWindows::new(self.back.prepared.plans.len()),
            comeback: Comeback::Starting(Some(self.back.fast(&source, start))),
            uncounted: None,
            stopped: false,
            leaving: None,
            source,
        };
        self.held.insert(partition, held);
    }

    /// A partition goes. Undrained, its rows stay in the file being filled.
    fn let_go(&mut self, partition: i32, drained: bool) {
        let awaited = self.flushes.awaited(self.filling.is_some());
        let Some(held) = self.held.get_mut(&partition).filter(|held| held.leaving.is_none()) else { return };
        if self.placing.is_some() {
            return;
        }
        let world = &self.back.bronze.log.world;
        let mut world = lock(world);
        world.tell(|| format!("{} leaves, drained: {drained}", held.source));
        if drained {
            world.counts.drained += 1;
            held.leaving = Some(awaited);
            drop(world);
            self.start_flush();
            self.start_serving();
        } else {
            world.counts.undrained += 1;
            drop(world);
            self.release(partition);
        }
    }

    fn release(&mut self, partition: i32) {
        if self.placing.is_some() {
            return;
        }
        let Some(held) = self.held.remove(&partition) else { return };
        let ledger = self.ledger.clone();
        self.placing = Some(Box::pin(async move {
            ledger.lock().await.release(&held.source);
            Ok(None)
        }));
    }

    /// What is down is counted again beside the running consumer.
    fn rebuild(&mut self, partition: i32) {
        if let Some(held) = self.held.get_mut(&partition)
            && matches!(held.comeback, Comeback::Rest)
            && held.leaving.is_none()
            && !held.windows.down().is_empty()
        {
            held.comeback = Comeback::Beside(Some(self.back.rebuild(&held.source, held.windows.down())));
        }
    }

    /// Memory is short.
    fn drop_windows(&mut self, partition: i32) {
        if let Some(held) = self.held.get_mut(&partition) {
            held.windows.drop_all();
        }
    }

    fn look_at_log(&mut self, glance: bool) {
        if self.following.is_none() {
            let ledger = self.ledger.clone();
            self.following = Some(Box::pin(async move {
                let looked = match glance {
                    true => ledger.lock().await.glance().await,
                    false => ledger.lock().await.follow().await,
                };
                // Storage that does not answer is told by whoever has to commit.
                looked.or_else(|error| if matches!(error, BronzeError::Io { .. }) { Ok(()) } else { Err(error) })
            }));
        }
    }

    /// Views change over where their totals are whole.
    fn look_after(&mut self) {
        if self.upkeep.is_some() || !self.held.contains_key(&0) {
            return;
        }
        let (bronze, prepared) = (self.back.bronze.clone(), self.back.prepared.clone());
        self.upkeep = Some(Box::pin(async move {
            // What fails is looked after later.
            let _ = look_after(&bronze, &prepared).await;
        }));
    }

    fn is_settled(&self, world: &World) -> bool {
        let read = (0..PARTITIONS).all(|partition| {
            let end = world.topic[partition as usize].last();
            self.held.get(&partition).is_some_and(|held| {
                held.position == end
                    && held.windows.down().is_empty()
                    && held.windows.snapshot(false).cells.is_empty()
                    && matches!(held.comeback, Comeback::Rest)
            }) && world.delta.position(&source(partition)) == Some(end)
        });
        let shown = self.back.prepared.plans.iter().all(|plan| {
            world.clickhouse.views.get(&plan.name).is_some_and(|shown| shown.definition == plan.definition)
        });
        // One that has not met the newest choice is not at its end.
        let newest = world.delta.epoch().as_ref() == Some(&self.epoch);
        newest && read && shown && self.filling.is_none() && self.serving.is_none()
    }
}

fn plans(world: &World, pipeline: &Pipeline, epoch: &str) -> Vec<Arc<AggregatePlan>> {
    let mut plans = AggregatePlan::all(pipeline, epoch).unwrap();
    if world.broken == Some(Rule::Definition) {
        for plan in &mut plans {
            *plan = Arc::new(AggregatePlan { definition: plan.name.clone(), ..(**plan).clone() });
        }
    }
    plans
}
