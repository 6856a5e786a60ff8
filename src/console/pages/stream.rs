//! The stream: each partition with the positions of both sinks, its watermark and its verdicts.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::{Said, choices, pauses};
use crate::config::Pipeline;
use crate::console::days;
use crate::console::live::Parts;
use crate::console::notices::because;
use crate::console::problem::Problem;
use crate::console::range::{self, Range};
use crate::console::shared::{Look, Shared};
use crate::console::view::{State, View, badge, empty, n, part, table, th};
use crate::console::words::{self, count};
use crate::telemetry::{PartitionPhase, PartitionStatus, SinkCondition, Status};

const SAID: [(&str, &str); 2] = [
    ("paused", "Paused: nothing more is read, and what was read is committed."),
    ("resumed", "Resumed: it is read on where it stood."),
];

pub async fn page(
    view: View,
    said: web::Query<Said>,
    asked: web::Query<range::Asked>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let range = asked.or(Range::Week)?;
    let said = said.among(&SAID);
    let body = html! {
        h1 { "Stream" }
        p.lead { "Every record is read once per partition and handed to both sinks. Positions are next offsets. " a href="/stream/tap" { "Events as they come" } "." }
        @if let Some(said) = said { p.said.good role="status" { (said) } }
        (choices::notice(&Status::of(&shared.board, shared.limits), &shared.pipeline_names()))
        (pauses::section(&view, &shared))
        @for (id, content) in &parts(&shared, range) { (part(id, content)) }
    };
    Ok(view.page("Stream", Some(&format!("/live/stream?range={}", range.as_str())), body))
}

pub fn parts(shared: &Shared, range: Range) -> Parts {
    let look = &shared.look();
    vec![
        ("sinks", sinks(look)),
        ("partitions", partitions(look, &shared.pipelines)),
        ("verdicts", verdicts(look)),
        ("days", days::section(shared, range, Some("/stream"))),
    ]
}

fn phase(p: &PartitionStatus) -> Markup {
    let state = match p.phase {
        PartitionPhase::Running => State::Good,
        PartitionPhase::Starting | PartitionPhase::Recovering => State::Busy,
        PartitionPhase::Paused { .. } => State::Watch,
        PartitionPhase::Stopped { .. } => State::Wrong,
    };
    badge(state, p.phase.as_str())
}

fn name(p: &PartitionStatus) -> String {
    if p.generation == 0 {
        format!("{}/{}", p.topic, p.partition)
    } else {
        format!("{}/{}/{}", p.topic, p.generation, p.partition)
    }
}

fn sinks(look: &Look) -> Markup {
    html! {
        section aria-labelledby="sinks-title" {
            h2 #sinks-title { "Where it comes from and goes to" }
            @if look.status.sinks.is_empty() {
                (empty("No server has been asked yet", html! { "The daemon is starting; this fills by itself." }))
            } @else {
                ul.sinks {
                    @for sink in &look.status.sinks {
                        @let state = match sink.condition {
                            SinkCondition::Healthy => State::Good,
                            SinkCondition::Retrying { .. } => State::Watch,
                            SinkCondition::Refused { .. } => State::Wrong,
                        };
                        li {
                            strong { (sink.name) } (badge(state, sink.condition.as_str()))
                            span.note { "for " (words::seconds(sink.since_seconds_ago)) }
                            @if let Some(error) = sink.condition.error() { p.error { (error) } }
                        }
                    }
                }
            }
        }
    }
}

