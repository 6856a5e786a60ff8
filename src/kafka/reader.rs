//! A partition's own thread: takes records, decodes them once, judges them, hands the batch on. It waits when the
//! batch before is not taken yet, which fills librdkafka's bounded queue, which stops its fetcher: that is the backpressure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::Utc;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::mpsc;

use super::Source;
use super::queue::{PartitionQueue, QueueError};
use crate::event::{Batch, Columns, Decoder, RawBatch};
use crate::failpoint;
use crate::holds::{Hold, Holds};
use crate::remedy;
use crate::window::{Cluster, Counter, EventClock, Verdict};

/// Longest wait for a batch to fill: at low rates this bounds the latency that batching adds.
const FILL: Duration = Duration::from_millis(10);

/// How often a reader that is held looks whether it may go on.
const HELD: Duration = Duration::from_millis(50);

/// How often it is looked whether readers that were asked to end have done so.
const LOOK: Duration = Duration::from_millis(1);

/// What a reader tells its consumer.
#[derive(Debug)]
pub enum ReaderEvent {
    /// Records, or a position that moved without any (transaction markers, compaction).
    Batch(Arc<Batch>),
    /// The end of the partition, with nothing queued behind it.
    End,
    /// An operator holds the partition, or no longer: nothing is read meanwhile, and the end is told anew afterwards.
    Held(Option<Hold>),
    /// The partition cannot be read on from this position.
    Failed(ReadError),
}

/// Why a partition cannot be read on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("offset {position} is no longer in the log (or not yet): {text}")]
    OffsetOutOfRange { position: i64, text: String },
    #[error("the broker does not know this partition any more: {text}")]
    UnknownPartition { text: String },
    #[error("this user may not read the topic: {text}")]
    NotAuthorized { text: String },
    #[error("{0}")]
    BadRecords(Cluster),
}

impl ReadError {
    /// What resolves it.
    pub fn command(&self, pipeline: &str) -> String {
        match self {
            Self::OffsetOutOfRange { .. } => {
                format!("restart the daemon, which tells the log's bounds; then {}", remedy::adopt_topic(pipeline))
            }
            Self::UnknownPartition { .. } => {
                format!("create the topic again, or take the new one on: {}", remedy::adopt_topic(pipeline))
            }
            Self::BadRecords(_) => remedy::accept_bad_records(pipeline),
            Self::NotAuthorized { .. } => "allow this user to read the topic; the client goes on by itself".into(),
        }
    }
}

/// Where and how a reader starts.
pub struct Start {
    pub source: Arc<Source>,
    pub queue: PartitionQueue,
    pub decoder: Decoder,
    pub clock: EventClock,
    /// First offset to be read.
    pub position: i64,
    /// Whether somebody holds the partition.
    pub holds: Holds,
    /// Counts bad records, where the pipeline asks for it.
    pub counter: Option<Box<Counter>>,
}

/// A running reader; dropping it stops the thread and waits for it.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread. Events go to `events`, whose capacity bounds how far the reader runs ahead.
    pub fn spawn(start: Start, events: mpsc::Sender<ReaderEvent>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name(format!("reader-{}", start.source.partition))
            .spawn(move || read(start, &events, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Asks the thread to end, without waiting.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Asks readers to end and waits for them, at most `limit`; the partitions of those that have not ended by then. Their
/// threads are let go, each with its queue, and end by themselves once they come back.
pub fn end_all(readers: Vec<(i32, Reader)>, limit: Duration) -> Vec<i32> {
    readers.iter().for_each(|(_, reader)| reader.stop());
    let deadline = Instant::now() + limit;
    let mut missing = Vec::new();
    for (partition, mut reader) in readers {
        let Some(thread) = reader.thread.take() else { continue };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::park_timeout(LOOK);
        }
        if thread.is_finished() {
            // A panic in the thread has closed its channel, which its consumer reports.
            let _ = thread.join();
        } else {
            missing.push(partition);
        }
    }
    missing
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has closed its channel, which its consumer reports.
            let _ = thread.join();
        }
    }
}

