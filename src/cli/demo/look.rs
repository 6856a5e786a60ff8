//! One look at the running demo: the daemon's status and the newest windows in ClickHouse.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::settings::Settings;
use crate::config::Secret;
use crate::telemetry::{BatchStatus, PartitionStatus, Status};

/// A view that waits for longer than this shows what it has.
const LIMIT: Duration = Duration::from_secs(2);
/// How many windows are shown, and how many minutes back they are looked for.
const WINDOWS: usize = 3;
const MINUTES_BACK: u32 = 15;

/// What one look found, which `--json` prints. What could not be had is an `error` in its place.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    pub(super) time: DateTime<Utc>,
    #[serde(serialize_with = "itself_or_error")]
    pub(super) daemon: Result<DaemonSample, String>,
    pub(super) aggregates: Vec<AggregateSample>,
}

/// The daemon, in few figures.
#[derive(Debug, Serialize)]
pub(super) struct DaemonSample {
    pub(super) ready: bool,
    pub(super) reasons: Vec<String>,
    /// Since the look before; none at the first.
    pub(super) events_per_second: Option<f64>,
    pub(super) record_count: u64,
    /// Records behind the end of the topic; none until the daemon knows the end.
    pub(super) lag_records: Option<i64>,
    /// Records read but not yet in Bronze.
    pub(super) bronze_pending_records: i64,
    /// Records read but not yet in ClickHouse.
    pub(super) realtime_pending_records: i64,
    pub(super) late_record_count: u64,
    pub(super) future_record_count: u64,
    pub(super) unparsed_record_count: u64,
    pub(super) partition_count: usize,
    pub(super) resident_bytes: Option<u64>,
    /// Per pipeline, how its batch stands.
    pub(super) batches: Vec<BatchStatus>,
}

/// The newest windows of one aggregate.
#[derive(Debug, Serialize)]
pub(super) struct AggregateSample {
    pub(super) name: String,
    #[serde(flatten, serialize_with = "windows_or_error")]
    pub(super) windows: Result<Vec<Window>, String>,
}

/// One window: its start, and counts by the values of its dimensions.
#[derive(Debug, Serialize)]
pub(super) struct Window {
    /// As ClickHouse writes it: UTC, `2026-02-06 14:32:00`.
    #[serde(serialize_with = "rfc_3339")]
    pub(super) window_start: String,
    pub(super) counts: Vec<(String, u64)>,
}

/// The value, or an object of its `error` alone.
fn itself_or_error<T: Serialize, S: Serializer>(found: &Result<T, String>, to: S) -> Result<S::Ok, S::Error> {
    match found {
        Ok(value) => value.serialize(to),
        Err(error) => BTreeMap::from([("error", error)]).serialize(to),
    }
}

/// The field `windows`, or `error` in its place.
fn windows_or_error<S: Serializer>(found: &Result<Vec<Window>, String>, to: S) -> Result<S::Ok, S::Error> {
    let mut fields = to.serialize_map(Some(1))?;
    match found {
        Ok(windows) => fields.serialize_entry("windows", windows)?,
        Err(error) => fields.serialize_entry("error", error)?,
    }
    fields.end()
}

fn rfc_3339<S: Serializer>(clickhouse: &str, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&(clickhouse.replace(' ', "T") + "Z"))
}

/// Asks again and again, and remembers what it needs for rates.
pub(super) struct Looker {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    status_url: String,
    clickhouse_url: String,
    user: String,
    password: Secret,
    /// Name and query of each aggregate.
    queries: Vec<(String, String)>,
    before: Option<(Instant, u64)>,
}

impl Looker {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let client = reqwest::Client::builder()
            .timeout(LIMIT)
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .context("cannot make an HTTP client")?;
        let aggregates = settings.config.pipelines.iter().flat_map(|p| &p.aggregates);
        let clickhouse = &settings.config.server.clickhouse;
        Ok(Self {
            runtime,
            client,
            status_url: format!("http://127.0.0.1:{}/status", settings.metrics_port),
            clickhouse_url: settings.clickhouse_url(),
            user: clickhouse.user.clone(),
            password: clickhouse.password.clone(),
            queries: aggregates.map(|a| (a.name.clone(), query(&a.name, &a.dimensions, &a.measure))).collect(),
            before: None,
        })
    }

    /// Looks once.
    pub(super) fn look(&mut self) -> Sample {
        let (status, aggregates) = self.runtime.block_on(async {
            let status = self.status();
            let windows = futures::future::join_all(self.queries.iter().map(|(name, query)| async {
                AggregateSample { name: name.clone(), windows: self.windows(query).await }
            }));
            tokio::join!(status, windows)
        });
        let now = Instant::now();
        let daemon = status.map(|status| {
            let sample = DaemonSample::of(&status, self.before, now);
            self.before = Some((now, sample.record_count));
            sample
        });
        Sample { time: Utc::now(), daemon, aggregates }
    }

    async fn status(&self) -> Result<Status, String> {
        let answer = self.client.get(&self.status_url).send().await.map_err(short)?;
        answer.json().await.map_err(short)
    }

    async fn windows(&self, query: &str) -> Result<Vec<Window>, String> {
        let request = self
            .client
            .post(&self.clickhouse_url)
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", self.password.reveal())
            .body(query.to_owned());
        let answer = request.send().await.map_err(short)?;
        let well = answer.status().is_success();
        let text = answer.text().await.map_err(short)?;
        // The daemon makes database and views at its start; until then there is just nothing to see.
        if ["UNKNOWN_DATABASE", "UNKNOWN_TABLE"].iter().any(|code| text.contains(code)) && !well {
            return Ok(Vec::new());
        }
        if !well {
            return Err(text.lines().next().unwrap_or("refused").chars().take(120).collect());
        }
        Ok(newest_windows(&text))
    }
}

