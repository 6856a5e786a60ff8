//! A line over time: one measure, its unit, its greatest and its newest value.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::frame::Frame;
use super::top_of_scale;
use crate::console::meter::Gap;
use crate::console::words;

const AREA: Frame = Frame { width: 340.0, height: 140.0, left: 56.0, right: 10.0, top: 12.0, bottom: 22.0 };
/// Points that lie this many steps apart are not joined: nothing is known of the time between.
const GAP_STEPS: i64 = 6;
/// Points that a line is drawn through; where there are more, neighbours are one, the greatest of them.
const DRAWN_MAX: usize = 360;

/// What a chart shows.
pub struct Chart<'a> {
    pub title: &'a str,
    /// How a value reads, with its unit.
    pub shown: fn(f64) -> String,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// How far apart points are.
    pub step_seconds: i64,
    /// Oldest first.
    pub points: Vec<(DateTime<Utc>, f64)>,
    /// Times of which nothing is known; no line is drawn through them.
    pub unknown: &'a [Gap],
}

type Points = [(DateTime<Utc>, f64)];

impl Chart<'_> {
    pub fn draw(&self) -> Markup {
        let newest = self.points.last().map(|point| point.1);
        let max = self.points.iter().map(|point| point.1).fold(0.0, f64::max);
        let top = top_of_scale(max);
        let summary = match newest {
            Some(now) => format!("now {}, greatest {}", (self.shown)(now), (self.shown)(max)),
            None => "no value yet".to_owned(),
        };
        let y = |value: f64| AREA.y(value / top);
        html! {
            figure.chart {
                figcaption { span.title { (self.title) } span.now { (newest.map(self.shown).unwrap_or_else(|| "–".into())) } }
                svg viewBox=(AREA.view_box()) role="img" aria-label={ (self.title) ": " (summary) } {
                    @for part in [0.0, 0.5, 1.0] {
                        line.grid x1=(AREA.left) x2=(AREA.end()) y1=(y(top * part)) y2=(y(top * part)) {}
                        text.tick x=(AREA.left - 6.0) y=(y(top * part) + 4.0) text-anchor="end" { ((self.shown)(top * part)) }
                    }
                    @for (x, label) in self.ticks() {
                        text.tick x=(x) y=(AREA.height - 6.0) text-anchor="middle" { (label) }
                    }
                    @for Gap { from, to } in self.unknown.iter().filter(|gap| gap.to > self.from) {
                        @let (left, right) = (self.x(*from), self.x(*to));
                        rect.unknown x=(format!("{left:.1}")) y=(AREA.top) width=(format!("{:.1}", (right - left).max(1.0))) height=(AREA.y(0.0) - AREA.top) {
                            title { "not measured from " (words::moment(*from)) " to " (words::moment(*to)) }
                        }
                    }
                    @for run in self.runs() {
                        @let line = run.iter().map(|(at, value)| format!("{:.1},{:.1}", self.x(*at), y(*value))).collect::<Vec<_>>().join(" ");
                        @if let (Some(first), Some(last)) = (run.first(), run.last()) {
                            polygon.area points={ (format!("{:.1}", self.x(first.0))) "," (y(0.0)) " " (line) " " (format!("{:.1}", self.x(last.0))) "," (y(0.0)) } {}
                            polyline.line points=(line) {}
                        }
                    }
                    @if self.points.len() < 2 {
                        text.none x=(AREA.width / 2.0) y=(AREA.height / 2.0) text-anchor="middle" { "The line begins in a few seconds" }
                    }
                }
            }
        }
    }

    fn x(&self, at: DateTime<Utc>) -> f64 {
        let whole = (self.to - self.from).num_milliseconds().max(1) as f64;
        AREA.x((at - self.from).num_milliseconds() as f64 / whole)
    }

    /// Round moments of the range's own clock, few enough to be read.
    fn ticks(&self) -> Vec<(f64, String)> {
        let (step, format) = match (self.to - self.from).num_minutes() {
            0..=20 => (300, "%H:%M"),
            21..=90 => (900, "%H:%M"),
            91..=720 => (7_200, "%H:%M"),
            721..=2_880 => (21_600, "%H:%M"),
            2_881..=14_400 => (172_800, "%m-%d"),
            _ => (604_800, "%m-%d"),
        };
        let first = (self.from.timestamp() / step + 1) * step;
        (first..=self.to.timestamp())
            .step_by(step as usize)
            .filter_map(|second| DateTime::from_timestamp(second, 0))
            .map(|at| (self.x(at), at.format(format).to_string()))
            .filter(|(x, _)| *x > AREA.left + 14.0 && *x < AREA.end() - 14.0)
            .collect()
    }

    /// How many points are drawn as one.
    fn joined(&self) -> usize {
        self.points.len().div_ceil(DRAWN_MAX).max(1)
    }

    /// What a line is drawn through, each: points between which nothing is missing, neighbours as one where there are many.
    fn runs(&self) -> Vec<Vec<(DateTime<Utc>, f64)>> {
        let apart = self.step_seconds * GAP_STEPS;
        let together = |a: &(DateTime<Utc>, f64), b: &(DateTime<Utc>, f64)| {
            let is_between = |gap: &Gap| gap.from < b.0 && gap.to > a.0;
            (b.0 - a.0).num_seconds() <= apart && !self.unknown.iter().any(is_between)
        };
        let greatest = |of: &Points| {
            let value = of.iter().map(|point| point.1).reduce(f64::max)?;
            Some((of.last()?.0, value))
        };
        let drawn = |run: &Points| run.chunks(self.joined()).filter_map(greatest).collect::<Vec<_>>();
        self.points.chunk_by(together).map(drawn).filter(|run| run.len() > 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn what_is_unknown_is_not_drawn() {
        let at = |s| DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::seconds(s);
        let points = vec![(at(0), 1.0), (at(5), 2.0), (at(500), 3.0), (at(505), 4.0), (at(900), 1.0)];
        let chart = Chart {
            title: "t",
            shown: |v| v.to_string(),
            from: at(0),
            to: at(3_600),
            step_seconds: 5,
            points,
            unknown: &[],
        };
        assert_eq!(chart.runs().iter().map(|run| run.len()).collect::<Vec<_>>(), [2, 2]);
        let text = chart.draw().into_string();
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(!text.contains("style="));
    }

    #[test]
    fn no_line_goes_through_a_time_that_is_unknown_however_short() {
        let at = |second: i64| DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::seconds(second);
        let points: Vec<_> = (0..20).map(|n| (at(5 * n), 1.0)).collect();
        let unknown = [Gap { from: at(45), to: at(50) }, Gap { from: at(-90), to: at(-60) }];
        let chart = |unknown| Chart {
            title: "t",
            shown: |v| v.to_string(),
            from: at(0),
            to: at(100),
            step_seconds: 5,
            points: points.clone(),
            unknown,
        };
        let runs = chart(&unknown).runs();
        assert_eq!(runs.iter().map(|run| (run[0].0, run.len())).collect::<Vec<_>>(), [(at(0), 10), (at(50), 10)]);
        let text = chart(&unknown).draw().into_string();
        assert!(text.matches("class=\"unknown\"").count() == 1 && text.contains("not measured from"), "{text}");
        assert_eq!(chart(&[]).runs().len(), 1);
    }

    #[test]
    fn a_day_is_drawn_with_few_points_that_keep_its_peaks_and_gaps() {
        let at = |minute: i64| DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::minutes(minute);
        // A peak of one minute, and half an hour without a point.
        let value = |minute| if minute == 777 { 50.0 } else { 1.0 };
        let points = (0..1_440).filter(|m| !(900..930).contains(m)).map(|m| (at(m), value(m))).collect();
        let chart = Chart {
            title: "t",
            shown: |v| v.to_string(),
            from: at(0),
            to: at(1_440),
            step_seconds: 60,
            points,
            unknown: &[],
        };
        let runs = chart.runs();
        let drawn: Vec<_> = runs.iter().flatten().collect();
        assert!(drawn.len() <= DRAWN_MAX + runs.len(), "{}", drawn.len());
        assert_eq!(drawn.iter().filter(|point| point.1 == 50.0).count(), 1);
        assert_eq!(runs.len(), 2);
        let labels: Vec<String> = chart.ticks().into_iter().map(|(_, label)| label).collect();
        assert!((2..=4).contains(&labels.len()), "{labels:?}");
    }
}
