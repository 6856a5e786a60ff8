//! What `boathouse bench batch` found. Field names carry their units.

use serde::{Deserialize, Serialize};

use super::plot::{Chart, document};
use super::report::Machine;
use crate::producer::fault::Shares;

/// Everything of one benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchReport {
    pub version: String,
    pub machine: Machine,
    pub load: BatchLoad,
    /// Bronze to served gold, from nothing.
    pub full: BatchRun,
    /// The same hour of new data behind histories of different length.
    pub incremental: Vec<Incremental>,
    /// What differed; empty where every figure served is the one that the generator's account gives.
    pub differences: Vec<String>,
    /// Whether nothing differed and every run succeeded: figures of another benchmark do not count.
    pub right: bool,
}

/// What the runs were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchLoad {
    pub event_count: u64,
    pub user_count: u32,
    pub late_share: f64,
    pub duplicate_share: f64,
    pub malformed_share: f64,
    pub future_share: f64,
    /// Event time that the events of the full run span.
    pub span_seconds: f64,
    pub bronze_bytes: u64,
    pub bronze_file_count: u64,
    /// `batch.memory`.
    pub memory_limit_bytes: u64,
    pub batch_thread_count: u32,
}

impl BatchLoad {
    pub fn shares(&self) -> Shares {
        Shares {
            late: self.late_share,
            duplicate: self.duplicate_share,
            malformed: self.malformed_share,
            future: self.future_share,
        }
    }
}

/// One task of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskSample {
    pub task: String,
    pub wall_seconds: f64,
    /// Of the whole process while the task ran.
    pub cpu_seconds: f64,
    /// Greatest resident size of the process while the task ran.
    pub peak_rss_bytes: u64,
    /// What the process read from and wrote to files, the page cache's share included.
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Refused or left out as duplicates.
    pub rows_refused: u64,
    /// Left out as duplicates.
    pub rows_duplicate: u64,
    pub summary: String,
}

/// One run of the graph in a process of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BatchRun {
    pub state: String,
    pub error: Option<String>,
    /// From the run's begin to its end.
    pub wall_seconds: f64,
    /// Of the whole process from its start to its end.
    pub cpu_seconds: f64,
    pub peak_rss_bytes: u64,
    /// Of the ClickHouse engine beside it meanwhile.
    pub clickhouse_cpu_seconds: f64,
    pub tasks: Vec<TaskSample>,
}

impl BatchRun {
    pub fn bytes_read(&self) -> u64 {
        self.tasks.iter().map(|t| t.bytes_read).sum()
    }

    pub fn bytes_written(&self) -> u64 {
        self.tasks.iter().map(|t| t.bytes_written).sum()
    }
}

/// An hour of new data behind a history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incremental {
    /// Days of history, each of the same length, before the day that the hour is of.
    pub history_days: u32,
    pub history_event_count: u64,
    pub new_event_count: u64,
    /// One for each hour of new data, in order.
    pub runs: Vec<BatchRun>,
}

impl Incremental {
    /// The median over the hours.
    pub fn median(&self, of: impl Fn(&BatchRun) -> f64) -> f64 {
        super::median(&self.runs.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
    }
}

impl BatchReport {
    /// CPU seconds of a figure of the full run per million events.
    pub fn per_million(&self, cpu_seconds: f64) -> f64 {
        cpu_seconds / (self.load.event_count.max(1) as f64 / 1e6)
    }

    /// The greatest value of the incremental runs by the least.
    pub fn spread(&self, of: impl Fn(&BatchRun) -> f64) -> Option<f64> {
        let values: Vec<f64> = self.incremental.iter().map(|i| i.median(&of)).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        (values.len() > 1 && least > 0.0).then(|| most / least)
    }

    /// An SVG document.
    pub fn svg(&self) -> String {
        let mut cpu = vec![("bronze to served gold".to_owned(), self.per_million(self.full.cpu_seconds), "#1f6fb2")];
        cpu.extend(
            self.full
                .tasks
                .iter()
                .filter(|t| t.cpu_seconds > 0.0)
                .map(|t| (format!("· {}", t.task), self.per_million(t.cpu_seconds), "#7fb4dd")),
        );
        let rss = self.full.tasks.iter().map(|t| (t.task.clone(), t.peak_rss_bytes as f64 / MIB, "#8fcf9f")).collect();
        let mut charts = vec![
            Chart { title: "CPU seconds per million events, from nothing".into(), unit: "s", bars: cpu },
            Chart { title: "Peak resident memory, MiB".into(), unit: "MiB", bars: rss },
        ];
        if !self.incremental.is_empty() {
            let bars = |of: fn(&BatchRun) -> f64| {
                let bar = |i: &Incremental| (format!("{} days behind it", i.history_days), i.median(of), "#2e8b57");
                self.incremental.iter().map(bar).collect()
            };
            let title = format!("One hour of {} new events, seconds", self.incremental[0].new_event_count);
            charts.push(Chart { title, unit: "s", bars: bars(|r| r.wall_seconds) });
            let title = "The same, MiB read".to_owned();
            charts.push(Chart { title, unit: "MiB", bars: bars(|r| r.bytes_read() as f64 / MIB) });
        }
        let verdict = if self.right { "gold equals the recount" } else { "GOLD DIFFERS" };
        let events = self.load.event_count;
        let headline =
            format!("boathouse {}, {} CPUs, {events} events, {verdict}", self.version, self.machine.cpu_count);
        document(&headline, &charts)
    }
}

pub(super) const MIB: f64 = 1024.0 * 1024.0;
