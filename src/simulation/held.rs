//! A partition as a daemon holds it: its consumer and its windows.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Rule;
use super::clickhouse::SimStore;
use super::delta::SimBronze;
use super::world::{World, lock};
use crate::event::Batch;
use crate::kafka::Source;
use crate::serving::{Prepared, RecoverError, Recovery, States};
use crate::window::tests::broken;
use crate::window::{AggregatePlan, EventClock, PartitionWindows, Standing, Way};

/// Something under way; dropped where its daemon dies.
pub(super) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One step of a task; its outcome once it has one.
pub(super) fn poll<T>(task: &mut Option<Task<T>>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match task.as_mut()?.as_mut().poll(&mut context) {
        Poll::Ready(outcome) => {
            *task = None;
            Some(outcome)
        }
        Poll::Pending => None,
    }
}

type Recovering = Task<Result<States, RecoverError>>;

/// How far windows are on their way back.
pub(super) enum Comeback {
    /// None is under way.
    Rest,
    /// Before the first batch is counted.
    Starting(Option<Recovering>),
    /// Beside the running consumer.
    Beside(Option<Recovering>),
    /// The consumer waits until this flush of Bronze has ended.
    Flushing(u64, States),
    /// The consumer waits while what is missing is counted.
    Joining(Option<Recovering>),
}

pub(super) struct Held {
    /// Tells this holding from an earlier one of the same partition.
    pub token: u64,
    pub source: Arc<Source>,
    pub position: i64,
    pub clock: EventClock,
    pub windows: PartitionWindows,
    pub comeback: Comeback,
    /// A batch that the windows have not counted yet, and Bronze has.
    pub uncounted: Option<Arc<Batch>>,
    /// It cannot be read on, or leaves.
    pub stopped: bool,
    /// It leaves once this flush of Bronze has ended (none: at once).
    pub leaving: Option<Option<u64>>,
}

impl Held {
    /// Whether something of it waits for its next step.
    pub fn is_under_way(&self) -> bool {
        !matches!(self.comeback, Comeback::Rest) || self.uncounted.is_some() || self.leaving.is_some()
    }

    /// Whether the consumer may take a batch.
    pub fn may_consume(&self) -> bool {
        let waits = matches!(self.comeback, Comeback::Flushing(..) | Comeback::Joining(_));
        !waits && !self.stopped && self.leaving.is_none() && self.uncounted.is_none()
    }

    /// Gives a batch to the windows, as soon as they take one.
    pub fn count(&mut self, world: &mut World) {
        if matches!(self.comeback, Comeback::Starting(_)) {
            return;
        }
        if let Some(batch) = self.uncounted.take() {
            if let Err(error) = self.windows.fold(&batch) {
                world.errors.push(error.to_string());
            }
            if world.broken == Some(Rule::ForgetLate) {
                self.windows.live().for_each(broken::forgetting_early);
            }
        }
    }

    fn join(&mut self, states: States, world: &mut World) {
        for (aggregate, back) in states {
            let mut state = back.state;
            match world.broken {
                Some(Rule::Floor) => broken::without_floor(&mut state),
                Some(Rule::CountOnce) => broken::counting_twice(&mut state),
                Some(Rule::EarlierHorizon) if matches!(back.way, Way::Sure(_)) => {
                    let key = (state.plan().definition.clone(), self.source.partition);
                    let horizon = world.clickhouse.closed_horizon(&key);
                    broken::without_closed(&mut state, horizon);
                }
                _ => {}
            }
            match back.way {
                Way::Fast => world.counts.fast += 1,
                Way::Sure(_) => world.counts.sure += 1,
            }
            world.tell(|| {
                let (at, floor) = (state.position(), state.floor());
                format!("{}: {} is live at {at}, floor {floor}, {:?}", self.source, state.plan().name, back.way)
            });
            self.windows.join(aggregate, state);
        }
    }

