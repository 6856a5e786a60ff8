//! What a benchmark found. Field names carry their units.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sample::DrainSample;
use super::stats::{LatencyMs, median};
use super::viewers::BesideConsole;

/// Everything of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub version: String,
    pub machine: Machine,
    pub load: Load,
    /// Longest wait of a record for its Bronze commit, in all runs.
    pub bronze_flush_seconds: f64,
    pub drains: Drains,
    pub rates: Vec<RateSample>,
    /// With `--beside-batch`.
    #[serde(default)]
    pub beside_batch: Vec<BesideBatch>,
    /// With `--console-clients`.
    #[serde(default)]
    pub beside_console: Option<BesideConsole>,
    /// None when nothing was killed.
    pub recovery: Option<Recovery>,
    /// What `boathouse reconcile` said of each run.
    pub reconcile: Vec<ReconcileVerdict>,
    /// Whether every run reconciled: figures of another run do not count.
    pub right: bool,
}

/// Where it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu_count: usize,
    pub cpu_model: Option<String>,
    /// Load average over one minute when the benchmark started: above the number of CPUs less one, others interfered.
    pub load_average: Option<f64>,
    /// `Kafka`, `Tansu` or `External`.
    pub broker: String,
}

/// The backlog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    pub event_count: u64,
    pub partition_count: usize,
    /// Keys and values.
    pub mean_record_bytes: f64,
    pub produced_per_second: f64,
}

/// One run of the consume-only loop: records taken in batches and dropped, one thread per partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConsumeSample {
    pub record_count: u64,
    /// Keys and values.
    pub byte_count: u64,
    /// From the first record to the last.
    pub wall_seconds: f64,
    /// Of the whole process, start included.
    pub cpu_seconds: f64,
    pub cpu_seconds_per_million: f64,
    pub events_per_second: f64,
    pub peak_rss_bytes: Option<u64>,
}

/// Interleaved pairs of the two, and their medians.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drains {
    pub events_per_second: f64,
    pub cpu_seconds_per_million: f64,
    pub consume_only_events_per_second: f64,
    pub consume_only_cpu_seconds_per_million: f64,
    /// CPU of the daemon by CPU of the consume-only loop beside it: the median over the pairs.
    pub cpu_ratio_to_consume_only: f64,
    pub start_to_first_record_seconds: f64,
    /// The greatest of all drains.
    pub peak_rss_bytes: u64,
    pub consume_only: Vec<ConsumeSample>,
    pub daemon: Vec<DrainSample>,
}

impl Drains {
    /// From as many samples of one as of the other, in the order in which they ran.
    pub fn of(consume_only: Vec<ConsumeSample>, daemon: Vec<DrainSample>) -> Self {
        let middle = |values: Vec<f64>| median(&values).unwrap_or_default();
        let ratios = daemon.iter().zip(&consume_only);
        Self {
            events_per_second: middle(daemon.iter().map(|d| d.events_per_second).collect()),
            cpu_seconds_per_million: middle(daemon.iter().map(|d| d.cpu_seconds_per_million).collect()),
            consume_only_events_per_second: middle(consume_only.iter().map(|c| c.events_per_second).collect()),
            consume_only_cpu_seconds_per_million: middle(
                consume_only.iter().map(|c| c.cpu_seconds_per_million).collect(),
            ),
            cpu_ratio_to_consume_only: middle(ratios.map(|(d, c)| d.cpu_seconds / c.cpu_seconds).collect()),
            start_to_first_record_seconds: middle(daemon.iter().map(|d| d.start_to_first_record_seconds).collect()),
            peak_rss_bytes: daemon.iter().map(|d| d.peak_rss_bytes).max().unwrap_or_default(),
            consume_only,
            daemon,
        }
    }

    /// The median of each stage's CPU seconds per million events.
    pub fn stages(&self) -> BTreeMap<&str, f64> {
        let names = self.daemon.iter().flat_map(|d| d.cpu_seconds_per_million_by_stage.keys());
        let mut stages: BTreeMap<&str, f64> = names.map(|name| (name.as_str(), 0.0)).collect();
        for (name, value) in &mut stages {
            let of = |d: &DrainSample| d.cpu_seconds_per_million_by_stage.get(*name).copied().unwrap_or_default();
            *value = median(&self.daemon.iter().map(of).collect::<Vec<_>>()).unwrap_or_default();
        }
        stages
    }
}

/// One run at a fixed rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateSample {
    pub rate_per_second: f64,
    pub realtime_flush_seconds: f64,
    pub duration_seconds: f64,
    /// Records that the daemon consumed while it was measured.
    pub consumed_per_second: f64,
    /// CPU of the daemon while it was measured; 100 is one core.
    pub cpu_percent: f64,
    pub peak_rss_bytes: u64,
    /// From the moment before an event is handed to a Kafka producer until a query on ClickHouse shows it.
    pub realtime_latency: LatencyMs,
    /// The same until its Bronze commit is durable.
    pub bronze_latency: LatencyMs,
    /// Full batches that were completed meanwhile, one after the other; the last one, cut off, not counted. None where none
    /// was to run.
    #[serde(default)]
    pub batch_run_count: Option<u64>,
}

