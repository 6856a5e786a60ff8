//! A log that is not the one that was read: the partition stops and says so, instead of reading on as if nothing had
//! happened.

use serde_json::Value;

use super::support::broker::{Kafka, broker};
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;

fn stopped_with<'a>(text: &'a str, command: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |status| {
        let shown = status.to_string();
        shown.contains("stopped") && shown.contains(text) && shown.contains(command)
    }
}

/// Takes the topic's id out of the table's metadata, by a commit of its own: what follows is a table from a broker
/// without ids, and the records alone can tell.
fn forget_topic_id(site: &Site) {
    let log = site.lakehouse().join("bronze/user_events/_delta_log");
    let mut metadata = None;
    let mut version = 0;
    while let Ok(entry) = std::fs::read_to_string(log.join(format!("{version:020}.json"))) {
        let mut actions = entry.lines().map(|line| serde_json::from_str::<Value>(line).expect("an action"));
        metadata = actions.rfind(|action| action["metaData"].is_object()).or(metadata);
        version += 1;
    }
    let mut metadata = metadata.expect("the table's metadata");
    metadata["metaData"]["configuration"].as_object_mut().expect("a configuration").remove("boathouse.topic_id");
    std::fs::write(log.join(format!("{version:020}.json")), format!("{metadata}\n")).expect("an entry");
}

/// Deleted, made anew, and grown past the position: where the topic has no id, only the records tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_noticed_by_its_records() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("anew", 1).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    produce(kafka.address(), &topic, &["--count", "500", "--max-rate", "--seed", "1"]);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.stop().await;
    kafka.recreate_topic(&topic, 1, &[]).await;
    produce(kafka.address(), &topic, &["--count", "900", "--max-rate", "--seed", "2"]);
    forget_topic_id(&site);
    let mut daemon = site.start();
    daemon
        .wait("the partition to stop", stopped_with("is not the one that Bronze has", "boathouse bronze adopt-topic"))
        .await;
    daemon.kill();
    site.assert_log_is_clean_but_for(&["partition stopped until somebody decides"]);
}

/// A site where ClickHouse has counted 500 records and Bronze has none, with its topic and the log's end. None where
/// ClickHouse was slow at the start: its windows then join at a Bronze commit.
async fn ahead_of_bronze(kafka: &Kafka, engine: &Engine) -> Option<(Site, String, i64)> {
    let topic = kafka.new_topic("tail", 1).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    // Bronze commits at the start, and then not again while the test runs.
    let pipeline = std::fs::read_to_string(site.pipeline_file()).expect("the pipeline");
    let slow = pipeline.replace("flush_interval = \"1s\"", "flush_interval = \"1h\"");
    assert_ne!(slow, pipeline);
    std::fs::write(site.pipeline_file(), slow).expect("the pipeline");
    produce(kafka.address(), &topic, &["--count", "500", "--max-rate", "--seed", "1"]);
    let mut daemon = site.start();
    let end = kafka.end_offsets(&topic)[&0];
    daemon
        .wait("ClickHouse to have everything", |status| {
            status["partitions"][0]["realtime_position"].as_i64() >= Some(end)
        })
        .await;
    let status = daemon.status().await.expect("a status");
    daemon.kill();
    (status["partitions"][0]["bronze_position"] == 0).then_some((site, topic, end))
}

/// Records that ClickHouse has counted and Bronze has not are gone from the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_was_counted_and_is_lost_is_noticed() {
    let kafka = broker().await;
    let engine = Engine::start();
    let (site, topic, end) = loop {
        if let Some(ahead) = ahead_of_bronze(kafka, &engine).await {
            break ahead;
        }
    };

    // As it was: it goes on.
    let mut daemon = site.start();
    daemon.wait("the partition to run", |status| status["partitions"][0]["records"].as_i64() >= Some(end)).await;
    daemon.kill();

    // Another record where the last one was counted.
    kafka.recreate_topic(&topic, 1, &[]).await;
    produce(kafka.address(), &topic, &["--count", "900", "--max-rate", "--seed", "2"]);
    forget_topic_id(&site);
    let mut daemon = site.start();
    daemon
        .wait("the partition to stop", stopped_with("the broker lost its tail", "boathouse bronze accept-settings"))
        .await;
    daemon.kill();

    // A log that ends before.
    kafka.recreate_topic(&topic, 1, &[]).await;
    produce(kafka.address(), &topic, &["--count", "100", "--max-rate", "--seed", "3"]);
    forget_topic_id(&site);
    let mut daemon = site.start();
    daemon.wait("the partition to stop", stopped_with("the log ends at 1", "boathouse bronze accept-settings")).await;
    daemon.kill();
    site.assert_log_is_clean_but_for(&["partition stopped until somebody decides"]);
}
