//! Event time and tumbling windows: verdicts, watermarks, partial totals. Pure: no I/O, no clock.

mod verdict;

pub use verdict::{EventClock, Verdict};
