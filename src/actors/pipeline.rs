//! Supervises one pipeline: opens its table, joins the group, places partitions where Bronze stands, makes their actors,
//! and makes everything anew, after a pause, when something on the way to Bronze fails. What fails on the way to
//! ClickHouse is rebuilt beside the running stream.
//!
//! One *round* is one life of table, client and actors; words from an earlier round are ignored.

mod assignment;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::{mpsc, oneshot};

use super::bronze::{BronzeWriter, Store};
use super::consumer::{NewWindows, PartitionConsumer};
use super::realtime::{RealtimeWriter, Served, Windows};
use super::setup::Setup;
use super::supervise::{Backoff, Ended, launch};
use super::upkeep::{self, Upkeep};
use super::windows::{Consumer, WindowAggregator};
use crate::bronze::{BronzeError, Table};
use crate::event::Schema;
use crate::failpoint;
use crate::kafka::{self, Client, ClientEvent, ReadError, Source};
use crate::telemetry::{ActorId, PartitionPhase, SinkCondition};
use crate::window::{AggregatePlan, Standing};

/// Something on the way to Bronze failed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SessionFailed {
    pub round: u64,
    pub error: BronzeError,
}

/// A partition cannot be read on from its position.
#[derive(Message)]
#[rtype(result = "()")]
pub struct PartitionFailed {
    pub round: u64,
    pub partition: i32,
    pub error: ReadError,
}

/// Drains and leaves; answered when everything is stopped, with whether both sinks hold everything that was read.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct StopPipeline;

/// Words of the client that may wait to be heard; then its thread waits.
const EVENTS: usize = 64;
/// How long a round's begin waits for the topic's id.
const TOPIC_ASK: Duration = Duration::from_secs(1);
/// How long the cause of a consumer's end may take to be told.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often group offsets are committed and progress is looked at.
const TICK: Duration = Duration::from_secs(5);

struct Running {
    source: Arc<Source>,
    consumer: Addr<PartitionConsumer>,
    consumer_ended: oneshot::Receiver<()>,
}

struct Session {
    /// None once it is being closed.
    client: Option<Client>,
    bronze: Addr<BronzeWriter>,
    realtime: Addr<RealtimeWriter>,
    served: Arc<Served>,
    table_id: String,
    generation: i32,
    schema: Arc<Schema>,
    partitions: HashMap<i32, Running>,
    /// Runs while this instance holds partition 0.
    upkeep: Option<Addr<Upkeep>>,
    opened: Instant,
}

/// See the file's head.
pub struct PipelineSupervisor {
    setup: Arc<Setup>,
    round: u64,
    session: Option<Session>,
    backoff: Backoff,
    /// Whether the table could not be opened the last time.
    table_fails: bool,
    /// Why the session is being closed, when it is for a fault.
    fault: Option<Fault>,
    stopping: Vec<oneshot::Sender<bool>>,
    /// Whether the last partitions to leave were drained into both sinks.
    drained: bool,
    stopped: bool,
    /// The daemon ends: nothing begins any more.
    leaving: bool,
}

enum Fault {
    /// Worth another try.
    Again(String),
    /// Stays down until somebody acts.
    Loud(String),
}

impl From<&BronzeError> for Fault {
    fn from(error: &BronzeError) -> Self {
        if error.is_loud_stop() { Fault::Loud(error.to_string()) } else { Fault::Again(error.to_string()) }
    }
}

impl PipelineSupervisor {
    pub fn new(setup: Arc<Setup>) -> Self {
        Self {
            setup,
            round: 0,
            session: None,
            backoff: Backoff::new(Duration::from_millis(200), Duration::from_secs(30), None, Duration::from_secs(60)),
            table_fails: false,
            fault: None,
            stopping: Vec::new(),
            drained: true,
            stopped: false,
            leaving: false,
        }
    }

    fn id(&self) -> ActorId {
        ActorId::new("pipeline", self.setup.pipeline.name.as_str())
    }

