//! A log that is not the one that was read: the partition stops and says so, instead of reading on as if nothing had
//! happened.

use serde_json::Value;

use super::support::broker::broker;
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;

fn stopped_with<'a>(text: &'a str, command: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |status| {
        let shown = status.to_string();
        shown.contains("stopped") && shown.contains(text) && shown.contains(command)
    }
}

/// Deleted, made anew, and grown past the position: only the records tell.
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
    let mut daemon = site.start();
    daemon
        .wait("the partition to stop", stopped_with("is not the one that Bronze has", "boathouse bronze adopt-topic"))
        .await;
    daemon.kill();
    site.assert_log_is_clean_but_for(&["partition stopped until somebody decides"]);
}

/// Records that ClickHouse has counted and Bronze has not are gone from the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_was_counted_and_is_lost_is_noticed() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("tail", 1).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    // Bronze commits at the start, and then not again while the test runs: ClickHouse is ahead of it.
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
    daemon.kill();

    // As it was: it goes on.
    let mut daemon = site.start();
    daemon.wait("the partition to run", |status| status["partitions"][0]["records"].as_i64() >= Some(end)).await;
    daemon.kill();

    // Another record where the last one was counted.
    kafka.recreate_topic(&topic, 1, &[]).await;
    produce(kafka.address(), &topic, &["--count", "900", "--max-rate", "--seed", "2"]);
    let mut daemon = site.start();
    daemon
        .wait("the partition to stop", stopped_with("the broker lost its tail", "boathouse bronze accept-settings"))
        .await;
    daemon.kill();

    // A log that ends before.
    kafka.recreate_topic(&topic, 1, &[]).await;
    produce(kafka.address(), &topic, &["--count", "100", "--max-rate", "--seed", "3"]);
    let mut daemon = site.start();
    daemon.wait("the partition to stop", stopped_with("the log ends at 1", "boathouse bronze accept-settings")).await;
    daemon.kill();
    site.assert_log_is_clean_but_for(&["partition stopped until somebody decides"]);
}
