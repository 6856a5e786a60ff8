//! The windows of one partition, every aggregate of it: folds batches, gives what is to be served, and comes back after a
//! stop or an outage. An aggregate is *live* or *down*; one that is down ignores batches and is counted again from Bronze
//! in the background, then joins between two batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::consumer::{JoinWindows, PartitionConsumer};
use super::mailbox::{Mailbox, takes_mail};
use super::realtime::{RealtimeWriter, ServeNow, Served};
use super::recount;
use super::setup::Setup;
use super::supervise::Backoff;
use crate::event::Batch;
use crate::failpoint;
use crate::kafka::Source;
use crate::serving::States;
use crate::telemetry::{Inbox, names};
use crate::window::{AggregatePlan, FlushCells, PartitionWindows, Standing, Totals};

/// Counts a batch. Answered when the partition may go on: at once, unless the totals have outgrown their budget and must
/// be served first.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Fold(pub Arc<Batch>);

/// What is to be served now, by aggregate.
#[derive(Message)]
#[rtype(result = "Given")]
pub struct Snapshot;

/// ClickHouse holds these totals, positions included.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Acknowledge(pub Vec<(usize, FlushCells)>);

/// Since when the partition has had nothing new; none where it may have.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AtEnd(pub Option<Instant>);

/// The consumer stands between two batches, at Bronze's position: count what is missing and join.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct GoLive;

/// The consumer, which is made after its windows.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Consumer(pub Mailbox<PartitionConsumer>);

/// The changed totals of a partition.
#[derive(Debug, Default)]
pub struct Given {
    pub totals: Totals,
    /// When the oldest record that is not yet served came to Kafka, microseconds since the epoch.
    pub oldest: Option<i64>,
}

impl<A, M> actix::dev::MessageResponse<A, M> for Given
where
    A: Actor,
    M: Message<Result = Given>,
{
    fn handle(self, _: &mut A::Context, sender: Option<actix::dev::OneshotSender<Given>>) {
        if let Some(sender) = sender {
            // A receiver that is gone wants nothing.
            let _ = sender.send(self);
        }
    }
}

/// How long the start may wait for ClickHouse before Bronze goes on without it.
const FAST: Duration = Duration::from_secs(3);
/// Records between ClickHouse's position and Bronze's that may be counted before the first batch is taken.
const FAST_RECORDS: i64 = 200_000;
/// How long counting what is missing may hold the partition up.
const JOIN: Duration = Duration::from_secs(60);

/// See the file's head.
pub struct WindowAggregator {
    setup: Arc<Setup>,
    served: Arc<Served>,
    source: Arc<Source>,
    /// What waits for this actor, for what it sends to itself.
    inbox: Inbox,
    realtime: Mailbox<RealtimeWriter>,
    consumer: Option<Mailbox<PartitionConsumer>>,
    /// Where the consumer starts; none for windows that are made while it runs.
    start: Option<Standing>,
    windows: PartitionWindows,
    /// Counted again, waiting to join.
    recounted: States,
    rebuilding: bool,
    backoff: Backoff,
    at_end_since: Option<Instant>,
    /// When the oldest record since the last snapshot came to Kafka, microseconds since the epoch.
    oldest: Option<i64>,
}

impl WindowAggregator {
    pub fn new(
        setup: Arc<Setup>,
        served: Arc<Served>,
        source: Arc<Source>,
        inbox: Inbox,
        realtime: Mailbox<RealtimeWriter>,
        start: Option<Standing>,
    ) -> Self {
        let windows = PartitionWindows::new(served.plans().len());
        Self {
            setup,
            served,
            source,
            inbox,
            realtime,
            consumer: None,
            start,
            windows,
            recounted: Vec::new(),
            rebuilding: false,
            backoff: Self::fresh_backoff(),
            at_end_since: None,
            oldest: None,
        }
    }

    fn plan(&self, aggregate: usize) -> &Arc<AggregatePlan> {
        &self.served.plans()[aggregate]
    }

