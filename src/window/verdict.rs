//! A record's verdict depends on the records before it in its partition, and on nothing else, so that a replay agrees.

use crate::config::TimeSettings;

/// What became of a record; stored with its Bronze row as `time_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Counted in its windows.
    Ok = 0,
    /// Its window had closed before it came: in Bronze, in silver and gold with the next batch, in no realtime window.
    Late = 1,
    /// Its event time lies beyond its Kafka timestamp by more than the guard: in Bronze alone.
    Future = 2,
    /// It is no event: in Bronze with its bytes and the reason.
    Unparsed = 3,
}

impl Verdict {
    pub const ALL: [Verdict; 4] = [Verdict::Ok, Verdict::Late, Verdict::Future, Verdict::Unparsed];

    /// The name in `time_status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Late => "late",
            Verdict::Future => "future",
            Verdict::Unparsed => "unparsed",
        }
    }
}

/// The event clock of one partition. Its mark M is the greatest event time accepted so far; the watermark is
/// M − bound; what ends at or before M − bound − allowed lateness is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventClock {
    window: i64,
    bound: i64,
    allowed_lateness: i64,
    future_guard: i64,
    mark: Option<i64>,
}

impl EventClock {
    /// A clock that goes on from `mark` (microseconds since the epoch), as Bronze's last commit has it.
    pub fn new(time: &TimeSettings, mark: Option<i64>) -> Self {
        let micros = |d: std::time::Duration| d.as_micros() as i64;
        Self {
            window: micros(time.window),
            bound: micros(time.bound),
            allowed_lateness: micros(time.allowed_lateness),
            future_guard: micros(time.future_guard),
            mark,
        }
    }

    /// The mark, microseconds since the epoch; none before the first accepted record.
    pub fn mark(&self) -> Option<i64> {
        self.mark
    }

    /// Windows that end at or before this instant (microseconds) are final.
    pub fn closed_horizon(&self) -> Option<i64> {
        self.mark.map(|m| m - self.bound - self.allowed_lateness)
    }

    /// The verdict of an event at `event_time` (microseconds) with Kafka timestamp `kafka_ms` (milliseconds, -1 if none).
    pub fn judge(&mut self, event_time: i64, kafka_ms: i64) -> Verdict {
        if kafka_ms >= 0 && event_time > kafka_ms * 1000 + self.future_guard {
            return Verdict::Future;
        }
        let window_end = event_time - event_time.rem_euclid(self.window) + self.window;
        if self.closed_horizon().is_some_and(|closed| window_end <= closed) {
            return Verdict::Late;
        }
        self.mark = Some(self.mark.map_or(event_time, |m| m.max(event_time)));
        Verdict::Ok
    }
}
