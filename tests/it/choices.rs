//! What has stopped until somebody decides, resolved in the console: by the same code as the command's.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::console::browser::Browser;
use crate::stream::REBALANCED;
use crate::support::broker::broker;
use crate::support::daemon::{Daemon, PATIENCE, Site, produce};
use crate::support::engine::Engine;

fn outlook<'a>(choices: &'a Value, name: &str) -> &'a Value {
    let all = choices.as_array().expect("choices");
    all.iter().find(|choice| choice["choice"] == name).unwrap_or_else(|| panic!("no {name} in {choices:#}"))
}

fn phases(status: &Value) -> Vec<String> {
    let all = status["partitions"].as_array().cloned().unwrap_or_default();
    all.iter().map(|p| p["phase"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_looked_at_and_resolved_in_the_console() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("choices", 2).await;
    let seed = std::cell::Cell::new(0);
    let more = || {
        seed.set(seed.get() + 1);
        produce(kafka.address(), &topic, &["--count", "1000", "--max-rate", "--seed", &seed.get().to_string()]);
        kafka.end_offsets(&topic)
    };
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let before = more();
    let mut daemon = site.start();
    daemon.wait_until_served(&before).await;
    daemon.stop().await;
    // Retention passes Bronze while the daemon is down.
    let ends = more();
    kafka.delete_records(&topic, 1, before[&1] + 10).await;
    let mut daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    daemon.wait("partition 1 to stop", |status| phases(status).contains(&"stopped".to_owned())).await;
    let zero = [(0, ends[&0])].into();
    daemon.wait_until_served(&zero).await;

    // Cause and choices, each with what it would do, before anything is done.
    let page = browser.get("/stream").await.text().await.expect("a page");
    assert!(
        page.contains("has stopped until somebody decides") && page.contains("/stream/choices?pipeline="),
        "{page}"
    );
    let page = browser.get("/stream/choices?pipeline=user_events").await.text().await.expect("a page");
    let would = format!("partition 1 would go on at offset {}; 10 offsets were never read", before[&1] + 10);
    for part in ["retention removed 10 offsets", "the error names it", would.as_str(), "nothing to do"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let ask = "/api/v1/stream/choices?pipeline=user_events";
    let (status, choices) = browser.api(Method::GET, ask, None).await;
    assert_eq!(status, 200, "{choices}");
    for (name, applies) in [
        ("accept-gap", true),
        ("adopt-topic", false),
        ("accept-settings", false),
        ("lower-mark", false),
        ("repair-log", false),
    ] {
        assert_eq!(outlook(&choices, name)["applies"], applies, "{choices:#}");
    }
    let output = site.run(&["bronze", "accept-gap", "user_events", "--dry-run"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&would), "{output:?}");
    assert!(phases(&daemon.status().await.expect("a status")).contains(&"stopped".to_owned()), "nothing was done");

    // What nobody should do by mistake wants insistence.
    let decide = async |decision: Value| browser.api(Method::POST, "/api/v1/stream/choices", Some(decision)).await;
    let (status, answer) = decide(json!({"pipeline": "user_events", "choice": "adopt-topic"})).await;
    assert!(status == 422 && answer["error"].as_str().is_some_and(|e| e.contains("even-so")), "{answer}");
    assert_eq!(decide(json!({"pipeline": "user_events", "choice": "reboot"})).await.0, 422);
    assert_eq!(decide(json!({"pipeline": "user_events", "choice": "lower-mark"})).await.0, 422);
    let (status, answer) = decide(json!({"pipeline": "user_events", "choice": "accept-gap"})).await;
    let did = format!("partition 1 goes on at offset {}; 10 offsets were never read", before[&1] + 10);
    assert_eq!((status, &answer["done"]), (200, &json!([did])), "{answer}\n{}", site.log());
    daemon.wait_until_served(&ends).await;
    daemon.wait("both to run", |status| phases(status) == ["running", "running"]).await;
    let ends = more();
    daemon.wait_until_served(&ends).await;
    let status = daemon.status().await.expect("a status");
    assert_eq!(status["readiness"]["reasons"], json!([]), "{status:#}");

    // The whole pipeline stops: its topic was made anew.
    kafka.recreate_topic(&topic, 2, &[("message.timestamp.type", "LogAppendTime")]).await;
    let ends = more();
    daemon
        .wait("the pipeline to stop", |status| {
            let actors = status["actors"].as_array().cloned().unwrap_or_default();
            actors.iter().any(|a| a["kind"] == "pipeline" && a["phase"] == "gave_up")
                || phases(status).contains(&"stopped".to_owned())
        })
        .await;
    let form = [("pipeline", "user_events"), ("choice", "adopt-topic")];
    let page = browser.post("/stream/choices", &form).await.text().await.expect("a page");
    assert!(page.contains("is read from its beginning, as generation 1"), "{page}\n{}", site.log());
    daemon.wait_until_served(&ends).await;
    let status = daemon.status().await.expect("a status");
    assert!(status["partitions"].as_array().expect("partitions").iter().all(|p| p["generation"] == 1), "{status:#}");
    assert_eq!(status["readiness"]["reasons"], json!([]), "{status:#}");
    let (_, entries) = browser.api(Method::GET, "/api/v1/audit?limit=100", None).await;
    let entries = entries.to_string();
    assert!(entries.contains("POST /stream/choices") && entries.contains("accept-gap"), "{entries}");
    daemon.stop().await;
    let stops =
        ["partition stopped until somebody decides", "pipeline stays down until somebody acts", "ended by itself"];
    site.assert_log_is_clean_but_for(&stops);
}

/// Every partition of the instances, as `(id, phase, Bronze's position)`; none while one of them does not answer.
async fn of_both(instances: [&Daemon; 2]) -> Option<[Vec<(i64, String, i64)>; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for (found, instance) in all.iter_mut().zip(instances) {
        let status = instance.status().await?;
        for p in status["partitions"].as_array()? {
            let position = p["bronze_position"].as_i64()?;
            found.push((p["partition"].as_i64()?, p["phase"].as_str()?.to_owned(), position));
        }
    }
    Some(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_one_of_two_instances_is_resolved_where_it_has_stopped() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("choices-two", 2).await;
    let fill = |seed: &str| {
        produce(kafka.address(), &topic, &["--count", "1000", "--max-rate", "--seed", seed]);
        kafka.end_offsets(&topic)
    };
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let before = fill("1");
    let mut daemon = site.start();
    daemon.wait_until_served(&before).await;
    daemon.stop().await;
    let ends = fill("2");
    kafka.delete_records(&topic, 1, before[&1] + 10).await;

    // Each of two instances has one partition; the one of partition 1 has stopped.
    let sibling = site.sibling();
    let (one, other) = (site.start(), sibling.start());
    let begin = Instant::now();
    let divided = |all: &[Vec<(i64, String, i64)>; 2]| {
        let [one, other] = all;
        one.len() == 1
            && other.len() == 1
            && all.iter().flatten().all(|(id, phase, at)| match id {
                0 => phase == "running" && *at == ends[&0],
                _ => phase == "stopped",
            })
    };
    let all = loop {
        if let Some(all) = of_both([&one, &other]).await.filter(divided) {
            break all;
        }
        assert!(begin.elapsed() < PATIENCE * 2, "{}\n{}", site.log(), sibling.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // Decided where it has stopped: that instance reads on. The other one was started before the decision, notices with
    // its next commit, and leaves its partition to the first until it is started again.
    let first_stopped = all[0][0].0 == 1;
    let (stopped, runs) = if first_stopped { (&site, &sibling) } else { (&sibling, &site) };
    let output = stopped.run(&["--json", "bronze", "accept-gap", "user_events"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("10 offsets were never read"), "{output:?}");
    let ends = fill("3");
    let (mut mended, mut left) = if first_stopped { (one, other) } else { (other, one) };
    mended.wait_for(PATIENCE * 2, "one instance to read both", |status| phases(status) == ["running", "running"]).await;
    mended.wait_until_served(&ends).await;
    let told = |status: &Value| status["readiness"]["reasons"].to_string().contains("changed by another instance");
    left.wait("the other to say why it stopped", told).await;
    left.stop().await;
    let mut left = runs.start();
    left.wait("the other to be back", |status| status["readiness"]["ready"] == true).await;
    mended.wait("the windows to be counted again", |_| stopped.reconcile().0).await;
    left.stop().await;
    mended.stop().await;
    for site in [&site, &sibling] {
        site.assert_log_is_clean_but_for(&[
            "partition stopped until somebody decides",
            "pipeline stays down until somebody acts",
            REBALANCED,
        ]);
    }
}
