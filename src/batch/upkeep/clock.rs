//! Whether the wall clock can be trusted with what age decides: what is deleted is told from it.

use std::time::{Duration, SystemTime};

/// A clock that is set may go so far ahead of, or behind, the time that passes.
const JUMP: Duration = Duration::from_secs(600);

/// The wall clock and the time that passed since the machine started, at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: SystemTime,
    passed: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        Self::now()
    }
}

impl Clock {
    pub fn now() -> Self {
        Self { wall: SystemTime::now(), passed: since_boot() }
    }

    /// By how much the wall clock was set since, if it was: then nothing may be deleted for its age. A process that is
    /// started again takes the clock for right.
    pub fn jump(&self) -> Option<Duration> {
        Self::between(*self, Self::now())
    }

    /// As if the wall clock had been set ahead by so much since.
    #[cfg(test)]
    pub(crate) fn set_ahead(self, by: Duration) -> Self {
        Self { wall: self.wall - by, ..self }
    }

    fn between(from: Self, to: Self) -> Option<Duration> {
        let passed = to.passed.saturating_sub(from.passed);
        let shown = match to.wall.duration_since(from.wall) {
            Ok(forward) => forward,
            Err(back) => return Some(back.duration() + passed).filter(|jump| *jump > JUMP),
        };
        Some(shown.abs_diff(passed)).filter(|jump| *jump > JUMP)
    }
}

/// Time since the machine started, also while it slept.
fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the struct that it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_noticed_and_time_that_passes_is_not() {
        let start = Clock::now();
        assert_eq!(start.jump(), None);
        let hour = Duration::from_secs(3600);
        let after = |wall: SystemTime| Clock::between(start, Clock { wall, passed: start.passed + hour });
        assert_eq!(after(start.wall + hour), None);
        assert_eq!(after(start.wall + 25 * hour), Some(24 * hour));
        assert_eq!(after(start.wall - hour), Some(2 * hour));
    }
}
