//! Rates now and over the last days, from totals on the board. Pure: every instant is an argument.
//!
//! The last hour is kept point by point; a day, a week and thirty days are kept with a point each minute, each ten
//! minutes and each hour, which is the mean of rates and the greatest of everything else.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::range::Range;
use crate::telemetry::{PartitionStatus, Status};

/// A rate is taken over this time: short enough to follow, long enough to be calm.
const WINDOW: Duration = Duration::from_secs(10);
/// A point of the charts each so often.
pub const POINT_EVERY: Duration = Duration::from_secs(5);
/// What is kept of a pipeline: points so many seconds apart, and how many. An hour, a day, a week, thirty days.
const KEPT: [(i64, usize); 4] = [(POINT_EVERY.as_secs() as i64, 720), (60, 1_440), (600, 1_008), (3_600, 720)];

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

impl Point {
    /// Makes one of `many` points and the next one.
    fn take_in(&mut self, next: &Point, many: f64) {
        let mean = |before: f64, now: f64| before + (now - before) / (many + 1.0);
        let greatest = |before: Option<f64>, now: Option<f64>| before.into_iter().chain(now).reduce(f64::max);
        *self = Self {
            at: next.at,
            records_per_second: mean(self.records_per_second, next.records_per_second),
            bytes_per_second: mean(self.bytes_per_second, next.bytes_per_second),
            refused_per_second: mean(self.refused_per_second, next.refused_per_second),
            lag_records: self.lag_records.max(next.lag_records),
            bronze_waiting_records: self.bronze_waiting_records.max(next.bronze_waiting_records),
            realtime_waiting_records: self.realtime_waiting_records.max(next.realtime_waiting_records),
            watermark_delay_seconds: greatest(self.watermark_delay_seconds, next.watermark_delay_seconds),
            resident_bytes: self.resident_bytes.max(next.resident_bytes),
            cpu_cores: greatest(self.cpu_cores, next.cpu_cores),
        };
    }
}

/// Points of one pipeline, so many seconds apart, oldest first.
#[derive(Debug)]
struct Ring {
    step_seconds: i64,
    most: usize,
    points: VecDeque<Point>,
    /// Points that the newest one was made of.
    many: u32,
}

impl Ring {
    fn is_full(&self) -> bool {
        self.points.len() == self.most
    }

    fn take(&mut self, point: &Point) {
        let slot = |point: &Point| point.at.timestamp().div_euclid(self.step_seconds);
        // Points as they come are kept as they are.
        let joins = self.step_seconds > POINT_EVERY.as_secs() as i64;
        match self.points.back_mut().filter(|newest| joins && slot(newest) == slot(point)) {
            Some(newest) => {
                newest.take_in(point, f64::from(self.many));
                self.many += 1;
            }
            None => {
                if self.is_full() {
                    self.points.pop_front();
                }
                self.points.push_back(point.clone());
                self.many = 1;
            }
        }
    }
}

/// What a pipeline has read in the last quarter of an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lately {
    pub pipeline: String,
    pub records: u64,
    /// Unparsed or ahead of time.
    pub refused: u64,
}

/// Points of a pipeline over a range of time.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Over {
    pub range: Range,
    /// Points are this far apart.
    pub step_seconds: i64,
    /// Since when this instance counts: rates of before are nowhere kept.
    #[schemars(with = "Option<String>")]
    pub known_since: Option<DateTime<Utc>>,
    /// Oldest first. Of a step, rates are the mean and the others the greatest.
    pub points: Vec<Point>,
}

#[derive(Debug)]
struct Step {
    at: Instant,
    added: HashMap<Key, Totals>,
    cpu_seconds: Option<f64>,
}

/// Remembers what it needs for rates, and points per pipeline.
#[derive(Debug, Default)]
pub struct Meter {
    totals: HashMap<Key, Totals>,
    steps: VecDeque<Step>,
    kept: HashMap<String, [Ring; KEPT.len()]>,
    next_point: Option<Instant>,
    /// When the first points were taken.
    begun: Option<DateTime<Utc>>,
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
            self.begun.get_or_insert(wall);
            for pipeline in pipelines {
                let point = self.point(status, pipeline, wall);
                let rings = self.kept.entry(pipeline.clone()).or_insert_with(|| {
                    KEPT.map(|(step_seconds, most)| Ring { step_seconds, most, points: VecDeque::new(), many: 0 })
                });
                rings.iter_mut().for_each(|ring| ring.take(&point));
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
        self.kept.get(pipeline).into_iter().flat_map(|[hour, ..]| &hour.points)
    }

