//! The batch's report for people.

use super::batch::{BatchReport, BatchRun, MIB};

impl BatchReport {
    /// Several lines, with a line end at the last.
    pub fn text(&self) -> String {
        let mut lines = vec![self.machine_line(), self.load_line(), String::new()];
        self.full_lines(&mut lines);
        self.incremental_lines(&mut lines);
        lines.push(match self.right {
            true => "verdict: gold equals the recount, 0 rows differ; every run succeeded".into(),
            false => format!("verdict: WRONG, these figures do not count: {}", self.differences.join("; ")),
        });
        lines.join("\n") + "\n"
    }

    fn machine_line(&self) -> String {
        let m = &self.machine;
        let model = m.cpu_model.as_ref().map(|model| format!(" ({model})")).unwrap_or_default();
        let load = m.load_average.map(|l| format!("; load average at the start {l:.1}")).unwrap_or_default();
        format!("boathouse {} on {} CPUs{model}, shared with ClickHouse{load}", self.version, m.cpu_count)
    }

    fn load_line(&self) -> String {
        let l = &self.load;
        let percent = |share: f64| share * 100.0;
        format!(
            "{} events of {} users over {:.0} h ({:.1} % late, {:.1} % duplicate, {:.1} % malformed, {:.1} % future): \
             Bronze has {:.0} MiB in {} files; batch.memory {:.0} MiB, {} threads",
            l.event_count,
            l.user_count,
            l.span_seconds / 3600.0,
            percent(l.late_share),
            percent(l.duplicate_share),
            percent(l.malformed_share),
            percent(l.future_share),
            l.bronze_bytes as f64 / MIB,
            l.bronze_file_count,
            l.memory_limit_bytes as f64 / MIB,
            l.batch_thread_count
        )
    }

    fn full_lines(&self, lines: &mut Vec<String>) {
        let full = &self.full;
        lines.push(format!(
            "{:<24} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>11} {:>11}",
            "from nothing", "wall s", "CPU s", "per mill.", "peak MiB", "read MiB", "wrote MiB", "rows in", "rows out"
        ));
        for task in &full.tasks {
            lines.push(format!(
                "  {:<22} {:>8.2} {:>8.2} {:>9.3} {:>9.0} {:>9.1} {:>9.1} {:>11} {:>11}",
                task.task,
                task.wall_seconds,
                task.cpu_seconds,
                self.per_million(task.cpu_seconds),
                task.peak_rss_bytes as f64 / MIB,
                task.bytes_read as f64 / MIB,
                task.bytes_written as f64 / MIB,
                task.rows_in,
                task.rows_out
            ));
        }
        lines.push(format!(
            "  {:<22} {:>8.2} {:>8.2} {:>9.3} {:>9.0} {:>9.1} {:>9.1}",
            "all",
            full.wall_seconds,
            full.cpu_seconds,
            self.per_million(full.cpu_seconds),
            full.peak_rss_bytes as f64 / MIB,
            full.bytes_read() as f64 / MIB,
            full.bytes_written() as f64 / MIB
        ));
        lines.push(format!(
            "  ClickHouse beside it: {:.2} CPU s, {:.3} per million events",
            full.clickhouse_cpu_seconds,
            self.per_million(full.clickhouse_cpu_seconds)
        ));
        if let Some(silver) = full.tasks.iter().find(|t| t.rows_refused > 0) {
            lines.push(format!(
                "  rows in {} = kept {} + refused {} + duplicates {}",
                silver.rows_in,
                silver.rows_out,
                silver.rows_refused - silver.rows_duplicate,
                silver.rows_duplicate
            ));
        }
        lines.push(String::new());
    }

