//! Kafka: whether it answers, and whether the topic's settings go with the pipeline's.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Finding, days};
use crate::config::{Config, Kafka, Pipeline};
use crate::kafka::cause;
use crate::producer::topic::QuietContext;

/// Longest wait for an answer of the brokers.
const LIMIT: Duration = Duration::from_secs(5);
/// The least time for which a topic should keep its records: an outage of a night's length is not noticed sooner.
const RETENTION_LEAST: Duration = Duration::from_secs(12 * 3600);
/// As many flush intervals must fit into the retention.
const FLUSHES_LEAST: u32 = 20;

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let kafka = &config.server.kafka;
    let consumer: Result<BaseConsumer<QuietContext>, _> =
        client(kafka).set("group.id", "boathouse-doctor").create_with_context(QuietContext);
    let consumer = match consumer {
        Ok(consumer) => consumer,
        Err(error) => {
            return vec![Finding::fail("kafka", format!("kafka.properties are refused: {error}"), "correct them")];
        }
    };
    let metadata = match consumer.fetch_metadata(None, LIMIT) {
        Ok(metadata) => metadata,
        Err(error) => {
            let found = format!("{} does not answer: {}", kafka.brokers, cause::told(&consumer, &error));
            return vec![Finding::fail("kafka", found, "start it, or correct kafka.brokers and kafka.properties")];
        }
    };
    let brokers = metadata.brokers().len();
    let mut findings = vec![Finding::ok("kafka", format!("{} answers, {brokers} brokers", kafka.brokers))];
    for pipeline in &config.pipelines {
        let topic = &pipeline.topic;
        let check = format!("topic {topic}");
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic && !t.partitions().is_empty()) else {
            let advice = "start the producer, or correct `topic`; the daemon waits for it";
            findings.push(Finding::warn(check, "is not there", advice));
            continue;
        };
        let partitions = found.partitions();
        let leaderless = partitions.iter().filter(|p| p.leader() < 0).count();
        if leaderless > 0 {
            let found = format!("{leaderless} of {} partitions have no leader", partitions.len());
            findings.push(Finding::fail(check.clone(), found, "bring the brokers that hold them back"));
        }
        let copies = partitions.first().map_or(0, |p| p.replicas().len());
        if copies < 2 && brokers > 1 {
            let found = format!("one copy of each record, on {brokers} brokers");
            findings.push(Finding::warn(check.clone(), found, "raise the topic's replication factor to 3"));
        }
        match settings(kafka, topic) {
            Ok(settings) => findings.extend(judge(pipeline, partitions.len(), &settings)),
            Err(error) => findings.push(Finding::warn(
                check,
                format!("its settings cannot be read: {error}"),
                "allow DescribeConfigs on the topic, or compare its retention.ms with bronze.flush_interval yourself",
            )),
        }
    }
    findings
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in &kafka.properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &kafka.brokers).set("client.id", "boathouse-doctor");
    // What goes wrong is in the errors of the calls.
    config.set_log_level(RDKafkaLogLevel::Emerg);
    config
}

