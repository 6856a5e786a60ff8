//! A lakehouse in a bucket of a store that speaks S3: the stream, a crash, the batch, every command that reads it.

use super::support::broker::broker;
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;
use super::support::s3::{S3, SECRET};

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_in_a_bucket() {
    let kafka = broker().await;
    let engine = Engine::start();
    let store = tokio::task::spawn_blocking(S3::start).await.unwrap();
    let topic = kafka.unique_name("bucket");
    let more = |seed: &str| {
        let shares = ["--late", "0.02", "--duplicate", "0.02", "--malformed", "0.01"];
        let arguments = [&["--count", "5000", "--max-rate", "--seed", seed][..], &shares].concat();
        produce(kafka.address(), &topic, &arguments);
        kafka.end_offsets(&topic)
    };
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    store.keep(&mut site);
    site.add_shipped_models();

    let ends = more("1");
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    daemon.kill();
    let ends = more("2");
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;

    let run = site.run(&["batch", "run", "--wait"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report = site.assert_reconciled();
    assert!(!report["gold"].as_array().expect("gold was compared").is_empty(), "{report:#}");

    let out = |arguments: &[&str]| {
        let output = site.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rows = out(&["--json", "sql", "select count(*) as n from bronze.user_events"]);
    let total: i64 = ends.values().sum();
    assert!(rows.contains(&total.to_string()), "{rows}");
    let by_path = out(&["sql", "select count(*) as n from delta.`s3://lake/of/boathouse/silver/user_events`"]);
    assert!(by_path.contains('n'), "{by_path}");
    let tables = out(&["tables"]);
    assert!(tables.contains("gold.daily_active_users"), "{tables}");
    out(&["tables", "optimize", "bronze.user_events"]);
    out(&["tables", "vacuum", "bronze.user_events", "--dry-run"]);
    out(&["dead-letters", "list"]);
    let doctor = out(&["doctor"]);
    assert!(doctor.contains("conditional writes"), "{doctor}");
    for text in [out(&["validate", "--show"]), site.log(), doctor] {
        assert!(!text.contains(SECRET), "a secret shows: {text}");
    }
    assert!(!site.lakehouse().exists(), "nothing is written to the disk beside the bucket");
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_conditional_writes_is_refused() {
    let kafka = broker().await;
    let engine = Engine::start();
    let store = tokio::task::spawn_blocking(S3::that_ignores_conditions).await.unwrap();
    let topic = kafka.unique_name("unconditional");
    produce(kafka.address(), &topic, &["--count", "100", "--max-rate", "--seed", "1"]);
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    store.keep(&mut site);
    let mut daemon = site.start();
    let said = "ignores If-None-Match";
    daemon.wait("the daemon to say why it does not begin", |status| status.to_string().contains(said)).await;
    let doctor = site.run(&["doctor"]);
    assert!(!doctor.status.success());
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(text.contains(said), "{text}");
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[said]);
}
