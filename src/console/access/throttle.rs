//! Slows down who guesses passwords: after a few failures the waits double. Pure: every instant is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Failures that cost nothing: people mistype.
const FREE: u32 = 5;
const LONGEST: Duration = Duration::from_secs(300);
/// Failures are forgotten after this time without another one.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// Names and addresses that are remembered at most; somebody who brings more only makes the oldest forgotten.
const KEPT: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    until: Instant,
}

/// Failed sign-ins by name and by address.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: HashMap<String, Failures>,
}

impl Throttle {
    /// How long a key must wait before its next try is looked at at all.
    pub fn wait(&self, key: &str, now: Instant) -> Option<Duration> {
        let until = self.failures.get(key)?.until;
        until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// A try failed.
    pub fn failed(&mut self, key: &str, now: Instant) {
        if self.failures.len() >= KEPT && !self.failures.contains_key(key) {
            self.failures.retain(|_, f| now.saturating_duration_since(f.last) < FORGET);
            if self.failures.len() >= KEPT
                && let Some(oldest) = self.failures.iter().min_by_key(|(_, f)| f.last).map(|(key, _)| key.clone())
            {
                self.failures.remove(&oldest);
            }
        }
        let failures = self.failures.entry(key.to_owned()).or_insert(Failures { count: 0, last: now, until: now });
        if now.saturating_duration_since(failures.last) >= FORGET {
            failures.count = 0;
        }
        failures.count += 1;
        failures.last = now;
        if failures.count >= FREE {
            let wait = Duration::from_secs(1).saturating_mul(1 << (failures.count - FREE).min(20)).min(LONGEST);
            failures.until = now + wait;
        }
    }

    /// A try succeeded: what came before it is forgotten.
    pub fn succeeded(&mut self, key: &str) {
        self.failures.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn waits_begin_after_five_failures_and_double() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..4 {
            throttle.failed("a", now);
        }
        assert_eq!(throttle.wait("a", now), None);
        let mut waits = Vec::new();
        for _ in 0..12 {
            throttle.failed("a", now);
            waits.push(throttle.wait("a", now).unwrap().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(throttle.wait("b", now), None);
        assert_eq!(throttle.wait("a", now + 300 * S), None);
        throttle.succeeded("a");
        throttle.failed("a", now);
        assert_eq!(throttle.wait("a", now), None);
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_memory_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..6 {
            throttle.failed("a", now);
        }
        throttle.failed("a", now + FORGET);
        assert_eq!(throttle.wait("a", now + FORGET), None);
        for i in 0..KEPT + 10 {
            throttle.failed(&i.to_string(), now + FORGET + S);
        }
        assert!(throttle.failures.len() <= KEPT);
    }
}
