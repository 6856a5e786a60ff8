//! The report for people.

use std::fmt::Write;

use super::report::{Report, Verdict};
use super::stats::LatencyMs;

const MIB: f64 = 1024.0 * 1024.0;

impl Report {
    /// Several lines, with a line end at the last.
    pub fn text(&self) -> String {
        let mut lines = vec![self.machine_line(), String::new()];
        self.drain_lines(&mut lines);
        self.rate_lines(&mut lines);
        self.beside_lines(&mut lines);
        lines.extend(self.beside_console.as_ref().map(|beside| beside.line()));
        if let Some(r) = &self.recovery {
            lines.push(format!(
                "SIGKILL to caught up at {:.0} events/s: median {:.2} s, greatest {:.2} s ({} kills)",
                r.rate_per_second,
                r.median_seconds,
                r.max_seconds,
                r.caught_up_seconds.len()
            ));
        }
        lines.push(String::new());
        let wrong: Vec<&str> =
            self.reconcile.iter().filter(|r| r.verdict != Verdict::Same).map(|r| r.run.as_str()).collect();
        lines.push(if self.right {
            format!("reconcile: 0 lost, 0 duplicated, 0 different in {} of {0} runs", self.reconcile.len())
        } else {
            format!("reconcile: DIFFERENCES in {}: these figures do not count", wrong.join(", "))
        });
        lines.join("\n") + "\n"
    }

    fn machine_line(&self) -> String {
        let m = &self.machine;
        let mut line = format!("boathouse {} on {} CPUs", self.version, m.cpu_count);
        if let Some(model) = &m.cpu_model {
            let _ = write!(line, " ({model})");
        }
        let _ = write!(line, ", shared with the broker ({})", m.broker);
        if let Some(load) = m.load_average {
            let _ = write!(line, "; load average at the start {load:.1}");
        }
        line
    }

    fn drain_lines(&self, lines: &mut Vec<String>) {
        let (d, load) = (&self.drains, &self.load);
        if d.daemon.is_empty() {
            return;
        }
        lines.push(format!(
            "Draining {} events of {:.0} bytes, {} partitions; medians of {} interleaved pairs",
            load.event_count,
            load.mean_record_bytes,
            load.partition_count,
            d.daemon.len()
        ));
        lines.push(format!("{:<24} {:>14} {:>18}", "", "events/s", "CPU s per million"));
        for (name, rate, cpu) in [
            ("consume only", d.consume_only_events_per_second, d.consume_only_cpu_seconds_per_million),
            ("whole daemon", d.events_per_second, d.cpu_seconds_per_million),
        ] {
            lines.push(format!("{name:<24} {rate:>14.0} {cpu:>18.3}"));
        }
        for (stage, cpu) in d.stages() {
            lines.push(format!("  {stage:<22} {:>14} {cpu:>18.3}", ""));
        }
        lines.push(format!("CPU, daemon by consume only: {:.2} ×", d.cpu_ratio_to_consume_only));
        lines.push(format!("peak RSS: {:.0} MiB", d.peak_rss_bytes as f64 / MIB));
        lines.push(format!("start to first record: {:.3} s", d.start_to_first_record_seconds));
        lines.push(String::new());
    }

    fn beside_lines(&self, lines: &mut Vec<String>) {
        for b in &self.beside_batch {
            lines.push(format!(
                "Full batches of {} events beside {:.0} events/s, flush {} s ({} completed): realtime p99 {:.0} → {:.0} ms \
                 ({:.2} ×), Bronze p99 {:.0} → {:.0} ms ({:.2} ×)",
                b.event_count,
                b.with.rate_per_second,
                b.with.realtime_flush_seconds,
                b.with.batch_run_count.unwrap_or_default(),
                b.without.realtime_latency.p99_ms,
                b.with.realtime_latency.p99_ms,
                b.realtime_p99_ratio(),
                b.without.bronze_latency.p99_ms,
                b.with.bronze_latency.p99_ms,
                b.bronze_p99_ratio()
            ));
        }
    }

    fn rate_lines(&self, lines: &mut Vec<String>) {
        if self.rates.is_empty() {
            return;
        }
        lines.push(format!(
            "Event to queryable, ms (Bronze commits every {} s at the latest)",
            self.bronze_flush_seconds
        ));
        lines.push(format!(
            "{:>9} {:>8} {:>9} {:>6}   {:^26}   {:^26}",
            "rate/s", "flush s", "taken/s", "CPU %", "realtime p50/p99/p99.9", "Bronze p50/p99/p99.9"
        ));
        let three = |l: &LatencyMs| format!("{:>8.0} {:>8.0} {:>8.0}", l.p50_ms, l.p99_ms, l.p999_ms);
        for r in &self.rates {
            lines.push(format!(
                "{:>9.0} {:>8} {:>9.0} {:>6.1}   {}   {}",
                r.rate_per_second,
                r.realtime_flush_seconds,
                r.consumed_per_second,
                r.cpu_percent,
                three(&r.realtime_latency),
                three(&r.bronze_latency)
            ));
        }
        let counts = self.rates.iter().map(|r| r.realtime_latency.sample_count.min(r.bronze_latency.sample_count));
        let least = counts.min().unwrap_or_default();
        let greatest = if least < 1000 { "; of fewer than 1,000 the p99.9 is the greatest" } else { "" };
        lines.push(format!("Each from at least {least} events{greatest}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::super::report::{BesideBatch, RateSample};
    use super::*;

    #[test]
    fn every_figure_is_named_and_the_verdict_stands_last() {
        let text = sample().text();
        for part in [
            "consume only",
            "decode",
            "1.50 ×",
            "76 MiB",
            "0.200 s",
            "1100",
            "greatest 3.00 s",
            "from at least 300 events; of fewer",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.ends_with("0 different in 1 of 1 runs\n"), "{text}");
    }

    #[test]
    fn latency_beside_a_batch_is_a_ratio() {
        let mut report = sample();
        let without = report.rates[0].clone();
        let mut with = RateSample { batch_run_count: Some(3), ..without.clone() };
        with.realtime_latency.p99_ms *= 1.25;
        report.beside_batch.push(BesideBatch { event_count: 7, without, with });
        let text = report.text();
        assert!(text.contains("(3 completed): realtime p99 1100 → 1375 ms (1.25 ×), Bronze p99"), "{text}");
    }

    #[test]
    fn a_difference_is_not_to_be_overlooked() {
        let mut report = sample();
        report.right = false;
        report.reconcile[0].verdict = Verdict::Different;
        assert!(report.text().ends_with("DIFFERENCES in drain 1: these figures do not count\n"));
    }
}