/// All settings of a topic that are in force.
fn settings(kafka: &Kafka, topic: &str) -> Result<BTreeMap<String, String>, String> {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().map_err(|e| e.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    let asked = [&ResourceSpecifier::Topic(topic)];
    let answer = futures::executor::block_on(admin.describe_configs(asked, &options)).map_err(|e| e.to_string())?;
    let resource = answer.into_iter().next().ok_or("no answer")?.map_err(|e| e.to_string())?;
    Ok(resource.entries.into_iter().filter_map(|e| Some((e.name, e.value?))).collect())
}

/// The topic's settings against the pipeline's.
fn judge(pipeline: &Pipeline, partitions: usize, settings: &BTreeMap<String, String>) -> Vec<Finding> {
    let check = format!("topic {}", pipeline.topic);
    let mut findings = Vec::new();
    if settings.get("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
        let advice = "set cleanup.policy=delete: a log that changes cannot be compared with Bronze or read again";
        findings.push(Finding::fail(check.clone(), "is compacted", advice));
    }
    let flush = pipeline.bronze.flush_interval;
    let retention = settings.get("retention.ms").and_then(|ms| ms.parse::<i64>().ok());
    let bronze = pipeline.retention.bronze;
    if let (Some(bronze), Some(ms)) = (bronze, retention)
        && (ms < 0 || Duration::from_millis(ms.unsigned_abs()) > bronze)
    {
        findings.push(Finding::warn(
            check.clone(),
            format!("keeps records for longer than retention.bronze, {}", days(bronze)),
            "reconcile will miss what has left Bronze for its age: raise retention.bronze, or lower retention.ms",
        ));
    }
    let kept = match retention {
        None => "for a time it does not tell".to_owned(),
        Some(ms) if ms < 0 => "for ever".to_owned(),
        Some(ms) => {
            let kept = Duration::from_millis(ms.unsigned_abs());
            let text = humantime::format_duration(Duration::from_secs(kept.as_secs())).to_string();
            if kept < flush * FLUSHES_LEAST {
                findings.push(Finding::fail(
                    check.clone(),
                    format!("keeps records for {text}; bronze.flush_interval is {}", humantime::format_duration(flush)),
                    "records may be gone before they are in Bronze: raise retention.ms, or lower bronze.flush_interval",
                ));
            } else if kept < RETENTION_LEAST {
                findings.push(Finding::warn(
                    check.clone(),
                    format!("keeps records for {text}"),
                    "a daemon that is down for longer loses what came meanwhile: raise retention.ms to a day or more",
                ));
            }
            text
        }
    };
    if settings.get("retention.bytes").and_then(|b| b.parse::<i64>().ok()).is_some_and(|bytes| bytes >= 0) {
        let found = format!("also deletes by size, retention.bytes={}", settings["retention.bytes"]);
        findings.push(Finding::warn(check.clone(), found, "a peak shortens the time that a daemon may be down"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, format!("{partitions} partitions, keeps records for {kept}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn found(bronze: Option<Duration>, settings: &[(&str, &str)]) -> Vec<State> {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/boathouse.toml");
        let mut pipeline = Pipeline::clone(&Config::load(Some(&file)).unwrap().pipelines[0]);
        pipeline.retention.bronze = bronze;
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        judge(&pipeline, 3, &settings).iter().map(|f| f.state).collect()
    }

    fn states(settings: &[(&str, &str)]) -> Vec<State> {
        found(None, settings)
    }

    #[test]
    fn bronze_keeps_what_kafka_keeps() {
        let month = Some(Duration::from_secs(32 * 24 * 3600));
        assert_eq!(found(month, &[("retention.ms", "604800000")]), [State::Ok]);
        assert_eq!(found(month, &[("retention.ms", "5184000000")]), [State::Warn], "60 days");
        assert_eq!(found(month, &[("retention.ms", "-1")]), [State::Warn], "for ever");
    }

    #[test]
    fn retention_is_held_against_the_flush_interval() {
        assert_eq!(states(&[("retention.ms", "86400000"), ("cleanup.policy", "delete")]), [State::Ok]);
        assert_eq!(states(&[("retention.ms", "-1")]), [State::Ok]);
        assert_eq!(states(&[("retention.ms", "3600000")]), [State::Warn], "an hour");
        assert_eq!(states(&[("retention.ms", "60000")]), [State::Fail], "two flushes");
    }

    #[test]
    fn what_changes_the_log_is_found() {
        assert_eq!(states(&[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]), [State::Fail]);
        assert_eq!(states(&[("retention.bytes", "1000000"), ("retention.ms", "-1")]), [State::Warn]);
        assert_eq!(states(&[("retention.bytes", "-1"), ("retention.ms", "-1")]), [State::Ok]);
    }
}