    /// What a pipeline has read in the last quarter of an hour.
    pub fn lately(&self, pipeline: &str, now: DateTime<Utc>) -> Lately {
        let from = now - Range::Quarter.span();
        let of = |rate: fn(&Point) -> f64| {
            let rates = self.hour(pipeline).filter(|point| point.at >= from).map(rate);
            (rates.sum::<f64>() * POINT_EVERY.as_secs_f64()).round() as u64
        };
        Lately {
            pipeline: pipeline.to_owned(),
            records: of(|point| point.records_per_second),
            refused: of(|point| point.refused_per_second),
        }
    }

    /// A pipeline over a range that ends now.
    pub fn over(&self, pipeline: &str, range: Range, now: DateTime<Utc>) -> Over {
        let (rings, from) = (self.kept.get(pipeline), now - range.span());
        let coarsest = match range {
            Range::Quarter | Range::Hour => 0,
            Range::SixHours | Range::Day => 1,
            Range::Week => 2,
            Range::Month => 3,
        };
        // A ring that is not full yet holds everything since the start, point by point.
        let place =
            rings.and_then(|rings| rings[..coarsest].iter().position(|ring| !ring.is_full())).unwrap_or(coarsest);
        let points = rings.into_iter().flat_map(|rings| &rings[place].points).filter(|point| point.at >= from);
        Over {
            range,
            step_seconds: KEPT[place].0,
            known_since: rings.and(self.begun),
            points: points.cloned().collect(),
        }
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
    fn days_are_kept_in_steps_of_means_and_peaks() {
        let (board, mut meter, begin) = (Board::new(), Meter::default(), Instant::now());
        // On a whole step, so that the test knows which points are joined.
        let wall = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let pipelines = ["user_events".to_owned()];
        acquire(&board, 0);
        // A point each half minute: 13 hours at 10 a second, then 13 at 40.
        let mut now = wall;
        let mut next = 0;
        for look in 0..26 * 120 {
            let records = if look < 13 * 120 { 300 } else { 1_200 };
            next += records;
            let batch = Consumed { records: records as u64, bytes: 0, next, ..Consumed::default() };
            board.consumed(&source(), &batch);
            now = wall + chrono::TimeDelta::seconds(30 * look);
            let at = begin + Duration::from_secs(30 * look as u64);
            meter.look(&Status::of(&board, Limits::default()), &pipelines, at, now);
            if look == 9 {
                // All that there is, point by point.
                let week = meter.over("user_events", Range::Week, now);
                assert_eq!((week.points.len(), week.step_seconds, week.known_since), (10, 5, Some(wall)));
            }
        }
        let hour = meter.over("user_events", Range::Hour, now);
        assert_eq!((hour.points.len(), hour.step_seconds), (121, 5));
        assert_eq!(meter.over("user_events", Range::Quarter, now).points.len(), 31);
        let day = meter.over("user_events", Range::Day, now);
        assert_eq!((day.points.len(), day.step_seconds), (1_440, 60));
        let six = meter.over("user_events", Range::SixHours, now);
        assert_eq!(six.points[..], day.points[day.points.len() - six.points.len()..]);
        let week = meter.over("user_events", Range::Week, now);
        assert_eq!((week.points.len(), week.step_seconds, week.known_since), (156, 600, Some(wall)));
        let rates: Vec<f64> = week.points.iter().map(|point| point.records_per_second).collect();
        assert!(
            rates[1..78].iter().all(|rate| *rate == 10.0) && rates[79..].iter().all(|rate| *rate == 40.0),
            "{rates:?}"
        );
        // What waits for Bronze only grows here: the greatest of a step is its last.
        let last = |over: &Over| over.points.last().map(|point| point.bronze_waiting_records);
        assert_eq!((last(&week), last(&day)), (last(&hour), last(&hour)));
        assert!(meter.over("another", Range::Week, now).points.is_empty());
        assert_eq!(meter.lately("another", now), Lately { pipeline: "another".into(), records: 0, refused: 0 });
    }

    #[test]
    fn a_quarter_of_an_hour_is_counted_for_its_bad_records() {
        let (board, mut meter, begin, wall) = (Board::new(), Meter::default(), Instant::now(), Utc::now());
        acquire(&board, 0);
        let mut next = 0;
        // Half an hour, bad records in its last five minutes alone.
        for look in 0..360 {
            next += 50;
            let bad = if look < 300 { 0 } else { 10 };
            let batch = Consumed { records: 50, bytes: 0, verdicts: [50 - bad, 0, 0, bad], next, mark: None };
            board.consumed(&source(), &batch);
            let now = wall + chrono::TimeDelta::seconds(5 * look);
            let at = begin + Duration::from_secs(5 * look as u64);
            meter.look(&Status::of(&board, Limits::default()), &["user_events".to_owned()], at, now);
        }
        let lately = meter.lately("user_events", wall + chrono::TimeDelta::seconds(5 * 359));
        assert!((8_900..=9_100).contains(&lately.records), "{lately:?}");
        assert!((580..=600).contains(&lately.refused), "{lately:?}");
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
