//! Topics and tables in odd states: each stops loudly or heals, says what to do, and the command it names resolves it.

use serde_json::Value;

use super::support::broker::{Record, broker};
use super::support::daemon::{PATIENCE, Site, produce};
use super::support::engine::Engine;

/// A login of now: one within the retention of the windows.
pub fn event(id: &str) -> String {
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S");
    format!(r#"{{"event_id":"{id}","user_id":1,"event_type":"login","page":"/","timestamp":"{now}","source":"web"}}"#)
}

/// Whether a partition stopped with a text that contains all of these.
pub fn stopped_with(status: &Value, partition: i64, texts: &[&str]) -> bool {
    status["partitions"].as_array().is_some_and(|all| {
        all.iter().filter(|p| p["partition"] == partition).any(|p| {
            let text = p.to_string();
            text.contains("stopped") && texts.iter().all(|t| text.contains(t))
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_that_overran_a_partition_stops_it_alone_until_the_gap_is_accepted() {
    let kafka = broker().await;
    if kafka.lacks("records taken away from the begin of a log") {
        return;
    }
    let engine = Engine::start();
    let topic = kafka.new_topic("gap", 2).await;
    for partition in 0..2 {
        kafka.produce(&topic, partition, Record::of(event("first").as_bytes())).await;
    }
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.stop().await;

    for i in 0..10 {
        for partition in 0..2 {
            kafka.produce(&topic, partition, Record::of(event(&format!("e{i}")).as_bytes())).await;
        }
    }
    kafka.delete_records(&topic, 0, 6).await;
    let mut daemon = site.start();
    daemon
        .wait("partition 0 to stop", |s| stopped_with(s, 0, &["retention removed 5", "bronze accept-gap user_events"]))
        .await;
    let other = kafka.end_offsets(&topic).into_iter().filter(|(p, _)| *p == 1).collect();
    daemon.wait_until_served(&other).await;
    let ready = reqwest::get(format!("http://127.0.0.1:{}/readyz", site.metrics_port)).await.unwrap();
    assert_eq!(ready.status().as_u16(), 503);
    let top = site.run(&["top", "--once", "--interval", "100ms"]);
    let shown = String::from_utf8_lossy(&top.stdout);
    assert_eq!(shown.matches("bronze accept-gap user_events").count(), 1, "{shown}");
    assert!(!shown.contains("stop the daemon"), "the daemon does it while it runs: {shown}");
    daemon.stop().await;

    let accepted = site.run(&["bronze", "accept-gap", "user_events"]);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    // The windows are counted anew under the gap's epoch; the view shows them once they are whole.
    let total = || engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute");
    daemon.wait("the view to change over", |_| total().trim() == "17").await;
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["partition stopped until somebody decides"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_stops_until_it_is_adopted_and_old_totals_stay() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("anew", 1).await;
    for i in 0..5 {
        kafka.produce(&topic, 0, Record::of(event(&format!("old{i}")).as_bytes())).await;
    }
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.stop().await;

    kafka.recreate_topic(&topic, 1, &[]).await;
    for i in 0..2 {
        kafka.produce(&topic, 0, Record::of(event(&format!("new{i}")).as_bytes())).await;
    }
    // By the topic's id where the broker has ids, else by the position, which lies beyond the new end.
    let mut daemon = site.start();
    daemon
        .wait("the topic to be refused", |s| {
            let reasons = s["readiness"]["reasons"].to_string();
            reasons.contains("made anew") && reasons.contains("boathouse bronze adopt-topic user_events")
        })
        .await;
    daemon.stop().await;
    let adopted = site.run(&["bronze", "adopt-topic", "user_events"]);
    assert!(adopted.status.success(), "{}", String::from_utf8_lossy(&adopted.stderr));
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    // The old generation's totals are counted under the new definition, then the view shows both.
    let whole = || engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute").trim() == "7";
    daemon.wait("old and new totals to add up", |_| whole()).await;
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[
        "pipeline stays down until somebody acts",
        "partition stopped until somebody decides",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_while_it_runs_are_read_from_their_start() {
    let kafka = broker().await;
    if kafka.lacks("partitions added to a topic") {
        return;
    }
    let engine = Engine::start();
    let topic = kafka.new_topic("added", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS".into(), "1000".into()));
    kafka.produce(&topic, 0, Record::of(event("a").as_bytes())).await;
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    kafka.add_partitions(&topic, 3).await;
    produce(kafka.address(), &topic, &["--count", "600", "--max-rate", "--seed", "7"]);
    let ends = kafka.end_offsets(&topic);
    assert!(ends.len() == 3 && ends.values().all(|end| *end > 0), "the new partitions have records: {ends:?}");
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clickhouse_password_alarms_and_bronze_goes_on() {
    let kafka = broker().await;
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.toml");
    std::fs::write(&users, "[[user]]\nname = \"boathouse\"\npassword = \"right\"\naccess = \"write\"\n").unwrap();
    let engine = Engine::start_with(&["--users", users.to_str().unwrap()]);
    let topic = kafka.unique_name("password");
    produce(kafka.address(), &topic, &["--count", "1000", "--max-rate", "--seed", "4"]);
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let plain = site.environment.clone();
    let with = |password: &str| {
        let mut environment = plain.clone();
        environment.push(("BOATHOUSE__CLICKHOUSE__USER".into(), "boathouse".into()));
        environment.push(("BOATHOUSE__CLICKHOUSE__PASSWORD".into(), password.into()));
        environment
    };
    site.environment = with("swordfish-17");
    let mut daemon = site.start();
    let ends = kafka.end_offsets(&topic);
    daemon
        .wait("Bronze to hold everything and ClickHouse to refuse", |s| {
            let landed = s["partitions"].as_array().is_some_and(|all| {
                ends.iter().all(|(p, end)| {
                    all.iter().any(|x| x["partition"] == *p && x["bronze_position"].as_i64() >= Some(*end))
                })
            });
            landed && s["sinks"].to_string().contains("refused")
        })
        .await;
    daemon.stop().await;
    assert!(!site.log().contains("swordfish-17"), "a password in the log");
    site.environment = with("right");
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["ClickHouse refuses our user or password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_on_one_data_folder_are_one_too_many() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("twice", 1).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let mut first = site.start();
    first.wait("the first to run", |s| s["phase"] == "running").await;
    let mut second = site.start();
    let status = second.wait_exit("the second", PATIENCE).await;
    assert_eq!(status.code(), Some(2));
    assert!(site.log().contains("another daemon runs on data_dir"), "{}", site.log());
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregate_that_is_added_gets_its_whole_history() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("fourth");
    produce(kafka.address(), &topic, &["--count", "5000", "--max-rate", "--seed", "5"]);
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.stop().await;
    let mut text = std::fs::read_to_string(site.pipeline_file()).unwrap();
    text += "\n[[aggregate]]\nname = \"clicks_per_page\"\nmeasure = \"click_count\"\ndimensions = [\"page\"]\nfilter = { event_type = [\"click\"] }\n";
    std::fs::write(site.pipeline_file(), text).unwrap();
    let mut daemon = site.start();
    let clicks = engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute WHERE event_type = 'click'");
    assert_ne!(clicks.trim(), "0");
    let counted = || engine.try_sql("SELECT sum(click_count) FROM realtime.clicks_per_page");
    daemon.wait("the whole history of the new aggregate", |_| counted() == (200, clicks.clone())).await;
    site.assert_reconciled();
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pipeline_is_a_folder() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("first");
    let orders = kafka.new_topic("orders", 2).await;
    produce(kafka.address(), &topic, &["--count", "2000", "--max-rate", "--seed", "6"]);
    let day = (chrono::Utc::now() - chrono::TimeDelta::days(1)).format("%Y-%m-%d");
    for i in 0..20 {
        let order = format!(r#"{{"order":"o{i}","at":"{day}T00:{:02}:00Z","shop":"s{}","paid":true}}"#, i % 10, i % 2);
        kafka.produce(&orders, i % 2, Record::of(order.as_bytes())).await;
    }
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let folder = site.folder.join("config/pipelines/orders");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        r#"
topic = "{orders}"
field = [
    {{ name = "order", type = "string", role = "event_id" }},
    {{ name = "at", type = "timestamp", role = "event_time" }},
    {{ name = "shop", type = "string" }},
    {{ name = "paid", type = "bool" }},
]
aggregate = [{{ name = "orders_per_shop", measure = "order_count", dimensions = ["shop"] }}]
[time]
window = "5m"
[bronze]
flush_interval = "1s"
"#
    );
    std::fs::write(folder.join("pipeline.toml"), text).unwrap();
    let mut daemon = site.start();
    daemon
        .wait("both pipelines to be served", |s| {
            let served = |pipeline: &str, ends: &std::collections::BTreeMap<i32, i64>| {
                s["partitions"].as_array().is_some_and(|all| {
                    ends.iter().all(|(p, end)| {
                        all.iter().any(|x| {
                            x["pipeline"] == pipeline
                                && x["partition"] == *p
                                && x["realtime_position"].as_i64() >= Some(*end)
                                && x["bronze_position"].as_i64() >= Some(*end)
                        })
                    })
                })
            };
            served("user_events", &kafka.end_offsets(&topic)) && served("orders", &kafka.end_offsets(&orders))
        })
        .await;
    let windows = engine.sql("SELECT count(DISTINCT window_start), sum(order_count) FROM realtime.orders_per_shop");
    assert_eq!(windows.trim(), "2\t20");
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_changed_by_hand_stops_its_own_aggregate_alone_until_it_is_dropped() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("altered", 2).await;
    let produce = async |numbers: std::ops::Range<i32>| {
        for i in numbers {
            let login = event(&format!("e{i}"));
            let record = if i % 3 == 0 { login.replace("login", "purchase") } else { login };
            kafka.produce(&topic, i % 2, Record::of(record.as_bytes())).await;
        }
    };
    produce(0..30).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__METRICS__NOT_READY_AFTER".into(), "1s".into()));
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.stop().await;
    let tables =
        "SELECT name FROM system.tables WHERE database = 'realtime' AND name LIKE 'logins_per_source_partials_%'";
    let changed = engine.sql(tables).trim().to_owned();
    engine.sql(&format!("ALTER TABLE realtime.{changed} ADD COLUMN note String"));
    produce(30..60).await;
    let mut daemon = site.start();
    let total = |what: &str| engine.sql(&format!("SELECT sum({what}_count) FROM realtime.{what}s_per_minute"));
    let totals = || (total("event"), total("purchase"));
    daemon.wait("the other aggregates to go on", |_| totals() == ("60\n".into(), "20\n".into())).await;
    daemon
        .wait("the changed one to be told", |s| {
            let reasons = s["readiness"]["reasons"].to_string();
            ["clickhouse/logins_per_source", &changed, "changed by hand: drop it"].iter().all(|t| reasons.contains(t))
        })
        .await;
    let ready = reqwest::get(format!("http://127.0.0.1:{}/readyz", site.metrics_port)).await.unwrap();
    assert_eq!(ready.status().as_u16(), 503);
    // They also go on while it runs, and after another start.
    produce(60..75).await;
    daemon.wait("the others to go on", |_| totals() == ("75\n".into(), "25\n".into())).await;
    daemon.kill();
    let mut daemon = site.start();
    produce(75..90).await;
    daemon.wait("the others to go on after a kill", |_| totals() == ("90\n".into(), "30\n".into())).await;

    engine.sql(&format!("DROP TABLE realtime.{changed} SYNC"));
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    daemon.wait("readiness", |s| s["readiness"]["ready"] == true).await;
    assert_eq!(engine.sql("SELECT sum(login_count) FROM realtime.logins_per_source"), "60\n");
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["one aggregate is not served until somebody acts"]);
}
