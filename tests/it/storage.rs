//! A lakehouse that cannot be written for a while: a full disk, a file where a folder belongs. Bronze waits and says what
//! to do, nothing is lost, and it goes on by itself.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::broker::broker;
use super::support::daemon::{Daemon, Site, produce};
use super::support::engine::Engine;

/// The library that lets a disk be full: a file system of a few megabytes would need rights that not every machine gives.
fn full_disk_library() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("full_disk-{}.so", std::process::id()));
    let built = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(root.join("tests/it/support/full_disk.c"))
        .arg("-ldl")
        .output()
        .expect("a C compiler, which the build needs too");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

async fn wait_until_bronze_says(daemon: &mut Daemon, texts: &[&str]) {
    let says = |status: &Value| {
        let sinks = status["sinks"].as_array()?;
        let bronze = sinks.iter().find(|s| s["name"] == "bronze/user_events" && s["condition"] == "retrying")?;
        let error = bronze["error"].as_str()?;
        texts.iter().all(|text| error.contains(text)).then_some(())
    };
    daemon.wait(&format!("Bronze to say {texts:?}"), |status| says(status).is_some()).await;
}

async fn ready(site: &Site) -> (u16, String) {
    let answer = reqwest::get(format!("http://127.0.0.1:{}/readyz", site.metrics_port)).await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_bronze_waits_and_goes_on_when_there_is_room() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("full", 2).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let full = site.folder.join("full");
    let library = full_disk_library();
    site.environment.extend([
        ("LD_PRELOAD".into(), library.display().to_string()),
        ("FULL_DISK_WHILE".into(), full.display().to_string()),
        ("FULL_DISK_BELOW".into(), site.lakehouse().display().to_string()),
        ("BOATHOUSE__METRICS__NOT_READY_AFTER".into(), "1s".into()),
    ]);
    let more = |seed: &str| {
        produce(kafka.address(), &topic, &["--count", "2000", "--max-rate", "--seed", seed]);
        kafka.end_offsets(&topic)
    };
    let ends = more("1");
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;

    std::fs::write(&full, "").unwrap();
    let later = more("2");
    let says = ["No space left", "the disk is full: make room", "nothing is lost"];
    wait_until_bronze_says(&mut daemon, &says).await;
    // Whoever only looks at /readyz is told the same.
    let tells = |status: &Value| {
        let reasons = status["readiness"]["reasons"].as_array()?;
        let bronze =
            reasons.iter().filter_map(Value::as_str).find(|reason| reason.contains("bronze/user_events has failed"))?;
        says.iter().all(|text| bronze.contains(text)).then_some(())
    };
    daemon.wait("the readiness to say so", |status| tells(status).is_some()).await;
    let (code, body) = ready(&site).await;
    assert!(code == 503 && body.contains("the disk is full: make room"), "{code}: {body}");
    // Killed and started while it is full: the same.
    daemon.kill();
    let mut daemon = site.start();
    wait_until_bronze_says(&mut daemon, &says).await;
    let status = daemon.status().await.unwrap();
    for partition in status["partitions"].as_array().unwrap() {
        let number = partition["partition"].as_i64().unwrap() as i32;
        assert_eq!(partition["bronze_position"], ends[&number], "committed on a full disk: {partition:#}");
    }
    let shown = String::from_utf8_lossy(&site.run(&["status"]).stdout).into_owned();
    assert!(shown.contains("the disk is full"), "{shown}");

    std::fs::remove_file(&full).unwrap();
    daemon.wait_until_served(&later).await;
    daemon.wait("it to be ready", |status| status["readiness"]["ready"] == true).await;
    assert_eq!(ready(&site).await.0, 200);
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["the disk is full: make room"]);
    std::fs::remove_file(&library).unwrap();
}

/// Backpressure: what Bronze does not take stays in Kafka, not in memory.
#[tokio::test(flavor = "multi_thread")]
async fn while_storage_does_not_answer_reading_stops_within_the_memory_budget() {
    const BUDGET: u64 = 16 << 20;
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("backlog");
    produce(kafka.address(), &topic, &["--count", "1000000", "--max-rate", "--seed", "1"]);
    let ends = kafka.end_offsets(&topic);
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__MEMORY__BUDGET".into(), "16MiB".into()));
    let plain = site.environment.clone();
    site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "stick!bronze.before_file".into()));
    let mut daemon = site.start();
    let last = Cell::new((0, Instant::now()));
    daemon
        .wait("reading to stand still", |status| {
            let used = status["memory"]["used_bytes"].as_u64();
            assert!(used <= Some(BUDGET), "more than the budget is held: {:#}", status["memory"]);
            let all = status["partitions"].as_array();
            let read: i64 = all.into_iter().flatten().filter_map(|p| p["position"].as_i64()).sum();
            if read != last.get().0 {
                last.set((read, Instant::now()));
            }
            read > 0
                && site.log().contains("its thread sticks there")
                && last.get().1.elapsed() > Duration::from_secs(2)
        })
        .await;
    let (read, all) = (last.get().0, ends.values().sum::<i64>());
    assert!(read < all, "everything was read, although nothing could be written: {read} of {all}");

    daemon.kill();
    site.environment = plain;
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    site.assert_reconciled();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_where_a_folder_belongs_is_named_and_the_daemon_goes_on_without_it() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("no-folder", 2).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let more = |seed: &str| {
        produce(kafka.address(), &topic, &["--count", "500", "--max-rate", "--seed", seed]);
        kafka.end_offsets(&topic)
    };
    let says = ["a file lies where a folder belongs: take it away"];

    // From the start: there is no table yet.
    std::fs::write(site.lakehouse(), "in the way").unwrap();
    let ends = more("1");
    let mut daemon = site.start();
    wait_until_bronze_says(&mut daemon, &says).await;
    std::fs::remove_file(site.lakehouse()).unwrap();
    daemon.wait_until_served(&ends).await;

    // Under the running daemon: where data files go.
    let table = site.lakehouse().join("bronze/user_events");
    let today = std::fs::read_dir(&table).unwrap().flatten().map(|entry| entry.path());
    let today = today.filter(|path| path.to_string_lossy().contains("ingestion_date=")).max().unwrap();
    let aside = site.folder.join("aside");
    std::fs::rename(&today, &aside).unwrap();
    std::fs::write(&today, "in the way").unwrap();
    let ends = more("2");
    wait_until_bronze_says(&mut daemon, &says).await;
    std::fs::remove_file(&today).unwrap();
    std::fs::rename(&aside, &today).unwrap();
    daemon.wait_until_served(&ends).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["a file lies where a folder belongs"]);
}
