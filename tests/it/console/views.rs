//! What a link shows: charts over a range of time, runs that fit a filter, lines that contain a text; and the actors.

use std::time::Instant;

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::acts::{succeeded, until};
use super::browser::Browser;
use crate::scheduler::filled;
use crate::support::daemon::{PATIENCE, Site};
use crate::support::engine::Engine;

async fn text(browser: &Browser, path: &str) -> String {
    let answer = browser.get(path).await;
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.expect("a page")
}

/// The page once it holds a text; it looks things up behind whoever asks.
pub async fn shown(browser: &Browser, path: &str, part: &str) -> String {
    let begin = Instant::now();
    loop {
        let page = text(browser, path).await;
        if page.contains(part) {
            return page;
        }
        assert!(begin.elapsed() < PATIENCE, "`{part}` does not come: {page}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_shows_the_same_range_the_same_runs_and_the_same_lines() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "console-views").await;
    let browser = Browser::signed_in(&site).await;
    let any = |over: &Value| over["points"].as_array().is_some_and(|points| !points.is_empty());
    until(&browser, &site, "/api/v1/rates", any).await;
    ranges(&browser, &engine).await;
    actors(&browser, &site).await;
    runs_and_lines(&browser, &site).await;
    quality(&browser).await;
    served(&browser).await;
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

/// Charts over time: from memory, and from what ClickHouse has kept.
async fn ranges(browser: &Browser, engine: &Engine) {
    let page = text(browser, "/").await;
    assert!(
        page.contains("<h2>The last hour</h2>") && page.contains("data-live=\"/live/overview?range=1h\""),
        "{page}"
    );
    for range in ["15m", "1h", "6h", "24h", "7d", "30d"] {
        assert!(page.contains(&format!("href=\"/?range={range}\"")), "{range} is not offered");
        let page = text(browser, &format!("/?range={range}")).await;
        assert!(page.contains(&format!("data-live=\"/live/overview?range={range}\"")), "{range}");
        assert!(page.contains(&format!("href=\"/?range={range}\" aria-current=\"true\"")), "{range}");
        let (status, over) = browser.api(Method::GET, &format!("/api/v1/rates?range={range}"), None).await;
        assert_eq!((status, over["range"].as_str()), (200, Some(range)), "{over}");
        let points = over["points"].as_array().expect("points");
        assert!(!points.is_empty() && over["known_since"].is_string(), "{over}");
    }
    let page = text(browser, "/?range=7d").await;
    assert!(page.contains("<h2>The last 7 days</h2>") && page.contains("This instance counts since"), "{page}");
    for wrong in [
        "/?range=5y",
        "/stream?range=x",
        "/quality?range=x",
        "/live/overview?range=x",
        "/api/v1/rates?range=x",
        "/api/v1/lag?range=x",
        "/api/v1/quality?range=x",
    ] {
        let answer = browser.get(wrong).await;
        assert_eq!(answer.status(), 422, "{wrong}");
        assert!(answer.text().await.expect("a text").contains("15m, 1h, 6h, 24h, 7d, 30d"), "{wrong}");
    }
    assert_eq!(browser.api(Method::GET, "/api/v1/rates?pipeline=none", None).await.0, 404);

    // The live parts are of the same range.
    let mut stream = browser.get("/live/overview?range=24h").await.bytes_stream();
    let (mut sent, begin) = (String::new(), Instant::now());
    while !sent.contains("<h2>The last 24 hours</h2>") {
        assert!(begin.elapsed() < PATIENCE, "{sent}");
        let chunk = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("goes on");
        sent.push_str(&String::from_utf8_lossy(&chunk.expect("a chunk")));
    }
    assert!(!sent.contains("<h2>The last hour</h2>"), "{sent}");

    // What ClickHouse has kept of days in which this daemon did not run.
    let (status, lag) = browser.api(Method::GET, "/api/v1/lag?range=24h", None).await;
    assert_eq!(status, 200, "{lag}");
    engine.sql(
        "INSERT INTO realtime.freshness (pipeline, aggregate, observed_at, newest_record_time, lag_seconds, counted_records) \
         SELECT 'user_events', 'events_per_minute', now64(3) - INTERVAL (number * 60) MINUTE, now64(3), 7 + number, 1 \
         FROM numbers(100)",
    );
    let (_, lag) = browser.api(Method::GET, "/api/v1/lag?pipeline=user_events", None).await;
    let of = |lag: &Value| {
        let all = lag.as_array().expect("a list").clone();
        let is_ours = |one: &&Value| one["name"] == "events_per_minute" && one["of"] == "realtime";
        let found = all.iter().find(is_ours).unwrap_or_else(|| panic!("{lag:#}"))["points"].as_array().cloned();
        found.expect("points")
    };
    let week = of(&lag);
    assert!(week.len() >= 99 && week[0]["lag_seconds"].as_f64().is_some_and(|lag| lag > 100.0), "{week:#?}");
    assert!(week.is_sorted_by_key(|point| point["at"].as_str().expect("a moment").to_owned()), "oldest first");
    let (_, lag) = browser.api(Method::GET, "/api/v1/lag?range=6h", None).await;
    assert!(of(&lag).len() < 10, "{lag:#}");
    assert_eq!(browser.api(Method::GET, "/api/v1/lag?pipeline=none", None).await.0, 404);
    let page = shown(browser, "/?range=6h", "Realtime views of user_events").await;
    assert!(page.contains("Lag over the last 6 hours"), "{page}");
    let page = shown(browser, "/stream?range=24h", "Realtime views of user_events").await;
    assert!(page.contains("Lag over the last 24 hours") && page.contains("/live/stream?range=24h"), "{page}");
}

/// Every actor from its start, with what waits for it.
async fn actors(browser: &Browser, site: &Site) {
    let (_, status) = browser.api(Method::GET, "/api/v1/status", None).await;
    let actors = status["actors"].as_array().expect("actors");
    for (kind, many) in [
        ("scheduler", 1),
        ("pipeline", 1),
        ("bronze_writer", 1),
        ("realtime_writer", 1),
        ("upkeep", 1),
        ("partition_consumer", 3),
        ("window_aggregator", 3),
    ] {
        let of_kind: Vec<&Value> = actors.iter().filter(|actor| actor["kind"] == kind).collect();
        assert_eq!(of_kind.len(), many, "{kind}: {actors:#?}");
        for actor in of_kind {
            assert!(actor["mailbox_messages"].is_u64(), "{actor}");
            assert_eq!((&actor["phase"], &actor["restarts"]), (&json!("running"), &json!(0)), "{actor}");
        }
    }
    let page = text(browser, "/actors").await;
    for part in ["Mailbox", "partition consumer", "window aggregator", "upkeep"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let metrics = reqwest::get(format!("http://127.0.0.1:{}/metrics", site.metrics_port)).await.expect("metrics");
    let metrics = metrics.text().await.expect("a text");
    for kind in ["partition_consumer", "window_aggregator"] {
        for partition in 0..3 {
            let name = format!("user_events/{}/0/{partition}", site.topic);
            let line = format!("boathouse_actor_mailbox_messages{{kind=\"{kind}\",actor=\"{name}\"}} ");
            assert!(metrics.lines().any(|found| found.starts_with(&line)), "{line} is missing in {metrics}");
        }
    }
}

/// Which runs are listed, and which lines of a log.
async fn runs_and_lines(browser: &Browser, site: &Site) {
    let mut made = Vec::new();
    for graph in ["lakehouse_batch_pipeline", "lakehouse_upkeep"] {
        let new = json!({"pipeline": "user_events", "graph": graph});
        let (status, asked) = browser.api(Method::POST, "/api/v1/runs", Some(new)).await;
        assert_eq!(status, 202, "{asked}");
        made.push(succeeded(browser, site, &asked).await);
    }
    let today = chrono::Utc::now().date_naive();
    let (yesterday, tomorrow) = (today - chrono::Days::new(1), today + chrono::Days::new(1));
    let both: &[&str] = &[&made[1], &made[0]];
    for (query, wanted) in [
        (String::new(), both),
        ("graph=lakehouse_batch_pipeline".into(), &both[1..]),
        ("graph=lakehouse_upkeep&state=succeeded&cause=manual&pipeline=user_events".into(), &both[..1]),
        ("state=succeeded".into(), both),
        ("state=failed".into(), &[]),
        ("cause=schedule".into(), &[]),
        ("pipeline=another".into(), &[]),
        (format!("from={yesterday}&to={tomorrow}"), both),
        (format!("from={tomorrow}"), &[]),
        (format!("to={yesterday}"), &[]),
        ("limit=1".into(), &both[..1]),
    ] {
        let (status, runs) = browser.api(Method::GET, &format!("/api/v1/runs?{query}"), None).await;
        let ids: Vec<&str> = runs.as_array().expect("runs").iter().filter_map(|run| run["run_id"].as_str()).collect();
        assert_eq!((status, ids.as_slice()), (200, wanted), "{query}");
        if query.starts_with("limit") {
            continue;
        }
        let page = text(browser, &format!("/batch?{query}")).await;
        // The schedule above names the newest run in any case.
        let (_, page) = page.split_once("id=\"runs\"").expect("the runs");
        for run in &made {
            assert_eq!(
                page.contains(&format!("/batch/runs/{run}\"")),
                wanted.contains(&run.as_str()),
                "{query}: {page}"
            );
        }
        assert_eq!(page.contains("No run fits this filter"), wanted.is_empty(), "{query}");
    }
    // The form shows what is asked for, and the live parts are of the same runs.
    let page = text(browser, "/batch?state=succeeded&graph=lakehouse_upkeep").await;
    assert!(page.contains("data-live=\"/live/batch?state=succeeded&amp;graph=lakehouse_upkeep\""), "{page}");
    assert!(page.contains("<option value=\"succeeded\" selected>"), "{page}");
    let mut stream = browser.get("/live/batch?state=failed").await.bytes_stream();
    let (mut sent, begin) = (String::new(), Instant::now());
    while !sent.contains("No run fits this filter") {
        assert!(begin.elapsed() < PATIENCE, "{sent}");
        let chunk = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("goes on");
        sent.push_str(&String::from_utf8_lossy(&chunk.expect("a chunk")));
    }
    for wrong in ["state=odd", "cause=odd", "graph=odd", "from=tuesday"] {
        for page in ["/batch", "/api/v1/runs", "/live/batch"] {
            assert_eq!(browser.get(&format!("{page}?{wrong}")).await.status(), 422, "{page}?{wrong}");
        }
    }

    // One attempt's lines, as its number in the table of attempts leads to them.
    let log = format!("/api/v1/runs/{}/log", made[0]);
    let task = "task=run_bronze_to_silver&attempt";
    let page = text(browser, &format!("/batch/runs/{}", made[0])).await;
    assert!(page.contains(&format!("/batch/runs/{}?task=run_bronze_to_silver&amp;attempt=1\"", made[0])), "{page}");
    let (_, lines) = browser.api(Method::GET, &format!("{log}?{task}=1"), None).await;
    assert!(lines.as_array().is_some_and(|lines| !lines.is_empty() && lines.iter().all(|line| line["attempt"] == 1)));
    assert_eq!(browser.api(Method::GET, &format!("{log}?{task}=2"), None).await.1, json!([]));
    assert!(text(browser, &format!("/batch/runs/{}?{task}=1", made[0])).await.contains("in the whole log"));
    assert_eq!(browser.get(&format!("/batch/runs/{}?{task}=x", made[0])).await.status(), 422);

    // A text is found in capitals or small letters, by the page and by the API.
    let lines = until(browser, site, &log, |lines| lines.as_array().is_some_and(|lines| !lines.is_empty())).await;
    let message = lines[0]["message"].as_str().expect("a message").to_uppercase();
    let asked = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let (_, found) = browser.api(Method::GET, &format!("{log}?contains={}", asked(&message)), None).await;
    assert!(found.as_array().is_some_and(|found| found.contains(&lines[0])), "{found}");
    let (_, none) = browser.api(Method::GET, &format!("{log}?contains=no+line+says+this"), None).await;
    assert_eq!(none, json!([]));
    let page = text(browser, &format!("/batch/runs/{}?find={}", made[0], asked(&message))).await;
    assert!(page.contains("in the whole log") && !page.contains("No line fits this filter"), "{page}");
    let page = text(browser, &format!("/batch/runs/{}?find=no+line+says+this", made[0])).await;
    assert!(page.contains("No line fits this filter"), "{page}");
}

/// Expectations over a range: the run of before has checked them once.
async fn quality(browser: &Browser) {
    for (range, words) in [("15m", "15 minutes"), ("24h", "24 hours"), ("30d", "30 days")] {
        let page = text(browser, &format!("/quality?range={range}")).await;
        for part in [
            &format!("href=\"/quality?range={range}\" aria-current=\"true\""),
            &format!("<h2>The last {words}</h2>"),
            "event_ids_are_unique",
            "aria-label=\"broken in 0 of 1 check\"",
            "class=\"cell good\"",
            "class=\"cell none\"",
            &format!("No row of the last {words} was refused"),
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        let (status, results) = browser.api(Method::GET, &format!("/api/v1/quality?range={range}"), None).await;
        let results = results.as_array().cloned().unwrap_or_else(|| panic!("{results}"));
        assert!(status == 200 && results.iter().any(|of| of["name"] == "event_ids_are_unique"), "{results:#?}");
    }
    assert!(text(browser, "/quality").await.contains("<h2>The last 7 days</h2>"));
}

/// What ClickHouse serves, beside the Delta tables.
async fn served(browser: &Browser) {
    let (status, tables) = browser.api(Method::GET, "/api/v1/clickhouse/tables", None).await;
    assert_eq!(status, 200, "{tables}");
    let of = |name: &str| tables.as_array().expect("a list").iter().find(|table| table["table"] == name).cloned();
    let view = of("realtime.events_per_minute").unwrap_or_else(|| panic!("{tables:#}"));
    assert_eq!((&view["engine"], &view["rows"]), (&json!("View"), &Value::Null), "{view}");
    let published = of("gold.published").unwrap_or_else(|| panic!("{tables:#}"));
    assert!(published["rows"].as_u64() > Some(0) && published["bytes"].as_u64() > Some(0), "{published}");
    let (_, whole) = browser.api(Method::GET, "/api/v1/clickhouse/tables/gold.published", None).await;
    let columns: Vec<&Value> = whole["columns"].as_array().expect("columns").iter().map(|c| &c["name"]).collect();
    assert_eq!(columns[..2], [&json!("pipeline"), &json!("event_date")], "{whole}");
    let page = text(browser, "/data").await;
    for name in ["silver.user_events", "realtime.events_per_minute", "gold.daily_active_users"] {
        assert!(page.contains(name), "{name} is not on the data page");
    }
    let page = text(browser, "/data/clickhouse/realtime.events_per_minute").await;
    for part in ["window_start", "event_type", "login", "Go on in the SQL editor"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for nowhere in ["system.users", "gold.x' OR '1'='1", "nothing"] {
        let path = url::form_urlencoded::byte_serialize(nowhere.as_bytes()).collect::<String>().replace('+', "%20");
        assert_eq!(browser.get(&format!("/data/clickhouse/{path}")).await.status(), 404, "{nowhere}");
        assert_eq!(browser.get(&format!("/api/v1/clickhouse/tables/{path}")).await.status(), 404, "{nowhere}");
    }
}
