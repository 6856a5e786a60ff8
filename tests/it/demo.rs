//! `boathouse demo`: everything comes up, is shown, stops in order, and goes on where it stopped.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use boathouse::servers::ports;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

struct Demo {
    ports: [u16; 4],
}

impl Demo {
    fn new() -> Self {
        Self { ports: [ports::free(), ports::free(), ports::free(), ports::free()] }
    }

    fn command(&self, data: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse"));
        command.arg("demo").arg("--data").arg(data).args(arguments);
        for (name, port) in
            ["--kafka-port", "--clickhouse-port", "--metrics-port", "--console-port"].into_iter().zip(self.ports)
        {
            command.arg(name).arg(port.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, data: &Path, arguments: &[&str]) -> Output {
        let output = self.command(data, arguments).output();
        tokio::time::timeout(Duration::from_secs(180), output).await.expect("the demo ends by itself").unwrap()
    }
}

/// The samples that a demo with --json printed.
fn samples(output: &Output) -> Vec<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for part in ["producer", "daemon", "ClickHouse engine", "Kafka broker"] {
        assert!(said.contains(&format!("stopped: {part}")), "{said}");
    }
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// All events in the windows that a sample shows.
fn shown(sample: &Value, aggregate: &str) -> u64 {
    let found = sample["aggregates"].as_array().unwrap().iter().find(|a| a["name"] == aggregate).unwrap();
    let windows = found["windows"]["Ok"].as_array().unwrap_or_else(|| panic!("{sample}"));
    windows.iter().flat_map(|w| w["counts"].as_array().unwrap()).map(|c| c[1].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn the_demo_runs_stops_in_order_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let first = samples(&Demo::new().run(&data, &["--json", "--for", "17s", "--rate", "100"]).await);
    let last = first.last().unwrap();
    assert_eq!(last["daemon"]["Ok"]["ready"], true, "{last}");
    let read = last["daemon"]["Ok"]["record_count"].as_u64().unwrap();
    assert!(read > 500, "{last}");
    assert!(shown(last, "events_per_minute") > 300, "{last}");
    // Other ports, the same data: what the first one counted is still there before anything new could be.
    let second = samples(&Demo::new().run(&data, &["--json", "--for", "3s", "--rate", "1"]).await);
    assert!(shown(second.last().unwrap(), "events_per_minute") >= shown(last, "events_per_minute"));
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    for (index, option) in
        ["--kafka-port", "--clickhouse-port", "--metrics-port", "--console-port"].into_iter().enumerate()
    {
        let demo = Demo::new();
        let taken = std::net::TcpListener::bind(("127.0.0.1", demo.ports[index])).unwrap();
        let output = demo.run(&folder.path().join("data"), &["--for", "1s"]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(&format!("port {}", demo.ports[index])) && said.contains(option), "{said}");
        drop(taken);
    }
}

#[tokio::test]
async fn a_part_that_dies_ends_the_demo_loudly_and_a_signal_ends_it_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for killed in [true, false] {
        let mut child = Demo::new().command(&data, &["--json"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await.unwrap().unwrap();
        assert!(first.is_some(), "a sample is shown");
        let pid = child.id().unwrap();
        let (target, signal) = if killed { (daemon_of(pid), libc::SIGKILL) } else { (pid, libc::SIGTERM) };
        // SAFETY: kill takes two integers; the process is ours or our child's, and not yet reaped.
        unsafe { libc::kill(i32::try_from(target).unwrap(), signal) };
        let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(killed)), "{said}");
        assert!(said.contains("stopped: Kafka broker"), "{said}");
        assert_eq!(said.contains("the daemon ended by itself (signal: 9"), killed, "{said}");
        // What it said last is shown, not only where to look.
        assert_eq!(said.contains("boathouse::actors"), killed, "{said}");
    }
}

/// The process id of the demo's daemon.
fn daemon_of(demo: u32) -> u32 {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{demo}/task")).unwrap().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for pid in children.split_whitespace() {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.split(|b| *b == 0).nth(1) == Some(b"run") {
                found.push(pid.parse().unwrap());
            }
        }
    }
    assert_eq!(found.len(), 1, "one daemon runs");
    found[0]
}
