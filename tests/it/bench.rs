//! `boathouse bench` with small numbers: everything is measured and reconciled. What the figures are is not asserted.

use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;
use tempfile::TempDir;

use super::support::broker::broker;

const PICTURE: &str = "bench.svg";
/// Where a daemon that drains spends its time, always.
const STAGES: [&str; 7] = ["decode", "librdkafka", "bronze", "stream", "io", "main", "unattributed"];

/// Runs a benchmark to its end; its report, and the folder that it had for its data.
fn bench(arguments: &[&[&str]]) -> (Value, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join(PICTURE);
    let output = Command::new(env!("CARGO_BIN_EXE_boathouse"))
        .args(["--json", "bench"])
        .args(arguments.concat())
        .args([std::ffi::OsStr::new("--data"), folder.path().as_os_str(), "--svg".as_ref(), svg.as_os_str()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("ERROR"), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap(), folder)
}

fn assert_only_a_picture_is_left(folder: &TempDir) {
    assert!(std::fs::read_to_string(folder.path().join(PICTURE)).unwrap().starts_with("<svg "));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_benchmark_measures_everything_and_is_right() {
    let kafka = broker().await;
    let (report, folder) = bench(&[
        &["--events", "20000", "--pairs", "1", "--rates", "1000", "--rate-duration", "3s"][..],
        &["--flush", "200ms", "--bronze-flush", "500ms", "--kills", "1", "--brokers", kafka.address()],
    ]);
    assert_eq!(report["right"], true, "{report:#}");
    let runs = report["reconcile"].as_array().unwrap();
    assert_eq!(runs.len(), 2, "one drain and one rate: {report:#}");
    assert!(runs.iter().all(|r| r["verdict"] == "same"), "{report:#}");
    assert_eq!(report["load"]["event_count"], 20_000);
    assert_eq!(report["drains"]["consume_only"][0]["record_count"], 20_000);
    for positive in [
        "/load/mean_record_bytes",
        "/drains/events_per_second",
        "/drains/cpu_seconds_per_million",
        "/drains/consume_only_cpu_seconds_per_million",
        "/drains/cpu_ratio_to_consume_only",
        "/drains/peak_rss_bytes",
        "/drains/start_to_first_record_seconds",
        "/rates/0/consumed_per_second",
        "/drains/daemon/0/cpu_seconds_per_million",
        "/rates/0/cpu_percent",
        "/rates/0/peak_rss_bytes",
        "/rates/0/realtime_latency/p50_ms",
        "/rates/0/realtime_latency/p99_ms",
        "/rates/0/realtime_latency/p999_ms",
        "/rates/0/bronze_latency/p50_ms",
        "/rates/0/bronze_latency/p99_ms",
        "/rates/0/bronze_latency/p999_ms",
        "/recovery/max_seconds",
    ] {
        assert!(report.pointer(positive).and_then(Value::as_f64) > Some(0.0), "{positive} in {report:#}");
    }
    let stages = report["drains"]["daemon"][0]["cpu_seconds_per_million_by_stage"].as_object().unwrap();
    for stage in STAGES {
        assert!(stages.get(stage).and_then(Value::as_f64).is_some(), "{stage} in {report:#}");
    }
    // Ten probes a second, each seen by both sinks.
    let count = |sink: &str| report["rates"][0][sink]["sample_count"].as_u64().unwrap();
    assert!(count("realtime_latency") >= 20 && count("realtime_latency") == count("bronze_latency"), "{report:#}");
    assert_only_a_picture_is_left(&folder);
    let consumer: BaseConsumer = kafka.client().create().unwrap();
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(120)).unwrap();
    let left: Vec<&str> =
        metadata.topics().iter().map(|t| t.name()).filter(|t| t.starts_with("boathouse-bench")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_small_benchmark_of_the_batch_measures_every_task_and_is_right() {
    let (report, folder) = bench(&[
        &["batch", "--events", "20000", "--users", "300", "--commit", "5000"][..],
        &["--history", "1,2", "--hour-events", "300", "--hours", "1"],
    ]);
    assert_eq!((&report["right"], &report["differences"]), (&Value::from(true), &serde_json::json!([])), "{report:#}");
    let tasks = report["full"]["tasks"].as_array().unwrap();
    let names: Vec<&str> = tasks.iter().filter_map(|t| t["task"].as_str()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let silver = &tasks[1];
    assert_eq!((names[1], &silver["rows_in"]), ("run_bronze_to_silver", &Value::from(20_000)), "{report:#}");
    for count in ["rows_out", "rows_refused", "rows_duplicate", "bytes_read", "bytes_written", "peak_rss_bytes"] {
        assert!(silver[count].as_u64() > Some(100), "{count} in {silver:#}");
    }
    let behind = report["incremental"].as_array().unwrap();
    let histories: Vec<u64> = behind.iter().filter_map(|i| i["history_event_count"].as_u64()).collect();
    assert_eq!(histories, [36 * 300, 60 * 300]);
    assert!(behind.iter().all(|i| i["runs"][0]["tasks"][1]["rows_in"] == 300), "{report:#}");
    assert_only_a_picture_is_left(&folder);
}
