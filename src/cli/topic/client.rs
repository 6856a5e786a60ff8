//! The cluster that a command talks to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::config::{Config, Kafka};
use crate::producer::topic::QuietContext;

/// How long a broker may take to answer.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// Where the brokers are, and which topic is meant when none is named.
pub(super) struct Target {
    kafka: Kafka,
    default_topic: Option<String>,
    consumer: BaseConsumer<QuietContext>,
}

impl Target {
    /// The brokers as named, else those of the configuration.
    pub(super) fn new(brokers: Option<String>, config: Option<&Path>) -> anyhow::Result<Self> {
        let loaded = match (&brokers, config) {
            // Brokers alone are enough; the configuration then only adds the default topic and security settings.
            (Some(_), None) => Config::load(None).ok(),
            _ => Some(Config::load(config)?),
        };
        let default_topic = loaded.as_ref().and_then(|c| c.pipelines.first()).map(|p| p.topic.clone());
        let mut kafka = loaded.map(|c| c.server.kafka).unwrap_or_default();
        if let Some(brokers) = brokers {
            kafka.brokers = brokers;
        }
        let consumer = client_config(&kafka)
            .set("group.id", "boathouse-topic")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .create_with_context(QuietContext)
            .context("the Kafka client refused its configuration")?;
        Ok(Self { kafka, default_topic, consumer })
    }

    /// The topic as named, else that of the first pipeline.
    pub(super) fn topic(&self, named: Option<String>) -> anyhow::Result<String> {
        named.or_else(|| self.default_topic.clone()).ok_or_else(|| anyhow!("no pipeline is configured: name a topic"))
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<QuietContext> {
        &self.consumer
    }

    pub(super) fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        client_config(&self.kafka).create().context("the Kafka client refused its configuration")
    }

    /// All topics: asking for one by name could create it.
    pub(super) fn metadata(&self) -> anyhow::Result<Metadata> {
        self.consumer.fetch_metadata(None, LIMIT).with_context(|| {
            format!(
                "no Kafka broker answers at {}: start one, or name another with --brokers or BOATHOUSE__KAFKA__BROKERS",
                self.kafka.brokers
            )
        })
    }

    /// Per partition the first offset that is there and the one that the next record gets.
    pub(super) fn watermarks(&self, topic: &str) -> anyhow::Result<BTreeMap<i32, (i64, i64)>> {
        let metadata = self.metadata()?;
        let mut watermarks = BTreeMap::new();
        for partition in find(&metadata, topic)?.partitions() {
            let offsets = self
                .consumer
                .fetch_watermarks(topic, partition.id(), LIMIT)
                .with_context(|| format!("the broker did not tell the offsets of {topic}/{}", partition.id()))?;
            watermarks.insert(partition.id(), offsets);
        }
        Ok(watermarks)
    }
}

fn client_config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in &kafka.properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &kafka.brokers).set("client.id", "boathouse-topic");
    // What goes wrong is in the errors of the calls.
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// The topic among all of them, or an error that names those that are there.
pub(super) fn find<'a>(metadata: &'a Metadata, topic: &str) -> anyhow::Result<&'a MetadataTopic> {
    metadata.topics().iter().find(|t| t.name() == topic).ok_or_else(|| {
        let mut names: Vec<&str> =
            metadata.topics().iter().map(|t| t.name()).filter(|n| !n.starts_with("__")).collect();
        names.sort_unstable();
        let there = if names.is_empty() { "no topics".to_owned() } else { names.join(", ") };
        anyhow!("there is no topic {topic}; the cluster has {there}")
    })
}
