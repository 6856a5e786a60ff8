//! A consumer that is alive and does not consume.

use super::support::broker::broker;
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;

/// One reader's thread hangs before its first record; the other partitions go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_hangs_is_made_anew_and_nothing_is_lost() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("stuck");
    produce(kafka.address(), &topic, &["--count", "3000", "--max-rate", "--seed", "1"]);
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__KAFKA__STUCK_AFTER".into(), "2s".into()));
    site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "hang!reader.take".into()));
    let mut daemon = site.start();
    let restarts = |status: &serde_json::Value| {
        let actors = status["actors"].as_array()?;
        actors.iter().find(|a| a["kind"] == "pipeline")?["restarts"].as_u64()
    };
    daemon.wait("the client to be made anew", |status| restarts(status) == Some(1)).await;
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let status = daemon.status().await.expect("a status");
    assert_eq!(restarts(&status), Some(1), "made anew once: {status:#}");
    site.assert_reconciled();
    daemon.stop().await;
    const STUCK: &str = "has records to read and has not moved for 2s";
    assert_eq!(site.log().matches(STUCK).count(), 1, "{}", site.log());
    site.assert_log_is_clean_but_for(&[STUCK]);
}
