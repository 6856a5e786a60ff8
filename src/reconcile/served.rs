//! What ClickHouse serves, beside the counts from Bronze.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::Context as _;
use futures::StreamExt;
use serde_json::Value;

use super::recount::Cell;
use super::report::{RealtimeCheck, Verdict, WindowDifference};
use crate::cli::bronze::Position;
use crate::cli::clickhouse::Http;
use crate::kafka::Source;
use crate::window::AggregatePlan;

/// A partition's position in ClickHouse under one definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Served {
    next_offset: i64,
    /// Windows that end at or before it are final; microseconds, the least value for none.
    closed_horizon: i64,
}

type Positions = BTreeMap<(String, i32, i32), Served>;

/// Compares one aggregate's view with the counts from Bronze, which it empties of what agrees.
pub(super) async fn compare(
    http: &Http,
    plan: &AggregatePlan,
    bronze: &BTreeMap<Arc<Source>, Position>,
    mut counts: HashMap<Cell, u64>,
) -> anyhow::Result<RealtimeCheck> {
    let mut check = RealtimeCheck::new(&plan.pipeline, &plan.name);
    match definition_in_force(http, &plan.name).await? {
        None => return Ok(check.not_checked(format!("there is no view realtime.{} yet", plan.name))),
        Some(definition) if definition != plan.definition => {
            let why = "the view shows an earlier definition; the new one is still being counted, or no daemon runs with this configuration";
            return Ok(check.not_checked(why));
        }
        Some(_) => {}
    }
    let before = positions(http, plan).await?;
    let served = rows(http, plan).await?;
    let after = positions(http, plan).await?;

    let mut through: Option<i64> = None;
    for (source, position) in bronze {
        let key = (source.topic.to_string(), source.generation, source.partition);
        let Some(standing) = before.get(&key) else {
            return Ok(check.not_checked(format!("realtime has no position for {source} yet")));
        };
        let still = after.get(&key) == Some(standing) && standing.next_offset == position.next_offset;
        if !still {
            // Not idle: what is final at both positions can be compared.
            let at_bronze = plan.closed_horizon(position.mark).unwrap_or(i64::MIN);
            let horizon = at_bronze.min(standing.closed_horizon);
            through = Some(through.map_or(horizon, |t: i64| t.min(horizon)));
        }
    }
    let keep_from = plan.keep_from(chrono::Utc::now().timestamp_micros());
    let due = |start: i64| {
        keep_from.is_none_or(|from| start >= from) && through.is_none_or(|through| start + plan.window <= through)
    };
    counts.retain(|(start, _), _| due(*start));
    check.from = keep_from.map(shown_time);
    check.through =
        through.map(|t| if t == i64::MIN { "nothing yet".into() } else { shown_time(t - t.rem_euclid(plan.window)) });
    for (cell, realtime) in served.into_iter().filter(|((start, _), _)| due(*start)) {
        check.checked += 1;
        let counted = counts.remove(&cell);
        check.events += counted.unwrap_or(0);
        match counted {
            Some(n) if n == realtime => continue,
            Some(_) => check.differing += 1,
            None => check.unknown += 1,
        }
        check.sample(difference(cell, counted, Some(realtime)));
    }
    for (cell, counted) in counts {
        check.checked += 1;
        check.missing += 1;
        check.events += counted;
        check.sample(difference(cell, Some(counted), None));
    }
    if through == Some(i64::MIN) {
        check.notes.push("no window is closed at both positions yet".into());
    }
    if check.missing + check.unknown + check.differing > 0 {
        check.verdict = Verdict::Different;
    }
    Ok(check)
}

fn difference((start, dimensions): Cell, bronze_count: Option<u64>, realtime_count: Option<u64>) -> WindowDifference {
    WindowDifference { window_start: shown_time(start), dimensions, bronze_count, realtime_count }
}

fn shown_time(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros)
        .map_or_else(|| format!("{micros} µs"), |t| t.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The definition that a view shows, as its comment has it; none where there is no such view of ours.
async fn definition_in_force(http: &Http, aggregate: &str) -> anyhow::Result<Option<String>> {
    let sql = format!("SELECT comment FROM system.tables WHERE database = 'realtime' AND name = '{aggregate}'");
    let found = http.rows(&sql).await?;
    let comment = found.first().and_then(|row| row.first()).and_then(Value::as_str).unwrap_or_default();
    let described = comment.split_once(' ').and_then(|(_, json)| serde_json::from_str::<Value>(json).ok());
    Ok(described.and_then(|d| d["definition"].as_str().map(String::from)))
}

async fn positions(http: &Http, plan: &AggregatePlan) -> anyhow::Result<Positions> {
    // Names are checked identifiers and the definition is hexadecimal.
    let sql = format!(
        "SELECT topic, generation, partition, next_offset, closed_horizon FROM realtime.positions FINAL \
         WHERE pipeline = '{}' AND aggregate = '{}' AND definition = '{}'",
        plan.pipeline, plan.name, plan.definition
    );
    let mut positions = Positions::new();
    for row in http.rows(&sql).await? {
        let number = |i: usize| row.get(i).and_then(Value::as_i64).context("realtime.positions has other columns");
        let topic = row.first().and_then(Value::as_str).unwrap_or_default().to_string();
        let served = Served { next_offset: number(3)?, closed_horizon: number(4)? };
        positions.insert((topic, number(1)? as i32, number(2)? as i32), served);
    }
    Ok(positions)
}

/// The view's rows, as a dashboard sees them.
async fn rows(http: &Http, plan: &AggregatePlan) -> anyhow::Result<HashMap<Cell, u64>> {
    let dimensions: String = plan.dimensions.iter().map(|d| format!("`{}`, ", d.name)).collect();
    let sql =
        format!("SELECT toUnixTimestamp(window_start), {dimensions}`{}` FROM realtime.`{}`", plan.measure, plan.name);
    let mut rows = HashMap::new();
    let mut lines = http.lines(&sql, "JSONCompactEachRow").await?;
    while let Some(line) = lines.next().await {
        let row: Vec<Value> = serde_json::from_str(&line?).context("ClickHouse's answer is no JSON row")?;
        let (Some(start), Some(count)) = (row.first().and_then(Value::as_i64), row.last().and_then(Value::as_u64))
        else {
            anyhow::bail!("realtime.{} has other columns than expected: {row:?}", plan.name);
        };
        let values = row[1..row.len() - 1].iter().map(|v| v.as_str().unwrap_or_default().to_string()).collect();
        rows.insert((start * 1_000_000, values), count);
    }
    Ok(rows)
}
