//! Metrics, health and status over HTTP, as Prometheus, a load balancer and `boathouse status` see them.

use std::time::Duration;

use boathouse::kafka::Source;
use boathouse::telemetry::{
    Acquired, ActorId, Board, Consumed, DaemonPhase, Limits, Listener, PartitionPhase, Recorder, SinkCondition, Status,
    names,
};

use crate::support::daemon::Site;

fn source(partition: i32) -> Source {
    Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition }
}

fn acquired(position: i64) -> Acquired {
    Acquired {
        position,
        mark: None,
        bound: Duration::from_secs(30),
        bronze_flush_interval: Duration::from_secs(30),
        realtime_flush_interval: Some(Duration::from_secs(1)),
    }
}

fn listen(board: &Board, limits: Limits) -> Listener {
    let recorder = Recorder::global().expect("one recorder for this process");
    Listener::start("127.0.0.1:0", board.clone(), recorder, limits).expect("a free port")
}

async fn get(listener: &Listener, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}{path}", listener.address())).await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

/// The value of the one series that begins with `series`.
fn value(metrics: &str, series: &str) -> f64 {
    let lines: Vec<&str> = metrics.lines().filter(|l| l.starts_with(series)).collect();
    assert_eq!(lines.len(), 1, "{series} in:\n{metrics}");
    lines[0].rsplit_once(' ').expect("series and value").1.parse().expect("a number")
}