    /// Begins a round: the table first, then the group.
    fn open(&mut self, ctx: &mut Context<Self>) {
        if !self.stopping.is_empty() || self.stopped {
            return self.finish_stop();
        }
        if self.setup.standstill.is_wanted() {
            return self.stand_still();
        }
        self.round += 1;
        let round = self.round;
        let (uri, pipeline) = (self.setup.server.lakehouse.uri.clone(), self.setup.pipeline.clone());
        let kafka = kafka::settings::client(&self.setup.server.kafka);
        let open = self.setup.io.spawn(async move {
            let topic_id = topic_id(kafka, pipeline.topic.clone()).await;
            let table = Table::open_or_create(&uri, &pipeline, topic_id).await?;
            let ledger = table.ledger();
            Ok::<_, BronzeError>(Store { table, ledger })
        });
        ctx.spawn(open.into_actor(self).map(move |outcome, supervisor, ctx| match outcome {
            _ if supervisor.round != round => {}
            _ if !supervisor.stopping.is_empty() || supervisor.stopped => supervisor.finish_stop(),
            _ if supervisor.setup.standstill.is_wanted() => supervisor.stand_still(),
            Ok(Ok(store)) => {
                if std::mem::take(&mut supervisor.table_fails) {
                    supervisor.setup.board.sink(&supervisor.setup.bronze_sink(), SinkCondition::Healthy);
                }
                supervisor.opened(store, ctx);
            }
            Ok(Err(error)) => {
                supervisor.table_fails = true;
                let condition = SinkCondition::Retrying { error: error.to_string() };
                supervisor.setup.board.sink(&supervisor.setup.bronze_sink(), condition);
                supervisor.fail(Fault::from(&error), ctx);
            }
            Err(panic) => supervisor.fail(Fault::Again(panic.to_string()), ctx),
        }));
    }

    fn opened(&mut self, store: Store, ctx: &mut Context<Self>) {
        let setup = self.setup.clone();
        let round = self.round;
        let plans = match AggregatePlan::all(&setup.pipeline, store.table.epoch()) {
            Ok(plans) => plans,
            Err(error) => return self.fail(Fault::Loud(error.to_string()), ctx),
        };
        tracing::info!("Raw landing streaming to {}", store.table.url());
        let (table, name) = (store.table.clone(), setup.pipeline.name.clone());
        let served = Arc::new(Served::new(setup.clickhouse.clone(), table, name, plans));
        let (table_id, generation) = (store.table.table_id().to_owned(), store.table.generation());
        let supervisor = ctx.address();
        let (bronze, ended) = {
            let setup = setup.clone();
            launch(&self.setup.bronze_arbiter, move || BronzeWriter::new(setup, round, supervisor, store))
        };
        self.watch(ended, "bronze_writer", ctx);
        let realtime = self.launch_realtime(&served, ctx);

        let group = format!("{}.{}", setup.server.kafka.group, setup.pipeline.name);
        let config = kafka::settings::consumer(&setup.server.kafka, &group, &setup.instance, setup.budget.kafka_queue);
        let (events, mut inbox) = mpsc::channel(EVENTS);
        match Client::start(&config, &setup.pipeline.topic, events) {
            Ok(client) => {
                ctx.add_stream(futures::stream::poll_fn(move |cx| {
                    inbox.poll_recv(cx).map(|event| event.map(|event| Event { round, event }))
                }));
                self.session = Some(Session {
                    client: Some(client),
                    bronze,
                    realtime,
                    served,
                    table_id,
                    generation,
                    schema: Schema::new(&setup.pipeline),
                    partitions: HashMap::new(),
                    upkeep: None,
                    opened: Instant::now(),
                });
                setup.board.actor_running(&self.id(), round > 1);
            }
            Err(error) => self.fail(Fault::Loud(format!("the Kafka client cannot be made: {error}")), ctx),
        }
    }