/// Rows of window, values of the dimensions, count, newest window first. Names are of the configuration, which
/// allows identifiers alone.
fn query(name: &str, dimensions: &[String], measure: &str) -> String {
    let dimensions: String = dimensions.iter().map(|dimension| format!("toString(`{dimension}`), ")).collect();
    format!(
        "SELECT toString(window_start), {dimensions}toString(`{measure}`) FROM realtime.`{name}` \
         WHERE window_start >= now() - INTERVAL {MINUTES_BACK} MINUTE ORDER BY window_start DESC LIMIT 200 \
         FORMAT JSONCompactEachRow"
    )
}

fn newest_windows(rows: &str) -> Vec<Window> {
    let mut windows: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for row in rows.lines() {
        let Ok(mut row) = serde_json::from_str::<Vec<String>>(row) else { continue };
        let Some(count) = row.pop().and_then(|count| count.parse().ok()) else { continue };
        if row.is_empty() {
            continue;
        }
        let start = row.remove(0);
        windows.entry(start).or_default().push((row.join(" "), count));
    }
    let newest = windows.into_iter().rev().take(WINDOWS);
    newest
        .map(|(window_start, mut counts)| {
            counts.sort();
            Window { window_start, counts }
        })
        .collect()
}

impl DaemonSample {
    fn of(status: &Status, before: Option<(Instant, u64)>, now: Instant) -> Self {
        let partitions = &status.partitions;
        let sum = |of: fn(&PartitionStatus) -> u64| partitions.iter().map(of).sum::<u64>();
        let record_count = sum(|p| p.records);
        Self {
            ready: status.readiness.ready,
            reasons: status.readiness.reasons.clone(),
            events_per_second: before.map(|(then, count)| {
                record_count.saturating_sub(count) as f64 / now.duration_since(then).as_secs_f64().max(1e-3)
            }),
            record_count,
            lag_records: partitions.iter().map(|p| p.lag_records).sum(),
            bronze_pending_records: partitions.iter().map(|p| (p.position - p.bronze_position).max(0)).sum(),
            realtime_pending_records: partitions.iter().map(|p| (p.position - p.realtime_position).max(0)).sum(),
            late_record_count: sum(|p| p.late_records),
            future_record_count: sum(|p| p.future_records),
            unparsed_record_count: sum(|p| p.unparsed_records),
            partition_count: partitions.len(),
            resident_bytes: status.memory.resident_bytes,
            batches: status.batches.clone(),
        }
    }
}

/// The cause, without the address that every message would repeat.
fn short(error: reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whether the daemon's listener answers at all.
pub(super) fn is_up(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_the_newest_windows() {
        let rows = r#"["2026-02-06 14:32:00","login","2"]
["2026-02-06 14:32:00","click","30"]
["2026-02-06 14:31:00","click","4"]
["2026-02-06 14:30:00","click","5"]
["2026-02-06 14:29:00","click","6"]
"#;
        let windows = newest_windows(rows);
        let starts: Vec<&str> = windows.iter().map(|w| w.window_start.as_str()).collect();
        assert_eq!(starts, ["2026-02-06 14:32:00", "2026-02-06 14:31:00", "2026-02-06 14:30:00"]);
        assert_eq!(windows[0].counts, [("click".to_owned(), 30), ("login".to_owned(), 2)]);
        let shown = serde_json::to_value(&windows[1]).unwrap();
        assert_eq!(shown, serde_json::json!({"window_start": "2026-02-06T14:31:00Z", "counts": [["click", 4]]}));
        let total = newest_windows("[\"2026-02-06 14:32:00\",\"7\"]\n");
        assert_eq!(total[0].counts, [(String::new(), 7)]);
    }

    #[test]
    fn the_query_names_what_the_aggregate_has() {
        let text = query("logins_per_source", &["source".into()], "login_count");
        assert!(text.starts_with("SELECT toString(window_start), toString(`source`), toString(`login_count`) FROM realtime.`logins_per_source` "));
    }

    #[test]
    fn what_could_not_be_had_is_an_error_in_its_place() {
        let aggregates = [Ok(Vec::new()), Err("down".to_owned())]
            .map(|windows| AggregateSample { name: "a".into(), windows })
            .into();
        let sample = Sample { time: DateTime::UNIX_EPOCH, daemon: Err("it is down".into()), aggregates };
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00Z",
            "daemon": {"error": "it is down"},
            "aggregates": [{"name": "a", "windows": []}, {"name": "a", "error": "down"}],
        });
        assert_eq!(serde_json::to_value(&sample).unwrap(), expected);
    }
}
