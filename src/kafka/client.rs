//! The consumer of one pipeline: a thread that polls the group, and one reader per assigned partition.
//!
//! Rebalances run inside the poll call on this thread. It asks the pipeline's supervisor where to start, assigns once,
//! at that position, and starts the readers; on a revocation it stops the readers and waits until both sinks hold what
//! they had handed on.
//!
//! A reader that does not come back when it is asked to end cannot be ended by force, and librdkafka's client must not go
//! before the queue that it reads. So such a client is never closed: it is left behind, and another one is made.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc as events;

use super::Source;
use super::commit;
use super::queue::{BatchLimit, PartitionQueue};
use super::reader::{Reader, ReaderEvent, Start, end_all};
use super::topic_id::topic_id;
use crate::event::Decoder;
use crate::holds::Holds;
use crate::window::{Counter, EventClock};

/// How long the broker may take to answer a question about a partition.
const ASK: Duration = Duration::from_secs(10);
/// How long the supervisor may take to place partitions. Within librdkafka's `max.poll.interval.ms` (5 minutes).
const PLACE: Duration = Duration::from_secs(120);
/// How often the ends of the partitions are asked for.
const ENDS: Duration = Duration::from_secs(2);
/// How often the topic's id is asked for, and how long the broker may take to tell it.
const TOPIC: Duration = Duration::from_secs(10);
const TOPIC_ASK: Duration = Duration::from_secs(2);
/// How long readers may take to end: each is asked between two batches of milliseconds.
const END: Duration = Duration::from_secs(5);
/// How long the broker may take to tell a partition's ends. A broker answers in order, so that the question waits behind a
/// fetch under way.
const END_ASK: Duration = Duration::from_secs(3);

/// A partition as the broker has it at the moment of its assignment.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub partition: i32,
    /// First offset that the log still holds, and the offset behind its last record.
    pub log: std::ops::Range<i64>,
    /// What the group's committed offset says of the table that it stands for, if there is one.
    pub committed_table: Option<String>,
}

/// Where a partition starts, or that it does not.
pub enum Place {
    /// Read on from `position`.
    From {
        source: std::sync::Arc<Source>,
        position: i64,
        clock: EventClock,
        decoder: Box<Decoder>,
        events: events::Sender<ReaderEvent>,
        holds: Holds,
        counter: Option<Box<Counter>>,
    },
    /// Hold the partition without reading it: it stopped, and somebody must decide.
    Hold,
}

/// What the client's thread tells the supervisor.
pub enum ClientEvent {
    /// Partitions came to this instance; the client waits for the reply.
    Assigned { partitions: Vec<Assigned>, reply: mpsc::SyncSender<HashMap<i32, Place>> },
    /// Partitions go to another instance: their readers have stopped; the client waits for the reply.
    Revoked { partitions: Vec<i32>, reply: mpsc::SyncSender<Option<Drained>> },
    /// The id that the topic has now. Told before partitions are placed, and now and then.
    TopicId(String),
    /// The ends of the partitions' logs, as the broker has them now.
    Ends(Vec<(i32, std::ops::Range<i64>)>),
    /// The broker cannot be reached, or can be again.
    Reachable(Result<(), String>),
    /// The client cannot go on and must be made anew.
    Failed(String),
}

/// What both sinks hold of partitions that leave.
#[derive(Debug, Clone)]
pub struct Drained {
    /// (partition, next offset).
    pub offsets: Vec<(i32, i64)>,
    /// The Bronze table's id.
    pub table: String,
}

enum Command {
    Commit(Vec<(i32, i64)>, String),
    Stop,
}

/// A handle on the client's thread; dropping it closes the client.
pub struct Client {
    commands: mpsc::Sender<Command>,
    /// Gives the partitions whose readers did not end.
    thread: Option<JoinHandle<Vec<i32>>>,
}