    fn launch_realtime(&mut self, served: &Arc<Served>, ctx: &mut Context<Self>) -> Addr<RealtimeWriter> {
        self.setup.board.actor_running(&ActorId::new("realtime_writer", self.setup.pipeline.name.as_str()), false);
        let (setup, for_actor) = (self.setup.clone(), served.clone());
        let (realtime, ended) = launch(&Arbiter::current(), move || RealtimeWriter::new(setup, for_actor));
        let round = self.round;
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if let Ok(Ended::Panicked(text)) = how {
                supervisor.realtime_ended(round, &text, ctx);
            }
        }));
        realtime
    }

    /// The realtime writer is made anew and given the windows again; they keep what was not acknowledged.
    fn realtime_ended(&mut self, round: u64, text: &str, ctx: &mut Context<Self>) {
        if self.round != round || self.session.is_none() {
            return;
        }
        let id = ActorId::new("realtime_writer", self.setup.pipeline.name.as_str());
        tracing::error!(pipeline = self.setup.pipeline.name, panic = text, "the realtime writer panicked; made anew");
        self.setup.board.actor_failed(&id, text, false);
        // The windows hold the old writer's address: with it they go, and count again from Bronze.
        let Some(served) = self.session.as_ref().map(|s| s.served.clone()) else { return };
        let realtime = self.launch_realtime(&served, ctx);
        if let Some(session) = &mut self.session {
            session.realtime = realtime;
            let partitions: Vec<i32> = session.partitions.keys().copied().collect();
            for partition in partitions {
                self.relaunch_windows(partition, ctx);
            }
        }
        self.setup.board.actor_running(&id, true);
    }

    /// A child on the way to Bronze: its end by panic ends the round.
    fn watch(&self, ended: oneshot::Receiver<Ended>, kind: &'static str, ctx: &mut Context<Self>) {
        let round = self.round;
        let id = ActorId::new(kind, self.setup.pipeline.name.as_str());
        self.setup.board.actor_running(&id, round > 1);
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if supervisor.round == round
                && let Ok(Ended::Panicked(text)) = how
            {
                supervisor.setup.board.actor_failed(&id, text.as_str(), false);
                supervisor.fail(Fault::Again(format!("{kind} panicked: {text}")), ctx);
            }
        }));
    }

    /// Ends the round: closes the client, drops the actors, and opens again after a pause.
    fn fail(&mut self, fault: Fault, ctx: &mut Context<Self>) {
        match (&self.fault, &fault) {
            (None, _) => {}
            // Already closing, but now it is known that another try is no use.
            (Some(Fault::Again(_)), Fault::Loud(_)) => {}
            // Already closing; the first cause is the one to tell.
            (Some(_), _) => return,
        }
        match &fault {
            Fault::Again(error) => {
                tracing::warn!(pipeline = self.setup.pipeline.name, error, "pipeline fails; made anew after a pause");
            }
            Fault::Loud(error) => {
                tracing::error!(pipeline = self.setup.pipeline.name, error, "pipeline stays down until somebody acts");
            }
        }
        let text = match &fault {
            Fault::Again(text) | Fault::Loud(text) => text.clone(),
        };
        self.setup.board.actor_failed(&self.id(), text, matches!(fault, Fault::Loud(_)));
        self.fault = Some(fault);
        self.close(ctx);
    }

    /// Closes the client on a thread of its own: closing revokes, and this actor answers the revocation.
    fn close(&mut self, ctx: &mut Context<Self>) {
        let Some(client) = self.session.as_mut().and_then(|session| session.client.take()) else {
            if self.session.is_none() {
                self.closed(ctx);
            }
            return;
        };
        client.stop();
        let gone = self.setup.io.spawn_blocking(move || drop(client));
        ctx.spawn(gone.into_actor(self).map(|_, supervisor, ctx| supervisor.closed(ctx)));
    }

    fn closed(&mut self, ctx: &mut Context<Self>) {
        // What the round's actors still say (a writer whose partitions are gone cannot commit) is no news any more, and
        // must not take the place of the cause.
        self.round += 1;
        let ran = match self.session.take() {
            Some(session) => {
                if let Some(upkeep) = &session.upkeep {
                    upkeep.do_send(upkeep::Stop);
                }
                for running in session.partitions.values() {
                    self.setup.board.revoked(&running.source);
                }
                session.opened.elapsed()
            }
            None => Duration::ZERO,
        };
        let fault = self.fault.take();
        if !self.stopping.is_empty() {
            return self.finish_stop();
        }
        if self.setup.standstill.is_wanted() {
            return self.stand_still();
        }
        match fault {
            Some(Fault::Loud(_)) => self.stopped = true,
            _ => {
                let pause = self.backoff.next(ran).unwrap_or(Duration::from_secs(30));
                ctx.run_later(pause, |supervisor, ctx| supervisor.open(ctx));
            }
        }
    }

    /// Nothing of the round is left: whoever waits may change the table.
    fn stand_still(&mut self) {
        tracing::info!(
            pipeline = self.setup.pipeline.name,
            "the stream stands still while its table is changed by hand"
        );
        // What has stopped, too: it is placed anew.
        self.setup.board.forget(&self.setup.pipeline.name);
        self.setup.standstill.tell(true);
    }

    fn finish_stop(&mut self) {
        self.stopped = true;
        for waiter in self.stopping.drain(..) {
            let _ = waiter.send(self.drained);
        }
    }

    /// A consumer has ended; if nobody has asked it to, or has told why, its reader has failed.
    fn missed(&mut self, round: u64, partition: i32, ctx: &mut Context<Self>) {
        let running = self.session.as_ref().filter(|s| s.client.is_some() && s.partitions.contains_key(&partition));
        if self.round == round && running.is_some() {
            let error = format!("the reader of partition {partition} ended by itself");
            self.fail(Fault::Again(error), ctx);
        }
    }

    fn launch_windows(
        &mut self,
        source: &Arc<Source>,
        start: Option<Standing>,
        ctx: &mut Context<Self>,
    ) -> Option<Addr<WindowAggregator>> {
        let session = self.session.as_ref()?;
        let (windows, ended) = {
            let (setup, served) = (self.setup.clone(), session.served.clone());
            let (source, realtime) = (source.clone(), session.realtime.clone());
            launch(&self.setup.stream_arbiter, move || WindowAggregator::new(setup, served, source, realtime, start))
        };
        session.realtime.do_send(Windows(source.clone(), Some(windows.clone())));
        let (round, partition) = (self.round, source.partition);
        let id = ActorId::new("window_aggregator", source.to_string());
        self.setup.board.actor_running(&id, start.is_none());
        ctx.spawn(ended.into_actor(self).map(move |how, supervisor, ctx| {
            if let Ok(Ended::Panicked(text)) = how
                && supervisor.round == round
            {
                tracing::error!(actor = %id.name, panic = text, "windows panicked; counted again from Bronze");
                supervisor.setup.board.actor_failed(&id, text, false);
                supervisor.relaunch_windows(partition, ctx);
            }
        }));
        Some(windows)
    }

    /// Makes a partition's windows anew beside its running consumer.
    fn relaunch_windows(&mut self, partition: i32, ctx: &mut Context<Self>) {
        let Some(running) = self.session.as_ref().and_then(|s| s.partitions.get(&partition)) else { return };
        let (source, consumer) = (running.source.clone(), running.consumer.clone());
        if let Some(windows) = self.launch_windows(&source, None, ctx) {
            windows.do_send(Consumer(consumer.clone()));
            consumer.do_send(NewWindows(windows));
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        failpoint::hit("actor.pipeline_supervisor");
        let Some(session) = &self.session else { return };
        let Some(client) = &session.client else { return };
        if client.ended() {
            return self.fail(Fault::Again("the Kafka client ended by itself".into()), ctx);
        }
        let board = &self.setup.board;
        let serves = !self.setup.pipeline.aggregates.is_empty();
        let offsets: Vec<_> =
            session.partitions.values().filter_map(|running| held(board, &running.source, serves)).collect();
        if !offsets.is_empty() {
            client.commit(offsets, &session.table_id);
        }
        // A client that has not begun to consume is stuck as well as one that has ceased to.
        let (now, limit) = (Instant::now(), self.setup.server.kafka.stuck_after);
        let stuck = session.partitions.values().find(|running| {
            board.partition(&running.source).is_some_and(|p| {
                !matches!(p.phase, PartitionPhase::Stopped { .. } | PartitionPhase::Paused { .. })
                    && p.lag().is_some_and(|lag| lag > 0)
                    && p.read_waiting(now).is_some_and(|waiting| waiting > limit)
            })
        });
        if let Some(running) = stuck {
            let error = format!("{} has records to read and has not moved for {limit:?}", running.source);
            self.fail(Fault::Again(error), ctx);
        }
    }
}

