//! A topic from which Kafka itself takes records, those whose key came again: what Boathouse has read stays, and no gap is
//! taken for a loss.

use std::time::{Duration, Instant};

use boathouse::servers::BrokerKind;
use serde_json::Value;

use super::support::broker::{Kafka, Record, broker};
use super::support::daemon::{PATIENCE, Site};
use super::support::engine::Engine;
use super::support::not_checked;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn event(id: &str) -> String {
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S");
    format!(r#"{{"event_id":"{id}","user_id":1,"event_type":"login","page":"/","timestamp":"{now}","source":"web"}}"#)
}

/// Three records for each key; the offset of the first of the last five, before which all will go.
async fn write_thrice(kafka: &Kafka, topic: &str, name: &str) -> i64 {
    let mut first = 0;
    for round in 0..3 {
        let events = KEYS.map(|key| event(&format!("{name}-{round}-{key}")));
        let records: Vec<_> = KEYS
            .iter()
            .zip(&events)
            .map(|(key, event)| Record { key: Some(key.as_bytes()), ..Record::of(event.as_bytes()) })
            .collect();
        first = kafka.produce_all(topic, 0, &records).await[0];
    }
    first
}

/// Waits until the cleaner has taken all records below an offset. It never touches the newest segment, so further records,
/// each of which begins one, go on coming meanwhile.
async fn until_taken(kafka: &Kafka, topic: &str, below: i64) {
    let begin = Instant::now();
    while kafka.offsets_there(topic, 0).iter().any(|offset| *offset < below) {
        assert!(begin.elapsed() < PATIENCE, "the cleaner has not come: {:?}", kafka.offsets_there(topic, 0));
        let event = event("further");
        kafka.produce(topic, 0, Record { key: Some(b"further"), ..Record::of(event.as_bytes()) }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn checked(report: &Value) -> &Value {
    let check = &report["bronze"][0];
    assert!(check["notes"].to_string().contains("the topic is compacted"), "{report:#}");
    check
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compaction_takes_is_no_loss() {
    let kafka = broker().await;
    if kafka.kind() != BrokerKind::Kafka {
        return not_checked(&format!("a compacted topic; {:?} takes nothing away within a test", kafka.kind()));
    }
    kafka.clean_logs_often().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("compacted");
    let settings = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0"),
        ("segment.ms", "100"),
    ];
    kafka.create_topic(&topic, 1, &settings).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);

    // Gaps before anybody reads.
    let kept = write_thrice(kafka, &topic, "before").await;
    until_taken(kafka, &topic, kept).await;
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let report = site.assert_reconciled();
    let first = checked(&report)["checked_records"].as_u64().unwrap();
    assert!((KEYS.len() as u64..kept as u64).contains(&first), "{report:#}");

    // Records that are taken after they were read, while the daemon runs, and what it began with: its last row, too.
    let kept = write_thrice(kafka, &topic, "after").await;
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    until_taken(kafka, &topic, kept).await;
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.stop().await;
    let kept = write_thrice(kafka, &topic, "again").await;
    until_taken(kafka, &topic, kept).await;
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    checked(&site.assert_reconciled());
    let counted: usize = engine.sql("SELECT sum(login_count) FROM realtime.logins_per_source").trim().parse().unwrap();
    assert!(
        counted >= kafka.offsets_there(&topic, 0).len() + KEYS.len(),
        "what was read before it was taken: {counted}"
    );
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}
