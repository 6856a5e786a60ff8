//! The time that stands in the events.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::DateTime;

/// Where event times come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventClock {
    /// The wall clock at the moment an event is made.
    Wall,
    /// A clock of its own, for backlogs that come out the same every time: event number `i` happens at
    /// `start + i × step`.
    Simulated {
        /// Nanoseconds since 1970, UTC, of the first event.
        start_ns: i64,
        /// Nanoseconds between two events.
        step_ns: u64,
    },
}

impl EventClock {
    /// A clock that begins at `start_s` (seconds since 1970) and reaches `start_s + span` with the last of
    /// `count` events.
    pub fn spanning(start_s: i64, span: Duration, count: u64) -> Self {
        let steps = u128::from(count.saturating_sub(1).max(1));
        let step_ns = span.as_nanos() / steps;
        Self::Simulated {
            start_ns: start_s.saturating_mul(1_000_000_000),
            step_ns: u64::try_from(step_ns).unwrap_or(u64::MAX),
        }
    }

    /// A clock that begins at `start_s` (seconds since 1970) and has `rate` events in each of its seconds.
    pub fn with_rate(start_s: i64, rate: f64) -> Self {
        // A float cast saturates; a rate is greater than zero.
        Self::Simulated { start_ns: start_s.saturating_mul(1_000_000_000), step_ns: (1e9 / rate) as u64 }
    }

    /// The time of event number `index`, counted from 0, in seconds since 1970; `now_s` is what the wall says.
    pub fn at(&self, index: u64, now_s: i64) -> i64 {
        match *self {
            Self::Wall => now_s,
            Self::Simulated { start_ns, step_ns } => {
                let ns = i128::from(start_ns) + i128::from(index) * i128::from(step_ns);
                ns.div_euclid(1_000_000_000) as i64
            }
        }
    }
}

/// Seconds since 1970 on the wall clock.
pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// `2026-02-06T14:30:00` for a second, kept for as long as the second is asked for.
#[derive(Debug, Clone)]
pub struct TimestampText {
    second: i64,
    text: [u8; 19],
}

impl Default for TimestampText {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00" }
    }
}

impl TimestampText {
    /// The text of `second` (since 1970, UTC). Years have four digits: what lies outside 0000 to 9999 is shown
    /// as the nearest second inside.
    pub fn of(&mut self, second: i64) -> &[u8; 19] {
        if second == self.second {
            return &self.text;
        }
        if second.div_euclid(60) == self.second.div_euclid(60) {
            let within = second.rem_euclid(60) as u8;
            self.text[17] = b'0' + within / 10;
            self.text[18] = b'0' + within % 10;
        } else {
            // The first second of the year 0 and the last one of 9999.
            let shown = second.clamp(-62_167_219_200, 253_402_300_799);
            let text = DateTime::from_timestamp(shown, 0).unwrap_or_default().format("%Y-%m-%dT%H:%M:%S").to_string();
            self.text.copy_from_slice(text.as_bytes());
        }
        self.second = second;
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_right_at_every_edge() {
        let mut text = TimestampText::default();
        for (second, wanted) in [
            (0, "1970-01-01T00:00:00"),
            (59, "1970-01-01T00:00:59"),
            (60, "1970-01-01T00:01:00"),
            (-1, "1969-12-31T23:59:59"),
            (1_770_388_200, "2026-02-06T14:30:00"),
            (1_770_388_209, "2026-02-06T14:30:09"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (i64::MAX, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(std::str::from_utf8(text.of(second)).unwrap(), wanted);
        }
    }

    #[test]
    fn a_simulated_clock_goes_by_the_count() {
        let clock = EventClock::with_rate(1_000, 5.0);
        assert_eq!(
            (0..11).map(|i| clock.at(i, 7)).collect::<Vec<_>>(),
            [1000, 1000, 1000, 1000, 1000, 1001, 1001, 1001, 1001, 1001, 1002]
        );
        let clock = EventClock::spanning(1_000, Duration::from_secs(100), 11);
        assert_eq!((clock.at(0, 7), clock.at(1, 7), clock.at(10, 7)), (1_000, 1_010, 1_100));
        assert_eq!(EventClock::spanning(1_000, Duration::from_secs(100), 1).at(0, 7), 1_000);
        assert_eq!(EventClock::Wall.at(3, 7), 7);
    }
}
