//! Upkeep of the tables beside a real daemon: its stream, its batch, its kills.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boathouse::batch::upkeep::{Merging, merge, summary};
use boathouse::batch::{Lake, Layer, TaskContext};
use serde_json::Value;

use crate::bronze::pipeline;
use crate::support::broker::broker;
use crate::support::daemon::{PATIENCE, Site, produce};
use crate::support::engine::Engine;

fn lake(site: &Site) -> Lake {
    Lake::at(site.lakehouse().to_str().unwrap(), 256 << 20, site.folder.join("spill")).unwrap()
}

/// Merges whatever is small, as if its hour were over; how many files went.
async fn merge_all(lake: &Lake) -> u64 {
    let now = chrono::Utc::now() + chrono::TimeDelta::hours(2);
    let merging = Merging { target: 128 << 20, now, time: Duration::from_secs(60) };
    let context = TaskContext::detached();
    let merged = merge(lake, Layer::Bronze, "user_events", Some(&pipeline()), merging, &context).await.unwrap();
    merged.files_before
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_beside_a_live_stream_that_is_killed_loses_and_repeats_nothing() {
    const EVENTS: &str = "30000";
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("merging", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__FLUSH_INTERVAL".into(), "100ms".into()));
    site.environment.push(("BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__CHECKPOINT_COMMITS".into(), "20".into()));
    let mut daemon = site.start();
    let lake = lake(&site);
    let sent = AtomicBool::new(false);
    let merged = std::thread::scope(|scope| {
        scope.spawn(|| {
            produce(
                kafka.address(),
                &topic,
                &["--count", EVENTS, "--rate", "2500", "--duplicate", "0.02", "--late", "0.02"],
            );
            sent.store(true, Ordering::Release);
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let (begun, mut merged, mut rounds) = (Instant::now(), 0, 0);
                while !sent.load(Ordering::Acquire) {
                    assert!(begun.elapsed() < 3 * PATIENCE, "the events are not sent");
                    if site.lakehouse().join("bronze/user_events/_delta_log").exists() {
                        merged += merge_all(&lake).await;
                        rounds += 1;
                        if rounds == 3 {
                            daemon.kill();
                            daemon = site.start();
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                merged
            })
        })
    });
    assert!(merged > 5, "{merged} files were merged beside the stream");
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    merge_all(&lake).await;
    let found = summary(&lake, Layer::Bronze, "user_events").await.unwrap().unwrap();
    assert!(found.rows >= 30_000 && found.files < 5, "{found:?}");
    // The windows are counted anew from merged files alone.
    daemon.stop().await;
    for table in ["positions", "intents"] {
        engine.sql(&format!("TRUNCATE TABLE realtime.{table}"));
    }
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.wait("the windows to be counted again", |_| site.reconcile().0).await;
    // A run over merged files, one after more of it.
    let (code, runs) = site.json(&["batch", "run", "--wait"]);
    assert_eq!((code, &runs[0]["state"]), (Some(0), &Value::from("succeeded")), "{runs:#}");
    let silver = summary(&lake, Layer::Silver, "user_events").await.unwrap().unwrap().rows;
    produce(kafka.address(), &topic, &["--count", "500", "--max-rate", "--seed", "7"]);
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    merge_all(&lake).await;
    let (code, runs) = site.json(&["batch", "run", "--wait"]);
    assert_eq!((code, &runs[0]["state"]), (Some(0), &Value::from("succeeded")), "{runs:#}");
    let after = summary(&lake, Layer::Silver, "user_events").await.unwrap().unwrap().rows;
    assert_eq!(after - silver, 500);
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_is_a_run_of_the_daemon_and_its_figures_are_metrics() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("upkeep", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    produce(kafka.address(), &topic, &["--count", "500", "--max-rate"]);
    for (key, value) in [("ENABLED", "true"), ("CRON", "* * * * * *")] {
        site.environment.push((format!("BOATHOUSE__UPKEEP__{key}"), value.into()));
    }
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let (code, runs) = site.json(&["batch", "run", "--wait"]);
    assert_eq!((code, &runs[0]["state"]), (Some(0), &Value::from("succeeded")), "{runs:#}");
    daemon.wait("an upkeep by its slot", |s| s["batches"][0]["upkeep"]["last"]["outcome"] == "succeeded").await;
    daemon
        .wait("the figures of the tables", |s| {
            let tables = s["batches"][0]["upkeep"]["tables"].as_array().cloned().unwrap_or_default();
            tables.iter().any(|t| t["table"] == "silver.user_events" && t["rows"] == 500)
        })
        .await;
    let (code, runs) = site.json(&["tables", "upkeep", "--wait"]);
    assert_eq!((code, &runs[0]["graph"]), (Some(0), &Value::from("lakehouse_upkeep")), "{runs:#}");
    let tasks: Vec<&str> = runs[0]["tasks"].as_array().unwrap().iter().filter_map(|t| t["task"].as_str()).collect();
    assert_eq!(tasks, ["apply_retention", "compact_tables", "clean_logs", "vacuum_tables"]);
    // The batch's own figures know nothing of it.
    let status = daemon.status().await.unwrap();
    assert_eq!(status["batches"][0]["last"]["outcome"], "succeeded");
    let url = format!("http://127.0.0.1:{}/metrics", site.metrics_port);
    let metrics = reqwest::get(url).await.unwrap().text().await.unwrap();
    for line in [
        "boathouse_table_files{pipeline=\"user_events\",table=\"bronze.user_events\"}",
        "boathouse_table_rows{pipeline=\"user_events\",table=\"silver.user_events\"} 500",
        "boathouse_table_small_files{pipeline=\"user_events\",table=\"bronze.user_events\"}",
        "boathouse_table_size_bytes{pipeline=\"user_events\",table=\"silver.user_events\"}",
        "boathouse_table_log_entries{pipeline=\"user_events\",table=\"bronze.user_events\"}",
        "boathouse_upkeep_last_success_timestamp_seconds{pipeline=\"user_events\"}",
        "boathouse_upkeep_runs_total{pipeline=\"user_events\",outcome=\"succeeded\"}",
        "boathouse_batch_runs_total{pipeline=\"user_events\",outcome=\"succeeded\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l.starts_with(line)), "{line} is missing in\n{metrics}");
    }
    // A slot comes every second and none is asked for while the one before it waits or is under way.
    let (_, runs) = site.json(&["batch", "history", "--limit", "200"]);
    let span = |run: &Value| {
        let at = |name: &str| run[name].as_str().and_then(|at| at.parse::<chrono::DateTime<chrono::Utc>>().ok());
        (at("requested").unwrap(), at("ended"))
    };
    let by_slot = |run: &&Value| run["graph"] == "lakehouse_upkeep" && run["cause"] == "schedule";
    let upkeep: Vec<_> = runs.as_array().unwrap().iter().filter(by_slot).map(span).collect();
    assert!(upkeep.len() > 1, "{runs:#}");
    for (requested, _) in &upkeep {
        let meanwhile =
            |(begun, ended): &&(_, Option<_>)| begun < requested && ended.is_none_or(|ended| ended > *requested);
        assert_eq!(upkeep.iter().find(meanwhile), None, "{runs:#}");
    }
    daemon.stop().await;
    // With a slot every second, one is under way.
    site.assert_log_is_clean_but_for(&["the process was asked to leave"]);
}
