//! Kafka as the commands read it: offsets, and a plain consumer of one partition, in batches.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::config::Kafka;
use crate::event::{Headers, RawBatch};
use crate::kafka::cause;

/// Longest wait for an answer about a topic.
const LIMIT: Duration = Duration::from_secs(15);
/// Longest wait for the next record of a partition that is not at its end.
const RECORD_LIMIT: Duration = Duration::from_secs(60);
/// A batch is full at either.
const BATCH_RECORDS: usize = 8192;
const BATCH_BYTES: usize = 8 << 20;

/// The end of a partition is an event for the reader, and nothing for the log.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        match error {
            KafkaError::Global(RDKafkaErrorCode::PartitionEOF) => {}
            error => tracing::warn!("Kafka: {error}: {reason}"),
        }
    }
}

impl ConsumerContext for Quiet {}

pub(crate) type PlainConsumer = BaseConsumer<Quiet>;

/// A consumer that joins no group, commits nothing and sees what a committed reader sees.
pub(crate) fn consumer(kafka: &Kafka) -> anyhow::Result<PlainConsumer> {
    let mut config = ClientConfig::new();
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", "boathouse-reconcile")
        // Needed for assigning by hand; nobody joins it.
        .set("group.id", format!("{}-reconcile", kafka.group))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "16384");
    config.create_with_context(Quiet).context("the settings in kafka.properties are refused")
}

/// The partitions of a topic; none where there is no such topic.
pub(crate) fn partitions(kafka: &Kafka, topic: &str) -> anyhow::Result<Option<Vec<i32>>> {
    let consumer = consumer(kafka)?;
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).map_err(|error| {
        anyhow!(cause::told(&consumer, &error))
            .context(format!("Kafka at {} does not answer; is it running, and is kafka.brokers right?", kafka.brokers))
    })?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    Ok(found.filter(|t| !t.partitions().is_empty()).map(|t| {
        let mut ids: Vec<i32> = t.partitions().iter().map(|p| p.id()).collect();
        ids.sort_unstable();
        ids
    }))
}

/// First offset, and the offset behind the last record.
pub(crate) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> anyhow::Result<(i64, i64)> {
    consumer
        .fetch_watermarks(topic, partition, LIMIT)
        .with_context(|| format!("the offsets of {topic}/{partition} cannot be asked for"))
}

/// Reads one partition from an offset on.
pub(crate) struct Reader {
    consumer: PlainConsumer,
    topic: String,
    partition: i32,
    /// Every record below it has been given.
    pub position: i64,
    at_end: bool,
}

/// What a read brought.
#[expect(clippy::large_enum_variant, reason = "one at a time, and a batch moves once for thousands of records")]
pub(crate) enum Read {
    Records(RawBatch),
    /// Nothing is left that a committed reader sees.
    End,
    /// The log now begins behind the position: retention has taken what was to be read.
    Gone,
}

impl Reader {
    pub fn new(consumer: PlainConsumer, topic: &str, partition: i32, from: i64) -> anyhow::Result<Self> {
        let mut reader = Self { consumer, topic: topic.to_string(), partition, position: from, at_end: false };
        reader.seek(from)?;
        Ok(reader)
    }

    /// Goes on from another offset.
    pub fn seek(&mut self, from: i64) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition, Offset::Offset(from))?;
        self.consumer.assign(&list)?;
        self.position = from;
        self.at_end = false;
        Ok(())
    }

    pub fn consumer(&self) -> &PlainConsumer {
        &self.consumer
    }

    /// The next records, in a batch that is not sealed; `buffer` is an empty batch to fill.
    pub fn read(&mut self, mut buffer: RawBatch) -> anyhow::Result<Read> {
        let started = Instant::now();
        // The end is told once, and may have come behind the last batch's records.
        while !self.at_end && buffer.len() < BATCH_RECORDS && buffer.filled() < BATCH_BYTES {
            match self.consumer.poll(Duration::from_millis(if buffer.is_empty() { 500 } else { 0 })) {
                Some(Ok(message)) => {
                    let timestamp = message.timestamp().to_millis().unwrap_or(-1);
                    buffer.push(message.offset(), timestamp, message.key(), message.payload());
                    if let Some(headers) = message.headers() {
                        let headers: Headers =
                            headers.iter().map(|h| (h.key.to_string(), h.value.map(<[u8]>::to_vec))).collect();
                        buffer.push_headers(headers);
                    }
                    self.position = message.offset() + 1;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    break;
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
                ))) => return Ok(Read::Gone),
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                )))
                | None
                    if started.elapsed() < RECORD_LIMIT =>
                {
                    if !buffer.is_empty() {
                        break;
                    }
                }
                Some(Err(e)) => {
                    return Err(e).with_context(|| format!("{}/{} cannot be read", self.topic, self.partition));
                }
                None => bail!(
                    "Kafka has sent nothing of {}/{} from offset {} on for {} s",
                    self.topic,
                    self.partition,
                    self.position,
                    RECORD_LIMIT.as_secs()
                ),
            }
        }
        if buffer.is_empty() && self.at_end {
            return Ok(Read::End);
        }
        Ok(Read::Records(buffer))
    }
}