/// The topic's id, where the broker tells one in time. The client tells it again before partitions are placed.
async fn topic_id(kafka: rdkafka::ClientConfig, topic: String) -> Option<String> {
    let ask = move || {
        let client: BaseConsumer = kafka.create().ok()?;
        kafka::topic_id(client.client(), &topic, TOPIC_ASK)
    };
    tokio::task::spawn_blocking(ask).await.ok().flatten()
}

/// The offset that the group may be told: what all sinks hold, which is Bronze alone where no window is served.
fn held(board: &crate::telemetry::Board, source: &Source, serves: bool) -> Option<(i32, i64)> {
    let state = board.partition(source)?;
    let all = if serves { state.bronze_position().min(state.realtime_position()) } else { state.bronze_position() };
    // 0: nothing is held yet, and the group is not told to go back.
    (all > 0).then_some((source.partition, all))
}

impl Actor for PipelineSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let wanted = self.setup.standstill.wanted();
        ctx.add_stream(futures::stream::unfold(wanted, |mut wanted| async move {
            wanted.changed().await.ok()?;
            let now = *wanted.borrow_and_update();
            Some((StandStill(now), wanted))
        }));
        self.open(ctx);
        ctx.run_interval(TICK.min(self.setup.server.kafka.stuck_after), Self::tick);
    }
}