    fn incremental_lines(&self, lines: &mut Vec<String>) {
        let Some(first) = self.incremental.first() else { return };
        lines.push(format!("An hour of {} new events, median of {} hours", first.new_event_count, first.runs.len()));
        lines.push(format!(
            "{:<24} {:>14} {:>8} {:>8} {:>9} {:>9} {:>9}",
            "history", "events", "wall s", "CPU s", "peak MiB", "read MiB", "wrote MiB"
        ));
        for i in &self.incremental {
            lines.push(format!(
                "  {:<22} {:>14} {:>8.2} {:>8.2} {:>9.0} {:>9.1} {:>9.1}",
                format!("{} days", i.history_days),
                i.history_event_count,
                i.median(|r| r.wall_seconds),
                i.median(|r| r.cpu_seconds),
                i.median(|r| r.peak_rss_bytes as f64) / MIB,
                i.median(|r| r.bytes_read() as f64) / MIB,
                i.median(|r| r.bytes_written() as f64) / MIB
            ));
        }
        let of = |name: &str, figure: fn(&BatchRun) -> f64| self.spread(figure).map(|s| format!("{name} {s:.2} ×"));
        let spreads: Vec<String> =
            [of("time", |r| r.wall_seconds), of("CPU", |r| r.cpu_seconds), of("bytes read", |r| r.bytes_read() as f64)]
                .into_iter()
                .flatten()
                .collect();
        if !spreads.is_empty() {
            lines.push(format!("  greatest by least: {}", spreads.join(", ")));
        }
        lines.push(String::new());
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{BatchLoad, BatchReport, BatchRun, Incremental, TaskSample};
    use super::super::report::Machine;

    fn sample() -> BatchReport {
        let run = |wall_seconds: f64, bytes_read| BatchRun {
            state: "succeeded".into(),
            wall_seconds,
            cpu_seconds: 4.0,
            peak_rss_bytes: 300 << 20,
            tasks: vec![TaskSample {
                task: "run_bronze_to_silver".into(),
                cpu_seconds: 3.0,
                bytes_read,
                rows_in: 100,
                rows_out: 90,
                rows_refused: 10,
                rows_duplicate: 4,
                ..TaskSample::default()
            }],
            ..BatchRun::default()
        };
        let incremental = |history_days, wall| Incremental {
            history_days,
            history_event_count: 10,
            new_event_count: 5,
            runs: vec![run(wall, 50 << 20)],
        };
        BatchReport {
            version: "1".into(),
            machine: Machine { cpu_count: 2, cpu_model: None, load_average: None, broker: "none".into() },
            load: BatchLoad {
                event_count: 2_000_000,
                user_count: 10,
                late_share: 0.02,
                duplicate_share: 0.02,
                malformed_share: 0.01,
                future_share: 0.01,
                span_seconds: 86_400.0,
                bronze_bytes: 1 << 20,
                bronze_file_count: 3,
                memory_limit_bytes: 512 << 20,
                batch_thread_count: 2,
            },
            full: run(9.0, 100 << 20),
            incremental: vec![incremental(1, 2.0), incremental(10, 2.5)],
            differences: Vec::new(),
            right: true,
        }
    }

    #[test]
    fn every_figure_is_named_and_the_verdict_stands_last() {
        let text = sample().text();
        for part in
            ["1.500", "2.000", "300", "100.0", "kept 90 + refused 6 + duplicates 4", "time 1.25 ×", "read 1.00 ×"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.ends_with("0 rows differ; every run succeeded\n"), "{text}");
        let mut wrong = sample();
        wrong.right = false;
        wrong.differences.push("gold.daily_active_users".into());
        assert!(wrong.text().ends_with("WRONG, these figures do not count: gold.daily_active_users\n"));
    }

    #[test]
    fn the_picture_has_a_chart_for_each_figure() {
        let svg = sample().svg();
        assert!(svg.starts_with("<svg ") && svg.contains("10 days behind it") && svg.contains("equals the recount"));
    }

    #[test]
    fn json_comes_back_as_it_went() {
        let report = sample();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<BatchReport>(&text).unwrap(), report);
    }
}
