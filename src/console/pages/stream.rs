//! The stream: each partition with the positions of both sinks, its watermark and its verdicts.

use actix_web::{HttpResponse, web};
use maud::{Markup, html};

use serde::Deserialize;

use super::{choices, pauses};
use crate::console::live::Parts;
use crate::console::notices::because;
use crate::console::shared::{Look, Shared};
use crate::console::view::{State, View, badge, empty, n, part, table, th};
use crate::console::words::{self, count};
use crate::telemetry::{PartitionPhase, PartitionStatus, SinkCondition, Status};

#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    said: String,
}

pub async fn page(view: View, asked: web::Query<Asked>, shared: web::Data<Shared>) -> HttpResponse {
    let said = match asked.said.as_str() {
        "paused" => Some("Paused: nothing more is read, and what was read is committed."),
        "resumed" => Some("Resumed: it is read on where it stood."),
        _ => None,
    };
    let body = html! {
        h1 { "Stream" }
        p.lead { "Every record is read once per partition and handed to both sinks. Positions are next offsets. " a href="/stream/tap" { "Events as they come" } "." }
        @if let Some(said) = said { p.said.good role="status" { (said) } }
        (choices::notice(&Status::of(&shared.board, shared.limits), &shared.pipeline_names()))
        (pauses::section(&view, &shared))
        @for (id, content) in &parts(&shared.look()) { (part(id, content)) }
    };
    view.page("Stream", Some("/live/stream"), body)
}

pub fn parts(look: &Look) -> Parts {
    vec![("sinks", sinks(look)), ("partitions", partitions(look)), ("verdicts", verdicts(look))]
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

fn partitions(look: &Look) -> Markup {
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
                    n("Read to"), n("Bronze"), n("Realtime"), n("Watermark behind"), n("Last moved"),
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
                            td.n { (words::seconds(p.last_progress_seconds_ago)) " ago" }
                        }
                        @if let PartitionPhase::Paused { by, since, until, reason } = &p.phase {
                            tr.below.paused { td colspan="10" {
                                p { "Paused by " (by) " since " (words::moment(*since)) (because(reason)) }
                                @match until {
                                    Some(until) => { p.note { "Goes on by itself at " (words::moment(*until)) "." } }
                                    None => { p.note { "Nothing is read until somebody resumes it; its lag grows meanwhile." } }
                                }
                            } }
                        }
                        @if let PartitionPhase::Stopped { what, command } = &p.phase {
                            tr.below { td colspan="10" { p.error { (what) } p { "To resolve it: " (command) } } }
                        }
                    }
                }))
            }
        }
    }
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
