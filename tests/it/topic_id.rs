//! A topic that was deleted and made anew under the same name, noticed by its id: with more records than before, so that
//! positions alone say nothing.

use boathouse::servers::BrokerKind;
use serde_json::Value;

use super::support::broker::broker;
use super::support::daemon::{Daemon, Site, produce};
use super::support::engine::Engine;
use super::support::not_checked;

const STOPPED: &str = "pipeline stays down until somebody acts";

fn refused(status: &Value) -> bool {
    let reasons = status["readiness"]["reasons"].to_string();
    reasons.contains("deleted and made anew") && reasons.contains("boathouse bronze adopt-topic user_events")
}

async fn wait_until_refused(daemon: &mut Daemon) {
    daemon.wait("the new topic to be refused", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_noticed_by_its_id_at_the_start_and_while_it_runs() {
    let kafka = broker().await;
    if kafka.kind() != BrokerKind::Kafka {
        // Without ids the records tell: `lost_log.rs`.
        return not_checked(&format!("topic ids; {:?} has none", kafka.kind()));
    }
    let engine = Engine::start();
    let topic = kafka.new_topic("anew-id", 2).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let fill = |count: &str, seed: &str| {
        produce(kafka.address(), &topic, &["--count", count, "--max-rate", "--seed", seed]);
    };
    let rows = || engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute").trim().to_owned();
    fill("300", "1");
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.stop().await;

    // Made anew while nobody looks: the start refuses it, and nothing of it is read.
    kafka.recreate_topic(&topic, 2, &[]).await;
    fill("700", "2");
    let mut daemon = site.start();
    wait_until_refused(&mut daemon).await;
    let status = String::from_utf8_lossy(&site.run(&["status"]).stdout).into_owned();
    assert!(status.contains("adopt-topic"), "{status}");
    daemon.stop().await;
    assert_eq!(rows(), "300");
    let adopt = || {
        let adopted = site.run(&["bronze", "adopt-topic", "user_events"]);
        assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    };
    adopt();
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.wait("both generations to be counted", |_| rows() == "1000").await;

    // Made anew under the running daemon's eyes, with fewer partitions: the totals of all that there were stay.
    kafka.recreate_topic(&topic, 1, &[]).await;
    fill("900", "3");
    wait_until_refused(&mut daemon).await;
    daemon.stop().await;
    adopt();
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.wait("all generations to be counted", |_| rows() == "1900" && site.reconcile().0).await;
    daemon.stop().await;
    // The running readers found their positions gone before the id was asked for again.
    let readers = ["partition stopped until somebody decides", "ended by itself"];
    // What librdkafka says where the group still shares out a partition that the topic has not any more.
    let gone = "desired partition is no longer available";
    site.assert_log_is_clean_but_for(&[STOPPED, readers[0], readers[1], gone]);
}
