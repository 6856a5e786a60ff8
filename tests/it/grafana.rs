//! The dashboards in grafana/ against what they are drawn from: every Prometheus query names metrics and labels that
//! exist, every ClickHouse query runs on the real engine and finds rows.

use std::path::Path;

use boathouse::config::Pipeline;
use boathouse::serving::Client;
use boathouse::telemetry::names::{self, Definition, Kind};
use boathouse::window::AggregatePlan;
use serde_json::Value;

use crate::support::engine::Engine;

const REALTIME: &str = "grafana/dashboards/realtime.json";
const PIPELINE: &str = "grafana/dashboards/pipeline.json";
pub(crate) const GOLD: &str = "grafana/dashboards/gold.json";
pub(crate) const DASHBOARDS: [&str; 3] = [REALTIME, PIPELINE, GOLD];

/// One query of one panel.
pub(crate) struct Query {
    pub panel: String,
    pub datasource: String,
    /// `rawSql` or `expr`.
    pub text: String,
    /// Whether Grafana draws it over time, so that it must have a `time` column.
    pub time_series: bool,
}

pub(crate) fn dashboard(path: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub(crate) fn queries(dashboard: &Value) -> Vec<Query> {
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

/// A query with the dashboard's variables in it; `values` gives the values of each that are chosen.
pub(crate) fn with_variables(text: &str, dashboard: &Value, values: impl Fn(&Value) -> Vec<String>) -> String {
    let mut text = text.to_owned();
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let name = variable["name"].as_str().expect("a name");
        let (quoted, plain) = (format!("${{{name}:singlequote}}"), format!("${name}"));
        if text.contains(&quoted) || text.contains(&plain) {
            let values = values(variable);
            let list: Vec<String> = values.iter().map(|v| format!("'{v}'")).collect();
            text = text.replace(&quoted, &list.join(",")).replace(&plain, &values.join("|"));
        }
    }
    text
}

/// What Grafana would choose of a variable of ClickHouse's where this pipeline is chosen: all that is offered, of a
/// variable that takes one value the first.
pub(crate) fn chosen(engine: &Engine, dashboard: &Value, pipeline: &str, variable: &Value) -> Vec<String> {
    if variable["name"] == "pipeline" {
        return vec![pipeline.into()];
    }
    let query = variable["query"].as_str().expect("a query");
    let query = with_variables(query, dashboard, |other| chosen(engine, dashboard, pipeline, other));
    let most = if variable["multi"] == true { usize::MAX } else { 1 };
    engine.sql(&query).lines().map(String::from).take(most).collect()
}

/// The words of a PromQL expression that name metrics of ours.
pub(crate) fn metrics_in(expression: &str) -> Vec<&str> {
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
        let of_prometheus = query.text.contains("ALERTS{");
        assert!(of_prometheus || !metrics.is_empty(), "{}: no metric in `{}`", query.panel, query.text);
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
fn dashboards_refresh_every_ten_seconds_and_lead_to_each_other_and_to_the_console() {
    for path in DASHBOARDS {
        let dashboard = dashboard(path);
        assert_eq!(dashboard["refresh"], "10s", "{path}");
        let links = dashboard["links"].as_array().expect("links");
        assert!(links.iter().any(|l| l["type"] == "dashboards"), "{path} leads to no other dashboard");
        let console = |l: &Value| l["url"].as_str().is_some_and(|url| url.starts_with("${console}/"));
        assert!(links.iter().any(console), "{path} does not lead to the console");
        let variables = dashboard["templating"]["list"].as_array().expect("variables");
        assert!(variables.iter().any(|v| v["name"] == "console"), "{path} does not say where the console is");
        let panels = dashboard["panels"].as_array().expect("panels");
        let ids: std::collections::BTreeSet<i64> = panels.iter().filter_map(|p| p["id"].as_i64()).collect();
        assert_eq!(ids.len(), panels.len(), "{path}: panels share an id");
        for panel in panels.iter().filter(|p| p["type"] == "stat") {
            let steps = &panel["fieldConfig"]["defaults"]["thresholds"]["steps"];
            assert!(steps.as_array().is_some_and(|s| !s.is_empty()), "{}: no thresholds", panel["title"]);
        }
    }
}

/// The variables by which panels are narrowed; others choose what a panel shows.
const NARROWING: [&str; 3] = ["pipeline", "event_type", "source"];

#[test]
fn every_panel_is_narrowed_by_each_variable_or_says_that_it_is_not() {
    let mut all = std::collections::BTreeSet::new();
    for path in DASHBOARDS {
        let dashboard = dashboard(path);
        let queries = queries(&dashboard);
        let variables = dashboard["templating"]["list"].as_array().expect("variables");
        let asked_with =
            |text: &str, name: &str| text.contains(&format!("${{{name}")) || text.contains(&format!("${name}"));
        // By itself, or by one whose values it decides.
        let narrowed = |text: &str, name: &str| {
            let decides = |other: &&Value| asked_with(&other["query"].to_string(), name);
            asked_with(text, name)
                || variables
                    .iter()
                    .filter(decides)
                    .any(|other| asked_with(text, other["name"].as_str().expect("a name")))
        };
        for variable in variables.iter().filter(|variable| variable["type"] == "query") {
            let name = variable["name"].as_str().expect("a name");
            let in_variables = variables.iter().any(|other| asked_with(&other["query"].to_string(), name));
            let used = queries.iter().any(|query| asked_with(&query.text, name));
            assert!(used || in_variables, "{path}: no panel asks with ${name}");
            all.insert(name.to_owned());
            if !NARROWING.contains(&name) {
                continue;
            }
            let label = variable["label"].as_str().expect("a label").to_lowercase();
            for panel in dashboard["panels"].as_array().expect("panels") {
                let title = &panel["title"];
                let description = panel["description"].as_str().expect("a description");
                let (_, not_by) = description.split_once("Not narrowed by ").unwrap_or_default();
                let (not_by, _) = not_by.split_once(':').unwrap_or((not_by, ""));
                let of_panel = queries.iter().filter(|query| *title == query.panel.as_str());
                let texts: Vec<&str> = of_panel.map(|query| query.text.as_str()).collect();
                let says_so = not_by.contains(&label);
                // A table of several aggregates is narrowed where a part of it is.
                let is = texts.iter().any(|text| narrowed(text, name));
                assert!(is != says_so, "{path}: {title} is narrowed by ${name}: {is}, says that it is not: {says_so}");
            }
        }
        assert!(variables.iter().any(|variable| variable["name"] == "pipeline"), "{path} knows no pipelines");
    }
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    assert_eq!(all, ["aggregate", "event_type", "figure", "measure", "pipeline", "source"]);
}

#[test]
fn dashboards_are_as_grafanas_own_model_wants_them() {
    let files: Vec<_> = DASHBOARDS.iter().map(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).collect();
    let files: Vec<_> = files.iter().map(|file| file.as_path()).collect();
    let said = crate::support::node::node("dashboards.mjs", &files);
    assert_eq!(said, "3 dashboards are as Grafana's model wants them\n");
}

#[test]
fn data_sources_are_the_provisioned_ones() {
    let path = "grafana/provisioning/datasources/boathouse.yaml";
    let provisioned = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path);
    for query in DASHBOARDS.iter().flat_map(|path| queries(&dashboard(path))) {
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

/// A pipeline with other fields than the seed's.
const SENSORS: &str = r#"
topic = "readings"

[[field]]
name = "at"
type = "timestamp"
role = "event_time"

[[field]]
name = "site"
type = "string"

[[aggregate]]
name = "readings_per_site"
measure = "reading_count"
dimensions = ["site"]
"#;

/// The seed's pipeline and another.
fn pipelines() -> [Pipeline; 2] {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/boathouse.toml");
    let config = boathouse::config::Config::load(Some(&config)).expect("the shipped configuration");
    let seed = config.pipelines.iter().find(|p| p.name == "user_events").expect("the seed's pipeline");
    let mut sensors: Pipeline = toml_edit::de::from_str(SENSORS).expect("a pipeline");
    sensors.name = "sensors".into();
    [Pipeline::clone(seed), sensors]
}

/// The tables of a pipeline with a total in each of the last 40 minutes and the next two.
async fn fill(url: &str, pipeline: &Pipeline, now: i64) {
    let plans = AggregatePlan::all(pipeline, "an epoch").expect("aggregates");
    let address = boathouse::config::ClickHouse { url: url.to_owned(), ..Default::default() };
    let client = Client::new(&address).expect("a client");
    client.prepare(&pipeline.name, &plans).await.expect("tables and views");
    for plan in &plans {
        let names: String = plan.dimensions.iter().map(|d| format!("{}, ", d.name)).collect();
        let values = "'web', ".repeat(plan.dimensions.len());
        let first = now - now % 60 - 40 * 60;
        let partials = format!(
            "INSERT INTO realtime.{} (window_start, {names}topic, generation, partition, partial_count, partial_version) \
             SELECT toDateTime({first} + 60 * number), {values}'a-topic', 0, 0, 7 + number, 1000 FROM numbers(43)",
            plan.partials_table()
        );
        ask(url, partials).await.expect("totals");
        let position = format!(
            "INSERT INTO realtime.positions (pipeline, aggregate, definition, topic, generation, partition, next_offset, \
             closed_horizon) VALUES ('{}', '{}', '{}', 'a-topic', 0, 0, 1000, {})",
            pipeline.name,
            plan.name,
            plan.definition,
            (now - 600) * 1_000_000
        );
        ask(url, position).await.expect("positions");
    }
}

/// What a panel asks where a pipeline is chosen, and the answer.
async fn asked(engine: &Engine, query: &Query, pipeline: &str, now: i64) -> (String, Value) {
    let dashboard = dashboard(REALTIME);
    let text = with_variables(&query.text, &dashboard, |variable| chosen(engine, &dashboard, pipeline, variable));
    let sql = expand(&text, now);
    let answer = ask(&engine.url, format!("{sql} FORMAT JSON"))
        .await
        .unwrap_or_else(|e| panic!("{} of {pipeline}: {e}\nin: {sql}", query.panel));
    (sql, serde_json::from_str(&answer).expect("JSON"))
}

/// Whether a row has a number that counts something.
fn counted(rows: &[Value]) -> bool {
    let number = |v: &Value| v.as_f64().or(v.as_str().and_then(|s| s.parse().ok()));
    let values = rows.iter().flat_map(|row| row.as_object().expect("a row").values());
    values.into_iter().any(|v| number(v).is_some_and(|n| n != 0.0))
}

#[tokio::test]
async fn clickhouse_panels_run_on_the_engine_and_find_rows_of_the_pipeline_chosen() {
    let engine = Engine::start();
    let now = chrono::Utc::now().timestamp();
    for pipeline in pipelines() {
        fill(&engine.url, &pipeline, now).await;
    }
    let dashboard = dashboard(REALTIME);
    let offers = dashboard["templating"]["list"][0]["query"].as_str().expect("a query");
    assert_eq!(engine.sql(offers), "sensors\nuser_events\n");
    let all = queries(&dashboard);
    assert!(all.len() >= 10, "only {} queries", all.len());
    for query in &all {
        assert_eq!(query.datasource, "boathouse-clickhouse", "{}", query.panel);
        let (sql, answer) = asked(&engine, query, "user_events", now).await;
        let rows = answer["data"].as_array().expect("rows");
        assert!(counted(rows), "{} finds nothing: {rows:?}\nin: {sql}", query.panel);
        if query.time_series {
            let first = &answer["meta"][0];
            let is_time = first["type"].as_str().is_some_and(|t| t.starts_with("DateTime"));
            assert!(first["name"] == "time" && is_time, "{}: the first column is {first}", query.panel);
            assert!((29..=33).contains(&rows.len()), "{}: {} rows in half an hour", query.panel, rows.len());
        }
        // The other pipeline has windows and an aggregate of its own, and none of what the seed's counts.
        let (sql, answer) = asked(&engine, query, "sensors", now).await;
        let rows = answer["data"].as_array().expect("rows");
        match query.panel.as_str() {
            "Latest windows" => {
                assert_eq!(rows.len(), 15, "{rows:?}");
                let numbers = |row: &Value| ["events", "logins", "purchases"].map(|column| row[column].clone());
                assert!(rows.iter().all(|row| numbers(row) == [Value::Null, Value::Null, Value::Null]), "{rows:?}");
            }
            "Age of the newest window" | "Per minute: $aggregate" | "By its dimensions: $aggregate" => {
                assert!(counted(rows), "{} finds nothing: {rows:?}\nin: {sql}", query.panel);
            }
            panel => assert!(rows.is_empty(), "{panel} of a pipeline that has none: {rows:?}\nin: {sql}"),
        }
    }
}
