//! How far behind each layer was, from the tables in which the daemon keeps it. For pages it is looked up at most once a
//! minute, behind the page that shows it: no page waits for ClickHouse.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::DateTime;
use maud::{Markup, html};
use serde::Serialize;
use serde_json::Value;

use super::draw::result::{Series, over_time};
use super::range::Range;
use super::shared::Shared;
use super::words;
use crate::cli::clickhouse::Http;
use crate::config::Server;

/// What was looked up holds for so long.
const FRESH: Duration = Duration::from_secs(60);

/// What lies behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// The realtime views, by aggregate.
    Realtime,
    /// Bronze, silver, gold and what is served of it.
    Batch,
}

impl Of {
    /// The table that keeps it, the column that names what lies behind, and a title.
    fn kept(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Of::Realtime => ("realtime.freshness", "aggregate", "Realtime views"),
            Of::Batch => ("gold.freshness", "layer", "Batch layers"),
        }
    }
}

/// How far the views or layers of a pipeline lay behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Lag {
    pub pipeline: String,
    pub of: Of,
    pub series: Vec<Series>,
}

impl Lag {
    /// Whether there is a line to draw.
    fn is_drawn(&self) -> bool {
        self.series.iter().any(|(_, points)| points.len() > 1)
    }
}

#[derive(Default)]
struct State {
    asked: Option<Instant>,
    found: Option<Result<Arc<[Lag]>, String>>,
}

/// The lag over days. Clones share what was looked up.
#[derive(Clone, Default)]
pub struct Days(Arc<Mutex<HashMap<Range, State>>>);

impl Days {
    fn with<T>(&self, range: Range, work: impl FnOnce(&mut State) -> T) -> T {
        work(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(range).or_default())
    }

    /// What is known, which is looked up again behind the caller where it is old.
    fn known(&self, shared: &Shared, range: Range) -> Option<Result<Arc<[Lag]>, String>> {
        let (old, found) = self.with(range, |state| {
            let old = state.asked.is_none_or(|at| at.elapsed() > FRESH);
            if old {
                state.asked = Some(Instant::now());
            }
            (old, state.found.clone())
        });
        if old {
            let (days, server, pipelines) = (self.clone(), shared.server.clone(), shared.pipeline_names());
            shared.desk.begin(async move {
                let found = look_up(&server, &pipelines, range).await.map_err(|error| format!("{error:#}"));
                days.with(range, |state| state.found = Some(found.map(Arc::from)));
            });
        }
        found
    }
}

/// The drawings, as a section of a page; `page` is the one whose own range this is, where it stands alone.
pub fn section(shared: &Shared, range: Range, page: Option<&str>) -> Markup {
    let known = shared.days.known(shared, range);
    html! {
        section aria-labelledby="days-title" {
            div.heading {
                h2 #days-title { "Lag over the last " (range.words()) }
                p.note { "the greatest of each " (words::span(Duration::from_secs(range.bucket_seconds().into()))) ", UTC, from ClickHouse" }
                @if let Some(page) = page { (range.links(page)) }
            }
            @match &known {
                Some(Ok(lags)) if lags.iter().any(Lag::is_drawn) => {
                    div.wide-charts { @for lag in lags.iter().filter(|lag| lag.is_drawn()) {
                        div.stack-of { h3 { (lag.of.kept().2) " of " (lag.pipeline) } (over_time(&lag.series, words::seconds)) }
                    } }
                }
                Some(Ok(_)) => { p.note {
                    "ClickHouse has kept nothing of this time to draw a line through: the realtime views' lag is kept once a minute, the batch layers' with each run."
                } }
                Some(Err(error)) => { p.note { "The lag over time is in ClickHouse, which cannot be asked: " (error) } }
                None => { p.note { "ClickHouse is being asked; this shows in a moment, or when the page is loaded again." } }
            }
        }
    }
}

/// How far everything lay behind, as ClickHouse has kept it.
pub async fn look_up(server: &Server, pipelines: &[String], range: Range) -> anyhow::Result<Vec<Lag>> {
    let http = Http::new(&server.clickhouse)?;
    let (bucket, seconds) = (range.bucket_seconds(), range.span().num_seconds());
    let mut lags = Vec::new();
    for pipeline in pipelines {
        // The name is checked when the configuration is read; this is the last door before SQL.
        let safe: String = pipeline.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        for of in [Of::Realtime, Of::Batch] {
            let (table, by, _) = of.kept();
            let sql = format!(
                "SELECT toUnixTimestamp(toStartOfInterval(observed_at, INTERVAL {bucket} SECOND)) AS at, {by}, \
                 max(lag_seconds) FROM {table} \
                 WHERE pipeline = '{safe}' AND observed_at > now() - INTERVAL {seconds} SECOND AND lag_seconds IS NOT NULL \
                 GROUP BY at, {by} ORDER BY at"
            );
            let series = match http.rows(&sql).await {
                Ok(rows) => series(&rows).with_context(|| format!("{table} has other columns"))?,
                // The table comes with the first run.
                Err(error) if format!("{error:#}").contains("UNKNOWN_TABLE") => Vec::new(),
                Err(error) if format!("{error:#}").contains("UNKNOWN_DATABASE") => Vec::new(),
                Err(error) => return Err(error),
            };
            if !series.is_empty() {
                lags.push(Lag { pipeline: pipeline.clone(), of, series });
            }
        }
    }
    Ok(lags)
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