fn read(start: Start, events: &mpsc::Sender<ReaderEvent>, stop: &AtomicBool) {
    let Start { source, mut queue, mut decoder, mut clock, mut position, holds, mut counter } = start;
    let mut before = (0, 0);
    // Whether the end has been told since the last record, or pause.
    let mut told = false;
    let mut held = None;
    // One that had stopped before it was taken up here.
    if let Some(cluster) = counter.as_ref().and_then(|counter| counter.cluster()) {
        return stand(cluster, events, stop);
    }
    while !stop.load(Ordering::Relaxed) {
        let hold = if holds.is_empty() { None } else { holds.of(&source.pipeline, source.partition, Utc::now()) };
        if hold != held {
            held.clone_from(&hold);
            told = false;
            if !hand_on(events, ReaderEvent::Held(hold), stop) {
                return;
            }
        }
        if held.is_some() {
            // librdkafka's queue fills, and its fetcher stops; the client stays in its group.
            std::thread::park_timeout(HELD);
            continue;
        }
        // As large as the batch before: growing costs copies and page faults.
        let mut raw = RawBatch::with_capacity(before.0, before.1);
        failpoint::hit("reader.take");
        let taken = queue.take(&mut raw, FILL);
        let mut next = match raw.offsets.last() {
            Some(last) => last + 1,
            // Nothing is queued: transaction markers may have moved the position all the same.
            None => queue.position().unwrap_or(position).max(position),
        };
        let idle = raw.is_empty();
        if next > position {
            raw.seal();
            before = (raw.len(), raw.values.len());
            let clock_before = clock.clone();
            let mut columns = decoder.decode(raw);
            let mut verdicts = judge(&columns, &mut clock);
            let too_many = counter.as_mut().and_then(|counter| counter.count_batch(&columns, &verdicts));
            if let Some(row) = too_many {
                // Nothing behind it is read. What a row decodes to depends on its record alone, so that the rest is as it was.
                next = columns.raw.offsets[row] + 1;
                columns.raw.truncate(row + 1);
                clock = clock_before;
                columns = decoder.decode(columns.raw);
                verdicts = judge(&columns, &mut clock);
            }
            let batch = Batch {
                source: source.clone(),
                columns,
                verdicts,
                from: position,
                next,
                mark: clock.mark(),
                received_at: now_micros(),
            };
            position = next;
            told = false;
            if !hand_on(events, ReaderEvent::Batch(Arc::new(batch)), stop) {
                return;
            }
            if let Some(cluster) = counter.as_ref().and_then(|counter| counter.cluster()) {
                return stand(cluster, events, stop);
            }
        }
        if idle && !told && queue.end().is_some_and(|end| position >= end) {
            told = true;
            if !hand_on(events, ReaderEvent::End, stop) {
                return;
            }
        }
        for error in taken.errors {
            let error = classify(position, error, &source);
            if let Some(error) = error {
                hand_on(events, ReaderEvent::Failed(error), stop);
                return;
            }
        }
    }
}

/// Says why nothing more is read and stays: the partition remains this instance's, and what was read of it is served.
fn stand(cluster: Cluster, events: &mpsc::Sender<ReaderEvent>, stop: &AtomicBool) {
    if hand_on(events, ReaderEvent::Failed(ReadError::BadRecords(cluster)), stop) {
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(HELD);
        }
    }
}

/// Waits until the event is taken; false when the consumer is gone or the reader is to stop.
fn hand_on(events: &mpsc::Sender<ReaderEvent>, event: ReaderEvent, stop: &AtomicBool) -> bool {
    let mut event = event;
    loop {
        match events.try_send(event) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
            Err(mpsc::error::TrySendError::Full(back)) => {
                if stop.load(Ordering::Relaxed) {
                    return false;
                }
                event = back;
                // Parked briefly rather than in `blocking_send`, which nothing could interrupt.
                std::thread::park_timeout(Duration::from_micros(200));
            }
        }
    }
}

fn judge(columns: &Columns, clock: &mut EventClock) -> Vec<Verdict> {
    let mut errors = columns.errors.iter().map(|(row, _)| *row as usize).peekable();
    (0..columns.raw.len())
        .map(|row| {
            if errors.next_if_eq(&row).is_some() {
                Verdict::Unparsed
            } else {
                clock.judge(columns.event_time[row], columns.raw.timestamps[row])
            }
        })
        .collect()
}

/// Errors that end the reading; others (a broker that went away) heal inside librdkafka.
fn classify(position: i64, error: QueueError, source: &Source) -> Option<ReadError> {
    let QueueError { code, text } = error;
    match code {
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
            Some(ReadError::OffsetOutOfRange { position, text })
        }
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::UnknownTopicId => Some(ReadError::UnknownPartition { text }),
        RDKafkaErrorCode::TopicAuthorizationFailed => Some(ReadError::NotAuthorized { text }),
        code => {
            tracing::info!(%source, ?code, text, "Kafka reports a fault on the partition; the client retries by itself");
            None
        }
    }
}

/// Wall clock, microseconds since the epoch.
pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
