//! Single records by offset: whether the log still holds what was once read from it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

/// Of a client that is closed with the end of a partition still to be told, rdkafka makes an error in the log.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "looking up a record");
    }
}

impl ConsumerContext for Quiet {}

/// Reads the records at these offsets of a partition; none where the log has no record at that offset (any more).
/// Blocks for as long as `limit`; an answer that does not come in time is an error. `config` names the brokers; the
/// group in it is not joined.
pub fn records_at(
    config: &ClientConfig,
    topic: &str,
    partition: i32,
    offsets: &[i64],
    limit: Duration,
) -> Result<Vec<Option<OwnedMessage>>, KafkaError> {
    let mut config = config.clone();
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "10")
        .set("queued.max.messages.kbytes", "1024")
        .set("fetch.message.max.bytes", "65536");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
    let end = Instant::now() + limit;
    offsets.iter().map(|offset| record_at(&consumer, topic, partition, *offset, end)).collect()
}

fn record_at(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    offset: i64,
    end: Instant,
) -> Result<Option<OwnedMessage>, KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    consumer.assign(&list)?;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        match consumer.poll(left.min(Duration::from_millis(100))) {
            None => {}
            Some(Ok(record)) => return Ok((record.offset() == offset).then(|| record.detach())),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset,
            ))) => return Ok(None),
            // A broker that goes away and comes back heals inside the client.
            Some(Err(error)) => tracing::debug!(%error, topic, partition, offset, "looking up a record"),
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}
