//! A Bronze table that somebody changes by hand: what can be put right is, what cannot stops loudly and stays stopped
//! over a restart, and another pipeline goes on beside it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::support::broker::{Record, broker};
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;

/// Runs a script of `tests/python`; what it prints.
fn python(script: &str, arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new(root.join("tools/python.sh")).output().unwrap();
    assert!(made.status.success(), "tools/python.sh: {}", String::from_utf8_lossy(&made.stderr));
    let python = String::from_utf8(made.stdout).unwrap();
    let output =
        Command::new(python.trim()).arg(root.join("tests/python").join(script)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Drops a column from the table's schema, by a log entry of its own: as a tool would that knows nothing of Boathouse.
fn drop_column(table: &Path, column: &str) {
    let log = table.join("_delta_log");
    let entry = |version: u64| log.join(format!("{version:020}.json"));
    let next = (0..).find(|version| !entry(*version).exists()).unwrap();
    let mut actions = (0..next).flat_map(|version| {
        let text = std::fs::read_to_string(entry(version)).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    });
    let mut action = actions.rfind(|action| action["metaData"].is_object()).unwrap();
    let schema = &mut action["metaData"]["schemaString"];
    let mut columns: Value = serde_json::from_str(schema.as_str().unwrap()).unwrap();
    columns["fields"].as_array_mut().unwrap().retain(|field| field["name"] != column);
    *schema = columns.to_string().into();
    std::fs::write(entry(next), format!("{action}\n")).unwrap();
}

fn second_pipeline(site: &Site, topic: &str) {
    let folder = site.folder.join("config/pipelines/beside");
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "topic = \"{topic}\"\nfield = [{{ name = \"id\", type = \"string\", role = \"event_id\" }}, {{ name = \"at\", \
         type = \"timestamp\", role = \"event_time\" }}]\n[bronze]\nflush_interval = \"1s\"\n"
    );
    std::fs::write(folder.join("pipeline.toml"), text).unwrap();
}

fn bronze_position(status: &Value, pipeline: &str) -> Option<i64> {
    let partitions = status["partitions"].as_array()?.iter().filter(|p| p["pipeline"] == pipeline);
    partitions.map(|p| p["bronze_position"].as_i64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_changed_by_hand_is_put_right_or_stops_its_pipeline_alone() {
    let kafka = broker().await;
    let engine = Engine::start();
    let (topic, beside) = (kafka.new_topic("by-hand", 2).await, kafka.new_topic("beside", 1).await);
    let site = Site::new(kafka.address(), &engine.url, &topic);
    second_pipeline(&site, &beside);
    let table = site.lakehouse().join("bronze/user_events");
    let path = table.to_str().unwrap();
    let seed = std::cell::Cell::new(0);
    let more = || {
        seed.set(seed.get() + 1);
        produce(kafka.address(), &topic, &["--count", "200", "--max-rate", "--seed", &seed.get().to_string()]);
        kafka.end_offsets(&topic)
    };
    let sql = |statement: &str| {
        let output = site.run(&["sql", "--format", "csv", statement]);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let ends = more();
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;

    // A column more: the writer goes on, its rows have null there.
    python("change_bronze.py", &[path, "add-column"]);
    daemon.wait_until_served(&more()).await;
    assert_eq!(sql("select count(*) from bronze.user_events where note_by_hand is null").1.lines().last(), Some("400"));

    // A column less: it comes back, with what it held.
    drop_column(&table, "page");
    assert!(!sql("select page from bronze.user_events limit 1").0, "the column is gone");
    daemon.wait_until_served(&more()).await;
    assert_eq!(sql("select count(page) from bronze.user_events").1.lines().last(), Some("600"));
    assert!(site.log().contains("put back columns that somebody had dropped: page"), "{}", site.log());
    site.assert_reconciled();

    // Another writer's rows: the stream goes on, the log and `reconcile` tell.
    python("change_bronze.py", &[path, "append"]);
    daemon.wait_until_served(&more()).await;
    assert!(site.log().contains("another writer added rows to Bronze"), "{}", site.log());
    let (right, report) = site.reconcile();
    assert!(!right, "rows that Kafka never had: {report:#}");

    // Rows removed: the pipeline stops, at once and after a restart, and the one beside it goes on.
    python("change_bronze.py", &[path, "delete"]);
    let ends = more();
    let stopped = |status: &Value| {
        let reasons = status["readiness"]["reasons"].to_string();
        reasons.contains("removed rows") && reasons.contains("boathouse bronze accept-settings user_events")
    };
    daemon.wait("the pipeline to stop", stopped).await;
    daemon.kill();
    let mut daemon = site.start();
    daemon.wait("the pipeline to stop again", stopped).await;
    kafka.produce(&beside, 0, Record::of(b"{}")).await;
    daemon.wait("the other pipeline to go on", |s| bronze_position(s, "beside") == Some(1)).await;
    let ready = reqwest::get(format!("http://127.0.0.1:{}/readyz", site.metrics_port)).await.unwrap();
    assert_eq!(ready.status().as_u16(), 503);
    let status = String::from_utf8_lossy(&site.run(&["status"]).stdout).into_owned();
    assert!(status.contains("removed rows"), "{status}");
    daemon.stop().await;

    let accepted = site.run(&["bronze", "accept-settings", "user_events"]);
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    // Until then the views show what was counted before, which `reconcile` does not take for checked.
    daemon.wait("the windows to be counted again", |_| site.reconcile().0).await;
    assert_eq!(engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute").trim(), "1000");
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[
        "changed the table's metadata",
        "another writer added rows to Bronze",
        "pipeline stays down until somebody acts",
    ]);
}
