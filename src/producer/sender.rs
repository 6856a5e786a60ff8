//! Sends what the generator makes, at a pace, and keeps account of every delivery.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};
use serde::Serialize;

use super::clock::{EventClock, now_s};
use super::event::Decimal;
use super::fault::Kind;
use super::generator::Generator;

/// Records between two looks at the clock.
const CHUNK: u64 = 256;
/// Shortest and longest sleep until the next record is due: high rates go in batches, a stop is seen soon.
const SLEEP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// How long a full queue is given to empty.
const QUEUE_FULL: Duration = Duration::from_millis(5);
/// A progress line stands at a multiple of this many records.
const PROGRESS_RECORDS: u64 = 50;
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop on request waits for what is under way.
const STOP_FLUSH: Duration = Duration::from_secs(10);

/// How fast records are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many a second, greater than 0.
    PerSecond(f64),
    /// As fast as the broker takes them.
    Max,
}

/// Reads a rate from an argument: a finite number greater than 0.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("it must be a number greater than 0".into()),
    }
}

/// What to send, and until when. With neither limit it goes on until it is stopped.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic; it exists.
    pub topic: String,
    /// How fast.
    pub pace: Pace,
    /// Whose time stands in the events.
    pub clock: EventClock,
    /// Stop after this many records, of all kinds.
    pub count: Option<u64>,
    /// Stop after this time on the wall clock.
    pub duration: Option<Duration>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The topic.
    pub topic: String,
    /// Records handed to the Kafka client.
    pub sent_count: u64,
    /// Records that the broker acknowledged.
    pub delivered_count: u64,
    /// Records that were given up, or not acknowledged when we stopped.
    pub failed_count: u64,
    /// Sent records by kind.
    pub kinds: KindCounts,
    /// From the first record to the last acknowledgement.
    pub elapsed_seconds: f64,
    /// `delivered_count` by `elapsed_seconds`.
    pub delivered_per_second: f64,
    /// The first failure's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

/// Sent records by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names of the kinds, see Kind")]
pub struct KindCounts {
    pub normal_count: u64,
    pub late_count: u64,
    pub duplicate_count: u64,
    pub malformed_count: u64,
    pub future_count: u64,
}

impl Summary {
    /// One line for people.
    pub fn line(&self) -> String {
        let k = &self.kinds;
        let mut line = format!(
            "Delivered {} of {} events to {} in {:.1} s ({:.0}/s): {} normal, {} late, {} duplicate, {} malformed, {} future",
            self.delivered_count,
            self.sent_count,
            self.topic,
            self.elapsed_seconds,
            self.delivered_per_second,
            k.normal_count,
            k.late_count,
            k.duplicate_count,
            k.malformed_count,
            k.future_count,
        );
        if self.failed_count > 0 {
            let reason = self.first_error.as_deref().unwrap_or("not acknowledged in time");
            line += &format!("; {} FAILED: {reason}", self.failed_count);
        }
        line
    }
}

/// The settings of the Kafka client: idempotent, so that retries neither repeat nor reorder; small batches at
/// once at low rates, large ones at high rates. `properties` are the user's and win.
pub fn client_config(
    brokers: &str,
    pace: Pace,
    delivery_timeout: Duration,
    properties: &[(String, String)],
) -> ClientConfig {
    let linger_ms = match pace {
        Pace::PerSecond(rate) if rate < 200.0 => "0",
        Pace::PerSecond(_) => "5",
        Pace::Max => "20",
    };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "boathouse-producer")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", linger_ms)
        .set("batch.size", "1000000")
        // Bounds the memory: above either the send loop waits.
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("message.timeout.ms", delivery_timeout.as_millis().to_string())
        .set("reconnect.backoff.max.ms", "1000");
    for (key, value) in properties {
        config.set(key, value);
    }
    config
}

/// Counts acknowledgements and failures as the client reports them.
struct Account {
    delivered: AtomicU64,
    failed: AtomicU64,
    first_error: Mutex<Option<String>>,
}

impl ClientContext for Account {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Lost connections are made anew; what matters ends in a failed delivery.
        if level as i32 <= RDKafkaLogLevel::Error as i32 && !matches!(facility, "FAIL" | "ERROR") {
            eprintln!("kafka: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(RDKafkaErrorCode::Fatal) = error.rdkafka_error_code() {
            self.note(reason);
        }
    }
}

impl Account {
    fn note(&self, reason: &str) {
        // A poisoned lock means a panic elsewhere; the first reason is then not worth another.
        if let Ok(mut first) = self.first_error.lock() {
            first.get_or_insert_with(|| reason.to_owned());
        }
    }
}

