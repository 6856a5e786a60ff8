//! A lakehouse that cannot be written for a while: a full disk, a file where a folder belongs. Bronze waits and says what
//! to do, nothing is lost, and it goes on by itself.

use std::path::{Path, PathBuf};
use std::process::Command;

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
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["the disk is full: make room"]);
    std::fs::remove_file(&library).unwrap();
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
