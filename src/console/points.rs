//! The points of charts, kept for thirty days in ever coarser steps. Pure.
//!
//! The last hour is kept point by point; a day, a week and thirty days are kept with a point each minute, each ten minutes
//! and each hour, which is the mean of rates and the greatest of everything else.

use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::range::Range;

/// A point of the charts each so often.
pub const POINT_EVERY: Duration = Duration::from_secs(5);
/// What is kept of a pipeline: points so many seconds apart, and how many. An hour, a day, a week, thirty days.
pub const KEPT: [(i64, usize); 4] = [(POINT_EVERY.as_secs() as i64, 720), (60, 1_440), (600, 1_008), (3_600, 720)];

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

/// A time of which no rates are known: this daemon was down, or had not yet kept them when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Gap {
    #[schemars(with = "String")]
    pub from: DateTime<Utc>,
    #[schemars(with = "String")]
    pub to: DateTime<Utc>,
}

/// Points of one pipeline, so many seconds apart, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ring {
    step_seconds: i64,
    most: usize,
    pub points: VecDeque<Point>,
    /// Points that the newest one was made of.
    pub many: u32,
}

impl Ring {
    fn is_full(&self) -> bool {
        self.points.len() >= self.most
    }

    /// Whether a moment's point is joined to that of another; points as they come are kept as they are.
    fn joins(&self, one: DateTime<Utc>, other: DateTime<Utc>) -> bool {
        let slot = |at: DateTime<Utc>| at.timestamp().div_euclid(self.step_seconds);
        self.step_seconds > POINT_EVERY.as_secs() as i64 && slot(one) == slot(other)
    }

    fn take(&mut self, point: &Point) {
        let joins = self.points.back().is_some_and(|newest| self.joins(newest.at, point.at));
        match self.points.back_mut().filter(|_| joins) {
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

    fn back_to(&mut self, now: DateTime<Utc>) {
        while let Some(newest) = self.points.back().map(|newest| newest.at).filter(|newest| *newest > now) {
            let joins = self.joins(newest, now);
            if let Some(newest) = self.points.back_mut().filter(|_| joins) {
                newest.at = now;
                return;
            }
            self.points.pop_back();
            self.many = 1;
        }
    }
}

/// What is kept of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// When its first point was taken.
    pub begun: DateTime<Utc>,
    /// As [`KEPT`] has them.
    pub rings: [Ring; KEPT.len()],
}

impl Kept {
    pub fn since(begun: DateTime<Utc>) -> Self {
        let ring = |(step_seconds, most)| Ring { step_seconds, most, points: VecDeque::new(), many: 0 };
        Self { begun, rings: KEPT.map(ring) }
    }

    pub fn take(&mut self, point: &Point) {
        self.rings.iter_mut().for_each(|ring| ring.take(point));
    }

    /// Forgets what is of a time that has not come yet: the clock was ahead, and has been set back.
    pub fn back_to(&mut self, now: DateTime<Utc>) {
        self.begun = self.begun.min(now);
        self.rings.iter_mut().for_each(|ring| ring.back_to(now));
    }

    /// The newest points as they came, an hour's at most, oldest first; some may be of before a restart.
    pub fn hour(&self) -> &VecDeque<Point> {
        &self.rings[0].points
    }

    /// The points that show a range, and how many seconds they are apart.
    pub fn over(&self, range: Range) -> (i64, &VecDeque<Point>) {
        let coarsest = match range {
            Range::Quarter | Range::Hour => 0,
            Range::SixHours | Range::Day => 1,
            Range::Week => 2,
            Range::Month => 3,
        };
        // A ring that is not full yet holds everything since the start, point by point.
        let ring = self.rings[..coarsest].iter().find(|ring| !ring.is_full()).unwrap_or(&self.rings[coarsest]);
        (ring.step_seconds, &ring.points)
    }
}
