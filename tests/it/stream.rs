//! Kafka to Bronze and ClickHouse, end to end, on the real broker and the real engine.

use boathouse::servers::BrokerKind;

use super::support::broker::{Record, broker};
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;
use super::support::not_checked;

#[tokio::test(flavor = "multi_thread")]
async fn every_event_lands_once_and_is_counted_once() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("stream");
    produce(kafka.address(), &topic, &["--count", "20000", "--max-rate", "--seed", "1"]);
    let site = Site::new(kafka.address(), &engine.url, &topic);

    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let counted: u64 = engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute").trim().parse().unwrap();
    assert_eq!(counted, 20_000);
    site.assert_reconciled();

    // A second start goes on where the first stopped.
    daemon.stop().await;
    produce(kafka.address(), &topic, &["--count", "5000", "--max-rate", "--seed", "2"]);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let counted: u64 = engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute").trim().parse().unwrap();
    assert_eq!(counted, 25_000);
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_duplicate_malformed_and_future_records_are_accounted_for() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("mixed");
    let shares = ["--late", "0.05", "--duplicate", "0.05", "--malformed", "0.05", "--future", "0.05"];
    let mut arguments = vec!["--count", "20000", "--max-rate", "--seed", "3"];
    arguments.extend(shares);
    produce(kafka.address(), &topic, &arguments);
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_in_transactions_count_when_committed() {
    let kafka = broker().await;
    if kafka.kind() == BrokerKind::Tansu {
        return not_checked("records in transactions; tansu does not take them");
    }
    let engine = Engine::start();
    let topic = kafka.new_topic("transactions", 1).await;
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S").to_string();
    let event = |id: u32| {
        format!(
            r#"{{"event_id":"e{id}","user_id":1,"event_type":"login","page":"/","timestamp":"{now}","source":"web"}}"#
        )
    };
    kafka.produce(&topic, 0, Record::of(event(1).as_bytes())).await;
    kafka.produce_in_transaction(&topic, 0, &[event(2).as_bytes(), event(3).as_bytes()], true).await;
    kafka.produce_in_transaction(&topic, 0, &[event(4).as_bytes()], false).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let mut daemon = site.start();
    // The end lies behind the last transaction marker, where no record is.
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    assert_eq!(engine.sql("SELECT sum(login_count) FROM realtime.logins_per_source").trim(), "3");
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}
