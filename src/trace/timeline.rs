//! A copy's story in the order of time, in words. Pure.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{EventCopy, Fate};
use crate::batch::locate::{CommitRef, Place};

/// Something that happened to a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// None where it has no time: it is as it is now.
    pub at: Option<DateTime<Utc>>,
    /// `event`, `kafka`, `verdict`, `bronze`, `realtime`, `silver`, `gold` or `clickhouse`.
    pub layer: &'static str,
    pub what: String,
    /// What it is about, to look further.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<About>,
}

/// Something that a step is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum About {
    /// A record, as `topic/generation/partition/offset`.
    Record { source: String },
    /// A Delta table, as `silver.user_events`.
    Table { table: String },
    /// A window of a view of ClickHouse.
    Window { view: String, window_start: DateTime<Utc> },
    /// A view of ClickHouse.
    View { view: String },
    /// The run that published it.
    Run { run_id: String },
}

/// The steps of a copy: those of a layer stay together, the layers come in the order of the way.
pub(super) fn of(copy: &EventCopy) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |at, layer, what: String, about: Vec<About>| steps.push(Step { at, layer, what, about });
    let table = |layer: &str, suffix: &str| About::Table { table: format!("{layer}.{}{suffix}", copy.pipeline) };
    let record = |place: &Place| About::Record { source: place.to_string() };
    if copy.event_time.is_some() {
        add(copy.event_time, "event", listed(&copy.fields), Vec::new());
    }
    let place = &copy.place;
    add(
        copy.kafka_timestamp,
        "kafka",
        format!(
            "topic {}, partition {}, offset {}{}",
            place.topic,
            place.partition,
            place.offset,
            if place.generation > 0 { format!(" (generation {})", place.generation) } else { String::new() }
        ),
        vec![record(place)],
    );
    let error = copy.parse_error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
    add(copy.ingestion_time, "verdict", format!("{}{error}", copy.verdict), Vec::new());
    let commit = &copy.bronze.commit;
    let file = format!("{}, file {}", version(commit), copy.bronze.file);
    add(time(commit), "bronze", file, vec![table("bronze", "")]);
    for w in &copy.windows {
        let of = if w.dimensions.is_empty() { String::new() } else { format!(" [{}]", listed(&w.dimensions)) };
        let total = match w.served_count {
            Some(n) if w.counted => format!("counted; {n} served"),
            Some(n) => format!("{n} served"),
            None => "nothing served".into(),
        };
        let complete = match w.complete {
            Some(true) => ", complete",
            Some(false) => ", not complete yet",
            None => "",
        };
        let note = w.note.as_ref().map(|n| format!("; {n}")).unwrap_or_default();
        let start = w.window_start.format("%Y-%m-%d %H:%M:%S");
        let about = About::Window { view: w.view.clone(), window_start: w.window_start };
        add(None, "realtime", format!("{} window {start}{of}: {total}{complete}{note}", w.view), vec![about]);
    }
    if let Some(note) = &copy.windows_note {
        add(None, "realtime", note.clone(), Vec::new());
    }
    match &copy.silver {
        Fate::Kept { commit, files, .. } => {
            let files = match &files[..] {
                [one] => format!("file {one}"),
                several => format!("one of {} files", several.len()),
            };
            add(time(commit), "silver", format!("kept; {}, {files}", version(commit)), vec![table("silver", "")]);
        }
        Fate::Refused { reasons, refused_version } => {
            add(
                None,
                "silver",
                format!("refused: {} (version {refused_version} of the refused rows)", reasons.join(", ")),
                vec![table("silver", "_refused"), record(place)],
            );
        }
        Fate::Duplicate { of, .. } => {
            add(None, "silver", format!("a duplicate: the copy at {of} stayed"), vec![record(of)]);
        }
        Fate::NotYetRun { why } => add(None, "silver", format!("not yet run: {why}"), Vec::new()),
        Fate::Expired { kept_from } => {
            let what = format!("gone for its age: retention.silver keeps what is from {kept_from} on");
            add(None, "silver", what, vec![table("silver", "")]);
        }
        Fate::Missing { silver_version, bronze_version, remedy } => add(
            None,
            "silver",
            format!(
                "MISSING: version {silver_version} of silver has read Bronze to {bronze_version} and does not have it; {remedy}"
            ),
            vec![table("silver", "")],
        ),
    }
    for g in &copy.gold {
        let key = if g.key.is_empty() { String::new() } else { format!(" [{}]", listed(&g.key)) };
        let values = match &g.values {
            Some(values) if values.is_empty() => "there".into(),
            Some(values) => listed(values),
            None => "not there".into(),
        };
        let note = g.note.as_ref().map(|n| format!("; {n}")).unwrap_or_default();
        let of = match (g.version, g.silver_version) {
            (Some(version), Some(silver)) => format!(" (version {version}, of version {silver} of silver)"),
            _ => String::new(),
        };
        let about = vec![About::Table { table: g.table.clone() }];
        add(time(&g.commit), "gold", format!("{}{key}: {values}{of}{note}", g.table), about);
        if let Some(s) = &g.served {
            let values = match (&s.values, s.same) {
                (Some(_), true) => "the same".into(),
                (Some(values), false) => format!("NOT the same: {}", listed(values)),
                (None, _) => "nothing served".into(),
            };
            let run = s.run_id.as_ref().map(|r| format!(", published by run {r}")).unwrap_or_default();
            let note = s.note.as_ref().map(|n| format!("; {n}")).unwrap_or_default();
            let mut about = vec![About::View { view: s.view.clone() }];
            about.extend(s.run_id.clone().map(|run_id| About::Run { run_id }));
            add(s.published_at, "clickhouse", format!("{}{key}: {values}{run}{note}", s.view), about);
        }
    }
    steps
}

fn time(commit: &Option<CommitRef>) -> Option<DateTime<Utc>> {
    commit.as_ref().and_then(|c| c.at)
}

fn version(commit: &Option<CommitRef>) -> String {
    match commit {
        Some(c) if c.operation == "OPTIMIZE" => format!("version {} (moved there from smaller files)", c.version),
        Some(c) => format!("version {}", c.version),
        None => "a version whose log entry is cleaned up".into(),
    }
}

/// `page=/shop, source=web`.
fn listed(values: &Map<String, Value>) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    values.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect::<Vec<_>>().join(", ")
}
