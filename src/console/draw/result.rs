//! A query's rows as a drawing: lines over time, or bars by a name. What is drawn is chosen from the columns. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use maud::{Markup, html};

use super::frame::Frame;
use super::top_of_scale;

const AREA: Frame = Frame { width: 900.0, height: 300.0, left: 64.0, right: 14.0, top: 14.0, bottom: 34.0 };
/// Lines that can be told apart, bars that have room.
const SERIES_MAX: usize = 6;
const BARS_MAX: usize = 40;
/// Characters of a bar's name.
const NAME_MAX: usize = 12;

/// A line: its name and its points, in the order of time.
pub type Series = (String, Vec<(DateTime<Utc>, f64)>);

/// What suits some rows.
#[derive(Debug, PartialEq)]
enum Shape {
    Lines(Vec<Series>),
    /// The measure's name, and each bar.
    Bars(String, Vec<(String, f64)>),
}

type Rows = [Vec<Option<String>>];

fn time(text: &str) -> Option<DateTime<Utc>> {
    let date = || text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0);
    let text_of = text.trim_end_matches('Z').replacen('T', " ", 1);
    let moment = || NaiveDateTime::parse_from_str(&text_of, "%Y-%m-%d %H:%M:%S%.f").ok();
    moment().or_else(date).map(|at| at.and_utc())
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

/// Whether every value of a column that is there can be read so, and there is one.
fn all(rows: &Rows, column: usize, reads: impl Fn(&str) -> bool) -> bool {
    let mut values = rows.iter().filter_map(|row| row.get(column)?.as_deref()).peekable();
    values.peek().is_some() && values.all(reads)
}

fn shape(columns: &[String], rows: &Rows) -> Option<Shape> {
    if rows.len() < 2 {
        return None;
    }
    let is_time: Vec<bool> = (0..columns.len()).map(|c| all(rows, c, |v| time(v).is_some())).collect();
    let is_number: Vec<bool> = (0..columns.len()).map(|c| all(rows, c, |v| number(v).is_some())).collect();
    let over = is_time.iter().position(|yes| *yes);
    // An identifier is a number, too: what is counted stands behind what it is counted by.
    let measures: Vec<usize> = (0..columns.len()).filter(|c| is_number[*c] && Some(*c) != over).collect();
    let last = *measures.last()?;
    let name = (0..columns.len()).find(|c| !is_time[*c] && !is_number[*c]);
    let cell = |row: &[Option<String>], c: usize| row.get(c).and_then(Option::as_deref).map(str::to_owned);
    if let Some(over) = over {
        let mut series: BTreeMap<String, Vec<(DateTime<Utc>, f64)>> = BTreeMap::new();
        for row in rows {
            let Some(at) = cell(row, over).and_then(|v| time(&v)) else { continue };
            match name {
                Some(name) => {
                    let of = cell(row, name).unwrap_or_else(|| "null".into());
                    let value = cell(row, last).and_then(|v| number(&v));
                    series.entry(of).or_default().extend(value.map(|value| (at, value)));
                }
                None => {
                    for measure in &measures {
                        let value = cell(row, *measure).and_then(|v| number(&v));
                        series.entry(columns[*measure].clone()).or_default().extend(value.map(|value| (at, value)));
                    }
                }
            }
        }
        let mut series: Vec<Series> = series.into_iter().filter(|(_, points)| !points.is_empty()).collect();
        series.iter_mut().for_each(|(_, points)| points.sort_by_key(|point| point.0));
        // The greatest come first, where there are more than can be told apart.
        let size = |s: &Series| s.1.iter().map(|point| point.1.abs()).sum::<f64>();
        series.sort_by(|a, b| size(b).total_cmp(&size(a)));
        series.truncate(SERIES_MAX);
        let spans_time = series.iter().any(|(_, points)| points.first().map(|p| p.0) != points.last().map(|p| p.0));
        if spans_time {
            return Some(Shape::Lines(series));
        }
    }
    let label = name.or(over).or_else(|| measures.first().copied().filter(|first| *first != last))?;
    let bar = |row: &Vec<Option<String>>| {
        Some((cell(row, label).unwrap_or_else(|| "null".into()), number(&cell(row, last)?)?))
    };
    let bars: Vec<(String, f64)> = rows.iter().filter_map(bar).take(BARS_MAX).collect();
    (bars.len() > 1).then(|| Shape::Bars(columns[last].clone(), bars))
}

