//! What a long round says at its end.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

/// Prints a line past the test's capture, so that a reader of `make soak` sees it also where the test passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "soak: {line}");
}

/// Delays of one kind, shown by their quantiles.
#[derive(Default)]
pub struct Spread(Vec<Duration>);

impl Spread {
    pub fn push(&mut self, delay: Duration) {
        self.0.push(delay);
        self.0.sort();
    }

    /// The delay that at most 1 % exceed: below 100 samples the greatest.
    pub fn p99(&self) -> Duration {
        self.quantile(99)
    }

    fn quantile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [least, p50, p90, p99, most] = [0, 50, 90, 99, 100].map(|percent| self.quantile(percent).as_secs_f64());
        write!(f, "least {least:.2} s, p50 {p50:.2} s, p90 {p90:.2} s, p99 {p99:.2} s, greatest {most:.2} s")
    }
}

#[test]
fn the_p99_of_few_delays_is_the_greatest() {
    let mut spread = Spread::default();
    for second in (1..=50).rev() {
        spread.push(Duration::from_secs(second));
    }
    assert_eq!(spread.p99(), Duration::from_secs(50));
    assert_eq!(spread.quantile(50), Duration::from_secs(25));
    assert_eq!(spread.quantile(0), Duration::from_secs(1));
}
