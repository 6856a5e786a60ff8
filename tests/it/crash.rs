//! Kills, outages and zombies under load; each round ends in a recount from Kafka. `make test` holds short rounds,
//! `make soak` long ones (`BOATHOUSE_SOAK_KILLS`).

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};

use super::support::broker::{OwnBroker, broker};
use super::support::daemon::{PATIENCE, Site};
use super::support::engine::Engine;

/// Events a second of the load beside which things are killed.
const RATE: &str = "20000";

/// The producer, running until dropped or finished.
struct Load(Child);

impl Load {
    fn start(brokers: &str, topic: &str, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_boathouse-producer"))
            .args(["--brokers", brokers, "--topic", topic, "--rate", RATE])
            .args(["--late", "0.02", "--duplicate", "0.02", "--malformed", "0.01", "--future", "0.01"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the producer starts");
        Self(child)
    }

    /// Ends it as Ctrl-C would, so that everything it sent is delivered.
    fn finish(mut self) {
        // SAFETY: kill takes two integers; the child is ours and not yet reaped.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let status = self.0.wait().expect("the producer is our child");
        assert!(status.success(), "the producer lost records: {status}");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rounds(variable: &str, short: usize) -> usize {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(short)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_under_load_nothing_is_lost_or_counted_twice() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("kills", 3).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let load = Load::start(kafka.address(), &topic, &["--seed", "11"]);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    for _ in 0..rounds("BOATHOUSE_SOAK_KILLS", 6) {
        let mut daemon = site.start();
        tokio::time::sleep(Duration::from_millis(random.random_range(300..3000))).await;
        daemon.kill();
    }
    load.finish();
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_reconciled();
    site.assert_log_is_clean_but_for(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_away_under_load_costs_nothing() {
    let kafka = broker().await;
    let mut engine = Engine::start();
    let topic = kafka.new_topic("outage", 3).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let load = Load::start(kafka.address(), &topic, &["--seed", "12"]);
    let mut daemon = site.start();
    let moved = |status: &serde_json::Value| {
        status["partitions"]
            .as_array()
            .is_some_and(|p| p.len() == 3 && p.iter().all(|p| p["realtime_position"].as_i64() > Some(1000)))
    };
    daemon.wait("the first totals", moved).await;
    engine.kill();
    tokio::time::sleep(Duration::from_secs(rounds("BOATHOUSE_SOAK_OUTAGE_S", 8) as u64)).await;
    engine.restart();
    load.finish();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["ClickHouse does not take totals"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stops_and_comes_back_costs_nothing() {
    let mut broker = OwnBroker::start().await;
    let engine = Engine::start();
    let address = broker.address().to_owned();
    let topic = broker.new_topic("broker", 3).await;
    let site = Site::new(&address, &engine.url, &topic);
    let load = Load::start(&address, &topic, &["--seed", "13"]);
    let mut daemon = site.start();
    daemon
        .wait("the first records", |s| {
            s["partitions"]
                .as_array()
                .is_some_and(|p| p.len() == 3 && p.iter().all(|p| p["records"].as_i64() > Some(0)))
        })
        .await;
    broker.kill();
    tokio::time::sleep(Duration::from_secs(rounds("BOATHOUSE_SOAK_BROKER_S", 5) as u64)).await;
    broker.restart();
    load.finish();
    daemon.wait_until_served(&broker.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_wakes_up_changes_nothing() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("zombie", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    // The group must notice within the test that the zombie is gone.
    site.environment.push(("BOATHOUSE__KAFKA__PROPERTIES__SESSION.TIMEOUT.MS".into(), "6000".into()));
    let load = Load::start(kafka.address(), &topic, &["--seed", "14"]);
    let mut zombie = site.start();
    let held = |n: usize| move |s: &serde_json::Value| s["partitions"].as_array().is_some_and(|p| p.len() >= n);
    zombie.wait("all partitions", held(3)).await;
    zombie.signal(libc::SIGSTOP);
    let other = site.sibling();
    let mut heir = other.start();
    heir.wait("the zombie's partitions", held(3)).await;
    tokio::time::sleep(Duration::from_secs(rounds("BOATHOUSE_SOAK_ZOMBIE_S", 3) as u64)).await;
    zombie.signal(libc::SIGCONT);
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.finish();
    zombie.kill();
    heir.wait_until_served(&kafka.end_offsets(&topic)).await;
    other.assert_reconciled();
    heir.stop().await;
}

/// Between every two durable steps, and during recovery.
const FAIL_POINTS: [&str; 11] = [
    "bronze.before_file",
    "bronze.before_put",
    "bronze.after_put",
    "realtime.after_intents",
    "realtime.between_partials",
    "realtime.after_partials",
    "realtime.after_positions",
    "recover.after_load",
    "recover.after_count",
    "bronze.before_checkpoint",
    "bronze.after_checkpoint",
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_fail_point_nothing_is_lost_or_counted_twice() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("points", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let load = Load::start(kafka.address(), &topic, &["--seed", "15"]);
    let plain = site.environment.clone();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(8);
    for point in FAIL_POINTS {
        // Points of the start are reached at once; those of a flush a few times, so that some flushes came to their end.
        let nth = if point.starts_with("recover") { 1 } else { random.random_range(1..4) };
        site.environment = plain.clone();
        site.environment.push(("BOATHOUSE_FAIL_POINT".into(), format!("{point}:{nth}")));
        if point.ends_with("checkpoint") {
            let key = "BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__CHECKPOINT_COMMITS";
            site.environment.push((key.into(), "2".into()));
        }
        let mut daemon = site.start();
        let status = daemon.wait_exit(point, PATIENCE).await;
        assert_eq!(status.code(), Some(86), "{point} was not what ended it");
    }
    site.environment = plain;
    load.finish();
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_actor_is_survived() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("panics", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let load = Load::start(kafka.address(), &topic, &["--seed", "16"]);
    let plain = site.environment.clone();
    for actor in [
        "reader.take",
        "actor.partition_consumer",
        "actor.bronze_writer",
        "actor.window_aggregator",
        "actor.realtime_writer",
        "actor.pipeline_supervisor",
    ] {
        site.environment = plain.clone();
        site.environment.push(("BOATHOUSE_FAIL_POINT".into(), format!("panic!{actor}:2")));
        let mut daemon = site.start();
        let needle = format!("fail point {actor} reached");
        daemon.wait(&format!("a panic at {actor}"), |_| site.log().contains(&needle)).await;
        let ends = kafka.end_offsets(&topic);
        daemon.wait_until_served(&ends).await;
        daemon.stop().await;
    }
    load.finish();
    site.environment = plain;
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
}