    /// Forgets all totals; they are counted again from Bronze once ClickHouse is back.
    fn drop_states(&mut self, why: &str, ctx: &mut Context<Self>) {
        let dropped = self.windows.drop_all();
        if dropped > 0 {
            names::REALTIME_DROPPED.add(dropped as u64, &[&self.setup.pipeline.name]);
            tracing::info!(source = %self.source, why, "window totals dropped; they are counted again from Bronze");
        }
        self.rebuild_later(ctx);
    }

    fn rebuild_later(&mut self, ctx: &mut Context<Self>) {
        if self.rebuilding || self.windows.down().is_empty() {
            return;
        }
        self.rebuilding = true;
        let wait = self.backoff.next(Duration::ZERO).unwrap_or(Duration::from_secs(15));
        ctx.run_later(wait, |windows, ctx| windows.rebuild(ctx));
    }

    /// Counts what is down from Bronze, while the consumer goes on.
    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        self.setup.board.recounting(&self.source, true);
        let wanted: Vec<_> = self.windows.down().into_iter().map(|i| (i, self.plan(i).clone())).collect();
        let (served, source) = (self.served.clone(), self.source.clone());
        let work = async move { recount::rebuild(&served, &source, &wanted).await.map_err(|e| e.to_string()) };
        let work = self.setup.io.spawn(work);
        ctx.spawn(work.into_actor(self).map(|outcome, windows, ctx| {
            let outcome = outcome.unwrap_or_else(|panic| Err(format!("recount: {panic}")));
            match (outcome, windows.consumer.clone()) {
                (Ok(states), Some(consumer)) => {
                    windows.recounted = states;
                    ctx.spawn(consumer.send(JoinWindows).into_actor(windows).map(|joined, windows, ctx| {
                        windows.rebuilt();
                        windows.recounted.clear();
                        if joined.unwrap_or(false) && windows.windows.down().is_empty() {
                            windows.backoff = WindowAggregator::fresh_backoff();
                            tracing::info!(source = %windows.source, "Fast-agg windows are live again");
                        } else {
                            windows.rebuild_later(ctx);
                        }
                    }));
                }
                (Ok(_), None) => {
                    windows.rebuilt();
                    windows.rebuild_later(ctx);
                }
                (Err(error), _) => {
                    tracing::info!(source = %windows.source, error, "windows not counted yet");
                    windows.rebuilt();
                    windows.rebuild_later(ctx);
                }
            }
        }));
    }

    fn rebuilt(&mut self) {
        self.rebuilding = false;
        self.setup.board.recounting(&self.source, false);
    }

    fn join(&mut self, states: States) {
        states.into_iter().for_each(|(aggregate, back)| self.windows.join(aggregate, back.state));
    }

    fn fresh_backoff() -> Backoff {
        Backoff::new(Duration::from_millis(500), Duration::from_secs(15), None, Duration::from_secs(60))
    }

    fn idle(&self) -> bool {
        self.at_end_since.is_some_and(|since| since.elapsed() >= self.setup.pipeline.time.idle_after)
    }
}

takes_mail!(WindowAggregator: Consumer, Fold, DropStates, AtEnd, Snapshot, Acknowledge, GoLive);

impl Actor for WindowAggregator {
    type Context = Context<Self>;

    /// Comes back the fast way where that is possible, before the first batch is taken.
    fn started(&mut self, ctx: &mut Context<Self>) {
        let Some(start) = self.start else {
            return self.rebuild_later(ctx);
        };
        let (served, source) = (self.served.clone(), self.source.clone());
        let work = self.setup.io.spawn(async move {
            tokio::time::timeout(FAST, recount::fast(&served, &source, start, FAST_RECORDS)).await
        });
        ctx.wait(work.into_actor(self).map(|outcome, windows, ctx| {
            match outcome {
                Ok(Ok(Ok(states))) => windows.join(states),
                Ok(Ok(Err(error))) => {
                    tracing::info!(source = %windows.source, %error, "windows start later");
                }
                Ok(Err(_)) => tracing::info!(source = %windows.source, "ClickHouse is slow; windows start later"),
                Err(panic) => tracing::info!(source = %windows.source, %panic, "windows start later"),
            }
            windows.rebuild_later(ctx);
        }));
    }
}

