//! The overview: the flow, what is wrong now, the last hour.

use actix_web::{HttpResponse, web};
use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use maud::{Markup, html};

use crate::console::days;
use crate::console::draw::chart::Chart;
use crate::console::draw::flow;
use crate::console::live::Parts;
use crate::console::meter::{Gap, Point};
use crate::console::notices::{Level, Notice};
use crate::console::points::POINT_EVERY;
use crate::console::problem::Problem;
use crate::console::range::{self, Range};
use crate::console::shared::{Look, Shared};
use crate::console::view::{State, View, badge, figure, part};
use crate::console::words;

/// Between two points.
const EVERY: TimeDelta = TimeDelta::seconds(POINT_EVERY.as_secs() as i64);
/// For so long the newest point is as new as one can be.
const STANDS: TimeDelta = TimeDelta::seconds(2 * POINT_EVERY.as_secs() as i64);

pub async fn page(
    view: View,
    asked: web::Query<range::Asked>,
    shared: web::Data<Shared>,
) -> Result<HttpResponse, Problem> {
    let range = asked.or(Range::Hour)?;
    let parts = parts(&shared, range);
    let body = html! {
        h1.sr { "Overview" }
        @for (id, content) in &parts { (part(id, content)) }
    };
    Ok(view.page("Overview", Some(&format!("/live/overview?range={}", range.as_str())), body))
}

pub fn parts(shared: &Shared, range: Range) -> Parts {
    let look = shared.look();
    vec![
        ("now", now(&look)),
        ("flows", flows(shared, &look)),
        ("figures", figures(&look)),
        ("charts", charts(shared, &look, range)),
        ("days", days::section(shared, range, None)),
    ]
}

/// What is wrong now, in words.
fn now(look: &Look) -> Markup {
    html! {
        section.now aria-labelledby="now-title" {
            h2.sr #now-title { "What is wrong now" }
            @if look.notices.is_empty() {
                p.well role="status" { (badge(State::Good, "All is well")) span.note { "up " (words::seconds(look.status.uptime_seconds)) ", version " (look.status.version) } }
            } @else {
                div role="status" { ul.notices { @for notice in &look.notices { (one(notice)) } } }
            }
        }
    }
}

fn one(notice: &Notice) -> Markup {
    let (state, word) = match notice.level {
        Level::Wrong => (State::Wrong, "Act"),
        Level::Watch => (State::Watch, "Watch"),
    };
    html! {
        li class={ "notice " (state.class()) } {
            (badge(state, word))
            div { p.what { (notice.what) } p.todo { (notice.todo) } }
            a href=(notice.page) { "Show" span.sr { " what this is about: " (notice.what) } }
        }
    }
}

fn flows(shared: &Shared, look: &Look) -> Markup {
    html! {
        @for (pipeline, (name, point)) in shared.pipelines.iter().zip(&look.points) {
            section aria-label={ "Flow of " (name) } {
                div.heading { h2 { (name) } p.note { "from topic to figures" } }
                (flow::draw(&format!("Flow of {name}"), &flow::stages(&look.status, &pipeline.topic, name, point, look.now)))
            }
        }
    }
}

fn figures(look: &Look) -> Markup {
    let sum = |value: fn(&Point) -> f64| look.points.iter().map(|(_, point)| value(point)).sum::<f64>();
    let memory = &look.status.memory;
    let share = memory.used_bytes * 100 / memory.budget_bytes.max(1);
    html! {
        dl.figures {
            (figure("Records", &words::rate(sum(|p| p.records_per_second)), "/s", None))
            (figure("Bytes", &words::bytes(sum(|p| p.bytes_per_second) as u64), "/s", None))
            (figure("Refused", &words::rate(sum(|p| p.refused_per_second)), "/s", None))
            (figure("Lag", &words::count(sum(|p| p.lag_records as f64) as i64), "records", None))
            (figure("Buffers", &words::bytes(memory.used_bytes), "", Some(&format!("{share} % of {}", words::bytes(memory.budget_bytes)))))
            (figure("Memory", &memory.resident_bytes.map_or_else(|| "–".into(), words::bytes), "", Some("the whole process")))
            (figure("CPU", &look.points.first().and_then(|(_, p)| p.cpu_cores).map_or_else(|| "–".into(), |c| format!("{c:.2}")), "cores", None))
        }
    }
}

fn charts(shared: &Shared, look: &Look, range: Range) -> Markup {
    html! {
        @for (place, name) in shared.pipeline_names().iter().enumerate() {
            @let over = shared.meter(|meter| meter.over(name, range, look.now));
            @let to = edge(over.points.last(), look.now);
            @let from = to - range.span();
            @let chart = |title, shown, value: fn(&Point) -> Option<f64>| {
                let points = over.points.iter().filter_map(|p| Some((p.at, value(p)?))).collect();
                Chart { title, shown, from, to, step_seconds: over.step_seconds, points, unknown: &over.unknown }.draw()
            };
            section aria-label={ "Last " (range.words()) " of " (name) } {
                div.heading {
                    h2 { "The last " (range.words()) } p.note { (name) ", UTC" }
                    @if place == 0 { (range.links("/")) }
                }
                @if let Some(since) = over.known_since.filter(|since| *since > from) {
                    p.note {
                        "This instance counts since " (words::moment(since)) "; rates of before are nowhere kept. "
                        @if range.span() > Range::Hour.span() { "How far the layers were behind is below, from ClickHouse." }
                    }
                }
                (unknown(&over.unknown))
                div.charts {
                    (chart("Records", |v| format!("{}/s", words::rate(v)), |p| Some(p.records_per_second)))
                    (chart("Lag", |v| words::count(v as i64), |p| Some(p.lag_records as f64)))
                    (chart("Watermark behind", words::seconds, |p| p.watermark_delay_seconds))
                    (chart("Waiting for Bronze", |v| words::count(v as i64), |p| Some(p.bronze_waiting_records as f64)))
                    (chart("Refused", |v| format!("{}/s", words::rate(v)), |p| Some(p.refused_per_second)))
                    (chart("Memory", |v| format!("{v:.0} MiB"), |p| p.resident_bytes.map(|b| b as f64 / f64::from(1 << 20))))
                }
            }
        }
    }
}

/// Where charts end: at the newest point, so that they change with the points and not with every second that passes; where
/// there has been none for long, at the next time at which one would be due.
fn edge(newest: Option<&Point>, now: DateTime<Utc>) -> DateTime<Utc> {
    match newest {
        Some(point) if now - point.at <= STANDS => point.at,
        _ => now.duration_trunc(EVERY).map_or(now, |begun| begun + EVERY),
    }
}

/// The times of which no rates are known, the newest few in words.
fn unknown(gaps: &[Gap]) -> Markup {
    const TOLD: usize = 3;
    let one = |gap: &Gap| format!("{} to {}", words::moment(gap.from), words::moment(gap.to));
    let told: Vec<String> = gaps.iter().rev().take(TOLD).map(one).collect();
    html! {
        @if !gaps.is_empty() {
            p.note {
                "Nothing was measured while this instance was down, nor is anything drawn: " (told.join(", "))
                @if gaps.len() > TOLD { ", and " (words::plural((gaps.len() - TOLD) as i64, "time", "times")) " before" } "."
            }
        }
    }
}
