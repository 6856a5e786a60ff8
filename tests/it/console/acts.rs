//! What the console does besides looking: a trace, a comparison of the layers, a backfill, a query that is cancelled.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::browser::Browser;
use crate::scheduler::filled;
use crate::support::broker::broker;
use crate::support::daemon::{PATIENCE, Site, produce};
use crate::support::engine::Engine;

/// Asks again until the answer is as wanted; the answer.
pub async fn until(browser: &Browser, site: &Site, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let (_, answer) = browser.api(Method::GET, path, None).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE * 2, "{path}: {answer:#}\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub async fn succeeded(browser: &Browser, site: &Site, asked: &Value) -> String {
    let run = asked["run_id"].as_str().unwrap_or_else(|| panic!("no run: {asked}")).to_owned();
    let over = |run: &Value| ["succeeded", "failed", "skipped"].contains(&run["state"].as_str().unwrap_or_default());
    let found = until(browser, site, &format!("/api/v1/runs/{run}"), over).await;
    assert_eq!(found["state"], "succeeded", "{found:#}");
    run
}

/// Rows of a table as the console counts them.
fn rows(tables: &Value, name: &str) -> Option<i64> {
    tables.as_array()?.iter().find(|table| table["table"] == name)?["rows"].as_i64()
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_comparisons_and_backfills_work_from_the_console() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "console-acts").await;
    let mut browser = Browser::signed_in(&site).await;
    let post = Method::POST;
    let (_, nothing) = browser.api(Method::GET, "/api/v1/reconcile", None).await;
    assert_eq!((&nothing["running"], &nothing["last"]), (&Value::Null, &Value::Null));
    let (status, asked) = browser.api(post.clone(), "/api/v1/runs", Some(json!({"pipeline": "user_events"}))).await;
    assert_eq!(status, 202, "{asked}");
    succeeded(&browser, &site, &asked).await;

    // An event's way, by its id and by its place.
    let sql = "select event_id, topic, generation, partition, \"offset\" from silver.user_events limit 1";
    let (_, answer) = browser.api(post.clone(), "/api/v1/sql", Some(json!({"sql": sql}))).await;
    let cells: Vec<&str> = answer["rows"][0].as_array().expect("a row").iter().filter_map(Value::as_str).collect();
    let place = cells[1..].join("/");
    for asked in [cells[0], &place] {
        let (status, trace) = browser.api(Method::GET, &format!("/api/v1/trace/{asked}"), None).await;
        assert_eq!(status, 200, "{asked}: {trace}");
        assert_eq!(trace["copies"][0]["silver"]["fate"], "kept", "{trace:#}");
        let steps = trace["copies"][0]["timeline"].as_array().expect("steps");
        assert!(steps.iter().any(|step| step["about"][0]["table"] == "silver.user_events"), "{steps:#?}");
    }
    let page = browser.get(&format!("/trace/{}", cells[0])).await.text().await.expect("a page");
    assert!(page.contains(&format!("/records/{place}")) || page.contains("Searching"), "{page}");
    let (status, unknown) = browser.api(Method::GET, "/api/v1/trace/nobody-has-this", None).await;
    assert!(status == 404 && unknown["error"].as_str().is_some_and(|e| e.contains("no event has the id")), "{unknown}");

    // Every layer beside the one before; the verdict outlives the daemon.
    let (status, standing) = browser.api(post.clone(), "/api/v1/reconcile", None).await;
    assert_eq!(status, 202, "{standing}");
    let found = until(&browser, &site, "/api/v1/reconcile", |s| s["running"].is_null()).await;
    assert_eq!((&found["last"]["verdict"], &found["last"]["by"]), (&json!("same"), &json!("admin")), "{found:#}");
    assert_eq!(found["last"]["layers"].as_array().map(Vec::len), Some(5), "{found:#}");
    assert!(site.folder.join("data/reconcile/last.json").exists());
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", site.metrics_port)).await.expect("an answer");
    let metrics = metrics.text().await.expect("metrics");
    for line in [
        "boathouse_reconcile_running 0",
        "boathouse_reconcile_differing_rows{pipeline=\"user_events\",layer=\"bronze\"} 0",
        "boathouse_reconcile_differing_rows{pipeline=\"user_events\",layer=\"clickhouse_gold\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is missing in\n{metrics}");
    }
    let page = browser.get("/reconcile").await.text().await.expect("a page");
    assert!(page.contains("Everything compared is the same."), "{page}");

    // Dates again from Bronze: the plan, then the run.
    let today = chrono::Utc::now().date_naive();
    let range = format!("pipeline=user_events&from={}&to={today}", today.pred_opt().expect("a date"));
    let (status, plan) = browser.api(Method::GET, &format!("/api/v1/backfills/plan?{range}"), None).await;
    assert_eq!((status, &plan["dates"], &plan["obstacle"]), (200, &json!(2), &Value::Null), "{plan:#}");
    assert!(plan["bronze_files"].as_u64() > Some(0) && plan["hours"][0]["rows"].as_u64() > Some(0), "{plan:#}");
    assert!(plan["refused_rows"].is_u64(), "{plan:#}");
    let backwards = format!("/api/v1/backfills/plan?pipeline=user_events&from={today}&to=2020-01-01");
    assert_eq!(browser.api(Method::GET, &backwards, None).await.0, 422);
    let body = json!({"pipeline": "user_events", "from": today.to_string(), "to": today.to_string()});
    let (status, asked) = browser.api(post.clone(), "/api/v1/backfills", Some(body)).await;
    assert_eq!(status, 202, "{asked}");
    let run = succeeded(&browser, &site, &asked).await;
    let page = browser.get(&format!("/batch/backfill?{range}")).await.text().await.expect("a page");
    assert!(page.contains(&run) && page.contains("1 of 1 date") && page.contains("Start this backfill"), "{page}");

    // A query that its caller ends.
    let endless = "select count(*) from silver.user_events a, silver.user_events b, silver.user_events c where a.user_id + b.user_id + c.user_id = -1";
    let body = json!({"sql": endless, "id": "endless-query"});
    let ask = browser.api(post.clone(), "/api/v1/sql", Some(body));
    let end = async {
        until(&browser, &site, "/api/v1/sql/running", |all| all[0]["waits"] == false).await;
        browser.api(post.clone(), "/api/v1/sql/cancel", Some(json!({"id": "endless-query"}))).await
    };
    let ((status, answer), (ended, _)) = tokio::join!(ask, end);
    assert_eq!((status, ended), (422, 204), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("cancelled")), "{answer}");
    let (_, words) = browser.api(Method::GET, "/api/v1/sql/words?on=clickhouse", None).await;
    let views = words["tables"].as_array().expect("tables");
    assert!(views.iter().any(|t| t["table"] == "realtime.events_per_minute"), "{views:?}");
    let functions = words["functions"].as_array().expect("functions");
    assert!(functions.contains(&json!("toStartOfHour")) && !functions.contains(&json!("file")), "{functions:?}");

    // Tables that are kept open show what was committed since.
    let (_, tables) = browser.api(Method::GET, "/api/v1/tables", None).await;
    let before = rows(&tables, "bronze.user_events").expect("rows");
    produce(broker().await.address(), &site.topic, &["--count", "300", "--max-rate"]);
    until(&browser, &site, "/api/v1/tables", |all| rows(all, "bronze.user_events") == Some(before + 300)).await;
    let (_, counted) =
        browser.api(post, "/api/v1/sql", Some(json!({"sql": "select count(*) from bronze.user_events"}))).await;
    assert_eq!(counted["rows"][0][0], json!((before + 300).to_string()));

    let (_, audit) = browser.api(Method::GET, "/api/v1/audit", None).await;
    for action in ["POST /api/v1/reconcile", "POST /api/v1/backfills", "POST /api/v1/sql/cancel"] {
        assert!(audit.as_array().expect("entries").iter().any(|e| e["action"] == action), "{action}: {audit}");
    }
    daemon.stop().await;
    let password = browser.password().to_owned();
    let mut daemon = site.start();
    browser = Browser::of(&site).await;
    browser.sign_in("admin", &password).await;
    let (_, kept) = browser.api(Method::GET, "/api/v1/reconcile", None).await;
    assert_eq!(kept["last"], found["last"]);
    daemon.wait("the daemon to run", |status| status["reconcile"]["last"]["verdict"] == "same").await;
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}
