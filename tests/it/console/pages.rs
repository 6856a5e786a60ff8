//! The pages in a real Chromium: a newcomer's path, every page against axe in both themes, first paints, screenshots.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::browser::Browser;
use crate::scheduler::filled;
use crate::support::broker::broker;
use crate::support::chromium::chromium;
use crate::support::daemon::produce;
use crate::support::engine::Engine;
use crate::support::node::modules;

/// What a first paint may take here: the bar is 200 ms on a machine that does nothing else, and tests run side by side.
const FIRST_PAINT_MS_MAX: u64 = 2_000;

/// Events that go on; killed when dropped.
struct Producer(Child);

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_path_and_every_page_in_a_real_browser() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "console-pages").await;
    let kafka = broker().await;
    produce(kafka.address(), &site.topic, &["--count", "200", "--max-rate", "--malformed", "0.2", "--seed", "5"]);
    let producer = Command::new(env!("CARGO_BIN_EXE_boathouse-producer"))
        .args(["--brokers", kafka.address(), "--topic", &site.topic, "--rate", "40", "--quiet"])
        .stdout(Stdio::null())
        .spawn()
        .expect("the producer starts");
    let _producer = Producer(producer);
    Browser::of(&site).await;
    let password = site.first_password();
    let (program, libraries) = chromium();
    let address = format!("http://127.0.0.1:{}", site.console_port);
    // Screenshots are for people: they stay where a folder is named for them.
    let folder = std::env::var_os("BOATHOUSE_SCREENSHOTS").map_or_else(|| site.folder.join("pages"), Into::into);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/console.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(modules()).arg(program).arg(address).arg(password).arg(folder);
    node.env("LD_LIBRARY_PATH", libraries);
    let output = tokio::task::spawn_blocking(move || node.output()).await.expect("joined");
    let output = output.expect("node runs: install Node.js 20 or newer");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{wrong}\n{said}");
    let report: Value = serde_json::from_str(&said).expect("a report");
    let slow: Vec<_> = report["first_paint_ms"]
        .as_object()
        .expect("first paints")
        .iter()
        .filter(|(_, ms)| ms.as_u64().is_none_or(|ms| ms > FIRST_PAINT_MS_MAX))
        .collect();
    assert!(slow.is_empty(), "slower than {FIRST_PAINT_MS_MAX} ms: {slow:?}");
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}
