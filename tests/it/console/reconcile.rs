//! The daemon's own comparison of the layers: by its schedule, and ended by somebody.

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use super::browser::Browser;
use crate::scheduler::filled;
use crate::support::daemon::{PATIENCE, Site};
use crate::support::engine::{Engine, signal};

async fn standing(browser: &Browser, site: &Site, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let (_, standing) = browser.api(Method::GET, "/api/v1/reconcile", None).await;
        if wanted(&standing) {
            return standing;
        }
        assert!(begin.elapsed() < PATIENCE * 2, "waited for {what}: {standing:#}\n{}", site.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layers_are_compared_by_schedule_and_it_is_stopped_when_told() {
    let engine = Engine::start();
    let (mut site, mut daemon) = filled(&engine, "reconcile-slots").await;
    let mut browser = Browser::signed_in(&site).await;
    let password = browser.password().to_owned();
    let post = async |browser: &Browser, path: &str| browser.api(Method::POST, path, None).await;

    // Told to end at once: it comes to no verdict, says so, and the next one can begin. While ClickHouse stands still, it does
    // not end by itself.
    signal(engine.pid(), "STOP");
    assert_eq!(post(&browser, "/api/v1/reconcile").await.0, 202);
    let (status, answer) = post(&browser, "/api/v1/reconcile").await;
    assert!(status == 409 && answer["error"].as_str().is_some_and(|e| e.contains("under way")), "{answer}");
    assert_eq!(post(&browser, "/api/v1/reconcile/stop").await.0, 202);
    let ended = standing(&browser, &site, "its end", |s| s["running"].is_null()).await;
    signal(engine.pid(), "CONT");
    let why = ended["failed"]["error"].as_str().unwrap_or_default();
    assert!(why.contains("stopped before its end") && ended["failed"]["by"] == "admin", "{ended:#}");
    assert_eq!((&ended["last"], &ended["next"]), (&Value::Null, &Value::Null), "{ended:#}");
    let page = browser.get("/reconcile").await.text().await.expect("a page");
    assert!(page.contains("came to no verdict") && page.contains("stopped before its end"), "{page}");
    assert_eq!(post(&browser, "/api/v1/reconcile").await.0, 202);
    let ended = standing(&browser, &site, "a verdict", |s| s["running"].is_null()).await;
    assert!(ended["last"]["by"] == "admin" && ended["failed"].is_null(), "{ended:#}");
    daemon.stop().await;

    // By its slots, each second.
    for (key, value) in [("ENABLED", "true"), ("CRON", "* * * * * *")] {
        site.environment.push((format!("BOATHOUSE__RECONCILE__{key}"), value.into()));
    }
    let mut daemon = site.start();
    browser = Browser::of(&site).await;
    browser.sign_in("admin", &password).await;
    let by = |s: &Value| s["last"]["by"] == "schedule";
    let first = standing(&browser, &site, "one by schedule", by).await;
    assert!(first["next"].is_string() && first["last"]["layers"].as_array().is_some_and(|l| l.len() == 5), "{first:#}");
    let begun = first["last"]["begun"].clone();
    let next = standing(&browser, &site, "the next one", |s| by(s) && s["last"]["begun"] != begun).await;
    assert_ne!(next["last"]["verdict"], json!("different"), "{next:#}");
    // A daemon that is told to stop does not wait for its verdict: at its deadline it would warn.
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}
