//! `boathouse demo`: everything comes up, is shown, stops in order, and goes on where it stopped.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use boathouse::servers::ports;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::support::terminal::Terminal;

/// How long a demo may take to be as wanted, and to end.
const PATIENCE: Duration = Duration::from_secs(300);

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
        tokio::time::timeout(PATIENCE, output).await.expect("the demo ends by itself").unwrap()
    }

    /// Runs with --json until a sample is as wanted, then ends it as Ctrl-C would; the sample.
    async fn until(&self, data: &Path, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let mut child = self.command(data, &[&["--json"], arguments].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let looking = async {
            let mut last = Value::Null;
            while let Some(line) = lines.next_line().await.unwrap() {
                last = serde_json::from_str(&line).unwrap();
                if wanted(&last) {
                    return Ok(last);
                }
            }
            Err(last)
        };
        let found = tokio::time::timeout(PATIENCE, looking).await.expect("in time");
        if found.is_ok() {
            let pid = i32::try_from(child.id().unwrap()).unwrap();
            // SAFETY: kill takes two integers; the child is ours and not yet reaped.
            unsafe { libc::kill(pid, libc::SIGINT) };
        }
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let sample = found.unwrap_or_else(|last| panic!("the last sample is {last}\n{said}"));
        assert!(output.status.success(), "{said}");
        for part in ["producer", "daemon", "ClickHouse engine", "Kafka broker"] {
            assert!(said.contains(&format!("stopped: {part}")), "{said}");
        }
        sample
    }
}

/// How many events a sample shows in each of the newest windows. None where ClickHouse has not answered in time.
fn shown(sample: &Value) -> BTreeMap<String, u64> {
    let found = sample["aggregates"].as_array().unwrap().iter().find(|a| a["name"] == "events_per_minute").unwrap();
    let windows = found["windows"].as_array().into_iter().flatten();
    let events = |w: &Value| -> u64 { w["counts"].as_array().unwrap().iter().map(|c| c[1].as_u64().unwrap()).sum() };
    windows.map(|w| (w["window_start"].as_str().unwrap().to_owned(), events(w))).collect()
}

#[tokio::test]
async fn the_demo_runs_stops_in_order_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let runs = |sample: &Value| {
        let daemon = &sample["daemon"];
        let time = sample["time"].as_str().expect("a time");
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.ends_with('Z'), "{time}");
        daemon["ready"] == true
            && daemon["record_count"].as_u64() > Some(500)
            && shown(sample).values().sum::<u64>() > 300
    };
    let first = shown(&Demo::new().until(&data, &["--rate", "100"], runs).await);
    // Other ports, the same data: what the first one counted is still there. Nobody sends so much as to make up for it.
    let goes_on = |sample: &Value| {
        let second = shown(sample);
        first.iter().any(|(window, events)| *events > 100 && second.get(window) >= Some(events))
    };
    Demo::new().until(&data, &["--rate", "0.1"], goes_on).await;
    let demo = Demo::new();
    let output = demo.run(&data, &["--for", "2s"]).await;
    assert!(output.status.success(), "it ends by itself: {}", String::from_utf8_lossy(&output.stderr));
    // Told in lines, where there is no terminal.
    let said = String::from_utf8_lossy(&output.stdout);
    let [kafka, clickhouse, metrics, console] = demo.ports;
    for address in [
        format!("127.0.0.1:{kafka}"),
        format!("http://127.0.0.1:{clickhouse}"),
        format!("http://127.0.0.1:{metrics}/status"),
        format!("http://127.0.0.1:{console}"),
    ] {
        assert!(said.contains(&address), "{address} in\n{said}");
    }
    assert!(said.contains(" events/s ") && !said.contains('\x1b'), "{said}");
    tokio::task::spawn_blocking(move || seen_at_a_terminal(&data)).await.unwrap();
}

/// The live view is drawn over itself, and Ctrl-C, which reaches all of the demo's programs, ends it in order.
fn seen_at_a_terminal(data: &Path) {
    let mut terminal = Terminal::open();
    let mut command = Demo::new().command(data, &["--rate", "100"]);
    let mut demo = terminal.run(command.as_std_mut());
    terminal.wait_for(&["Ctrl-C stops everything.", "\x1b[J"]);
    // A rate is of the second between two looks; a window of now has what was sent.
    let drawn = |screen: &str| {
        let block = screen.rsplit("\x1b[J").find(|block| block.contains("realtime.purchases_per_minute"));
        block.is_some_and(|block| {
            let rate = block.split("events     ").nth(1).and_then(|rest| rest.split("/s").next()?.parse::<f64>().ok());
            let windows = block.split("realtime.events_per_minute").nth(1).unwrap_or_default();
            rate > Some(20.0) && windows.contains("click ") && block.contains(" lag ")
        })
    };
    terminal.wait_until("rates and windows", drawn);
    terminal.press("\x03");
    assert_eq!(demo.ends(&mut terminal).code(), Some(0), "{}", terminal.seen);
    for part in ["producer", "daemon", "ClickHouse engine", "Kafka broker"] {
        assert!(terminal.seen.contains(&format!("stopped: {part}")), "{part} in\n{}", terminal.seen);
    }
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
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        assert!(first.is_some(), "a sample is shown");
        let pid = child.id().unwrap();
        let (target, signal) = if killed { (daemon_of(pid), libc::SIGKILL) } else { (pid, libc::SIGTERM) };
        // SAFETY: kill takes two integers; the process is ours or our child's, and not yet reaped.
        unsafe { libc::kill(i32::try_from(target).unwrap(), signal) };
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
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
