//! Rates now and over the last hour, from totals on the board. Pure: every instant is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::telemetry::{PartitionStatus, Status};

/// A rate is taken over this time: short enough to follow, long enough to be calm.
const WINDOW: Duration = Duration::from_secs(10);
/// A point of the charts each so often, and how many: an hour.
pub const POINT_EVERY: Duration = Duration::from_secs(5);
pub const POINTS: usize = 720;

type Key = (String, String, i32, i32);

fn key(p: &PartitionStatus) -> Key {
    (p.pipeline.clone(), p.topic.clone(), p.generation, p.partition)
}

/// Totals of one partition, or what was added to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    records: u64,
    bytes: u64,
    refused: u64,
}

impl Totals {
    fn of(p: &PartitionStatus) -> Self {
        Self { records: p.records, bytes: p.bytes, refused: p.unparsed_records + p.future_records }
    }

    /// What came since; totals that began anew count from nothing.
    fn since(self, before: Self) -> Self {
        if self.records < before.records {
            return self;
        }
        Self {
            records: self.records - before.records,
            bytes: self.bytes.saturating_sub(before.bytes),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

/// One moment of one pipeline, for the charts.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Point {
    #[schemars(with = "String")]
    pub at: DateTime<Utc>,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// Unparsed or ahead of time.
    pub refused_per_second: f64,
    pub lag_records: i64,
    /// Read and not yet in Bronze.
    pub bronze_waiting_records: i64,
    /// Read and not yet in ClickHouse.
    pub realtime_waiting_records: i64,
    /// Wall clock less the watermark that is furthest behind.
    pub watermark_delay_seconds: Option<f64>,
    /// Of the whole process.
    pub resident_bytes: Option<u64>,
    /// Cores in use by the whole process.
    pub cpu_cores: Option<f64>,
}

#[derive(Debug)]
struct Step {
    at: Instant,
    added: HashMap<Key, Totals>,
    cpu_seconds: Option<f64>,
}

/// Remembers what it needs for rates, and an hour of points per pipeline.
#[derive(Debug, Default)]
pub struct Meter {
    totals: HashMap<Key, Totals>,
    steps: VecDeque<Step>,
    hours: HashMap<String, VecDeque<Point>>,
    next_point: Option<Instant>,
}

impl Meter {
    /// Takes in the board as it is now; once a second.
    pub fn look(&mut self, status: &Status, pipelines: &[String], now: Instant, wall: DateTime<Utc>) {
        let mut added = HashMap::new();
        let mut totals = HashMap::new();
        for p in &status.partitions {
            let (key, is) = (key(p), Totals::of(p));
            // What was there before the first look came before it.
            if let Some(before) = self.totals.get(&key) {
                added.insert(key.clone(), is.since(*before));
            } else if !self.steps.is_empty() {
                added.insert(key.clone(), is);
            }
            totals.insert(key, is);
        }
        self.totals = totals;
        self.steps.push_back(Step { at: now, added, cpu_seconds: status.memory.cpu_seconds });
        while self.steps.len() > 2 && self.steps.get(1).is_some_and(|s| now.saturating_duration_since(s.at) >= WINDOW) {
            self.steps.pop_front();
        }
        if self.next_point.is_none_or(|at| now >= at) {
            self.next_point = Some(now + POINT_EVERY);
            for pipeline in pipelines {
                let point = self.point(status, pipeline, wall);
                let hour = self.hours.entry(pipeline.clone()).or_default();
                if hour.len() == POINTS {
                    hour.pop_front();
                }
                hour.push_back(point);
            }
        }
    }

    fn window(&self) -> f64 {
        match (self.steps.front(), self.steps.back()) {
            (Some(first), Some(last)) => last.at.saturating_duration_since(first.at).as_secs_f64(),
            _ => 0.0,
        }
    }

    fn sum(&self, wanted: impl Fn(&Key) -> bool) -> Totals {
        let mut sum = Totals::default();
        // The first step is where the window begins: what it added came before.
        for added in self.steps.iter().skip(1).flat_map(|step| &step.added).filter(|(key, _)| wanted(key)).map(|a| a.1)
        {
            sum.records += added.records;
            sum.bytes += added.bytes;
            sum.refused += added.refused;
        }
        sum
    }

    fn per_second(&self, n: u64) -> f64 {
        let window = self.window();
        if window > 0.0 { n as f64 / window } else { 0.0 }
    }

    /// Records a second of one partition.
    pub fn partition_rate(&self, p: &PartitionStatus) -> f64 {
        let wanted = key(p);
        self.per_second(self.sum(|key| *key == wanted).records)
    }

    /// One pipeline now.
    pub fn point(&self, status: &Status, pipeline: &str, wall: DateTime<Utc>) -> Point {
        let sum = self.sum(|key| key.0 == pipeline);
        let parts = || status.partitions.iter().filter(|p| p.pipeline == pipeline);
        let cpu = |step: Option<&Step>| step.and_then(|s| s.cpu_seconds);
        let cpu_cores = match (cpu(self.steps.front()), cpu(self.steps.back())) {
            (Some(before), Some(now)) if self.window() > 0.0 => Some(((now - before) / self.window()).max(0.0)),
            _ => None,
        };
        Point {
            at: wall,
            records_per_second: self.per_second(sum.records),
            bytes_per_second: self.per_second(sum.bytes),
            refused_per_second: self.per_second(sum.refused),
            lag_records: parts().filter_map(|p| p.lag_records).sum(),
            bronze_waiting_records: parts().map(|p| (p.position - p.bronze_position).max(0)).sum(),
            realtime_waiting_records: parts().map(|p| (p.position - p.realtime_position).max(0)).sum(),
            watermark_delay_seconds: parts().filter_map(|p| p.watermark_delay_seconds).reduce(f64::max),
            resident_bytes: status.memory.resident_bytes,
            cpu_cores,
        }
    }

    /// The last hour of a pipeline, oldest first.
    pub fn hour(&self, pipeline: &str) -> impl Iterator<Item = &Point> {
        self.hours.get(pipeline).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Source;
    use crate::telemetry::{Acquired, Board, Consumed, Limits};

    fn source() -> Source {
        Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition: 0 }
    }

    fn acquire(board: &Board, position: i64) {
        let acquired = Acquired {
            position,
            mark: None,
            bound: Duration::ZERO,
            bronze_flush_interval: Duration::from_secs(30),
            realtime_flush_interval: Some(Duration::from_secs(1)),
        };
        board.acquired(&source(), &acquired);
    }

    #[test]
    fn rates_follow_the_totals_and_survive_a_new_assignment() {
        let (board, mut meter, begin) = (Board::new(), Meter::default(), Instant::now());
        let pipelines = ["user_events".to_owned()];
        acquire(&board, 0);
        let mut next = 0;
        for second in 0..30 {
            next += 50;
            board.consumed(&source(), &Consumed { records: 50, bytes: 5_000, next, ..Consumed::default() });
            let status = Status::of(&board, Limits::default());
            meter.look(&status, &pipelines, begin + Duration::from_secs(second), Utc::now());
        }
        let status = Status::of(&board, Limits::default());
        let point = meter.point(&status, "user_events", Utc::now());
        assert!((point.records_per_second - 50.0).abs() < 1e-9, "{point:?}");
        assert!((meter.partition_rate(&status.partitions[0]) - 50.0).abs() < 1e-9);
        assert_eq!(point.bronze_waiting_records, 1_500);
        assert_eq!(meter.hour("user_events").count(), 6, "a point each five seconds");
        // Its totals begin anew.
        acquire(&board, 1_500);
        let status = Status::of(&board, Limits::default());
        meter.look(&status, &pipelines, begin + Duration::from_secs(30), Utc::now());
        assert!(meter.point(&status, "user_events", Utc::now()).records_per_second < 50.0);
    }

    #[test]
    fn what_came_before_the_first_look_is_no_rate() {
        let (board, mut meter, begin) = (Board::new(), Meter::default(), Instant::now());
        acquire(&board, 0);
        board.consumed(&source(), &Consumed { records: 1_000_000, next: 1_000_000, ..Consumed::default() });
        for second in 0..3 {
            meter.look(&Status::of(&board, Limits::default()), &[], begin + Duration::from_secs(second), Utc::now());
        }
        let status = Status::of(&board, Limits::default());
        assert_eq!(meter.point(&status, "user_events", Utc::now()).records_per_second, 0.0);
    }
}
