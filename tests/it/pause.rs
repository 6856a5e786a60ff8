//! Partitions that an operator pauses and resumes.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use crate::console::browser::Browser;
use crate::support::broker::broker;
use crate::support::daemon::{Daemon, Site, produce};
use crate::support::engine::Engine;

fn partition(status: &Value, id: i32) -> Value {
    let all = status["partitions"].as_array().expect("partitions");
    all.iter().find(|p| p["partition"] == id).cloned().unwrap_or_default()
}

fn restarts(status: &Value) -> Option<u64> {
    status["actors"].as_array()?.iter().find(|a| a["kind"] == "pipeline")?["restarts"].as_u64()
}

async fn paused(daemon: &mut Daemon, id: i32, at: i64) {
    daemon
        .wait("the pause, with what was read committed", |status| {
            let p = partition(status, id);
            p["phase"] == "paused" && p["position"] == at && p["bronze_position"] == at && p["realtime_position"] == at
        })
        .await;
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_paused_and_read_on_where_it_stood() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("pause", 3).await;
    let seed = std::cell::Cell::new(0);
    let more = || {
        seed.set(seed.get() + 1);
        produce(kafka.address(), &topic, &["--count", "2000", "--max-rate", "--seed", &seed.get().to_string()]);
        kafka.end_offsets(&topic)
    };
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    // Longer than a busy machine holds up the partitions that are not paused.
    site.environment.push(("BOATHOUSE__KAFKA__STUCK_AFTER".into(), "10s".into()));
    let before = more();
    let mut daemon = site.start();
    daemon.wait_until_served(&before).await;

    let output = site.run(&["stream", "pause", "--partition", "1", "--for", "2h", "--reason", "the rack is moved"]);
    assert!(output.status.success() && said(&output).contains("partition 1 of user_events"), "{}", said(&output));
    let ends = more();
    let others: BTreeMap<i32, i64> = ends.iter().filter(|(id, _)| **id != 1).map(|(id, end)| (*id, *end)).collect();
    daemon.wait_until_served(&others).await;
    paused(&mut daemon, 1, before[&1]).await;
    // Longer than a client that is stuck may take until it is noticed: nobody takes it for one.
    daemon
        .wait("time to pass", |status| {
            partition(status, 1)["last_progress_seconds_ago"].as_f64().is_some_and(|seconds| seconds > 20.0)
        })
        .await;
    let status = daemon.status().await.expect("a status");
    let p = partition(&status, 1);
    assert_eq!((&p["phase"], &p["position"]), (&json!("paused"), &json!(before[&1])), "{p:#}");
    assert_eq!(p["lag_records"], ends[&1] - before[&1], "{p:#}");
    assert!(p["by"].as_str().is_some_and(|by| by.contains("uid")) && p["reason"] == "the rack is moved", "{p:#}");
    assert_eq!((&status["readiness"]["ready"], restarts(&status)), (&json!(true), Some(0)), "{status:#}");
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", site.metrics_port)).await.expect("metrics");
    let metrics = metrics.text().await.expect("metrics");
    let series = |line: &str| {
        line.starts_with("boathouse_partition_phase{") && line.contains("partition=\"1\",phase=\"paused\"} 1")
    };
    assert!(metrics.lines().any(series), "{metrics}");
    let output = site.run(&["status"]);
    assert!(said(&output).contains("paused by command line") && output.status.success(), "{}", said(&output));

    // It survives an actor's end and the daemon's.
    daemon.stop().await;
    site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "panic!actor.partition_consumer".into()));
    let mut daemon = site.start();
    let ends = more();
    daemon.wait("the round to be made anew", |status| restarts(status) == Some(1)).await;
    let others: BTreeMap<i32, i64> = ends.iter().filter(|(id, _)| **id != 1).map(|(id, end)| (*id, *end)).collect();
    daemon.wait_until_served(&others).await;
    paused(&mut daemon, 1, before[&1]).await;

    // Who looks sees it; an operator lets it go on.
    let browser = Browser::signed_in(&site).await;
    let page = browser.get("/stream").await.text().await.expect("a page");
    for part in ["Paused by command line", "the rack is moved", "Resume", "Paused on this instance"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let (_, pauses) = browser.api(Method::GET, "/api/v1/stream/pauses", None).await;
    assert_eq!((pauses.as_array().map(Vec::len), &pauses[0]["partition"]), (Some(1), &json!(1)), "{pauses}");
    let one = json!({"pipeline": "user_events", "partition": 1});
    let (status, answer) = browser.api(Method::POST, "/api/v1/stream/resume", Some(one.clone())).await;
    assert_eq!(status, 200, "{answer}");
    daemon.wait_until_served(&ends).await;
    let (status, answer) = browser.api(Method::POST, "/api/v1/stream/resume", Some(one)).await;
    assert!(status == 422 && answer["error"].as_str().is_some_and(|e| e.contains("nothing")), "{answer}");

    // The whole pipeline, for a time that passes.
    let bad = [("what", "user_events"), ("for", "soon"), ("reason", "")];
    assert_eq!(browser.post("/stream/pause", &bad).await.status(), 422);
    let all = [("what", "user_events"), ("for", "2s"), ("reason", "a look")];
    assert_eq!(browser.post("/stream/pause", &all).await.status(), 303);
    daemon
        .wait("all to be paused", |status| {
            status["partitions"].as_array().is_some_and(|all| all.iter().all(|p| p["phase"] == "paused"))
        })
        .await;
    let ends = more();
    daemon.wait_until_served(&ends).await;
    let status = daemon.status().await.expect("a status");
    assert_eq!(partition(&status, 0)["phase"], "running", "{status:#}");
    let (_, entries) = browser.api(Method::GET, "/api/v1/audit?limit=100", None).await;
    let entries = entries.to_string();
    for part in ["POST /api/v1/stream/pause", "POST /api/v1/stream/resume", "POST /stream/pause"] {
        assert!(entries.contains(part), "{part} is missing in {entries}");
    }
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["panicked"]);
}
