//! The flow from topic to gold: stages, what is in them, how they are.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use crate::console::meter::Point;
use crate::console::view::State;
use crate::console::words::{age, count, rate, seconds};
use crate::telemetry::{BatchStatus, PartitionPhase, SinkCondition, Status};

/// One stage of the flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub name: &'static str,
    /// What it is, in small.
    pub kind: String,
    pub state: State,
    pub word: String,
    /// The figure that matters most.
    pub figure: String,
    pub unit: &'static str,
    /// A line below it.
    pub note: String,
    /// The page that shows more.
    pub page: String,
}

/// All stages of a pipeline, in the order of [`PLACES`].
pub fn stages(status: &Status, topic: &str, pipeline: &str, point: &Point, now: DateTime<Utc>) -> [Stage; 6] {
    let parts: Vec<_> = status.partitions.iter().filter(|p| p.pipeline == pipeline).collect();
    let stopped = parts.iter().filter(|p| matches!(p.phase, PartitionPhase::Stopped { .. })).count();
    let unsettled = parts.iter().filter(|p| !matches!(p.phase, PartitionPhase::Running)).count();
    let paused = parts.iter().filter(|p| matches!(p.phase, PartitionPhase::Paused { .. })).count();
    let kafka = sink(status, "kafka");
    let (state, word) = match (parts.len(), stopped, kafka) {
        (_, 1.., _) => (State::Wrong, format!("{stopped} stopped")),
        (_, _, Some(found)) if found.0 != State::Good => found,
        (0, ..) => (State::Idle, "no partition here".into()),
        _ if paused > 0 => (State::Watch, format!("{paused} paused")),
        _ if unsettled > 0 => (State::Watch, format!("{unsettled} not running")),
        _ if point.records_per_second > 0.0 => (State::Good, "flowing".into()),
        _ => (State::Good, "quiet".into()),
    };
    let source = Stage {
        name: "Kafka",
        kind: topic.to_owned(),
        state,
        word,
        figure: rate(point.records_per_second),
        unit: "records/s",
        note: format!("lag {}, {} partitions", count(point.lag_records), parts.len()),
        page: "/stream".into(),
    };
    let waits = |waiting: i64| if waiting == 0 { "nothing waits".to_owned() } else { "wait for the next flush".into() };
    let (state, word) = sink(status, &format!("bronze/{pipeline}")).unwrap_or((State::Idle, "not begun".into()));
    let bronze = Stage {
        name: "Bronze",
        kind: "Delta, every record once".into(),
        state,
        word,
        figure: count(point.bronze_waiting_records),
        unit: "waiting",
        note: waits(point.bronze_waiting_records),
        page: format!("/data/bronze.{pipeline}"),
    };
    let (state, word) = sink(status, "clickhouse").unwrap_or((State::Idle, "not begun".into()));
    let realtime = Stage {
        name: "Realtime",
        kind: "ClickHouse windows".into(),
        state,
        word,
        figure: point.watermark_delay_seconds.map_or_else(|| "–".into(), seconds),
        unit: "behind",
        note: match point.realtime_waiting_records {
            0 => "every record counted".into(),
            n => format!("{} to be counted", count(n)),
        },
        page: "/stream".into(),
    };
    let batch = status.batches.iter().find(|batch| batch.pipeline == pipeline);
    let fresh = batch.map(|batch| batch.state.fresh).unwrap_or_default();
    let layer = |name, kind: &str, since: Option<DateTime<Utc>>, task: &str, page: String| {
        let (state, word) = layer_state(batch, since, task);
        Stage {
            name,
            kind: kind.into(),
            state,
            word,
            figure: since.map_or_else(|| "–".into(), |since| age(since, now)),
            unit: if since.is_some() { "old" } else { "" },
            note: next_run(batch, now),
            page,
        }
    };
    let silver = layer(
        "Silver",
        "Delta, each event once",
        fresh.silver,
        "run_bronze_to_silver",
        format!("/data/silver.{pipeline}"),
    );
    let gold = layer("Gold", "Delta, models", fresh.gold, "run_silver_to_gold", "/data".into());
    let served = layer("Served", "ClickHouse, figures", fresh.clickhouse, "gold_to_clickhouse", "/quality".into());
    [source, bronze, realtime, silver, gold, served]
}

fn sink(status: &Status, name: &str) -> Option<(State, String)> {
    let sink = status.sinks.iter().find(|sink| sink.name == name)?;
    Some(match &sink.condition {
        SinkCondition::Healthy => (State::Good, "healthy".into()),
        SinkCondition::Retrying { .. } => (State::Watch, "retrying".into()),
        SinkCondition::Refused { .. } => (State::Wrong, "refuses us".into()),
    })
}

fn layer_state(batch: Option<&BatchStatus>, since: Option<DateTime<Utc>>, task: &str) -> (State, String) {
    let Some(batch) = batch.map(|batch| &batch.state) else { return (State::Idle, "no batch".into()) };
    if let Some(running) = &batch.running
        && running.task.as_deref() == Some(task)
    {
        return (State::Busy, "running".into());
    }
    match (&batch.last, since) {
        _ if batch.late => (State::Wrong, "late".into()),
        (Some(last), _) if last.outcome == "failed" => (State::Wrong, "last run failed".into()),
        _ if batch.paused.is_some() => (State::Watch, "paused".into()),
        (_, None) => (State::Idle, "not made yet".into()),
        (_, Some(_)) => (State::Good, "fresh".into()),
    }
}