impl Client {
    /// Joins the group and subscribes to the topic. `batch`: when a partition's batch is full.
    pub fn start(
        config: &ClientConfig,
        topic: &str,
        batch: BatchLimit,
        events: events::Sender<ClientEvent>,
    ) -> Result<Self, KafkaError> {
        let context = Context {
            topic: topic.to_owned(),
            batch,
            events: events.clone(),
            readers: Mutex::default(),
            missing: Mutex::default(),
            unknown: Mutex::default(),
        };
        let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
        consumer.subscribe(&[topic])?;
        let (commands, inbox) = mpsc::channel();
        let topic = topic.to_owned();
        let thread = std::thread::Builder::new()
            .name("kafka-client".into())
            .spawn(move || {
                poll(&consumer, &topic, &inbox, &events);
                let missing = end_readers(&consumer);
                if !missing.is_empty() {
                    // It fetches no more. Its queues stay valid for whoever still reads them.
                    let _ = consumer.assignment().and_then(|all| consumer.incremental_unassign(&all));
                    std::mem::forget(consumer);
                }
                missing
            })
            .map_err(|e| KafkaError::ClientCreation(format!("cannot start the client's thread: {e}")))?;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// Tells the group how far both sinks are. For monitoring alone: nothing ever starts from these offsets.
    pub fn commit(&self, offsets: Vec<(i32, i64)>, table_id: &str) {
        // A send fails only when the thread has ended, which it has reported.
        let _ = self.commands.send(Command::Commit(offsets, table_id.to_owned()));
    }

    /// Asks the client to close, without waiting. Its readers stop first.
    pub fn stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Closes the client and waits for it. The partitions whose readers did not end: then it was left behind instead, and
    /// none of its partitions was revoked.
    pub fn close(mut self) -> Vec<i32> {
        self.stop();
        // A thread that panicked has nothing more to say.
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    /// Whether the thread has ended.
    pub fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Context {
    topic: String,
    batch: BatchLimit,
    events: events::Sender<ClientEvent>,
    /// The running readers. They are gone before the consumer that their queues belong to: the client's thread sees to it.
    readers: Mutex<HashMap<i32, Reader>>,
    /// Partitions that left while their readers did not end.
    missing: Mutex<Vec<i32>>,
    /// Partitions that the group gave to this instance, and that the topic has not, as far as the broker knows.
    unknown: Mutex<Vec<i32>>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        use rdkafka::error::RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => {
                let _ = self.events.blocking_send(ClientEvent::Reachable(Err(reason.to_owned())));
            }
            Some(Code::Fatal | Code::FencedInstanceId) => {
                let _ = self.events.blocking_send(ClientEvent::Failed(format!("{error}: {reason}")));
            }
            _ => tracing::info!(%error, reason, "Kafka client"),
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let outcome = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, tpl),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoke(consumer, tpl),
            other => Err(KafkaError::Rebalance(other.into())),
        };
        if let Err(error) = outcome {
            let _ = self.events.blocking_send(ClientEvent::Failed(format!("rebalance: {error}")));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        commit::outcome(&self.topic, result);
    }
}

impl Context {
    fn assign(&self, consumer: &BaseConsumer<Self>, tpl: &mut TopicPartitionList) -> KafkaResult<()> {
        if !lock(&self.missing).is_empty() {
            // This client is about to be left behind. Two readers of one queue would take records from each other.
            return Ok(());
        }
        let committed = consumer.committed_offsets(tpl.clone(), ASK)?;
        let mut partitions = Vec::new();
        let mut unknown = Vec::new();
        for element in committed.elements_for_topic(&self.topic) {
            let (low, high) = match consumer.fetch_watermarks(&self.topic, element.partition(), ASK) {
                Err(error) if is_unknown(&error) => {
                    // The topic was made anew with fewer, which the group has not noticed; or the broker lags behind it.
                    tracing::info!(
                        topic = self.topic,
                        partition = element.partition(),
                        "the topic has no such partition"
                    );
                    unknown.push(element.partition());
                    continue;
                }
                asked => asked?,
            };
            let table = Some(element.metadata()).filter(|table| !table.is_empty()).map(str::to_owned);
            partitions.push(Assigned { partition: element.partition(), log: low..high, committed_table: table });
        }
        let mut places = HashMap::new();
        if !partitions.is_empty() {
            tell_topic_id(consumer, &self.topic, &self.events);
            let (reply, answer) = mpsc::sync_channel(1);
            let asked = self.events.blocking_send(ClientEvent::Assigned { partitions: partitions.clone(), reply });
            places = asked.ok().and_then(|()| answer.recv_timeout(PLACE).ok()).unwrap_or_default();
        }

        let mut starts = Vec::new();
        let mut held = TopicPartitionList::new();
        for partition in unknown {
            tpl.set_partition_offset(&self.topic, partition, Offset::End)?;
            held.add_partition(&self.topic, partition);
            lock(&self.unknown).push(partition);
        }
        for Assigned { partition, .. } in partitions {
            let queue = PartitionQueue::split(consumer, &self.topic, partition, self.batch);
            match (places.remove(&partition), queue) {
                (Some(Place::From { source, position, clock, decoder, events, holds, counter }), Some(queue)) => {
                    tpl.set_partition_offset(&self.topic, partition, Offset::Offset(position))?;
                    let decoder = *decoder;
                    starts.push((Start { source, queue, decoder, clock, position, holds, counter }, events));
                }
                _ => {
                    tpl.set_partition_offset(&self.topic, partition, Offset::End)?;
                    held.add_partition(&self.topic, partition);
                }
            }
        }
        consumer.incremental_assign(tpl)?;
        if held.count() > 0 {
            consumer.pause(&held)?;
        }
        for (start, events) in starts {
            let partition = start.source.partition;
            let reader = Reader::spawn(start, events)
                .map_err(|e| KafkaError::ClientCreation(format!("cannot start a reader's thread: {e}")))?;
            lock(&self.readers).insert(partition, reader);
        }
        Ok(())
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, tpl: &TopicPartitionList) -> KafkaResult<()> {
        let partitions: Vec<i32> = tpl.elements_for_topic(&self.topic).iter().map(|e| e.partition()).collect();
        lock(&self.unknown).retain(|partition| !partitions.contains(partition));
        let readers: Vec<(i32, Reader)> = {
            let mut running = lock(&self.readers);
            partitions.iter().filter_map(|p| Some((*p, running.remove(p)?))).collect()
        };
        // Their channels close as they end.
        let missing = end_all(readers, END);
        if !missing.is_empty() {
            lock(&self.missing).extend(&missing);
            let what = format!("the readers of partitions {missing:?} leave and do not end");
            let _ = self.events.blocking_send(ClientEvent::Failed(what));
        }
        let (reply, done) = mpsc::sync_channel(1);
        let lost = consumer.assignment_lost();
        if self.events.blocking_send(ClientEvent::Revoked { partitions, reply }).is_ok() {
            // A timeout or a closed channel means that nobody drains any more; whoever takes over starts from Bronze.
            if let Ok(Some(Drained { offsets, table })) = done.recv_timeout(PLACE)
                && !lost
            {
                tell_offsets(consumer, &self.topic, &offsets, &table, CommitMode::Sync);
            }
        }
        consumer.incremental_unassign(tpl)
    }
}

/// Whether a topic is there and a partition of it is not.
fn is_unknown(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::UnknownPartition)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn poll(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    inbox: &mpsc::Receiver<Command>,
    events: &events::Sender<ClientEvent>,
) {
    let mut asked = Instant::now();
    let mut topic_asked = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            // Records go to the partitions' own queues; one here means that a queue was not split off.
            Some(Ok(_)) => {
                let _ = events.blocking_send(ClientEvent::Failed("a record came past its partition's queue".into()));
                return;
            }
            Some(Err(error)) => report(error, events),
        }
        loop {
            match inbox.try_recv() {
                Ok(Command::Commit(offsets, table)) => {
                    tell_offsets(consumer, topic, &offsets, &table, CommitMode::Async);
                }
                Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        if asked.elapsed() >= ENDS {
            asked = Instant::now();
            let reachable = ask_ends(consumer, topic, events);
            if reachable && topic_asked.elapsed() >= TOPIC {
                topic_asked = Instant::now();
                tell_topic_id(consumer, topic, events);
            }
        }
    }
}

/// Readers hold queues of this consumer: they go first. The partitions of those that did not end, earlier or now.
fn end_readers(consumer: &BaseConsumer<Context>) -> Vec<i32> {
    let readers = lock(&consumer.context().readers).drain().collect();
    let mut missing = std::mem::take(&mut *lock(&consumer.context().missing));
    missing.extend(end_all(readers, END));
    missing
}

fn report(error: KafkaError, events: &events::Sender<ClientEvent>) {
    use rdkafka::error::RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
            let _ = events.blocking_send(ClientEvent::Reachable(Err(format!(
                "the topic does not exist ({error}); create it, or start boathouse-producer, which does"
            ))));
        }
        Some(Code::FencedInstanceId) => {
            let _ = events.blocking_send(ClientEvent::Failed(format!(
                "another daemon uses the same group instance id ({error}); does it run on a copy of this data_dir?"
            )));
        }
        _ => tracing::info!(%error, "Kafka client"),
    }
}

