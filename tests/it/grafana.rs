//! The dashboards in grafana/ against what they are drawn from: every Prometheus query names metrics and labels that
//! exist, every ClickHouse query runs on the real engine and finds rows.

use std::path::Path;

use boathouse::serving::Client;
use boathouse::telemetry::names::{self, Definition, Kind};
use boathouse::window::AggregatePlan;
use serde_json::Value;

use crate::support::engine::Engine;

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

/// What the plugin makes of its macros, for the half hour around `now` and one-minute intervals.
fn expand(sql: &str, now: i64) -> String {
    let (from, to) = (format!("toDateTime({})", now - 1800), format!("toDateTime({})", now + 60));
    let mut out = sql.replace("$__interval_s", "60").replace("$__fromTime", &from).replace("$__toTime", &to);
    for (name, render) in [
        ("$__timeFilter(", &(|c: &str| format!("{c} >= {from} AND {c} <= {to}")) as &dyn Fn(&str) -> String),
        ("$__timeInterval(", &|c: &str| format!("toStartOfInterval(toDateTime({c}), INTERVAL 60 second)")),
    ] {
        while let Some(start) = out.find(name) {
            let end = start + out[start..].find(')').expect("a closing bracket");
            let column = out[start + name.len()..end].to_owned();
            out.replace_range(start..=end, &render(&column));
        }
    }
    assert!(!out.contains("$__"), "a macro that this test does not know: {out}");
    out
}

#[test]
fn macros_expand_as_in_the_plugin() {
    assert_eq!(
        expand("SELECT $__timeInterval(t) WHERE $__timeFilter(t) LIMIT $__interval_s", 1_800),
        "SELECT toStartOfInterval(toDateTime(t), INTERVAL 60 second) WHERE t >= toDateTime(0) AND t <= toDateTime(1860) \
         LIMIT 60"
    );
}

/// Sends one statement over HTTP, as the plugin does.
async fn ask(url: &str, sql: String) -> Result<String, String> {
    let answer = reqwest::Client::new().post(url).body(sql).send().await.map_err(|e| e.to_string())?;
    let (ok, text) = (answer.status().is_success(), answer.text().await.map_err(|e| e.to_string())?);
    if ok { Ok(text) } else { Err(text) }
}

/// The tables of the seed's pipeline with a total in each of the last 40 minutes and the next two.
async fn fill(url: &str, now: i64) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/boathouse.toml");
    let config = boathouse::config::Config::load(Some(&config)).expect("the shipped configuration");
    let pipeline = config.pipelines.iter().find(|p| p.name == "user_events").expect("the seed's pipeline");
    let plans = AggregatePlan::all(pipeline, "an epoch").expect("the seed's aggregates");
    let address = boathouse::config::ClickHouse { url: url.to_owned(), ..Default::default() };
    let client = Client::new(&address).expect("a client");
    client.prepare(&pipeline.name, &plans).await.expect("tables and views");
    for plan in &plans {
        let names: String = plan.dimensions.iter().map(|d| format!("{}, ", d.name)).collect();
        let values = "'web', ".repeat(plan.dimensions.len());
        let first = now - now % 60 - 40 * 60;
        let partials = format!(
            "INSERT INTO realtime.{} (window_start, {names}topic, generation, partition, partial_count, partial_version) \
             SELECT toDateTime({first} + 60 * number), {values}'user-events', 0, 0, 7 + number, 1000 FROM numbers(43)",
            plan.partials_table()
        );
        ask(url, partials).await.expect("totals");
        let position = format!(
            "INSERT INTO realtime.positions (pipeline, aggregate, definition, topic, generation, partition, next_offset, \
             closed_horizon) VALUES ('user_events', '{}', '{}', 'user-events', 0, 0, 1000, {})",
            plan.name,
            plan.definition,
            (now - 600) * 1_000_000
        );
        ask(url, position).await.expect("positions");
    }
}

#[tokio::test]
async fn clickhouse_panels_run_on_the_engine_and_find_rows() {
    let engine = Engine::start();
    let now = chrono::Utc::now().timestamp();
    fill(&engine.url, now).await;
    let all = queries(&dashboard(REALTIME));
    assert!(all.len() >= 10, "only {} queries", all.len());
    for query in &all {
        assert_eq!(query.datasource, "boathouse-clickhouse", "{}", query.panel);
        let sql = expand(&query.text, now);
        let answer = ask(&engine.url, format!("{sql} FORMAT JSON"))
            .await
            .unwrap_or_else(|e| panic!("{}: {e}\nin: {sql}", query.panel));
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let rows = answer["data"].as_array().expect("rows");
        let number = |v: &Value| v.as_f64().or(v.as_str().and_then(|s| s.parse().ok()));
        let counted = rows
            .iter()
            .flat_map(|r| r.as_object().expect("a row").values())
            .any(|v| number(v).is_some_and(|n| n != 0.0));
        assert!(counted, "{} finds nothing: {rows:?}\nin: {sql}", query.panel);
        if query.time_series {
            let first = &answer["meta"][0];
            let is_time = first["type"].as_str().is_some_and(|t| t.starts_with("DateTime"));
            assert!(first["name"] == "time" && is_time, "{}: the first column is {first}", query.panel);
            assert!((29..=33).contains(&rows.len()), "{}: {} rows in half an hour", query.panel, rows.len());
        }
    }
}