fn next_run(batch: Option<&BatchStatus>, now: DateTime<Utc>) -> String {
    let Some(batch) = batch.map(|batch| &batch.state) else { return "no run yet".into() };
    match (&batch.running, batch.next_slot) {
        (Some(_), _) => "a run is under way".into(),
        (None, Some(slot)) => format!("next run in {}", age(now, slot)),
        (None, None) if batch.enabled => "waits for its schedule".into(),
        (None, None) => "runs by hand".into(),
    }
}

/// Width and height of a stage.
const W: i32 = 196;
const H: i32 = 124;
/// Where the stages stand on a wide screen: topic, then both sinks, then the batch.
const PLACES: [(i32, i32); 6] = [(4, 84), (252, 8), (252, 160), (500, 8), (748, 8), (748, 160)];
/// Below each other on a narrow one.
const NARROW: [(i32, i32); 6] = [(4, 4), (4, 164), (212, 164), (4, 324), (4, 484), (212, 484)];
/// From stage to stage.
const ARROWS: [(usize, usize); 5] = [(0, 1), (0, 2), (1, 3), (3, 4), (4, 5)];

/// The drawing, once for wide screens and once for narrow ones; the style sheet shows one of them.
pub fn draw(title: &str, stages: &[Stage; 6]) -> Markup {
    html! {
        div.flow {
            (drawing(title, stages, &PLACES, (948, 292), "wide"))
            (drawing(title, stages, &NARROW, (412, 612), "narrow"))
        }
    }
}

fn drawing(title: &str, stages: &[Stage; 6], places: &[(i32, i32); 6], size: (i32, i32), class: &str) -> Markup {
    html! {
        svg class=(class) viewBox={ "0 0 " (size.0) " " (size.1) } role="group" aria-label=(title) {
            @for (from, to) in ARROWS {
                path class={ "arrow " (stages[to].state.class()) } d=(arrow(places[from], places[to])) {}
            }
            @for (stage, (x, y)) in stages.iter().zip(places) {
                a href=(stage.page) {
                    g class={ "stage " (stage.state.class()) } transform={ "translate(" (x) " " (y) ")" } {
                        rect.box width=(W) height=(H) rx="10" {}
                        rect.edge width="5" height=(H - 24) x="0" y="12" rx="2" {}
                        text.name x="18" y="26" { (stage.name) }
                        text.word x=(W - 14) y="26" text-anchor="end" {
                            tspan.sign { (stage.state.sign()) } " " (stage.word)
                        }
                        text.kind x="18" y="43" { (stage.kind) }
                        text.figure x="18" y="82" { (stage.figure) tspan.unit dx="6" { (stage.unit) } }
                        text.note x="18" y="107" { (stage.note) }
                    }
                }
            }
        }
    }
}

/// A line with a head, from the right edge of a stage to the left edge of the next, or from below to above.
fn arrow(from: (i32, i32), to: (i32, i32)) -> String {
    if to.0 >= from.0 + W {
        let (x1, y1, x2, y2) = (from.0 + W, from.1 + H / 2, to.0 - 3, to.1 + H / 2);
        let bend = (x1 + x2) / 2;
        format!("M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}m-7 -5l7 5l-7 5")
    } else {
        let (x1, y1, x2, y2) = (from.0 + W / 2, from.1 + H, to.0 + W / 2, to.1 - 3);
        let bend = (y1 + y2) / 2;
        format!("M{x1} {y1}C{x1} {bend} {x2} {bend} {x2} {y2}m-5 -7l5 7l5 -7")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{BatchRunning, Board, Limits};

    fn point() -> Point {
        Point {
            at: Utc::now(),
            records_per_second: 5.2,
            bytes_per_second: 0.0,
            refused_per_second: 0.0,
            lag_records: 12,
            bronze_waiting_records: 40,
            realtime_waiting_records: 0,
            watermark_delay_seconds: Some(31.0),
            resident_bytes: None,
            cpu_cores: None,
        }
    }

    #[test]
    fn stages_tell_what_the_board_knows() {
        let board = Board::new();
        board.sink("bronze/user_events", SinkCondition::Healthy);
        board.sink("clickhouse", SinkCondition::Retrying { error: "away".into() });
        board.batch("user_events", |batch| {
            let task = Some("run_bronze_to_silver".into());
            batch.running = Some(BatchRunning { run_id: "r".into(), task, since: Utc::now() });
        });
        let status = Status::of(&board, Limits::default());
        let found = stages(&status, "user-events", "user_events", &point(), Utc::now());
        let states = found.each_ref().map(|stage| stage.state);
        let expected = [State::Idle, State::Good, State::Watch, State::Busy, State::Idle, State::Idle];
        assert_eq!(states, expected);
        assert_eq!((found[1].figure.as_str(), found[2].figure.as_str()), ("40", "31 s"));
    }

    #[test]
    fn names_in_a_drawing_are_escaped_and_no_style_is_inline() {
        let status = Status::of(&Board::new(), Limits::default());
        let found = stages(&status, "<script>", "user_events", &point(), Utc::now());
        let text = draw("a \"title\"", &found).into_string();
        assert!(!text.contains("<script>") && !text.contains("style="), "{text}");
    }
}
