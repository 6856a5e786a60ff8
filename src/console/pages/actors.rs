//! The actors as their supervisors know them.

use actix_web::{HttpResponse, web};
use maud::{Markup, html};

use crate::console::live::Parts;
use crate::console::shared::{Look, Shared};
use crate::console::view::{State, View, badge, empty, figure, n, part, table, th};
use crate::console::words::{self, count};
use crate::telemetry::{ActorPhase, ActorStatus, PartitionStatus};

pub async fn page(view: View, shared: web::Data<Shared>) -> HttpResponse {
    let body = html! {
        h1 { "Actors" }
        p.lead { "An actor that fails is dropped and made anew from what is durable, after a pause. Nothing is lost by it." }
        @for (id, content) in &parts(&shared.look()) { (part(id, content)) }
    };
    view.page("Actors", Some("/live/actors"), body)
}

pub fn parts(look: &Look) -> Parts {
    vec![("actors", tree(look)), ("memory", memory(look))]
}

/// Kinds in the order of the supervision tree, with how deep each stands.
const KINDS: [(&str, usize); 7] = [
    ("scheduler", 0),
    ("pipeline", 0),
    ("bronze_writer", 1),
    ("realtime_writer", 1),
    ("upkeep", 1),
    ("partition_consumer", 2),
    ("window_aggregator", 2),
];

fn place(actor: &ActorStatus) -> (String, usize) {
    let depth = KINDS.iter().find(|(kind, _)| *kind == actor.kind).map_or(1, |(_, depth)| *depth);
    let order = KINDS.iter().position(|(kind, _)| *kind == actor.kind).unwrap_or(KINDS.len());
    let pipeline = actor.name.split('/').next().unwrap_or_default();
    (format!("{pipeline}/{order}/{}", actor.name), depth)
}

fn tree(look: &Look) -> Markup {
    let mut actors: Vec<_> = look.status.actors.iter().map(|actor| (place(actor), actor)).collect();
    actors.sort_by(|a, b| a.0.cmp(&b.0));
    html! {
        section aria-labelledby="tree-title" {
            h2 #tree-title { "Supervision" }
            @if actors.is_empty() {
                (empty("No actor has started yet", html! { "This fills while the daemon starts." }))
            } @else {
                @let columns = [th("Actor"), th("Name"), th("State"), n("Mailbox"), n("In hand"), n("Restarts"), th("Last failure")];
                p.note {
                    "Mailbox: messages that were sent to it and that it has not taken up; a batch is one. "
                    "In hand: records that it was given and whose end is not durable yet, in its mailbox and its buffers."
                }
                (table("Actors", &columns, html! { @for ((_, depth), actor) in &actors { (row(*depth, actor, in_hand(actor, &look.status.partitions))) } }))
            }
        }
    }
}

/// Records that an actor was given and whose end is not durable yet: what lies in its mailbox and its buffers. None for
/// those that records do not pass.
fn in_hand(actor: &ActorStatus, partitions: &[PartitionStatus]) -> Option<i64> {
    let below = |p: &&PartitionStatus| match actor.name.rsplit_once('/') {
        None => p.pipeline == actor.name,
        Some((of, partition)) => partition.parse() == Ok(p.partition) && of.split('/').next() == Some(&p.pipeline),
    };
    let waits: fn(&PartitionStatus) -> i64 = match actor.kind.as_str() {
        "bronze_writer" => |p| p.position - p.bronze_position,
        "realtime_writer" | "window_aggregator" => |p| p.position - p.realtime_position,
        "partition_consumer" => |p| p.position - p.bronze_position.min(p.realtime_position),
        _ => return None,
    };
    Some(partitions.iter().filter(below).map(|p| waits(p).max(0)).sum())
}

fn row(depth: usize, actor: &ActorStatus, in_hand: Option<i64>) -> Markup {
    let (state, word) = match actor.phase {
        ActorPhase::Running => (State::Good, "running"),
        ActorPhase::BackingOff => (State::Watch, "waits to be made anew"),
        ActorPhase::GaveUp => (State::Wrong, "given up"),
    };
    html! {
        tr {
            th scope="row" class={ "depth-" (depth) } { (actor.kind.replace('_', " ")) }
            td { (actor.name) } td { (badge(state, word)) }
            td.n { (count(actor.mailbox_messages as i64)) } td.n { (in_hand.map_or_else(|| "–".into(), count)) } td.n { (count(actor.restarts)) }
            td {
                @match (&actor.last_failure, actor.last_failure_seconds_ago) {
                    (Some(error), Some(ago)) => { (error) span.note { " " (words::seconds(ago)) " ago" } }
                    _ => { "–" }
                }
            }
        }
    }
}

fn memory(look: &Look) -> Markup {
    let memory = &look.status.memory;
    html! {
        section aria-labelledby="memory-title" {
            h2 #memory-title { "Memory and time" }
            dl.figures {
                (figure("Buffers", &words::bytes(memory.used_bytes), "", Some("between Kafka and the sinks")))
                (figure("Budget", &words::bytes(memory.budget_bytes), "", Some("memory.budget")))
                (figure("Process", &memory.resident_bytes.map_or_else(|| "–".into(), words::bytes), "", Some("resident")))
                (figure("CPU", &memory.cpu_seconds.map_or_else(|| "–".into(), words::seconds), "", Some("since the start")))
                (figure("Up", &words::seconds(look.status.uptime_seconds), "", None))
            }
        }
    }
}