/// The drawing that suits these rows; none where no column counts anything.
pub fn chart(columns: &[String], rows: &Rows) -> Option<Markup> {
    Some(match shape(columns, rows)? {
        Shape::Lines(series) => over_time(&series, shown),
        Shape::Bars(measure, bars) => self::bars(&measure, &bars),
    })
}

/// A value as an axis shows it.
fn shown(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        format!("{:.1} M", value / 1e6)
    } else if size >= 100.0 || value.fract() == 0.0 {
        crate::cli::output::count(value.round() as i64)
    } else {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// From the least to the greatest value, zero included, both ends round.
struct Scale {
    bottom: f64,
    top: f64,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (least, greatest) = (values.clone().fold(0.0, f64::min), values.fold(0.0, f64::max));
        let bottom = if least < 0.0 { -top_of_scale(-least) } else { 0.0 };
        let top = if greatest > 0.0 || bottom == 0.0 { top_of_scale(greatest) } else { 0.0 };
        Self { bottom, top }
    }

    fn y(&self, value: f64) -> f64 {
        AREA.y((value - self.bottom) / (self.top - self.bottom))
    }

    fn grid(&self, shown: fn(f64) -> String) -> Markup {
        html! {
            @for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
                @let value = self.bottom + (self.top - self.bottom) * part;
                line.grid x1=(AREA.left) x2=(AREA.end()) y1=(round(self.y(value))) y2=(round(self.y(value))) {}
                text.tick x=(AREA.left - 8.0) y=(round(self.y(value) + 4.0)) text-anchor="end" { (shown(value)) }
            }
        }
    }
}

fn round(value: f64) -> String {
    format!("{value:.1}")
}

/// Lines over time, on a scale whose values read as `shown` says.
pub fn over_time(series: &[Series], shown: fn(f64) -> String) -> Markup {
    let all = || series.iter().flat_map(|(_, points)| points);
    let scale = Scale::of(all().map(|point| point.1));
    let (from, to) = (all().map(|p| p.0).min().unwrap_or_default(), all().map(|p| p.0).max().unwrap_or_default());
    let whole = (to - from).num_milliseconds().max(1) as f64;
    let x = |at: DateTime<Utc>| AREA.x((at - from).num_milliseconds() as f64 / whole);
    let format = match (to - from).num_minutes() {
        0..120 => "%H:%M:%S",
        120..2_880 => "%m-%d %H:%M",
        _ => "%Y-%m-%d",
    };
    let names: Vec<&str> = series.iter().map(|(name, _)| name.as_str()).collect();
    let label = format!("Lines of {} from {} to {}", names.join(", "), from.format(format), to.format(format));
    html! {
        figure.chart.wide {
            svg viewBox=(AREA.view_box()) role="img" aria-label=(label) {
                (scale.grid(shown))
                @for part in 0..=4i32 {
                    @let at = from + (to - from) * part / 4;
                    @let anchor = match part { 0 => "start", 4 => "end", _ => "middle" };
                    text.tick x=(round(x(at))) y=(AREA.height - 10.0) text-anchor=(anchor) { (at.format(format)) }
                }
                @for (number, (_, points)) in series.iter().enumerate() {
                    @let line = points.iter().map(|(at, v)| format!("{:.1},{:.1}", x(*at), scale.y(*v))).collect::<Vec<_>>().join(" ");
                    polyline class={ "series s" (number % SERIES_MAX) } points=(line) {}
                    @if points.len() == 1 {
                        circle class={ "point s" (number % SERIES_MAX) } cx=(round(x(points[0].0))) cy=(round(scale.y(points[0].1))) r="3" {}
                    }
                }
            }
            ul.legend { @for (number, name) in names.iter().enumerate() { li { span class={ "swatch s" (number % SERIES_MAX) } aria-hidden="true" { "━" } " " (name) } } }
        }
    }
}

