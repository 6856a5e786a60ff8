//! librdkafka's settings: what a user may choose and what exactly-once delivery fixes.

use rdkafka::ClientConfig;

use crate::config::Kafka;

/// Settings that this product decides. `kafka.properties` must not name them.
pub const PROTECTED: [&str; 12] = [
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.queue.backoff.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
];

/// The settings of any client: where the brokers are, and the user's own properties.
pub fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    // A laptop's broker that restarts should be found again within a second, not within ten.
    config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "1000");
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    config
}

/// The settings of the consumer of one pipeline.
///
/// - `group`: the group's name; `instance`: the member's lasting name.
/// - `queue_bytes`: bytes that librdkafka may hold per partition.
pub fn consumer(kafka: &Kafka, group: &str, instance: &str, queue_bytes: usize) -> ClientConfig {
    let mut config = client(kafka);
    config
        .set("client.id", "boathouse")
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A position that is not in the log is a fault to be told, never to be skipped.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        // With it the batch call can skip a record: see `PartitionQueue::position`.
        .set("enable.partition.eof", "false")
        // Otherwise a consumer that is slower than the fetcher sleeps a second whenever its queue is full.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.max.messages.kbytes", (queue_bytes / 1024).max(1024).to_string());
    if kafka.static_membership {
        // A killed instance that comes back within the session timeout finds its partitions as they were.
        config.set("group.instance.id", instance);
    }
    if !kafka.properties.contains_key("fetch.wait.max.ms") {
        config.set("fetch.wait.max.ms", "100");
    }
    config
}
