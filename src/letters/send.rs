//! Sending a corrected event: by an idempotent producer, with the acknowledgement of all replicas waited for.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

use crate::config::Kafka;
use crate::event::Headers;
use crate::kafka::settings;

/// Longest wait for an acknowledgement.
const LIMIT: Duration = Duration::from_secs(30);

/// What goes wrong is in the answers of the calls.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "the client that sends letters again");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the client that sends letters again");
    }
}

impl ConsumerContext for Quiet {}

/// A producer for corrected events.
pub(super) struct Sender {
    producer: FutureProducer<Quiet>,
    brokers: String,
}

impl Sender {
    pub fn new(kafka: &Kafka) -> anyhow::Result<Self> {
        let mut config = settings::client(kafka);
        config
            .set("client.id", "boathouse-redrive")
            // Retries inside the client neither repeat nor reorder.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            // The topic's own limit decides.
            .set("message.max.bytes", "100000000")
            .set("message.timeout.ms", LIMIT.as_millis().to_string());
        let producer: FutureProducer<Quiet> =
            config.create_with_context(Quiet).context("the settings in kafka.properties are refused")?;
        Ok(Self { producer, brokers: kafka.brokers.clone() })
    }

    /// The partitions of a topic. Blocks.
    pub fn partitions(&self, topic: &str) -> anyhow::Result<i32> {
        let client = self.producer.client();
        let metadata = client
            .fetch_metadata(Some(topic), LIMIT)
            .with_context(|| format!("Kafka at {} does not answer; is it running?", self.brokers))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic).map_or(0, |t| t.partitions().len());
        match i32::try_from(found) {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(anyhow!("Kafka has no topic `{topic}`; create it again, or correct `topic` in pipeline.toml")),
        }
    }

    /// Sends one record and waits until all replicas that are in sync have it; its offset.
    pub async fn send(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: &[u8],
        headers: &Headers,
    ) -> anyhow::Result<i64> {
        let mut all = OwnedHeaders::new_with_capacity(headers.len());
        for (key, value) in headers {
            all = all.insert(Header { key, value: value.as_deref() });
        }
        let mut record = FutureRecord::to(topic).partition(partition).payload(value).headers(all);
        record.key = key;
        let sent: Result<_, (KafkaError, _)> = self.producer.send(record, Timeout::After(LIMIT)).await;
        let delivery = sent.map_err(|(error, _)| {
            anyhow!(
                "{topic}/{partition} has not acknowledged the event ({error}); it may be there all the same: see whether the \
                 letter becomes resolved before you send it again"
            )
        })?;
        Ok(delivery.offset)
    }
}
