//! The report as a picture: CPU by stage beside the consume-only loop, latencies by rate, memory, start and recovery.

use std::fmt::Write;

use super::report::{RateSample, Report};
use super::stats::LatencyMs;

const WIDTH: f64 = 900.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 230.0;
const LENGTH: f64 = 520.0;
const ROW: f64 = 24.0;

/// Bars of one unit, to one scale.
pub(super) struct Chart {
    pub title: String,
    pub unit: &'static str,
    /// Name, length, colour.
    pub bars: Vec<(String, f64, &'static str)>,
}

/// An SVG document of charts, one below the other.
pub(super) fn document(headline: &str, charts: &[Chart]) -> String {
    let mut body = String::new();
    let mut y = 34.0;
    text(&mut body, 20.0, y, "start", headline);
    for chart in charts {
        y = chart.draw(&mut body, y + 40.0);
    }
    let height = y + 10.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

impl Report {
    /// An SVG document.
    pub fn svg(&self) -> String {
        let charts = [
            self.cpu(),
            self.speed(),
            self.latency("Event to queryable in ClickHouse, milliseconds", |r| &r.realtime_latency),
            self.latency("Event to durable in Bronze, milliseconds", |r| &r.bronze_latency),
            self.memory(),
            self.starts(),
        ];
        let charts: Vec<Chart> = charts.into_iter().flatten().collect();
        let verdict = if self.right { "reconciled: nothing lost or different" } else { "NOT RECONCILED" };
        document(&format!("boathouse {}, {} CPUs, {verdict}", self.version, self.machine.cpu_count), &charts)
    }

    fn cpu(&self) -> Option<Chart> {
        let d = &self.drains;
        let mut bars = vec![
            ("consume only".to_owned(), d.consume_only_cpu_seconds_per_million, "#8da0b3"),
            (format!("whole daemon ({:.2} ×)", d.cpu_ratio_to_consume_only), d.cpu_seconds_per_million, "#1f6fb2"),
        ];
        bars.extend(d.stages().into_iter().map(|(stage, cpu)| (format!("· {stage}"), cpu, "#7fb4dd")));
        let title = "CPU seconds per million events".to_owned();
        (!d.daemon.is_empty()).then_some(Chart { title, unit: "s", bars })
    }

    fn speed(&self) -> Option<Chart> {
        let d = &self.drains;
        let bars = vec![
            ("consume only".to_owned(), d.consume_only_events_per_second / 1e6, "#8da0b3"),
            ("whole daemon".to_owned(), d.events_per_second / 1e6, "#1f6fb2"),
        ];
        let title = format!("Million events a second, draining {}", self.load.event_count);
        (!d.daemon.is_empty()).then_some(Chart { title, unit: "M/s", bars })
    }

    fn latency(&self, title: &str, of: impl Fn(&RateSample) -> &LatencyMs) -> Option<Chart> {
        let mut bars = Vec::new();
        for r in &self.rates {
            let name = |what| format!("{:.0}/s, flush {} s, {what}", r.rate_per_second, r.realtime_flush_seconds);
            let latency = of(r);
            bars.push((name("p50"), latency.p50_ms, "#8fcf9f"));
            bars.push((name("p99"), latency.p99_ms, "#2e8b57"));
            bars.push((name("p99.9"), latency.p999_ms, "#1d5c39"));
        }
        (!bars.is_empty()).then_some(Chart { title: title.to_owned(), unit: "ms", bars })
    }

    fn memory(&self) -> Option<Chart> {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let drains = (!self.drains.daemon.is_empty()).then_some(("draining".to_owned(), self.drains.peak_rss_bytes));
        let name = |r: &RateSample| format!("{:.0}/s, flush {} s", r.rate_per_second, r.realtime_flush_seconds);
        let all = drains.into_iter().chain(self.rates.iter().map(|r| (name(r), r.peak_rss_bytes)));
        let bars: Vec<_> = all.map(|(name, bytes)| (name, mib(bytes), "#a98bc4")).collect();
        (!bars.is_empty()).then_some(Chart { title: "Peak memory (RSS) of the daemon, MiB".into(), unit: "MiB", bars })
    }

    fn starts(&self) -> Option<Chart> {
        let d = &self.drains;
        let mut bars = Vec::new();
        if !d.daemon.is_empty() {
            bars.push(("start to first record".to_owned(), d.start_to_first_record_seconds, "#e0a458"));
        }
        if let Some(r) = &self.recovery {
            bars.push(("SIGKILL to caught up, median".to_owned(), r.median_seconds, "#e0a458"));
            bars.push(("SIGKILL to caught up, greatest".to_owned(), r.max_seconds, "#b5651d"));
        }
        (!bars.is_empty()).then_some(Chart { title: "Start and recovery, seconds".into(), unit: "s", bars })
    }
}

impl Chart {
    /// Draws from `y` down; where it ends.
    fn draw(&self, out: &mut String, mut y: f64) -> f64 {
        text(out, 20.0, y, "start", &self.title);
        let longest = self.bars.iter().map(|(_, value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (name, value, colour) in &self.bars {
            y += ROW;
            let length = value / longest * LENGTH;
            text(out, LEFT - 8.0, y, "end", name);
            let top = y - 13.0;
            // Writing to a String cannot fail.
            let _ =
                writeln!(out, "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{length:.1}\" height=\"17\" fill=\"{colour}\"/>");
            let digits = if *value < 10.0 { 3 } else { 0 };
            text(out, LEFT + length + 6.0, y, "start", &format!("{value:.digits$} {}", self.unit));
        }
        y
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;

    #[test]
    fn the_longest_bar_of_each_chart_has_the_full_length() {
        let svg = sample().svg();
        // One of each chart, and two of the memory: the daemon drains in as much as it takes the rate in.
        assert_eq!(svg.matches("width=\"520.0\"").count(), 7, "{svg}");
        for part in ["durable in Bronze", "76 MiB", "0.200 s", "SIGKILL to caught up, greatest"] {
            assert!(svg.contains(part), "{part} is missing in\n{svg}");
        }
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn names_are_escaped() {
        let mut report = sample();
        report.version = "<1 & 2>".into();
        assert!(report.svg().contains("&lt;1 &amp; 2&gt;"));
    }
}
