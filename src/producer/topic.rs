//! The broker answers, and the topic is there: what must hold before the first event.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The number of partitions of a new topic, if nothing else is said.
pub const PARTITIONS: i32 = 3;
/// The configuration of a new topic: a day of records, stamped by the broker, so that the broker's clock judges
/// the producers'.
pub const CONFIG: [(&str, &str); 2] = [("retention.ms", "86400000"), ("message.timestamp.type", "LogAppendTime")];

/// Why there is no topic to send to.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No broker answered.
    #[error("no Kafka broker answered at {brokers} within {waited:?}: start one, or name another with --brokers")]
    NoBroker {
        /// The bootstrap addresses.
        brokers: String,
        /// How long we tried.
        waited: Duration,
    },
    /// The broker refused to create the topic.
    #[error(
        "the broker did not create the topic {topic}: {reason}; create it yourself, or choose another one with --topic"
    )]
    NotCreated {
        /// The topic.
        topic: String,
        /// What the broker said.
        reason: String,
    },
    /// Stopped while waiting.
    #[error("stopped while waiting for the broker")]
    Stopped,
    /// The client could not be made.
    #[error("the Kafka client refused its configuration: {0}")]
    Client(#[from] KafkaError),
}

/// Passes librdkafka's warnings on, but for lost connections, which waiting and retrying take care of.
#[derive(Clone)]
pub struct QuietContext;

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if level as i32 <= RDKafkaLogLevel::Error as i32 && !matches!(facility, "FAIL" | "ERROR" | "MAXPOLL") {
            eprintln!("kafka: {message}");
        }
    }

    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for QuietContext {}

/// Waits until the broker answers, and creates the topic if it is missing. `waiting` is told every five seconds
/// for how long we have waited; `stopped` ends the wait. Returns the topic's number of partitions.
pub fn ensure(
    config: &ClientConfig,
    topic: &str,
    partitions: i32,
    limit: Duration,
    mut waiting: impl FnMut(Duration),
    stopped: impl Fn() -> bool,
) -> Result<usize, TopicError> {
    let admin = AdminClient::from_config_and_context(config, QuietContext)?;
    let start = Instant::now();
    let mut told = 0;
    let mut created = false;
    loop {
        match partitions_of(admin.inner(), topic) {
            Some(0) if created => {}
            Some(0) => {
                create(&admin, topic, partitions)?;
                created = true;
                continue;
            }
            Some(count) => return Ok(count),
            None => {}
        }
        if stopped() {
            return Err(TopicError::Stopped);
        }
        let waited = start.elapsed();
        if waited > limit {
            let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
            return Err(TopicError::NoBroker { brokers, waited: limit });
        }
        if waited.as_secs() / 5 > told {
            told = waited.as_secs() / 5;
            waiting(waited);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many partitions the topic has (0: there is no such topic); `None` when no broker answers.
fn partitions_of<C: ClientContext>(client: &Client<C>, topic: &str) -> Option<usize> {
    // All topics are asked for, since asking for one by name can create it, with the broker's defaults.
    let metadata = client.fetch_metadata(None, Duration::from_secs(1)).ok()?;
    Some(metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len()))
}

fn create(admin: &AdminClient<QuietContext>, topic: &str, partitions: i32) -> Result<(), TopicError> {
    let failed = |reason: String| TopicError::NotCreated { topic: topic.to_owned(), reason };
    // -1: the broker's default. A broker that does not know that gets one copy.
    let mut reason = String::new();
    for replication in [-1, 1] {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        for (key, value) in CONFIG {
            new = new.set(key, value);
        }
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(30)));
        let results = futures::executor::block_on(admin.create_topics([&new], &options));
        match results.map_err(|error| failed(error.to_string()))?.first() {
            Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => return Ok(()),
            Some(Err((_, code @ RDKafkaErrorCode::InvalidReplicationFactor))) => reason = code.to_string(),
            Some(Err((_, code))) => return Err(failed(code.to_string())),
            None => return Err(failed("it answered nothing".into())),
        }
    }
    Err(failed(reason))
}
