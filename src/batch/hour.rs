//! Event-hours: what silver is partitioned by and what a run recomputes.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Timelike};

const MICROS: i64 = 3_600_000_000;

/// An hour of event time, UTC: hours since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(pub i64);

impl Hour {
    /// The hour of an instant, microseconds since the epoch.
    pub fn of_micros(micros: i64) -> Self {
        Self(micros.div_euclid(MICROS))
    }

    /// The hour of a date, 0 to 23.
    pub fn of_date(date: NaiveDate, hour: u32) -> Self {
        let midnight = date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp();
        Self(midnight.div_euclid(3600) + i64::from(hour))
    }

    /// From values of silver's partition columns, as they stand in the log.
    pub fn of_partition(values: &BTreeMap<String, Option<String>>) -> Option<Self> {
        let date = values.get(super::silver::EVENT_DATE)?.as_deref()?.parse().ok()?;
        let hour = values.get(super::silver::EVENT_HOUR)?.as_deref()?.parse().ok().filter(|h| *h < 24)?;
        Some(Self::of_date(date, hour))
    }

    fn start(self) -> DateTime<chrono::Utc> {
        DateTime::from_timestamp(self.0 * 3600, 0).unwrap_or_default()
    }

    pub fn date(self) -> NaiveDate {
        self.start().date_naive()
    }

    /// 0 to 23.
    pub fn hour_of_day(self) -> u32 {
        self.start().hour()
    }

    /// First and last microsecond since the epoch.
    pub fn micros(self) -> (i64, i64) {
        (self.0 * MICROS, self.0 * MICROS + MICROS - 1)
    }
}

impl std::fmt::Display for Hour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.start().format("%Y-%m-%dT%H"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_its_partition() {
        let hour = Hour::of_micros(1_770_388_200_000_000);
        assert_eq!(hour.to_string(), "2026-02-06T14");
        let values = |date: &str, hour: &str| {
            BTreeMap::from([
                ("event_date".to_string(), Some(date.to_string())),
                ("event_hour".to_string(), Some(hour.to_string())),
            ])
        };
        assert_eq!(Hour::of_partition(&values("2026-02-06", "14")), Some(hour));
        assert_eq!(Hour::of_partition(&values("2026-02-06", "24")), None);
        assert_eq!(Hour::of_partition(&BTreeMap::new()), None);
        assert_eq!((hour.date().to_string().as_str(), hour.hour_of_day()), ("2026-02-06", 14));
        assert_eq!(Hour::of_micros(-1), Hour(-1));
        let (first, last) = hour.micros();
        assert_eq!((Hour::of_micros(first), Hour::of_micros(last)), (hour, hour));
        assert_eq!(Hour::of_micros(last + 1), Hour(hour.0 + 1));
    }
}
