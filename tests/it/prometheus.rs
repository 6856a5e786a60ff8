//! The Prometheus configuration, rules and panels on a real Prometheus that scrapes a real daemon.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::console::browser::Browser;
use crate::grafana::{DASHBOARDS, dashboard, metrics_in, queries, with_variables};
use crate::scheduler::filled;
use crate::support::broker::broker;
use crate::support::engine::Engine;
use crate::support::prometheus::{Prometheus, grafana, program};

fn promtool(arguments: &[&str]) {
    let output = Command::new(program("promtool")).args(arguments).output().expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn promtool_accepts_the_configuration_and_the_rules_pass_their_tests() {
    promtool(&["check", "config", &grafana("prometheus.yml").display().to_string()]);
    promtool(&["test", "rules", &grafana("prometheus-rules.test.yml").display().to_string()]);
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
pub(crate) fn anchors(page: &str) -> BTreeSet<String> {
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == ' ';
    page.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(|c| !kept(c), "").replace(' ', "-"))
        .collect()
}

/// Each alert leads to a section of the operations page, and each has been tried in the rules' own tests.
fn check_alert(rule: &Value, anchors: &BTreeSet<String>, tests: &str) {
    let name = rule["name"].as_str().expect("a name");
    let runbook = rule["annotations"]["runbook"].as_str().unwrap_or_else(|| panic!("{name} has no runbook"));
    let anchor = runbook.strip_prefix("docs/operations.md#").unwrap_or_else(|| panic!("{name}: {runbook}"));
    assert!(anchors.contains(anchor), "{name}: no section {anchor} in docs/operations.md");
    assert_eq!(anchor, name.to_lowercase(), "{name} leads to another one's runbook");
    for part in ["summary", "description"] {
        assert!(rule["annotations"][part].as_str().is_some_and(|t| !t.is_empty()), "{name} has no {part}");
    }
    let severity = rule["labels"]["severity"].as_str().unwrap_or_default();
    assert!(["critical", "warning"].contains(&severity), "{name}: severity `{severity}`");
    assert!(tests.contains(name), "{name} is not in prometheus-rules.test.yml");
}

/// Some events a second until dropped.
struct Trickle(Child);

impl Trickle {
    fn start(brokers: &str, topic: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_boathouse-producer"))
            .args(["--brokers", brokers, "--topic", topic, "--rate", "100"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the producer starts"))
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rule_and_every_panel_works_on_a_prometheus_that_scrapes_the_daemon() {
    let engine = Engine::start();
    let (site, daemon) = filled(&engine, "prometheus").await;
    let target = format!("127.0.0.1:{}", site.metrics_port);
    let prometheus = tokio::task::spawn_blocking(move || Prometheus::start(&target)).await.expect("Prometheus");
    prometheus.wait("boathouse_records_total").await;

    // What comes after the first scrape shows as an increase, as long as something comes: the batch may take its minute.
    let kafka = broker().await;
    let _events = Trickle::start(kafka.address(), &site.topic);
    let run = site.run(&["batch", "run", "--wait"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let upkeep = site.run(&["tables", "upkeep", "--wait"]);
    assert!(upkeep.status.success(), "{}", String::from_utf8_lossy(&upkeep.stderr));
    let (status, answer) = Browser::signed_in(&site).await.api(Method::POST, "/api/v1/reconcile", None).await;
    assert_eq!(status, 202, "{answer}");
    for arrived in [
        "boathouse_reconcile_differing_rows",
        "boathouse_table_files",
        "boathouse_upkeep_last_success_timestamp_seconds",
        "boathouse_layer_age_seconds{layer=\"clickhouse\"}",
        "boathouse_batch_task_seconds_count",
        "rate(boathouse_records_total[1m]) > 0",
        "rate(boathouse_end_to_end_seconds_count{sink=\"bronze\"}[1m]) > 0",
        "rate(boathouse_end_to_end_seconds_count{sink=\"realtime\"}[1m]) > 0",
    ] {
        prometheus.wait(arrived).await;
    }

    let begin = Instant::now();
    let rules = loop {
        let rules = prometheus.rules().await;
        if !rules.is_empty() && rules.iter().all(|r| r["health"] != "unknown") {
            break rules;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "rules are not evaluated: {rules:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(rules.len() >= 25, "{} rules", rules.len());
    let page = std::fs::read_to_string(grafana("../docs/operations.md")).expect("docs/operations.md");
    let tests = std::fs::read_to_string(grafana("prometheus-rules.test.yml")).expect("the rules' tests");
    let anchors = anchors(&page);
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut firing = Vec::new();
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        let expression = rule["query"].as_str().expect("a query");
        prometheus.query(expression).await.unwrap_or_else(|e| panic!("{}: {e}", rule["name"]));
        used.extend(metrics_in(expression).into_iter().map(String::from));
        if rule["type"] == "alerting" {
            check_alert(rule, &anchors, &tests);
            if rule["state"] == "firing" {
                firing.push(rule["name"].as_str().expect("a name"));
            }
        } else {
            let name = rule["name"].as_str().expect("a name");
            prometheus.wait(name).await;
        }
    }
    // The machine's disk is nobody's business here.
    firing.retain(|name| !name.starts_with("BoathouseDisk"));
    assert_eq!(firing, Vec::<&str>::new(), "a healthy daemon raises alerts");

    let mut asked = 0;
    for path in DASHBOARDS {
        for query in queries(&dashboard(path)).iter().filter(|q| q.datasource == "boathouse-prometheus") {
            let expression = with_variables(&query.text, &dashboard(path), |_| vec!["user_events".into()]);
            let expression = expression.replace("$__rate_interval", "1m");
            let found = prometheus.query(&expression).await;
            let found = found.unwrap_or_else(|e| panic!("{}: {e}\nin: {expression}", query.panel));
            assert!(!found.is_empty(), "{} finds nothing: {expression}", query.panel);
            used.extend(metrics_in(&expression).into_iter().map(String::from));
            asked += 1;
        }
    }
    assert!(asked >= 20, "only {asked} queries");
    for metric in used {
        let found = prometheus.query(&metric).await.expect("a name is a query");
        assert!(!found.is_empty(), "{metric} has no series");
    }
    drop(daemon);
}