impl ProducerContext for Account {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, message)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.note(&format!("{error} (partition {})", message.partition()));
            }
        }
    }
}

/// Sends by `plan` until it is fulfilled or `stopped` says so, then waits for the acknowledgements. `progress`
/// gets the lines that tell how far we are.
pub fn run(
    config: &ClientConfig,
    plan: &Plan,
    mut generator: Generator,
    mut progress: impl FnMut(&str),
    stopped: impl Fn() -> bool,
) -> Result<Summary, KafkaError> {
    let account = Account { delivered: AtomicU64::new(0), failed: AtomicU64::new(0), first_error: Mutex::new(None) };
    // Its own thread takes the deliveries: the binding's `poll` with a time limit turns in a loop for the last
    // millisecond of it, which at high rates is all the time.
    let producer: ThreadedProducer<Account> = ThreadedProducer::from_config_and_context(config, account)?;
    let mut counts = [0u64; Kind::ALL.len()];
    let mut sent = 0;
    let mut value = Vec::with_capacity(1024);
    let mut latest = String::from("none");
    let start = Instant::now();
    let mut last_line: Option<Instant> = None;

    'sending: while !stopped() {
        let elapsed = start.elapsed();
        if plan.duration.is_some_and(|limit| elapsed >= limit) || plan.count.is_some_and(|count| sent >= count) {
            break;
        }
        let due = match plan.pace {
            Pace::Max => sent + CHUNK,
            // The first one is due at once.
            Pace::PerSecond(rate) => (elapsed.as_secs_f64() * rate) as u64 + 1,
        };
        if due <= sent {
            let Pace::PerSecond(rate) = plan.pace else { continue };
            let wait = Duration::from_secs_f64(sent as f64 / rate).saturating_sub(start.elapsed());
            std::thread::sleep(wait.clamp(SLEEP.0, SLEEP.1));
            continue;
        }
        let now = now_s();
        let chunk = (due - sent).min(CHUNK).min(plan.count.map_or(CHUNK, |count| count - sent));
        for _ in 0..chunk {
            let written = generator.next(plan.clock.at(sent, now), &mut value);
            let key = Decimal::of(written.user_id);
            let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&plan.topic).key(key.as_bytes());
            if !written.tombstone {
                record = record.payload(&value);
            }
            // A full queue: wait for deliveries and send the same record again, so that none is lost or overtaken.
            while let Err((error, back)) = producer.send(record) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    return Err(error);
                }
                if stopped() {
                    break 'sending;
                }
                record = back;
                std::thread::sleep(QUEUE_FULL);
            }
            sent += 1;
            counts[written.kind as usize] += 1;
            if sent.is_multiple_of(PROGRESS_RECORDS) {
                if let Some(event_type) = written.event_type {
                    latest.clear();
                    latest += event_type.as_str();
                    latest += " user=";
                    latest += &written.user_id.to_string();
                }
                if last_line.is_none_or(|at| at.elapsed() >= PROGRESS_INTERVAL) {
                    last_line = Some(Instant::now());
                    progress(&format!("Sent {sent} events (latest: {latest})"));
                }
            }
        }
    }

    flush(&producer, &stopped);
    let elapsed_seconds = start.elapsed().as_secs_f64();
    let account = producer.context();
    let delivered_count = account.delivered.load(Ordering::Relaxed);
    let first_error = account.first_error.lock().ok().and_then(|first| first.clone());
    Ok(Summary {
        topic: plan.topic.clone(),
        sent_count: sent,
        delivered_count,
        failed_count: sent - delivered_count,
        kinds: KindCounts {
            normal_count: counts[Kind::Normal as usize],
            late_count: counts[Kind::Late as usize],
            duplicate_count: counts[Kind::Duplicate as usize],
            malformed_count: counts[Kind::Malformed as usize],
            future_count: counts[Kind::Future as usize],
        },
        elapsed_seconds,
        delivered_per_second: delivered_count as f64 / elapsed_seconds.max(1e-9),
        first_error,
    })
}

/// Waits until every record is delivered or given up (the client's own time limit sees to that); once asked to
/// stop, for ten seconds at most.
fn flush(producer: &ThreadedProducer<Account>, stopped: &impl Fn() -> bool) {
    let mut stopped_at = None;
    while producer.flush(Duration::from_millis(100)).is_err() {
        if stopped() && stopped_at.get_or_insert_with(Instant::now).elapsed() > STOP_FLUSH {
            break;
        }
    }
}
