//! What has stopped until somebody decides, resolved in the console: by the same code as the command's.

use reqwest::Method;
use serde_json::{Value, json};

use crate::console::browser::Browser;
use crate::support::broker::broker;
use crate::support::daemon::{Site, produce};
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
}
