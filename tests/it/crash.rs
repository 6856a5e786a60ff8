//! Kills, outages and zombies under load; each round ends in a recount from Kafka. `make test` holds short rounds,
//! `make soak` long ones (`BOATHOUSE_SOAK_KILLS` and its like), which say in a line each what they measured.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::support::broker::{Kafka, OwnBroker, broker};
use super::support::daemon::{Daemon, PATIENCE, Site, produce};
use super::support::engine::Engine;
use super::support::soak::{Spread, say};

/// Events a second of the load beside which things are killed.
const RATE: &str = "20000";
/// What the daemon's resident memory may come to at the most, in bytes.
const MEMORY_MAX: u64 = 256 << 20;

/// The producer, running until dropped or finished.
pub struct Load(Child);

impl Load {
    pub fn start(brokers: &str, topic: &str, arguments: &[&str]) -> Self {
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
    pub fn finish(mut self) {
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

/// What the environment asks for in a long round; none in a short one.
fn long(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|n| n.parse().ok())
}

fn seconds_of(variable: &str, short: u64) -> Duration {
    Duration::from_secs(long(variable).unwrap_or(short))
}

/// Waits until both sinks hold what the topic holds now; how long that took since `begin`.
async fn caught_up(daemon: &mut Daemon, kafka: &Kafka, topic: &str, begin: Instant) -> Duration {
    let ends = kafka.end_offsets(topic);
    daemon.wait_until_served(&ends).await;
    begin.elapsed()
}

/// The daemon's resident memory; 0 where it does not say.
async fn resident_bytes(daemon: &Daemon) -> u64 {
    daemon.status().await.unwrap_or_default()["memory"]["resident_bytes"].as_u64().unwrap_or(0)
}

/// What `reconcile` found, in words.
fn found(report: &Value) -> String {
    let sum = |list: &str, fields: &[&str]| -> u64 {
        let checks = report[list].as_array().expect("a list of checks").iter();
        checks.map(|c| fields.iter().map(|f| c[f].as_u64().expect("a count")).sum::<u64>()).sum()
    };
    format!(
        "of {} records {} lost, {} duplicated, {} differ; of {} rows of windows {} differ",
        sum("bronze", &["checked_records"]),
        sum("bronze", &["lost_records"]),
        sum("bronze", &["duplicated_rows", "unknown_rows"]),
        sum("bronze", &["differing_rows"]),
        sum("realtime", &["checked_rows"]),
        sum("realtime", &["missing_rows", "unknown_rows", "differing_rows"]),
    )
}

/// Whether all partitions are held, and each satisfies `wanted`.
fn all_partitions(wanted: impl Fn(&Value) -> bool) -> impl Fn(&Value) -> bool {
    move |status| status["partitions"].as_array().is_some_and(|p| p.len() == 3 && p.iter().all(&wanted))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_under_load_nothing_is_lost_or_counted_twice() {
    let soak = long("BOATHOUSE_SOAK_KILLS");
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("kills", 3).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let begin = Instant::now();
    let load = Load::start(kafka.address(), &topic, &["--seed", "11"]);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut delays = Spread::default();
    let rounds = soak.unwrap_or(3);
    for _ in 0..rounds {
        // One kill anywhere in the start or the recovery.
        let mut daemon = site.start();
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1500))).await;
        daemon.kill();
        // Then a start that is left to catch up, and a kill anywhere in the work.
        let start = Instant::now();
        let mut daemon = site.start();
        delays.push(caught_up(&mut daemon, kafka, &topic, start).await);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
        daemon.kill();
    }
    load.finish();
    let lasted = begin.elapsed();
    let mut daemon = site.start();
    let ends = kafka.end_offsets(&topic);
    daemon.wait_until_served(&ends).await;
    site.assert_reconciled();
    daemon.stop().await;
    let report = site.assert_reconciled();
    site.assert_log_is_clean_but_for(&[]);
    let rate = ends.values().sum::<i64>() as f64 / lasted.as_secs_f64();
    say(&format!(
        "{} SIGKILLs at {rate:.0} events/s on {:?}; from the start to caught up, {rounds} times: {delays}; {}",
        2 * rounds,
        kafka.kind(),
        found(&report)
    ));
    if soak.is_some() {
        assert!(delays.p99() <= Duration::from_secs(10), "caught up too late: {delays}");
        // A short round runs beside other tests, and says nothing of the machine's speed.
        let asked: f64 = RATE.parse().expect("a number");
        assert!(rate >= 0.9 * asked, "{rate:.0} events/s are not the load of {RATE}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_away_under_load_costs_nothing() {
    let kafka = broker().await;
    let mut engine = Engine::start();
    let topic = kafka.new_topic("outage", 3).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let load = Load::start(kafka.address(), &topic, &["--seed", "12"]);
    let mut daemon = site.start();
    let moved = all_partitions(|p| p["realtime_position"].as_i64() > Some(1000));
    daemon.wait("the first totals", moved).await;
    engine.kill();
    let away = Instant::now();
    let mut peak_bytes = 0;
    while away.elapsed() < seconds_of("BOATHOUSE_SOAK_OUTAGE_S", 8) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        peak_bytes = peak_bytes.max(resident_bytes(&daemon).await);
    }
    // Bronze went on without ClickHouse.
    let ends = kafka.end_offsets(&topic);
    let held = |p: &Value| Some(p["bronze_position"].as_i64()? >= ends[&(p["partition"].as_i64()? as i32)]);
    daemon.wait("Bronze to hold it all", all_partitions(|p| held(p) == Some(true))).await;
    let lasted = away.elapsed();
    engine.restart();
    let back = caught_up(&mut daemon, kafka, &topic, Instant::now()).await;
    // What was freed is kept, so that what the recount took still shows.
    peak_bytes = peak_bytes.max(resident_bytes(&daemon).await);
    load.finish();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let report = site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["ClickHouse does not take totals"]);
    assert!((1..=MEMORY_MAX).contains(&peak_bytes), "the daemon's memory came to {peak_bytes} bytes");
    say(&format!(
        "ClickHouse away for {lasted:.0?} under load on {:?}: caught up {back:.1?} after it came back; the daemon's \
         memory at most {} MiB; {}",
        kafka.kind(),
        peak_bytes >> 20,
        found(&report)
    ));
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
    daemon.wait("the first records", all_partitions(|p| p["records"].as_i64() > Some(0))).await;
    broker.kill();
    let away = Instant::now();
    tokio::time::sleep(seconds_of("BOATHOUSE_SOAK_BROKER_S", 5)).await;
    broker.restart();
    let lasted = away.elapsed();
    let back = caught_up(&mut daemon, &broker, &topic, Instant::now()).await;
    load.finish();
    daemon.wait_until_served(&broker.end_offsets(&topic)).await;
    let report = site.assert_reconciled();
    daemon.stop().await;
    // Where the broker dies between taking a member back and telling it, it fences the member by its own name: a new round.
    site.assert_log_is_clean_but_for(&["librdkafka", "same group.instance.id"]);
    say(&format!(
        "the broker ({:?}) killed and away for {lasted:.0?} under load: caught up {back:.1?} after it came back; {}",
        broker.kind(),
        found(&report)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_that_wakes_up_changes_nothing() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("zombie", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    // The group must notice within the test that the zombie is gone.
    site.environment.push(("BOATHOUSE__KAFKA__PROPERTIES__SESSION.TIMEOUT.MS".into(), "10000".into()));
    let load = Load::start(kafka.address(), &topic, &["--seed", "14"]);
    let mut zombie = site.start();
    zombie.wait("all partitions", all_partitions(|_| true)).await;
    zombie.signal(libc::SIGSTOP);
    let stopped = Instant::now();
    let other = site.sibling();
    let mut heir = other.start();
    heir.wait("the zombie's partitions", all_partitions(|_| true)).await;
    let taken_over = stopped.elapsed();
    tokio::time::sleep(seconds_of("BOATHOUSE_SOAK_ZOMBIE_S", 9).saturating_sub(taken_over)).await;
    zombie.signal(libc::SIGCONT);
    let lasted = stopped.elapsed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.finish();
    zombie.kill();
    heir.wait_until_served(&kafka.end_offsets(&topic)).await;
    let report = other.assert_reconciled();
    heir.stop().await;
    for site in [&site, &other] {
        // What a zombie is told when it wakes up, and how it lets go of what it held.
        let fenced = "another instance owns it now";
        site.assert_log_is_clean_but_for(&["SESSTMOUT", "FENCED", "partitions leave undrained", fenced]);
    }
    say(&format!(
        "a zombie, stopped for {lasted:.0?} under load on {:?}, its partitions taken over after {taken_over:.1?}: {}",
        kafka.kind(),
        found(&report)
    ));
}

/// Between every two durable steps, and during recovery. The first three are of the very start, where nothing is there yet:
/// the shared tables of ClickHouse, and Bronze's own with its first log entry. `tests/it/tidy.rs` looks that a test names
/// each point that there is.
const FAIL_POINTS: [&str; 14] = [
    "realtime.migrated:1",
    "bronze.before_put:1",
    "bronze.after_put:1",
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
        let at = if point.contains(':') { point.to_owned() } else { format!("{point}:{nth}") };
        site.environment = plain.clone();
        site.environment.push(("BOATHOUSE_FAIL_POINT".into(), at));
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
    let report = site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
    say(&format!("ended at {} fail points under load on {:?}: {}", FAIL_POINTS.len(), kafka.kind(), found(&report)));
}

/// What is counted anew when the definition changes, in the order in which a start comes to them. Each time the start
/// before was ended, so that all that a point stands before is still to be done.
const CHANGE_POINTS: [&str; 5] = [
    "recover.after_spill",
    "realtime.before_view",
    "realtime.between_views",
    "realtime.before_drop_superseded",
    "realtime.before_drop_day",
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_of_a_new_definition_the_views_end_at_it() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("definitions", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    produce(kafka.address(), &topic, &["--count", "300000", "--max-rate", "--span", "3d", "--seed", "17"]);
    let ends = kafka.end_offsets(&topic);
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    daemon.stop().await;
    // Another length of the windows, and an aggregate with so many totals that a recount of them does not fit into memory at
    // once.
    let text = std::fs::read_to_string(site.pipeline_file()).expect("pipeline.toml");
    let measure = "measure = \"event_count\"\n";
    let changed = text.replace(measure, &format!("{measure}window = \"2m\"\n"));
    assert_ne!(changed, text, "the shipped pipeline counts events");
    let ids = "\n[[aggregate]]\nname = \"events_by_id\"\nmeasure = \"event_count\"\ndimensions = [\"event_id\"]\n\
               [realtime]\nmax_combinations = 1000000\n";
    let changed = changed + ids;
    std::fs::write(site.pipeline_file(), &changed).expect("pipeline.toml");
    let plain = site.environment.clone();
    for point in CHANGE_POINTS {
        site.environment = plain.clone();
        site.environment.push(("BOATHOUSE_FAIL_POINT".into(), point.into()));
        if point == "realtime.before_drop_day" {
            // Only now: totals beyond it would not have been counted in the first place.
            let kept = format!("{changed}[retention]\nrealtime = \"1d\"\n");
            std::fs::write(site.pipeline_file(), kept).expect("pipeline.toml");
        }
        let mut daemon = site.start();
        let status = daemon.wait_exit(point, PATIENCE).await;
        assert_eq!(status.code(), Some(86), "{point} was not what ended it");
    }
    site.environment = plain;
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    let left =
        "SELECT count() FROM system.tables WHERE database = 'realtime' AND name LIKE 'events_per_minute_partials_%'";
    daemon.wait("the earlier totals to be gone", |_| engine.sql(left).trim() == "1").await;
    let odd = "SELECT countIf(toUnixTimestamp(window_start) % 120 != 0) FROM realtime.events_per_minute";
    assert_eq!(engine.sql(odd).trim(), "0", "the view shows windows of two minutes");
    let report = site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
    say(&format!("ended at {} steps of a new definition: {}", CHANGE_POINTS.len(), found(&report)));
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
        "actor.upkeep",
        "actor.scheduler",
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
    site.assert_log_is_clean_but_for(&["panicked", "the reader of partition"]);
}

/// An actor that panics whatever is tried is not made anew for ever, and not in silence.
#[tokio::test(flavor = "multi_thread")]
async fn what_panics_again_and_again_is_given_up_loudly() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("given-up", 1).await;
    produce(kafka.address(), &topic, &["--count", "1000", "--max-rate", "--seed", "17"]);
    let ends = kafka.end_offsets(&topic);
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let plain = site.environment.clone();
    site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "panics!actor.bronze_writer".into()));
    let mut daemon = site.start();
    daemon.wait("the pipeline to be given up", |_| site.log().contains("stays down until somebody acts")).await;
    let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", site.metrics_port)).await.expect("an answer");
    assert_eq!(answer.status(), 503);
    let told = answer.text().await.expect("a text");
    for part in ["gave up", "bronze_writer panicked", "11 tries in a row", "is started again"] {
        assert!(told.contains(part), "{part} is missing: {told}");
    }
    daemon.stop().await;
    site.environment = plain;
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["panicked"]);
}