fn bars(measure: &str, bars: &[(String, f64)]) -> Markup {
    let scale = Scale::of(bars.iter().map(|bar| bar.1));
    let step = (AREA.end() - AREA.left) / bars.len() as f64;
    let zero = scale.y(0.0);
    // Names that would run into each other are left out; each bar tells its own.
    let every = (90.0 / step).ceil().max(1.0) as usize;
    let label = format!("Bars of {measure}, {} of them; the rows are in the table", bars.len());
    html! {
        figure.chart.wide {
            svg viewBox=(AREA.view_box()) role="img" aria-label=(label) {
                (scale.grid(shown))
                @for (number, (name, value)) in bars.iter().enumerate() {
                    @let (left, y) = (AREA.left + step * number as f64, scale.y(*value));
                    rect.bar-of x=(round(left + step * 0.12)) y=(round(y.min(zero))) width=(round(step * 0.76)) height=(round((zero - y).abs().max(0.5))) {
                        title { (name) ": " (shown(*value)) }
                    }
                    @if number % every == 0 {
                        text.tick x=(round(left + step / 2.0)) y=(AREA.height - 10.0) text-anchor="middle" { (crate::console::words::begin(name, NAME_MAX)) }
                    }
                }
            }
            p.note { (measure) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<Option<String>>> {
        rows.iter().map(|row| row.iter().map(|v| (*v != "null").then(|| (*v).to_owned())).collect()).collect()
    }

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn times_are_lines_by_what_names_them() {
        let of = columns(&["window_start", "event_type", "event_count"]);
        let found = shape(
            &of,
            &rows(&[
                &["2026-02-06 14:31:00", "click", "7"],
                &["2026-02-06 14:30:00", "click", "5"],
                &["2026-02-06 14:30:00", "login", "2"],
                &["2026-02-06 14:31:00", "null", "1"],
            ]),
        );
        let Some(Shape::Lines(series)) = found else { panic!("{found:?}") };
        assert_eq!(series.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["click", "login", "null"]);
        assert_eq!(series[0].1.iter().map(|p| p.1).collect::<Vec<_>>(), [5.0, 7.0], "in the order of time");
        let drawn = chart(&of, &rows(&[&["2026-02-06T14:30:00Z", "a", "1"], &["2026-02-06T14:31:00Z", "a", "2"]]));
        let text = drawn.unwrap().into_string();
        assert!(text.contains("polyline") && !text.contains("style="), "{text}");
    }

    #[test]
    fn names_are_bars() {
        let found = shape(&columns(&["source", "events"]), &rows(&[&["web", "3"], &["mobile", "-1"]]));
        assert_eq!(found, Some(Shape::Bars("events".into(), vec![("web".into(), 3.0), ("mobile".into(), -1.0)])));
        // One date alone is no line.
        let day = rows(&[&["2026-02-06", "web", "3"], &["2026-02-06", "mobile", "4"]]);
        let found = shape(&columns(&["event_date", "source", "events"]), &day);
        assert!(matches!(found, Some(Shape::Bars(..))), "{found:?}");
    }

    #[test]
    fn what_counts_nothing_is_not_drawn() {
        assert_eq!(shape(&columns(&["a", "b"]), &rows(&[&["x", "y"], &["z", "w"]])), None);
        assert_eq!(shape(&columns(&["n"]), &rows(&[&["1"]])), None);
        assert_eq!(shape(&columns(&["n"]), &rows(&[&["1"], &["2"]])), None, "numbers of nothing");
        assert_eq!(shape(&[], &[]), None);
    }

    #[test]
    fn axes_read_well() {
        assert_eq!([0.0, 0.25, 12.0, 1_500.0, 2_500_000.0].map(shown), ["0", "0.25", "12", "1,500", "2.5 M"]);
    }
}
