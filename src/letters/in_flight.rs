//! Corrected events that are in the topic and not in Bronze yet: without them a letter could be sent again twice within
//! a flush interval.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers as _, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::ORIGIN;
use super::send::Quiet;
use crate::config::Kafka;
use crate::kafka::settings;

/// Longest wait for the offsets of a partition.
const ASK: Duration = Duration::from_secs(15);

/// The origins that records of a partition bear from an offset on, with the record's own offset. Blocks; gives up after
/// `limit`, which means that Bronze is far behind.
pub(super) fn in_flight(
    kafka: &Kafka,
    topic: &str,
    partition: i32,
    from: i64,
    limit: Duration,
) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut config = settings::client(kafka);
    config
        .set("client.id", "boathouse-redrive")
        // Needed for assigning by hand; nobody joins it.
        .set("group.id", format!("{}-redrive", kafka.group))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Quiet> =
        config.create_with_context(Quiet).context("the settings in kafka.properties are refused")?;
    let (_, end) = consumer
        .fetch_watermarks(topic, partition, ASK)
        .with_context(|| format!("Kafka at {} does not tell where {topic}/{partition} ends", kafka.brokers))?;
    let mut found = BTreeMap::new();
    if from >= end {
        return Ok(found);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(from))?;
    consumer.assign(&list)?;
    let begun = Instant::now();
    loop {
        if begun.elapsed() > limit {
            bail!(
                "Bronze has {topic}/{partition} up to offset {from} and the topic ends at {end}: whether the event was sent \
                 again already cannot be told before Bronze has caught up (`boathouse status`)"
            );
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(record)) => {
                let origins = record.headers().into_iter().flat_map(|headers| headers.iter());
                for header in origins.filter(|header| header.key == ORIGIN) {
                    if let Some(origin) = header.value.and_then(|value| std::str::from_utf8(value).ok()) {
                        found.insert(origin.to_owned(), record.offset());
                    }
                }
                if record.offset() + 1 >= end {
                    return Ok(found);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            // A broker that goes away and comes back heals inside the client.
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
            ))) => {}
            Some(Err(error)) => return Err(error).with_context(|| format!("{topic}/{partition} cannot be read")),
        }
    }
}