fn tell_offsets(consumer: &BaseConsumer<Context>, topic: &str, offsets: &[(i32, i64)], table: &str, mode: CommitMode) {
    let mut tpl = TopicPartitionList::new();
    for (partition, offset) in offsets {
        let mut element = tpl.add_partition(topic, *partition);
        if element.set_offset(Offset::Offset(*offset)).is_ok() {
            element.set_metadata(table);
        }
    }
    let committed = match mode {
        CommitMode::Sync => consumer.commit(&tpl, mode),
        CommitMode::Async => commit::commit_soon(consumer, &tpl),
    };
    if let Err(error) = committed {
        tracing::debug!(topic, %error, "group offsets are for monitoring alone; not committed this time");
    }
}

fn tell_topic_id(consumer: &BaseConsumer<Context>, topic: &str, events: &events::Sender<ClientEvent>) {
    if let Some(id) = topic_id(consumer.client(), topic, TOPIC_ASK) {
        let _ = events.blocking_send(ClientEvent::TopicId(id));
    }
}

/// Answers whether the broker answered.
fn ask_ends(consumer: &BaseConsumer<Context>, topic: &str, events: &events::Sender<ClientEvent>) -> bool {
    let partitions: Vec<i32> = lock(&consumer.context().readers).keys().copied().collect();
    let mut ends = Vec::with_capacity(partitions.len());
    for partition in partitions {
        match consumer.fetch_watermarks(topic, partition, END_ASK) {
            Ok((low, high)) => ends.push((partition, low..high)),
            Err(error) => {
                let _ = events.blocking_send(ClientEvent::Reachable(Err(error.to_string())));
                return false;
            }
        }
    }
    // One that appears must not be held for ever: it is placed anew.
    let unknown = lock(&consumer.context().unknown).clone();
    if let Some(partition) = unknown.iter().find(|p| consumer.fetch_watermarks(topic, **p, END_ASK).is_ok()) {
        let _ = events.blocking_send(ClientEvent::Failed(format!("partition {partition} of {topic} is there now")));
    }
    if !ends.is_empty() {
        let _ = events.blocking_send(ClientEvent::Reachable(Ok(())));
        let _ = events.blocking_send(ClientEvent::Ends(ends));
    }
    true
}