impl Drop for PipelineSupervisor {
    /// After a panic: the client closes on a thread of its own, for it waits for an answer that nobody gives any more.
    fn drop(&mut self) {
        if let Some(client) = self.session.as_mut().and_then(|session| session.client.take()) {
            client.stop();
            self.setup.io.spawn_blocking(move || drop(client));
        }
    }
}

/// Somebody is about to change the table by hand, or has done it.
struct StandStill(bool);

impl StreamHandler<StandStill> for PipelineSupervisor {
    fn handle(&mut self, StandStill(wanted): StandStill, ctx: &mut Context<Self>) {
        if self.leaving {
            return;
        }
        if wanted {
            match self.session {
                // Answered when it is closed: all partitions leave drained.
                Some(_) => self.close(ctx),
                None => self.stand_still(),
            }
        } else {
            self.setup.standstill.tell(false);
            // What had stopped for good is looked at with new eyes.
            self.stopped = false;
            if self.session.is_none() {
                self.open(ctx);
            }
        }
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

/// A word of the client, with the round that it belongs to.
struct Event {
    round: u64,
    event: ClientEvent,
}

impl StreamHandler<Event> for PipelineSupervisor {
    fn handle(&mut self, Event { round, event }: Event, ctx: &mut Context<Self>) {
        if round != self.round {
            return; // dropping a reply's sender answers the client
        }
        match event {
            ClientEvent::Assigned { partitions, reply } => self.assigned(partitions, reply, ctx),
            ClientEvent::Revoked { partitions, reply } => self.revoked(partitions, reply, ctx),
            ClientEvent::TopicId(id) => {
                let confirmed = self.session.as_ref().map_or(Ok(()), |s| s.served.table.confirm_topic(&id));
                if let Err(error) = confirmed {
                    self.fail(Fault::from(&error), ctx);
                }
            }
            ClientEvent::Ends(ends) => {
                let Some(session) = &self.session else { return };
                for (partition, log) in ends {
                    if let Some(running) = session.partitions.get(&partition) {
                        self.setup.board.end_offset(&running.source, log.end);
                    }
                }
            }
            ClientEvent::Reachable(outcome) => {
                let condition = match outcome {
                    Ok(()) => SinkCondition::Healthy,
                    Err(error) => SinkCondition::Retrying { error },
                };
                self.setup.board.sink("kafka", condition);
            }
            ClientEvent::Failed(error) => self.fail(Fault::Again(error), ctx),
        }
    }

    /// The stream of one round ends with its client; the actor goes on.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<SessionFailed> for PipelineSupervisor {
    type Result = ();

    fn handle(&mut self, SessionFailed { round, error }: SessionFailed, ctx: &mut Context<Self>) {
        if round == self.round {
            self.fail(Fault::from(&error), ctx);
        }
    }
}

impl Handler<PartitionFailed> for PipelineSupervisor {
    type Result = ();

    fn handle(&mut self, failed: PartitionFailed, _: &mut Context<Self>) {
        if failed.round != self.round {
            return;
        }
        let Some(running) = self.session.as_ref().and_then(|s| s.partitions.get(&failed.partition)) else { return };
        let command = failed.error.command(&self.setup.pipeline.name);
        let what = failed.error.to_string();
        tracing::error!(source = %running.source, what, command, "partition stopped until somebody decides");
        self.setup.board.stopped(&running.source, what, command);
    }
}

/// A partition's consumer has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct ConsumerEnded {
    round: u64,
    partition: i32,
    how: Ended,
}

impl Handler<ConsumerEnded> for PipelineSupervisor {
    type Result = ();

    fn handle(&mut self, ConsumerEnded { round, partition, how }: ConsumerEnded, ctx: &mut Context<Self>) {
        if self.round != round {
            return;
        }
        match how {
            Ended::Panicked(text) => {
                self.fail(Fault::Again(format!("partition consumer panicked: {text}")), ctx);
            }
            // By itself it ends when it is revoked, when the Bronze writer has failed, which says why, or when its
            // reader has panicked, which nobody else tells.
            Ended::Stopped => {
                ctx.run_later(LAST_WORDS, move |supervisor, ctx| supervisor.missed(round, partition, ctx));
            }
        }
    }
}

impl Handler<StopPipeline> for PipelineSupervisor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, _: StopPipeline, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, told) = oneshot::channel();
        self.leaving = true;
        self.stopping.push(sender);
        if self.session.is_some() {
            self.close(ctx);
        } else {
            self.finish_stop();
        }
        Box::pin(async move {
            // Dropped only with the actor, undrained.
            told.await.unwrap_or(false)
        })
    }
}
