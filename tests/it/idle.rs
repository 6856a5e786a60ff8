//! A quiet partition holds back `complete` for `time.idle_after` and no longer, whatever happens to its windows meanwhile;
//! one that is paused holds it back for as long, since nobody knows what it still adds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::broker::{Kafka, Record, broker};
use super::support::daemon::{Daemon, PATIENCE, Site};
use super::support::engine::Engine;

/// The partition that has records all the time, and the one that has some now and then.
const BUSY: i32 = 0;
const QUIET: i32 = 1;

/// Events by the minute after a full one, three hours ago: within the retention of the windows, none of the future.
struct Clock(i64);

impl Clock {
    fn new() -> Self {
        Self((chrono::Utc::now().timestamp() / 60 - 180) * 60)
    }

    fn event(&self, minute: i64) -> String {
        let at =
            chrono::DateTime::from_timestamp(self.0 + minute * 60, 0).expect("a time").format("%Y-%m-%dT%H:%M:%SZ");
        format!(
            r#"{{"event_id":"e{minute}","user_id":1,"event_type":"login","page":"/","timestamp":"{at}","source":"web"}}"#
        )
    }

    /// Whether the window of this minute is complete.
    fn is_complete(&self, engine: &Engine, minute: i64) -> bool {
        let start = self.0 + minute * 60;
        let sql = format!("SELECT complete FROM realtime.windows WHERE toUnixTimestamp(window_start) = {start}");
        match engine.sql(&sql).trim() {
            "true" => true,
            "false" => false,
            other => panic!("the window of minute {minute} is {other:?}"),
        }
    }

    async fn until(&self, engine: &Engine, minute: i64, complete: bool, when: &str) {
        let start = Instant::now();
        while self.is_complete(engine, minute) != complete {
            assert!(start.elapsed() < PATIENCE, "{when}: complete of minute {minute} has not become {complete}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Adds an event, and waits until it is counted.
async fn add(daemon: &mut Daemon, kafka: &Kafka, topic: &str, partition: i32, event: &str) {
    let offset = kafka.produce(topic, partition, Record::of(event.as_bytes())).await;
    daemon.wait_until_served(&BTreeMap::from([(partition, offset + 1)])).await;
}

fn phase(status: &Value, partition: i32) -> Option<&str> {
    status["partitions"].as_array()?.iter().find(|p| p["partition"] == partition)?["phase"].as_str()
}

/// A site with two partitions, of which a quiet one counts as idle after a second.
async fn site(kafka: &Kafka, engine: &Engine, name: &str) -> Site {
    let topic = kafka.new_topic(name, 2).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__PIPELINE__USER_EVENTS__TIME__IDLE_AFTER".into(), "1s".into()));
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn complete_moves_on_beside_a_quiet_partition_whose_windows_are_made_anew() {
    let kafka = broker().await;
    let engine = Engine::start();
    let mut site = site(kafka, &engine, "idle").await;
    let (topic, clock) = (site.topic.clone(), Clock::new());
    let plain = site.environment.clone();
    let fails = |point: &str| {
        let mut environment = plain.clone();
        environment.push(("BOATHOUSE_FAIL_POINT".into(), format!("panic!{point}")));
        environment
    };

    // Each event is a batch by itself: the fourth that is counted ends the quiet partition's windows.
    site.environment = fails("actor.window_aggregator:4");
    let mut daemon = site.start();
    for (partition, minute) in [(QUIET, 0), (BUSY, 0), (BUSY, 20)] {
        add(&mut daemon, kafka, &topic, partition, &clock.event(minute)).await;
    }
    // 20 min − 30 s − 10 min: what ends by then.
    clock.until(&engine, 0, true, "a quiet partition").await;
    assert!(!clock.is_complete(&engine, 20), "the busy partition may add to it");
    add(&mut daemon, kafka, &topic, QUIET, &clock.event(1)).await;
    assert!(site.log().contains("fail point actor.window_aggregator reached"), "its windows were to panic");
    add(&mut daemon, kafka, &topic, BUSY, &clock.event(40)).await;
    clock.until(&engine, 20, true, "after a panic of the windows").await;
    daemon.stop().await;

    // The writer's end takes the windows with it, long after the quiet partition has said that it is at its end.
    site.environment = fails("actor.realtime_writer:8");
    let mut daemon = site.start();
    daemon.wait("the writer's panic", |_| site.log().contains("fail point actor.realtime_writer reached")).await;
    add(&mut daemon, kafka, &topic, BUSY, &clock.event(60)).await;
    clock.until(&engine, 40, true, "after a panic of the realtime writer").await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["panicked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_is_not_idle_and_is_again_when_it_is_resumed() {
    let kafka = broker().await;
    let engine = Engine::start();
    let site = site(kafka, &engine, "idle-pause").await;
    let (topic, clock) = (site.topic.clone(), Clock::new());
    let stream = |what: &str| {
        let output = site.run(&["stream", what, "--partition", &QUIET.to_string()]);
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let mut daemon = site.start();
    for (partition, minute) in [(QUIET, 0), (BUSY, 0), (BUSY, 20)] {
        add(&mut daemon, kafka, &topic, partition, &clock.event(minute)).await;
    }
    clock.until(&engine, 0, true, "a quiet partition").await;

    // What is complete beside a quiet partition is so no longer when nobody looks whether it has something.
    stream("pause");
    daemon.wait("the pause", |status| phase(status, QUIET) == Some("paused")).await;
    clock.until(&engine, 0, false, "paused").await;
    kafka.produce(&topic, QUIET, Record::of(clock.event(21).as_bytes())).await;
    for minute in [21, 60] {
        add(&mut daemon, kafka, &topic, BUSY, &clock.event(minute)).await;
    }
    // Longer than a partition must be quiet: no time makes it idle while it is paused.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!clock.is_complete(&engine, 21), "the paused partition has an event in it");
    stream("resume");
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    clock.until(&engine, 21, true, "resumed").await;
    let counted = "SELECT sum(event_count) FROM realtime.events_per_minute WHERE toUnixTimestamp(window_start) = ";
    assert_eq!(engine.sql(&format!("{counted}{}", clock.0 + 21 * 60)).trim(), "2");

    // A pause in which nothing came: the end is told anew all the same.
    stream("pause");
    clock.until(&engine, 21, false, "paused again").await;
    stream("resume");
    clock.until(&engine, 21, true, "resumed again").await;
    site.assert_reconciled();
    daemon.stop().await;
}
