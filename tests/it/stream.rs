//! Kafka to Bronze and ClickHouse, end to end, on the real broker and the real engine.

use serde_json::Value;

use super::crash::Load;
use super::support::broker::{Record, broker};
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;

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
async fn a_file_that_is_full_is_committed_long_before_the_interval() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("full", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let bronze =
        |key: &str, value: &str| (format!("BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__{key}"), value.to_owned());
    site.environment.extend([bronze("FLUSH_INTERVAL", "1h"), bronze("FLUSH_BYTES", "64KiB")]);
    let mut daemon = site.start();
    let partition = |status: &Value, key: &str| status["partitions"][0][key].as_i64();
    daemon.wait("the partition to be read", |s| s["partitions"][0]["phase"] == "running").await;
    kafka.produce(&topic, 0, Record::of(crate::odd_state::event("alone").as_bytes())).await;
    daemon.wait("one record to be read", |s| partition(s, "position") == Some(1)).await;
    assert_eq!(
        daemon.status().await.map(|s| partition(&s, "bronze_position")),
        Some(Some(0)),
        "it waits for the interval"
    );
    produce(kafka.address(), &topic, &["--count", "50000", "--max-rate", "--seed", "8"]);
    daemon.wait("a commit of a full file", |s| partition(s, "bronze_position") > Some(10_000)).await;
    daemon.stop().await;
    site.assert_reconciled();
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
    if kafka.lacks("records in transactions") {
        return;
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

/// Three instances by turns, under load: each comes, takes its share, and leaves drained.
#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_group_share_the_partitions_and_hand_them_over() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("shared", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    // A member with a lasting name does not leave its group: it may come back. The group gives it up after this time.
    site.environment.push(("BOATHOUSE__KAFKA__PROPERTIES__SESSION.TIMEOUT.MS".into(), "10000".into()));
    let load = Load::start(kafka.address(), &topic, &["--seed", "21"]);
    let holds = |n: usize| {
        move |status: &Value| status["partitions"].as_array().is_some_and(|all| all.len() == n && all.iter().all(moves))
    };
    let mut first = site.start();
    first.wait("all partitions", holds(3)).await;
    let (second_site, third_site) = (site.sibling(), site.sibling());
    let mut second = second_site.start();
    second.wait("its share", |status| holds(1)(status) || holds(2)(status)).await;
    let mut third = third_site.start();
    for daemon in [&mut first, &mut second, &mut third] {
        daemon.wait("one partition each", holds(1)).await;
    }
    // Those that leave hand over what they hold; the last one has it all.
    first.stop().await;
    second.stop().await;
    third.wait("all partitions", holds(3)).await;
    load.finish();
    third.wait_until_served(&kafka.end_offsets(&topic)).await;
    third_site.assert_reconciled();
    third.stop().await;
    for site in [&site, &second_site] {
        assert!(site.log().contains("stopped: both sinks hold everything that was read"), "{}", site.log());
    }
    for site in [&site, &second_site, &third_site] {
        site.assert_log_is_clean_but_for(&[]);
    }
}

/// Whether a partition's records reach both sinks.
fn moves(partition: &Value) -> bool {
    let at = |what: &str| partition[what].as_i64().unwrap_or(0);
    partition["phase"] == "running" && at("bronze_position") > 0 && at("realtime_position") > 0
}
