//! How far behind each layer was over the last days, from the tables in which the daemon keeps it. Looked up at most once
//! a minute, behind the page that shows it: no page waits for ClickHouse.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::DateTime;
use maud::{Markup, html};
use serde_json::Value;

use super::draw::result::{Series, over_time};
use super::shared::Shared;
use super::words;
use crate::cli::clickhouse::Http;
use crate::config::Server;

/// What was looked up holds for so long.
const FRESH: Duration = Duration::from_secs(60);
const DAYS: u32 = 7;

/// One drawing: what it shows of which pipeline.
#[derive(Debug, Clone, PartialEq)]
struct Lag {
    title: String,
    series: Vec<Series>,
}

#[derive(Default)]
struct State {
    asked: Option<Instant>,
    found: Option<Result<Arc<[Lag]>, String>>,
}

/// The lag over days. Clones share what was looked up.
#[derive(Clone, Default)]
pub struct Days(Arc<Mutex<State>>);

impl Days {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is known, which is looked up again behind the caller where it is old.
    fn known(&self, shared: &Shared) -> Option<Result<Arc<[Lag]>, String>> {
        let (old, found) = self.with(|state| {
            let old = state.asked.is_none_or(|at| at.elapsed() > FRESH);
            if old {
                state.asked = Some(Instant::now());
            }
            (old, state.found.clone())
        });
        if old {
            let (days, server, pipelines) = (self.clone(), shared.server.clone(), shared.pipeline_names());
            shared.desk.begin(async move {
                let found = look_up(&server, &pipelines).await.map_err(|error| format!("{error:#}"));
                days.with(|state| state.found = Some(found));
            });
        }
        found
    }
}

/// The drawings, as a section of a page.
pub fn section(shared: &Shared) -> Markup {
    let lags = match shared.days.known(shared) {
        Some(Ok(lags)) => lags,
        Some(Err(error)) => {
            return html! { p.note { "The lag over days is in ClickHouse, which cannot be asked: " (error) } };
        }
        None => return html! {},
    };
    html! {
        @if !lags.is_empty() {
            section aria-labelledby="days-title" {
                div.heading { h2 #days-title { "Lag over days" } p.note { "the greatest of each quarter of an hour, " (DAYS) " days, UTC" } }
                div.wide-charts { @for lag in lags.iter() {
                    div.stack-of { h3 { (lag.title) } (over_time(&lag.series, words::seconds)) }
                } }
            }
        }
    }
}

async fn look_up(server: &Server, pipelines: &[String]) -> anyhow::Result<Arc<[Lag]>> {
    let http = Http::new(&server.clickhouse)?;
    let mut lags = Vec::new();
    for pipeline in pipelines {
        // The name is checked when the configuration is read; this is the last door before SQL.
        let safe: String = pipeline.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        for (table, by, title) in
            [("realtime.freshness", "aggregate", "Realtime views"), ("gold.freshness", "layer", "Batch layers")]
        {
            let sql = format!(
                "SELECT toUnixTimestamp(toStartOfFifteenMinutes(observed_at)) AS at, {by}, max(lag_seconds) FROM {table} \
                 WHERE pipeline = '{safe}' AND observed_at > now() - INTERVAL {DAYS} DAY AND lag_seconds IS NOT NULL \
                 GROUP BY at, {by} ORDER BY at"
            );
            let series = match http.rows(&sql).await {
                Ok(rows) => series(&rows).with_context(|| format!("{table} has other columns"))?,
                // The table comes with the first run.
                Err(error) if format!("{error:#}").contains("UNKNOWN_TABLE") => Vec::new(),
                Err(error) if format!("{error:#}").contains("UNKNOWN_DATABASE") => Vec::new(),
                Err(error) => return Err(error),
            };
            if series.iter().any(|(_, points)| points.len() > 1) {
                lags.push(Lag { title: format!("{title} of {pipeline}"), series });
            }
        }
    }
    Ok(lags.into())
}

/// From rows of second, name, lag in the order of time.
fn series(rows: &[Vec<Value>]) -> Option<Vec<Series>> {
    let mut by_name: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for row in rows {
        let at = DateTime::from_timestamp(row.first()?.as_i64()?, 0)?;
        by_name.entry(row.get(1)?.as_str()?).or_default().push((at, row.get(2)?.as_f64()?));
    }
    Some(by_name.into_iter().map(|(name, points)| (name.to_owned(), points)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_become_a_line_for_each_name() {
        let rows = [json!([0, "a", 1.5]), json!([0, "b", 2]), json!([3600, "a", 3])];
        let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.as_array().unwrap().clone()).collect();
        let found = series(&rows).unwrap();
        assert_eq!(
            found.iter().map(|(name, points)| (name.as_str(), points.len())).collect::<Vec<_>>(),
            [("a", 2), ("b", 1)]
        );
        assert_eq!(series(&[vec![json!("x")]]), None);
    }
}