fn partitions(look: &Look, pipelines: &[Arc<Pipeline>]) -> Markup {
    html! {
        section aria-labelledby="partitions-title" {
            h2 #partitions-title { "Partitions of this instance" }
            @if look.status.partitions.is_empty() {
                (empty("This instance holds no partition", html! {
                    "It stands by, or the topic does not exist yet. Send an event, as with " code { "boathouse-producer" } ", and it appears here."
                }))
            } @else {
                @let columns = [
                    th("Partition"), th("State"), n("Records/s"), n("End of log"), n("Lag"),
                    n("Read to"), n("Bronze"), n("Realtime"), n("Watermark behind"), n("Windows closed to"), n("Last moved"),
                ];
                (table("Partitions", &columns, html! {
                    @for (p, per_second) in look.status.partitions.iter().zip(&look.partition_rates) {
                        tr {
                            th scope="row" { (name(p)) }
                            td { (phase(p)) }
                            td.n { (words::rate(*per_second)) }
                            td.n { (p.end_offset.map_or_else(|| "–".into(), count)) }
                            td.n { (p.lag_records.map_or_else(|| "–".into(), count)) }
                            td.n { (count(p.position)) }
                            td.n { (position(p.position, p.bronze_position)) }
                            td.n { (position(p.position, p.realtime_position)) }
                            td.n { (p.watermark_delay_seconds.map_or_else(|| "–".into(), words::seconds)) }
                            td.n { @match closing(p, pipelines) {
                                Some((at, left)) => { (at.format("%H:%M:%S")) span.note { " next in " (words::seconds(left)) } }
                                None => { "–" }
                            } }
                            td.n { (words::seconds(p.last_progress_seconds_ago)) " ago" }
                        }
                        @if let PartitionPhase::Paused { by, since, until, reason } = &p.phase {
                            tr.below.paused { td colspan="11" {
                                p { "Paused by " (by) " since " (words::moment(*since)) (because(reason)) }
                                @match until {
                                    Some(until) => { p.note { "Goes on by itself at " (words::moment(*until)) "." } }
                                    None => { p.note { "Nothing is read until somebody resumes it; its lag grows meanwhile." } }
                                }
                            } }
                        }
                        @if let PartitionPhase::Stopped { what, command } = &p.phase {
                            tr.below { td colspan="11" { p.error { (what) } p { "To resolve it: " (command) } } }
                        }
                    }
                }))
            }
        }
    }
}

/// The end of the newest window of the partition into which nothing counts any more, and when the next one closes, in
/// seconds of the events' own time.
fn closing(p: &PartitionStatus, pipelines: &[Arc<Pipeline>]) -> Option<(DateTime<Utc>, f64)> {
    let time = &pipelines.iter().find(|pipeline| pipeline.name == p.pipeline)?.time;
    let window = i64::try_from(time.window.as_micros()).ok().filter(|window| *window > 0)?;
    let behind = i64::try_from((time.bound + time.allowed_lateness).as_micros()).ok()?;
    let horizon = p.mark_us?.checked_sub(behind)?;
    let closed = horizon.div_euclid(window) * window;
    Some((DateTime::from_timestamp_micros(closed)?, (closed + window - horizon) as f64 / 1e6))
}

/// A sink's position, with what it has yet to take.
fn position(read: i64, at: i64) -> Markup {
    html! { (count(at)) @if read > at { span.note { " −" (count(read - at)) } } }
}

fn verdicts(look: &Look) -> Markup {
    let status = &look.status;
    html! {
        section aria-labelledby="verdicts-title" {
            h2 #verdicts-title { "Verdicts since this instance took the partition up" }
            @if !status.partitions.is_empty() {
                @let columns = [th("Partition"), n("Records"), n("Size"), n("ok"), n("late"), n("future"), n("unparsed")];
                (table("Verdicts", &columns, html! {
                    @for p in &status.partitions {
                        tr {
                            th scope="row" { (name(p)) }
                            td.n { (count(p.records)) } td.n { (words::bytes(p.bytes)) }
                            @for n in [p.ok_records, p.late_records, p.future_records, p.unparsed_records] {
                                td.n { (count(n)) span.note { " " (share(n, p.records)) } }
                            }
                        }
                    }
                }))
                p.note { "Late and refused records are in Bronze like all others. " a href="/dead-letters" { "Dead letters" } " shows why." }
            }
        }
    }
}

fn share(n: u64, of: u64) -> String {
    if of == 0 || n == 0 { String::new() } else { format!("{:.1} %", n as f64 * 100.0 / of as f64) }
}
