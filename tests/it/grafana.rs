//! The dashboards in grafana/ against what they are drawn from: every Prometheus query names metrics and labels that
//! exist, every ClickHouse query runs on the real engine and finds rows.

use std::path::Path;

use boathouse::telemetry::names::{self, Definition, Kind};
use serde_json::Value;

const REALTIME: &str = "grafana/dashboards/realtime.json";
const PIPELINE: &str = "grafana/dashboards/pipeline.json";

/// One query of one panel.
struct Query {
    panel: String,
    datasource: String,
    /// `rawSql` or `expr`.
    text: String,
    /// Whether Grafana draws it over time, so that it must have a `time` column.
    time_series: bool,
}

fn dashboard(path: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let panels = dashboard["panels"].as_array().expect("panels");
    panels
        .iter()
        .flat_map(|panel| {
            let title = panel["title"].as_str().expect("a title");
            assert!(!panel["description"].as_str().unwrap_or_default().is_empty(), "{title} has no description");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
            let targets = panel["targets"].as_array().expect("targets");
            assert!(!targets.is_empty(), "{title} asks nothing");
            targets.iter().map(|target| Query {
                panel: title.to_owned(),
                datasource: target["datasource"]["uid"].as_str().expect("a data source").to_owned(),
                text: target["rawSql"].as_str().or(target["expr"].as_str()).expect("rawSql or expr").to_owned(),
                time_series: target["queryType"] == "timeseries",
            })
        })
        .collect()
}

/// The words of a PromQL expression that name metrics of ours.
fn metrics_in(expression: &str) -> Vec<&str> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("boathouse_") || word.starts_with("process_"))
        .collect()
}

fn definition(metric: &str) -> Option<&'static Definition> {
    names::ALL.iter().copied().find(|d| match d.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"].iter().any(|s| metric.strip_suffix(s) == Some(d.name)),
        Kind::Counter | Kind::Gauge => metric == d.name,
    })
}

/// The labels that an expression groups by.
fn grouped_by(expression: &str) -> Vec<&str> {
    expression
        .split("by (")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .flat_map(|(list, _)| list.split(',').map(str::trim))
        .collect()
}

#[test]
fn prometheus_panels_name_metrics_and_labels_that_exist() {
    let all = queries(&dashboard(PIPELINE));
    assert!(all.len() >= 20, "only {} queries", all.len());
    for query in &all {
        assert_eq!(query.datasource, "boathouse-prometheus", "{}", query.panel);
        let metrics = metrics_in(&query.text);
        assert!(!metrics.is_empty(), "{}: no metric in `{}`", query.panel, query.text);
        for metric in metrics {
            let known =
                definition(metric).unwrap_or_else(|| panic!("{}: no metric {metric} in telemetry::names", query.panel));
            for label in grouped_by(&query.text) {
                let exists = known.labels.contains(&label) || (label == "le" && known.kind == Kind::Histogram);
                assert!(exists, "{}: {metric} has no label {label}", query.panel);
            }
        }
    }
}

#[test]
fn data_sources_are_the_provisioned_ones() {
    let path = "grafana/provisioning/datasources/boathouse.yaml";
    let provisioned = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path);
    for query in queries(&dashboard(REALTIME)).iter().chain(&queries(&dashboard(PIPELINE))) {
        assert!(
            provisioned.contains(&format!("uid: {}\n", query.datasource)),
            "{}: data source {} is not in {path}",
            query.panel,
            query.datasource
        );
    }
}
