//! The windows that a record is counted in, and what is served of them.

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{micros, text};
use crate::config::Pipeline;
use crate::kafka::Source;
use crate::serving::{Client, Error, ErrorKind};
use crate::window::{AggregatePlan, OTHER};

/// One aggregate's window.
#[derive(Debug, Clone, Serialize)]
pub struct WindowPart {
    /// As `realtime.events_per_minute`.
    pub view: String,
    pub window_start: DateTime<Utc>,
    pub window_end: DateTime<Utc>,
    pub dimensions: Map<String, Value>,
    /// What the view shows of the window under these dimensions; none where it shows nothing.
    pub served_count: Option<u64>,
    /// Whether the totals served hold this record: the position that they were written with lies behind it.
    pub counted: bool,
    /// Whether every partition is past the window.
    pub complete: Option<bool>,
    pub note: Option<String>,
}

/// The windows of a record, and why it is in none or what hides them.
pub(super) async fn of(
    client: &Client,
    pipeline: &Pipeline,
    epoch: &str,
    source: &Source,
    offset: i64,
    verdict: &str,
    row: &RecordBatch,
) -> (Vec<WindowPart>, Option<String>) {
    let why = match verdict {
        "ok" => None,
        "late" => Some("it came after its window was closed: silver and gold have it, no window counts it"),
        "future" => Some("its clock is ahead of Kafka's by more than the guard: no window counts it"),
        _ => Some("it is no event"),
    };
    if let Some(why) = why {
        return (Vec::new(), Some(why.into()));
    }
    let Some(event_time) = micros(row, "event_time") else { return (Vec::new(), None) };
    let plans = match AggregatePlan::all(pipeline, epoch) {
        Ok(plans) => plans,
        Err(e) => return (Vec::new(), Some(e.to_string())),
    };
    let mut parts = Vec::new();
    for plan in plans.iter().filter(|plan| passes(plan, row)) {
        match part(client, plan, source, offset, event_time, row).await {
            Ok(part) => parts.push(part),
            // What is true of one is true of all: the server is away, or refuses.
            Err(e) => return (parts, Some(e.to_string())),
        }
    }
    let note = parts.is_empty().then(|| "no aggregate's filter takes it".to_owned());
    (parts, note)
}

fn passes(plan: &AggregatePlan, row: &RecordBatch) -> bool {
    plan.filters.iter().all(|f| text(row, &f.name).is_some_and(|value| f.values.contains(&value)))
}

async fn part(
    client: &Client,
    plan: &AggregatePlan,
    source: &Source,
    offset: i64,
    event_time: i64,
    row: &RecordBatch,
) -> Result<WindowPart, Error> {
    let start = plan.window_start(event_time);
    let at = |micros| DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let values: Vec<String> = plan.dimensions.iter().map(|d| text(row, &d.name).unwrap_or_default()).collect();
    let named = |values: &[String]| {
        plan.dimensions.iter().zip(values).map(|(d, v)| (d.name.clone(), Value::from(v.as_str()))).collect()
    };
    let mut part = WindowPart {
        view: format!("realtime.{}", plan.name),
        window_start: at(start),
        window_end: at(start + plan.window),
        dimensions: named(&values),
        served_count: None,
        counted: false,
        complete: None,
        note: None,
    };
    match client.view(&plan.name).await {
        Ok(Some(view)) if view.definition == plan.definition => {}
        Ok(Some(_)) => {
            part.note = Some("the view shows an earlier definition; the new one is still being counted".into());
            return Ok(part);
        }
        Ok(None) => {
            part.note = Some("there is no such view yet".into());
            return Ok(part);
        }
        Err(e) if e.kind == ErrorKind::Missing => {
            part.note = Some("there is no such view yet".into());
            return Ok(part);
        }
        Err(e) => return Err(e),
    }
    part.served_count = client.served_total(plan, start, &values).await?;
    if part.served_count.is_none() && !values.is_empty() {
        let others = vec![OTHER.to_owned(); values.len()];
        part.served_count = client.served_total(plan, start, &others).await?;
        if part.served_count.is_some() {
            part.dimensions = named(&others);
            part.note = Some("its own values found no room in the window".into());
        }
    }
    let position = client.served_position(plan, source).await?;
    part.counted = position.is_some_and(|next| next > offset);
    if !part.counted {
        part.note = Some(match position {
            Some(next) => format!("not yet: the totals hold its partition up to offset {next}"),
            None => "not yet: the totals hold nothing of its partition".into(),
        });
    } else if part.served_count.is_none() {
        let kept = plan.keep_from(Utc::now().timestamp_micros()).is_none_or(|from| start >= from);
        part.note = Some(match kept {
            true => "nothing is served: `boathouse reconcile --only realtime`".into(),
            false => "the window is older than retention.realtime and gone".into(),
        });
    }
    if plan.window == plan.base_window {
        part.complete = client.window_complete(&plan.pipeline, start).await?;
    }
    Ok(part)
}
