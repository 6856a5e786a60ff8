//! Rates now and over the last days, from totals on the board. Pure: every instant is an argument.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::Serialize;

pub use super::points::{Gap, Point};
use super::points::{KEPT, Kept, POINT_EVERY};
use super::range::Range;
use crate::telemetry::{PartitionStatus, Status};

/// A rate is taken over this time: short enough to follow, long enough to be calm.
const WINDOW: Duration = Duration::from_secs(10);
/// Without a point for so long nothing is known of the time between.
const GAP_AFTER: TimeDelta = TimeDelta::seconds(30);
/// Gaps that are kept.
const GAPS_MAX: usize = 200;
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
    /// Times since then of which no rates are known, oldest first: this daemon was down, or had not kept them when it ended.
    pub unknown: Vec<Gap>,
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
    next_point: Option<Instant>,
    charts: Charts,
}

/// What outlives a restart: the points of every pipeline, and the times of which there are none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Charts {
    pub kept: BTreeMap<String, Kept>,
    pub gaps: VecDeque<Gap>,
    /// When the newest points were taken.
    pub newest: Option<DateTime<Utc>>,
}

impl Charts {
    /// Notes that no points were taken since the newest ones.
    fn end_gap(&mut self, now: DateTime<Utc>) {
        if let Some(from) = self.newest.filter(|newest| *newest < now) {
            self.gaps.push_back(Gap { from, to: now });
        }
        while self.gaps.len() > GAPS_MAX {
            self.gaps.pop_front();
        }
    }

    /// Forgets what is of a time that has not come yet: the clock was ahead, and has been set back. Left there, it would
    /// stand in no order, and no line would go through the time up to it.
    pub fn back_to(&mut self, now: DateTime<Utc>) {
        self.gaps.retain(|gap| gap.from < now);
        self.gaps.iter_mut().for_each(|gap| gap.to = gap.to.min(now));
        self.kept.values_mut().for_each(|kept| kept.back_to(now));
        self.newest = self.newest.map(|newest| newest.min(now));
    }
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
        // Of the first look alone no rate is known, which is not a rate of nothing.
        if self.steps.len() < 2 || self.next_point.is_some_and(|at| now < at) {
            return;
        }
        // As points are kept: to the millisecond.
        let wall = wall.trunc_subsecs(3);
        let is_first = self.next_point.is_none();
        self.next_point = Some(now + POINT_EVERY);
        if self.charts.newest.is_some_and(|newest| newest > wall) {
            self.charts.back_to(wall);
        }
        if is_first || self.charts.newest.is_some_and(|newest| wall - newest > GAP_AFTER) {
            self.charts.end_gap(wall);
        }
        self.charts.newest = Some(wall);
        for pipeline in pipelines {
            let point = self.point(status, pipeline, wall);
            self.charts.kept.entry(pipeline.clone()).or_insert_with(|| Kept::since(wall)).take(&point);
        }
    }

    /// Goes on with what an earlier process has kept; before the first look.
    pub fn go_on_with(&mut self, charts: Charts) {
        self.charts = charts;
    }

    /// What outlives a restart; nothing before there is a point of this process.
    pub fn charts(&self) -> Option<Charts> {
        self.next_point.map(|_| self.charts.clone())
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

    /// The newest points of a pipeline as they came, oldest first.
    fn hour(&self, pipeline: &str) -> impl Iterator<Item = &Point> {
        self.charts.kept.get(pipeline).into_iter().flat_map(Kept::hour)
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
        let (kept, from) = (self.charts.kept.get(pipeline), now - range.span());
        let (step_seconds, points) = kept.map_or((KEPT[0].0, None), |kept| {
            let (step_seconds, points) = kept.over(range);
            (step_seconds, Some(points))
        });
        let known_since = kept.map(|kept| kept.begun);
        let is_of = |gap: &&Gap| gap.to >= from && known_since.is_some_and(|since| gap.to > since);
        Over {
            range,
            step_seconds,
            known_since,
            unknown: self.charts.gaps.iter().filter(is_of).copied().collect(),
            points: points.into_iter().flatten().filter(|point| point.at >= from).cloned().collect(),
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
        assert!(meter.hour("user_events").all(|point| point.records_per_second > 49.0), "the first is no zero");
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
        let begun = Some(wall + TimeDelta::seconds(30));
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
                assert_eq!((week.points.len(), week.step_seconds, week.known_since), (9, 5, begun));
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
        assert_eq!((week.points.len(), week.step_seconds, week.known_since), (156, 600, begun));
        let month = meter.over("user_events", Range::Month, now);
        assert_eq!((month.points, month.step_seconds), (week.points.clone(), 600), "a week is not full yet");
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
    fn a_restart_and_a_standstill_are_gaps_and_nothing_is_made_up_in_them() {
        let wall = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let pipelines = ["user_events".to_owned()];
        let run = |meter: &mut Meter, seconds: std::ops::Range<i64>, offset: i64| {
            let (board, begin) = (Board::new(), Instant::now());
            acquire(&board, 0);
            for second in seconds {
                board.consumed(&source(), &Consumed { records: 50, next: 50 * second, ..Consumed::default() });
                let at = begin + Duration::from_secs(second.unsigned_abs());
                let now = wall + TimeDelta::seconds(second + offset);
                meter.look(&Status::of(&board, Limits::default()), &pipelines, at, now);
            }
        };
        let mut meter = Meter::default();
        assert_eq!(meter.charts(), None, "nothing to keep yet");
        run(&mut meter, 0..30, 0);
        let kept = meter.charts().unwrap();
        let mut again = Meter::default();
        again.go_on_with(kept);
        assert_eq!(again.charts(), None, "nothing new to keep");
        run(&mut again, 0..30, 100);
        let at = |second: i64| wall + TimeDelta::seconds(second);
        let over = again.over("user_events", Range::Hour, at(130));
        assert_eq!((over.unknown, over.known_since), (vec![Gap { from: at(26), to: at(101) }], Some(at(1))));
        assert_eq!(over.points.len(), 12);
        assert!(over.points.iter().all(|point| point.records_per_second > 49.0), "{:?}", over.points);
        // The machine sleeps.
        run(&mut again, 200..230, 1_000);
        let over = again.over("user_events", Range::Hour, at(1_230));
        assert_eq!(over.unknown[1], Gap { from: at(126), to: at(1_200) });
        assert!(again.over("user_events", Range::Quarter, at(3_000)).unknown.is_empty(), "before the range");
        // The clock is an hour ahead for half a minute.
        run(&mut again, 230..260, 4_600);
        assert_eq!(again.over("user_events", Range::Day, at(4_860)).unknown[2], Gap { from: at(1_225), to: at(4_830) });
        run(&mut again, 260..290, 1_000);
        let over = again.over("user_events", Range::Hour, at(1_290));
        assert_eq!(over.unknown[2..], [Gap { from: at(1_225), to: at(1_260) }]);
        assert_eq!(over.points.last().map(|point| point.at), Some(at(1_285)));
        for ring in &again.charts().unwrap().kept["user_events"].rings {
            assert!(ring.points.iter().is_sorted_by_key(|point| point.at), "{ring:?}");
            assert_eq!(ring.points.back().map(|point| point.at), Some(at(1_285)));
        }
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