/// A fixed rate without and with full batches in the same daemon, on the same data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BesideBatch {
    /// Events in Bronze before.
    pub event_count: u64,
    pub without: RateSample,
    pub with: RateSample,
}

impl BesideBatch {
    /// By how much realtime's p99 grows while a batch runs.
    pub fn realtime_p99_ratio(&self) -> f64 {
        self.with.realtime_latency.p99_ms / self.without.realtime_latency.p99_ms
    }

    /// The same of Bronze's.
    pub fn bronze_p99_ratio(&self) -> f64 {
        self.with.bronze_latency.p99_ms / self.without.bronze_latency.p99_ms
    }
}

/// Kills under load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    pub rate_per_second: f64,
    /// From SIGKILL and immediate restart until ClickHouse holds all that the topic held at that moment; one per kill.
    pub caught_up_seconds: Vec<f64>,
    pub median_seconds: f64,
    pub max_seconds: f64,
}

impl Recovery {
    /// None without a kill.
    pub fn of(rate_per_second: f64, caught_up_seconds: Vec<f64>) -> Option<Self> {
        let median_seconds = median(&caught_up_seconds)?;
        let max_seconds = caught_up_seconds.iter().copied().fold(0.0, f64::max);
        Some(Self { rate_per_second, caught_up_seconds, median_seconds, max_seconds })
    }
}

/// What reconcile found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing lost, duplicated or different.
    Same,
    Different,
}

/// What reconcile found of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReconcileVerdict {
    pub run: String,
    pub verdict: Verdict,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn sample() -> Report {
        let consume = |cpu: f64| ConsumeSample {
            record_count: 1_000_000,
            byte_count: 156_000_000,
            wall_seconds: 0.5,
            cpu_seconds: cpu,
            cpu_seconds_per_million: cpu,
            events_per_second: 2e6,
            peak_rss_bytes: None,
        };
        let drain = |cpu: f64| DrainSample {
            start_to_first_record_seconds: 0.2,
            wall_seconds: 1.0,
            events_per_second: 1e6,
            cpu_seconds: cpu,
            cpu_seconds_per_million: cpu,
            cpu_seconds_per_million_by_stage: [("decode".to_owned(), cpu / 2.0)].into(),
            peak_rss_bytes: (cpu * 1e8) as u64,
        };
        let latency = LatencyMs { sample_count: 300, p50_ms: 600.0, p99_ms: 1100.0, p999_ms: 1200.0, max_ms: 1200.0 };
        Report {
            version: "0.0.0".into(),
            machine: Machine { cpu_count: 2, cpu_model: None, load_average: Some(0.5), broker: "Kafka".into() },
            load: Load {
                event_count: 1_000_000,
                partition_count: 3,
                mean_record_bytes: 156.0,
                produced_per_second: 5e5,
            },
            bronze_flush_seconds: 30.0,
            drains: Drains::of(
                vec![consume(0.4), consume(0.5), consume(0.4)],
                vec![drain(0.8), drain(0.5), drain(0.6)],
            ),
            rates: vec![RateSample {
                rate_per_second: 20_000.0,
                realtime_flush_seconds: 1.0,
                duration_seconds: 30.0,
                consumed_per_second: 20_010.0,
                cpu_percent: 4.0,
                peak_rss_bytes: 80_000_000,
                realtime_latency: latency,
                bronze_latency: latency,
                batch_run_count: None,
            }],
            beside_batch: Vec::new(),
            beside_console: None,
            recovery: Recovery::of(20_000.0, vec![2.0, 1.0, 3.0]),
            reconcile: vec![ReconcileVerdict { run: "drain 1".into(), verdict: Verdict::Same }],
            right: true,
        }
    }

    #[test]
    fn medians_are_over_runs_and_ratios_over_pairs() {
        let drains = sample().drains;
        assert_eq!(drains.cpu_seconds_per_million, 0.6);
        assert_eq!(drains.consume_only_cpu_seconds_per_million, 0.4);
        assert!((drains.cpu_ratio_to_consume_only - 1.5).abs() < 1e-9, "of 2.0, 1.0 and 1.5");
        assert_eq!(drains.peak_rss_bytes, 80_000_000);
        assert_eq!(drains.stages(), [("decode", 0.3)].into());
    }

    #[test]
    fn recovery_sums_up_its_kills() {
        let recovery = sample().recovery.unwrap();
        assert_eq!((recovery.median_seconds, recovery.max_seconds), (2.0, 3.0));
        assert_eq!(Recovery::of(1.0, vec![]), None);
    }

    #[test]
    fn json_comes_back_as_it_went() {
        let report = sample();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