impl Handler<Consumer> for WindowAggregator {
    type Result = ();

    fn handle(&mut self, Consumer(consumer): Consumer, _: &mut Context<Self>) {
        self.consumer = Some(consumer);
    }
}

impl Handler<Fold> for WindowAggregator {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Fold(batch): Fold, ctx: &mut Context<Self>) -> Self::Result {
        failpoint::hit("actor.window_aggregator");
        self.at_end_since = None;
        if let Some(kafka_ms) = batch.columns.raw.timestamps.first() {
            let came = if *kafka_ms < 0 { batch.received_at } else { kafka_ms * 1000 };
            self.oldest.get_or_insert(came);
        }
        if let Err(error) = self.windows.fold(&batch) {
            // A gap in what the consumer hands on is a bug; the totals cannot be trusted.
            tracing::error!(source = %self.source, %error, "windows are counted again from Bronze");
            self.rebuild_later(ctx);
        }
        let held = self.windows.memory();
        self.setup.board.windows_hold(&self.source, held as u64);
        if held <= self.setup.budget.windows {
            return Box::pin(std::future::ready(()));
        }
        let (realtime, windows) = (self.realtime.clone(), Mailbox::new(ctx.address(), self.inbox.clone()));
        Box::pin(async move {
            if !matches!(realtime.send(ServeNow).await, Ok(true)) {
                windows.do_send(DropStates { only_over_budget: true });
            }
        })
    }
}

/// Forgets all totals, to be counted again from Bronze: they have outgrown their budget and cannot be served, or
/// ClickHouse has lost what it had.
#[derive(Message)]
#[rtype(result = "()")]
pub struct DropStates {
    pub only_over_budget: bool,
}

impl Handler<DropStates> for WindowAggregator {
    type Result = ();

    fn handle(&mut self, DropStates { only_over_budget }: DropStates, ctx: &mut Context<Self>) {
        if !only_over_budget {
            self.drop_states("ClickHouse has lost its tables", ctx);
        } else if self.windows.memory() > self.setup.budget.windows {
            self.drop_states("over budget while ClickHouse does not take them", ctx);
        }
    }
}

impl Handler<AtEnd> for WindowAggregator {
    type Result = ();

    fn handle(&mut self, AtEnd(since): AtEnd, _: &mut Context<Self>) {
        self.at_end_since = since;
    }
}

impl Handler<Snapshot> for WindowAggregator {
    type Result = Given;

    fn handle(&mut self, _: Snapshot, _: &mut Context<Self>) -> Given {
        Given { totals: self.windows.snapshot(self.idle()), oldest: self.oldest.take() }
    }
}

impl Handler<Acknowledge> for WindowAggregator {
    type Result = ();

    fn handle(&mut self, Acknowledge(cells): Acknowledge, _: &mut Context<Self>) {
        self.windows.acknowledge(&cells);
    }
}

impl Handler<GoLive> for WindowAggregator {
    type Result = AtomicResponse<Self, bool>;

    fn handle(&mut self, _: GoLive, _: &mut Context<Self>) -> Self::Result {
        let states = std::mem::take(&mut self.recounted);
        let (served, source) = (self.served.clone(), self.source.clone());
        let work = self
            .setup
            .io
            .spawn(async move { tokio::time::timeout(JOIN, recount::catch_up(&served, &source, states)).await });
        AtomicResponse::new(Box::pin(work.into_actor(self).map(|outcome, windows, _| match outcome {
            Ok(Ok(Ok(states))) => {
                windows.join(states);
                true
            }
            Ok(Ok(Err(error))) => {
                tracing::info!(source = %windows.source, %error, "windows do not join yet");
                false
            }
            Ok(Err(_)) | Err(_) => false,
        })))
    }
}