#[tokio::test]
async fn a_scrape_shows_the_board_and_what_was_recorded() {
    let board = Board::new();
    let listener = listen(&board, Limits::default());
    board.acquired(&source(0), &acquired(100));
    board.acquired(&source(1), &acquired(0));
    let now_us = chrono::Utc::now().timestamp_micros();
    let batch = Consumed { records: 10, bytes: 1560, verdicts: [8, 1, 1, 0], next: 110, mark: Some(now_us) };
    board.consumed(&source(0), &batch);
    board.end_offset(&source(0), 150);
    board.memory_budget(128 << 20);
    board.bronze_holds("user_events", 1 << 20);
    board.windows_hold(&source(0), 1 << 10);
    names::BRONZE_COMMIT_SECONDS.observe(Duration::from_micros(2_000), &["scraped"]);
    names::BRONZE_COMMIT_SECONDS.observe(Duration::from_secs(60), &["scraped"]);
    names::begin("scraped");
    names::BRONZE_ROWS.add(10, &["scraped"]);
    names::BRONZE_ROWS.add(5, &["scraped"]);

    let (code, text) = get(&listener, "/metrics").await;
    assert_eq!(code, 200);
    let p0 = "pipeline=\"user_events\",topic=\"user-events\",partition=\"0\"";
    assert_eq!(value(&text, &format!("boathouse_records_total{{{p0}}}")), 10.0);
    assert_eq!(value(&text, &format!("boathouse_lag_records{{{p0}}}")), 40.0);
    assert_eq!(value(&text, &format!("boathouse_verdicts_total{{{p0},verdict=\"late\"}}")), 1.0);
    let delay = value(&text, &format!("boathouse_watermark_delay_seconds{{{p0}}}"));
    assert!((30.0..60.0).contains(&delay), "30 s bound and the time since: {delay}");
    assert_eq!(value(&text, "boathouse_memory_budget_bytes"), 134_217_728.0);
    assert_eq!(value(&text, "boathouse_memory_used_bytes"), 1_049_600.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert_eq!(value(&text, "boathouse_bronze_rows_total{pipeline=\"scraped\"}"), 15.0);
    let fenced = value(&text, "boathouse_bronze_fenced_total{pipeline=\"scraped\"}");
    assert_eq!(fenced, 0.0, "begun before its first event");
    let bucket =
        |le: &str| value(&text, &format!("boathouse_bronze_commit_seconds_bucket{{pipeline=\"scraped\",le=\"{le}\"}}"));
    assert_eq!((bucket("0.001"), bucket("0.0025"), bucket("30"), bucket("+Inf")), (0.0, 1.0, 1.0, 2.0));
    assert!(text.contains("# HELP boathouse_bronze_commit_seconds Putting one entry into the Delta log"), "{text}");

    board.revoked(&source(0));
    let (_, text) = get(&listener, "/metrics").await;
    assert!(!text.contains(p0), "the series of a revoked partition are gone");
    assert!(text.contains("partition=\"1\""), "those of the others are not");
    listener.stop().await;
}

#[tokio::test]
async fn readiness_follows_progress_and_liveness_does_not() {
    let board = Board::new();
    let limits = Limits { stall: Duration::ZERO, ..Limits::default() };
    let listener = listen(&board, limits);
    let (code, body) = get(&listener, "/readyz").await;
    assert_eq!((code, body.contains("starting")), (503, true), "{body}");

    board.set_phase(DaemonPhase::Running);
    board.acquired(&source(0), &acquired(0));
    board.partition_phase(&source(0), PartitionPhase::Running);
    assert_eq!(get(&listener, "/readyz").await.0, 200);

    board.end_offset(&source(0), 5);
    let (code, body) = get(&listener, "/readyz").await;
    assert_eq!((code, body.contains("5 records to read")), (503, true), "{body}");
    assert_eq!(get(&listener, "/healthz").await, (200, "ok\n".to_owned()));

    board.revoked(&source(0));
    board.sink("clickhouse", SinkCondition::Refused { error: "Code: 516. Authentication failed".into() });
    let (code, body) = get(&listener, "/readyz").await;
    assert_eq!((code, body.contains("Code: 516")), (503, true), "{body}");

    board.sink("clickhouse", SinkCondition::Healthy);
    assert_eq!(get(&listener, "/readyz").await.0, 200);
    listener.stop().await;
}

#[tokio::test]
async fn status_is_json_that_reads_back() {
    let board = Board::new();
    let listener = listen(&board, Limits::default());
    board.set_phase(DaemonPhase::Running);
    board.acquired(&source(2), &acquired(7));
    board.stopped(&source(2), "the topic was made anew", "boathouse topic adopt user_events");
    board.actor_running(&ActorId::new("bronze_writer", "user_events"), true);

    let (code, body) = get(&listener, "/status").await;
    assert_eq!(code, 200);
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(json["partitions"][0]["phase"], "stopped");
    assert_eq!(json["partitions"][0]["command"], "boathouse topic adopt user_events");
    assert_eq!(json["partitions"][0]["lag_records"], serde_json::Value::Null, "unknown is not 0");
    let status: Status = serde_json::from_str(&body).expect("the same types");
    assert_eq!(status.partitions[0].bronze_position, 7);
    assert_eq!(status.actors[0].restarts, 1);
    assert!(!status.readiness.ready);
    listener.stop().await;
}

#[test]
fn a_port_in_use_ends_the_daemon_with_an_error_that_names_the_key() {
    let site = Site::new("127.0.0.1:1", "http://127.0.0.1:1", "no-topic");
    for (port, key) in [(site.metrics_port, "metrics.listen"), (site.console_port, "console.listen")] {
        let taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let output = site.run(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains(key), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        drop(taken);
    }
}

#[tokio::test]
async fn a_stopped_listener_frees_its_port() {
    let listener = listen(&Board::new(), Limits::default());
    let address = listener.address();
    listener.stop().await;
    std::net::TcpListener::bind(address).expect("free again");
}

#[test]
fn the_operations_page_lists_every_metric_as_it_is_defined() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let page = std::fs::read_to_string(&path).expect("docs/operations.md");
    let listed: Vec<&str> =
        page.lines().filter(|l| l.starts_with("| `boathouse_") || l.starts_with("| `process_")).collect();
    let defined: Vec<String> = names::ALL
        .iter()
        .map(|m| format!("| `{}` | {} | {} | {} |", m.name, m.kind.as_str(), m.labels.join(", "), m.description))
        .collect();
    assert_eq!(listed, defined, "the table should read:\n{}", defined.join("\n"));
}

/// A daemon alone is enough: it starts, warns of the servers that are away, and stops.
#[tokio::test]
async fn logs_as_json_are_an_object_a_line() {
    let mut site = Site::new("127.0.0.1:1", "http://127.0.0.1:1", "json-logs");
    site.environment.push(("BOATHOUSE__LOG__FORMAT".into(), "json".into()));
    let mut daemon = site.start();
    daemon.wait("warnings of the servers", |_| site.log().contains("ClickHouse does not take totals")).await;
    daemon.stop().await;
    let log = site.log();
    let mut levels = std::collections::BTreeSet::new();
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let text = |field: &str| entry[field].as_str().unwrap_or_else(|| panic!("no {field} in {line}")).to_owned();
        assert!(chrono::DateTime::parse_from_rfc3339(&text("timestamp")).is_ok(), "{line}");
        assert!(!text("message").is_empty() && !text("target").is_empty(), "{line}");
        levels.insert(text("level"));
    }
    assert!(levels.contains("INFO") && levels.contains("WARN"), "{levels:?} in\n{log}");
    assert!(log.contains("\"pipelines\":\"user_events\""), "fields are fields of their own:\n{log}");
}