    /// One step of what brings the windows back. `awaited` is the flush that makes everything appended durable; `ended`
    /// whether a flush has ended.
    pub fn come_back(&mut self, back: &Back, awaited: Option<u64>, ended: impl Fn(u64) -> bool) {
        let world = &back.bronze.log.world;
        let comeback = std::mem::replace(&mut self.comeback, Comeback::Rest);
        self.comeback = match comeback {
            Comeback::Rest => Comeback::Rest,
            Comeback::Starting(mut task) => {
                let outcome = poll(&mut task);
                let mut world = lock(world);
                match outcome {
                    Some(Ok(states)) => self.join(states, &mut world),
                    Some(Err(error)) => world.tell(|| format!("{}: windows start later: {error}", self.source)),
                    // ClickHouse is slow.
                    None if world.trouble(1) => {}
                    None => {
                        self.comeback = Comeback::Starting(task);
                        return;
                    }
                }
                Comeback::Rest
            }
            Comeback::Beside(mut task) => match poll(&mut task) {
                None => Comeback::Beside(task),
                // The number is 0 where everything is durable already.
                Some(Ok(states)) => Comeback::Flushing(awaited.unwrap_or(0), states),
                Some(Err(_)) => Comeback::Rest,
            },
            Comeback::Flushing(number, states) if ended(number) => {
                Comeback::Joining(Some(back.catch_up(&self.source, states)))
            }
            Comeback::Flushing(number, states) => Comeback::Flushing(number, states),
            Comeback::Joining(mut task) => match poll(&mut task) {
                None => Comeback::Joining(task),
                Some(outcome) => {
                    let mut world = lock(world);
                    match outcome {
                        Ok(states) => {
                            world.counts.joined += states.len();
                            self.join(states, &mut world);
                        }
                        Err(error) => world.tell(|| format!("{}: windows do not join yet: {error}", self.source)),
                    }
                    Comeback::Rest
                }
            },
        };
        self.count(&mut lock(world));
    }
}

/// What windows come back from.
pub(super) struct Back {
    pub prepared: Arc<Prepared<SimStore>>,
    pub bronze: Arc<SimBronze>,
}

impl Back {
    /// Bytes of totals that a recount may hold; sometimes too few for one pass.
    fn bytes_max(&self) -> usize {
        let mut world = lock(&self.bronze.log.world);
        if world.trouble(20) { 500 } else { usize::MAX }
    }

    pub fn fast(&self, source: &Arc<Source>, start: Standing) -> Recovering {
        let (prepared, bronze, source, bytes_max) =
            (self.prepared.clone(), self.bronze.clone(), source.clone(), self.bytes_max());
        // Sometimes Bronze has too many rows to be counted at once.
        let records = if lock(&bronze.log.world).trouble(30) { 10 } else { i64::MAX };
        Box::pin(async move {
            let plans: Vec<_> = prepared.plans.iter().cloned().enumerate().collect();
            let (store, bronze, source) = (prepared.store().await?, &*bronze, &source);
            Recovery { store, bronze, source, now: 0, bytes_max }.fast(&plans, start, records).await
        })
    }

    pub fn rebuild(&self, source: &Arc<Source>, down: Vec<usize>) -> Recovering {
        let (prepared, bronze, source, bytes_max) =
            (self.prepared.clone(), self.bronze.clone(), source.clone(), self.bytes_max());
        Box::pin(async move {
            let plans: Vec<(usize, Arc<AggregatePlan>)> =
                down.into_iter().map(|aggregate| (aggregate, prepared.plans[aggregate].clone())).collect();
            let (store, bronze, source) = (prepared.store().await?, &*bronze, &source);
            Recovery { store, bronze, source, now: 0, bytes_max }.rebuild(&plans).await
        })
    }

    fn catch_up(&self, source: &Arc<Source>, states: States) -> Recovering {
        let (prepared, bronze, source, bytes_max) =
            (self.prepared.clone(), self.bronze.clone(), source.clone(), self.bytes_max());
        Box::pin(async move {
            let (store, bronze, source) = (prepared.store().await?, &*bronze, &source);
            Recovery { store, bronze, source, now: 0, bytes_max }.catch_up(states).await
        })
    }
}
