//! Supervises one pipeline: opens its table, joins the group, places partitions where Bronze stands, makes their actors,
//! and makes everything anew, after a pause, when something on the way to Bronze fails. What fails on the way to
//! ClickHouse is rebuilt beside the running stream.
//!
//! One *round* is one life of table, client and actors; words from an earlier round are ignored.

mod assignment;
mod children;
mod closing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::sync::{mpsc, oneshot};

use self::closing::{Fault, StandStill};
use super::bronze::{BronzeWriter, Store};
use super::consumer::PartitionConsumer;
use super::mailbox::{Mailbox, count_channel, takes_mail};
use super::realtime::{RealtimeWriter, Served};
use super::setup::Setup;
use super::supervise::{Backoff, End, Ended, FIRST_PAUSE, HEALTHY_AFTER, LONGEST_PAUSE, launch};
use super::upkeep::Upkeep;
use crate::bronze::{BronzeError, Table};
use crate::event::Schema;
use crate::failpoint;
use crate::kafka::{self, Client, ClientEvent, ReadError, Source};
use crate::telemetry::{ActorId, Inbox, PartitionPhase, SinkCondition};
use crate::window::AggregatePlan;

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
    consumer: Mailbox<PartitionConsumer>,
    consumer_ended: oneshot::Receiver<()>,
}

struct Session {
    /// None once it is being closed.
    client: Option<Client>,
    bronze: Mailbox<BronzeWriter>,
    realtime: Mailbox<RealtimeWriter>,
    served: Arc<Served>,
    table_id: String,
    generation: i32,
    schema: Arc<Schema>,
    partitions: HashMap<i32, Running>,
    /// Runs while this instance holds partition 0.
    upkeep: Option<Mailbox<Upkeep>>,
    opened: Instant,
}

/// See the file's head.
pub struct PipelineSupervisor {
    setup: Arc<Setup>,
    /// What waits for this actor, for those that it gives its address.
    inbox: Inbox,
    round: u64,
    session: Option<Session>,
    backoff: Backoff,
    /// Panics on the way to Bronze, one soon after the other.
    panics: u32,
    /// Pauses of what is made anew beside the running stream, and since when there has been no need.
    beside: (Backoff, Instant),
    /// Whether the table could not be opened the last time.
    table_fails: bool,
    /// Why the session is being closed, when it is for a fault.
    fault: Option<Fault>,
    stopping: Vec<oneshot::Sender<bool>>,
    /// Whether the last partitions to leave were drained into both sinks.
    drained: bool,
    /// Clients whose readers did not end.
    left_behind: u32,
    stopped: bool,
    /// The daemon ends: nothing begins any more.
    leaving: bool,
}

impl PipelineSupervisor {
    pub fn new(setup: Arc<Setup>, inbox: Inbox) -> Self {
        Self {
            setup,
            inbox,
            round: 0,
            session: None,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, None, HEALTHY_AFTER),
            panics: 0,
            beside: (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, None, HEALTHY_AFTER), Instant::now()),
            table_fails: false,
            fault: None,
            stopping: Vec::new(),
            drained: true,
            left_behind: 0,
            stopped: false,
            leaving: false,
        }
    }

    /// Where its children reach it.
    fn mailbox(&self, ctx: &Context<Self>) -> Mailbox<Self> {
        Mailbox::new(ctx.address(), self.inbox.clone())
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
            Err(panic) => supervisor.panicked(panic.to_string(), ctx),
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
        let served = Arc::new(Served::new(&setup, store.table.clone(), plans));
        let (table_id, generation) = (store.table.table_id().to_owned(), store.table.generation());
        let supervisor = self.mailbox(ctx);
        let (bronze, ended) = {
            let setup = setup.clone();
            launch(&self.setup.bronze_arbiter, move |_| BronzeWriter::new(setup, round, supervisor, store))
        };
        self.watch(bronze.inbox(), ended, "bronze_writer", ctx);
        let realtime = self.launch_realtime(&served, false, ctx);

        let group = format!("{}.{}", setup.server.kafka.group, setup.pipeline.name);
        let config = kafka::settings::consumer(&setup.server.kafka, &group, &setup.instance, setup.budget.kafka_queue);
        let (events, mut inbox) = mpsc::channel(EVENTS);
        count_channel(&self.inbox, &events);
        match Client::start(&config, &setup.pipeline.topic, setup.budget.batch, events) {
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

    /// Whether this very consumer runs: not one that took its partition up again after it.
    fn runs(&self, source: &Arc<Source>) -> bool {
        let running = self.session.as_ref().and_then(|s| s.partitions.get(&source.partition));
        running.is_some_and(|running| Arc::ptr_eq(&running.source, source))
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

takes_mail!(PipelineSupervisor: SessionFailed, PartitionFailed, ConsumerEnded, StopPipeline);

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
    /// After a panic: the round's actors end, or they would still commit beside those of the next one. The client closes on a
    /// thread of its own, for it waits for an answer that nobody gives any more.
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        session.bronze.do_send(End);
        session.realtime.do_send(End);
        if let Some(upkeep) = &session.upkeep {
            upkeep.do_send(End);
        }
        for running in session.partitions.values() {
            running.consumer.do_send(End);
        }
        if let Some(client) = session.client {
            client.stop();
            self.setup.io.spawn_blocking(move || drop(client));
        }
    }
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
                self.setup.board.shared_sink("kafka", &self.setup.pipeline.name, condition);
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
    source: Arc<Source>,
    how: Ended,
}

impl Handler<ConsumerEnded> for PipelineSupervisor {
    type Result = ();

    fn handle(&mut self, ConsumerEnded { round, source, how }: ConsumerEnded, ctx: &mut Context<Self>) {
        if self.round != round {
            return;
        }
        match how {
            Ended::Panicked(text) => {
                if self.runs(&source) {
                    let id = ActorId::new("partition_consumer", source.to_string());
                    self.setup.board.actor_failed(&id, text.as_str(), false);
                }
                self.panicked(format!("partition consumer panicked: {text}"), ctx);
            }
            // By itself it ends when it is revoked, when the Bronze writer has failed, which says why, or when its
            // reader has panicked, which nobody else tells.
            Ended::Stopped => {
                ctx.run_later(LAST_WORDS, move |supervisor, ctx| supervisor.missed(round, &source, ctx));
            }
        }
    }
}
