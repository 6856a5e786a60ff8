//! `boathouse trace`: one event followed, whatever became of it.

use serde_json::Value;

use super::platform::{Platform, nth, record, with_models};
use crate::bronze::{Record, event};
use crate::support::broker::broker;
use crate::support::daemon::{Site, produce};
use crate::support::engine::Engine;

/// The text of a trace, and the program's exit code.
fn text(site: &Site, asked: &str) -> (Option<i32>, String, String) {
    let output = site.run(&["trace", asked]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), out.into_owned(), err.into_owned())
}

/// The only copy of an event.
fn one<'a>(trace: &'a Value, fate: &str) -> &'a Value {
    let copies = trace["copies"].as_array().expect("copies");
    assert_eq!(copies.len(), 1, "{trace:#}");
    assert_eq!(copies[0]["silver"]["fate"], fate, "{trace:#}");
    &copies[0]
}

fn of_table<'a>(copy: &'a Value, table: &str) -> &'a Value {
    let rows = copy["gold"].as_array().expect("gold");
    rows.iter().find(|g| g["table"] == table).unwrap_or_else(|| panic!("no {table}: {copy:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fate_is_told() {
    let mut platform = Platform::new().await;
    let (code, _, err) = text(&platform.site, "e00000001");
    assert_eq!(code, Some(1));
    assert!(err.contains("no event has the id `e00000001`") && err.contains("boathouse status"), "{err}");

    // Offsets 0 to 99: events ten minutes apart, of which the last sets the watermark.
    platform.commit(0, &(0..100).map(nth).collect::<Vec<_>>()).await;
    let sent = event(99 * 600).timestamp;
    let late = Record { timestamp: sent, ..record(600, "late-one", "purchase", "/late", "web") };
    let copy = Record { timestamp: sent, ..nth(3) };
    let future = Record { timestamp: sent, ..record(200 * 600, "future-one", "click", "/", "web") };
    let wrong = record(99 * 600, "wrong-one", "dance", "", "web");
    let bad = Record { value: Some(b"no event".to_vec()), ..event(99 * 600) };
    // Offsets 100 to 104.
    platform.commit(0, &[late, copy, future, wrong, bad]).await;
    platform.batch("run-1").await;
    platform.commit(0, &[record(100 * 600, "new-one", "click", "/new", "web")]).await;

    // A kept event and its copy, by the id and by the place of either.
    for asked in ["e00000003", "user-events/0/3", "user-events/0/0/101"] {
        let (code, trace) = platform.command(&["trace", asked]);
        let copies = trace["copies"].as_array().expect("copies");
        assert_eq!((code, copies.len()), (Some(0), 2), "{asked}: {trace:#}");
        let (kept, duplicate) = (&copies[0], &copies[1]);
        assert_eq!(
            (&kept["topic"], &kept["partition"], &kept["offset"]),
            (&"user-events".into(), &0.into(), &3.into())
        );
        assert_eq!((&kept["verdict"], &kept["silver"]["fate"]), (&"ok".into(), &"kept".into()), "{kept:#}");
        assert!(kept["bronze"]["commit"]["version"].as_u64() > Some(0), "{kept:#}");
        assert!(kept["bronze"]["file"].as_str().expect("a file").ends_with(".parquet"));
        assert_eq!((&duplicate["offset"], &duplicate["silver"]["fate"]), (&101.into(), &"duplicate".into()));
        assert_eq!(duplicate["silver"]["of"]["offset"], 3, "{duplicate:#}");
    }
    let (_, trace) = platform.command(&["trace", "e00000002"]);
    let kept = one(&trace, "kept");
    // The second event is a purchase on /page/2: in every figure of its day.
    let dau = of_table(kept, "gold.daily_active_users");
    let expected = platform.engine.sql("SELECT dau_count FROM gold.daily_active_users WHERE event_date = '2026-02-06'");
    assert_eq!(dau["key"]["event_date"], "2026-02-06");
    assert_eq!(dau["values"]["dau_count"].to_string(), expected.trim());
    assert_eq!((&dau["includes_event"], &dau["served"]["same"]), (&true.into(), &true.into()), "{dau:#}");
    assert!(dau["served"]["run_id"].as_str().expect("a run").starts_with("run-1"), "{dau:#}");
    let page = of_table(kept, "gold.purchases_per_page_daily");
    assert_eq!((&page["key"]["page"], &page["served"]["same"]), (&"/page/2".into(), &true.into()), "{page:#}");
    assert_eq!(of_table(kept, "gold.dim_users")["key"]["user_id"], 2);
    assert_eq!(of_table(kept, "gold.fact_events")["key"]["event_id"], "e00000002");
    // A login is in no figure of purchases.
    let (_, trace) = platform.command(&["trace", "e00000004"]);
    let login = one(&trace, "kept");
    assert!(login["gold"].as_array().expect("gold").iter().all(|g| g["table"] != "gold.purchases_per_page_daily"));

    let (_, trace) = platform.command(&["trace", "late-one"]);
    let late = one(&trace, "kept");
    assert_eq!(late["verdict"], "late");
    assert!(late["windows_note"].as_str().expect("why").contains("closed"), "{late:#}");
    assert_eq!(of_table(late, "gold.purchases_per_page_daily")["values"]["purchase_count"], 1);

    let refused = |asked: &str| {
        let (code, trace) = platform.command(&["trace", asked]);
        assert_eq!(code, Some(0), "{trace:#}");
        let copy = one(&trace, "refused").clone();
        (copy["verdict"].as_str().expect("a verdict").to_owned(), copy["silver"]["reasons"].clone())
    };
    assert_eq!(refused("wrong-one"), ("ok".into(), serde_json::json!(["invalid:event_type", "invalid:page"])));
    assert_eq!(refused("future-one"), ("future".into(), serde_json::json!(["future"])));
    assert_eq!(refused("user-events/0/104"), ("unparsed".into(), serde_json::json!(["unparsed"])));

    let (code, trace) = platform.command(&["trace", "new-one"]);
    assert_eq!(code, Some(0));
    let new = one(&trace, "not_yet_run");
    assert!(new["silver"]["why"].as_str().expect("why").contains("the next run takes it"), "{new:#}");

    // A row that somebody took away.
    platform.delete("silver/user_events", "event_id = 'e00000005'").await;
    let (_, trace) = platform.command(&["trace", "e00000005"]);
    let missing = one(&trace, "missing");
    assert!(missing["silver"]["remedy"].as_str().expect("what to do").contains("2026-02-06"), "{missing:#}");

    let (code, _, err) = text(&platform.site, "user-events/0/999");
    assert_eq!(code, Some(1));
    assert!(err.contains("up to offset 106"), "{err}");
    let (code, trace) = platform.command(&["trace", "nobody"]);
    assert_eq!((code, trace["copies"].as_array().map(Vec::len)), (Some(1), Some(0)), "{trace:#}");
    let (_, out, _) = text(&platform.site, "e00000003");
    for part in
        ["(copy 1 of 2): kept", "a duplicate: the copy at user-events/0/0/3 stayed", "kafka", "gold.daily_active_users"]
    {
        assert!(out.contains(part), "no `{part}`: {out}");
    }

    // ClickHouse away: the rest is told.
    platform.engine.kill();
    let (code, trace) = platform.command(&["trace", "e00000002"]);
    assert_eq!(code, Some(0), "{trace:#}");
    let kept = one(&trace, "kept");
    assert!(kept["windows_note"].is_string(), "{kept:#}");
    let dau = of_table(kept, "gold.daily_active_users");
    assert!(dau["values"]["dau_count"].is_u64() && dau["served"]["note"].is_string(), "{dau:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_kafka_to_what_is_served() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("trace");
    let site = Site::new(kafka.address(), &engine.url, &topic);
    with_models(&site);
    let shares = ["--late", "0.02", "--duplicate", "0.02", "--malformed", "0.01", "--future", "0.01"];
    let arguments = [&["--count", "2000", "--max-rate", "--seed", "5"][..], &shares[..]].concat();
    produce(kafka.address(), &topic, &arguments);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let run = site.run(&["batch", "run", "--wait"]);
    assert!(run.status.success(), "{}\n{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let report = site.assert_reconciled();
    let layers = report["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 5, "{report:#}");
    assert!(layers.iter().all(|l| l["verdict"] == "same"), "{report:#}");

    let found = site.run(&["--json", "sql", "select event_id, \"offset\", partition from silver.user_events where event_type = 'login' and time_status = 'ok' limit 1"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let found: Value = serde_json::from_str(found.lines().next().expect("a row")).expect("JSON lines");
    let id = found["event_id"].as_str().expect("an id");
    let output = site.run(&["--json", "trace", id]);
    let trace: Value = serde_json::from_slice(&output.stdout).expect("a trace");
    let copy = trace["copies"].as_array().expect("copies").iter().find(|c| c["silver"]["fate"] == "kept");
    let copy = copy.unwrap_or_else(|| panic!("no kept copy: {trace:#}"));
    assert_eq!((&copy["offset"], &copy["partition"]), (&found["offset"], &found["partition"]));
    let windows = copy["windows"].as_array().expect("windows");
    let views: Vec<&str> = windows.iter().map(|w| w["view"].as_str().expect("a view")).collect();
    assert_eq!(views, ["realtime.events_per_minute", "realtime.logins_per_source"], "{copy:#}");
    for w in windows {
        assert_eq!(w["counted"], true, "{w:#}");
        let (name, value) = w["dimensions"].as_object().expect("dimensions").iter().next().expect("one");
        let measure = if w["view"] == "realtime.events_per_minute" { "event_count" } else { "login_count" };
        let start = w["window_start"].as_str().expect("a start").replace('Z', "").replace('T', " ");
        let served = engine.sql(&format!(
            "SELECT {measure} FROM {} WHERE window_start = '{start}' AND {name} = '{}'",
            w["view"].as_str().expect("a view"),
            value.as_str().expect("a text")
        ));
        assert_eq!(w["served_count"].to_string(), served.trim(), "{w:#}");
    }
    assert_eq!(of_table(copy, "gold.events_per_source_daily")["served"]["same"], true, "{copy:#}");
    // The story runs in the order of time, as far as the clocks of producer, broker and daemon are one.
    let times: Vec<&str> =
        copy["timeline"].as_array().expect("steps").iter().filter_map(|s| s["at"].as_str()).collect();
    let times: Vec<_> = times.iter().map(|t| chrono::DateTime::parse_from_rfc3339(t).expect("a time")).collect();
    assert!(times[1..].is_sorted() || times[1..4].is_sorted(), "{copy:#}");
    daemon.stop().await;
}
