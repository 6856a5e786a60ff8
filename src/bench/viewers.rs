//! What people who look at the console cost the stream.

use serde::{Deserialize, Serialize};

use super::sample::DrainSample;
use super::stats::median;

/// Drains of the same backlog beside live pages of the console, each in a pair with one without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BesideConsole {
    /// Live pages open at the same time.
    pub client_count: usize,
    pub without_events_per_second: f64,
    pub with_events_per_second: f64,
    /// With by without: the median over the pairs.
    pub ratio: f64,
    /// Pages that were live, and bytes that they took, in the drain where they took least.
    pub least_open_count: usize,
    pub least_byte_count: u64,
    pub daemon: Vec<DrainSample>,
}

/// One drain beside live pages.
#[derive(Debug, Clone)]
pub struct Watched {
    pub drain: DrainSample,
    pub open_count: usize,
    pub byte_count: u64,
}

impl BesideConsole {
    /// Of drains without and with, in the order in which they ran; none of nothing.
    pub fn of(client_count: usize, without: &[DrainSample], with: Vec<Watched>) -> Option<Self> {
        let rates = |drains: &[DrainSample]| median(&drains.iter().map(|d| d.events_per_second).collect::<Vec<_>>());
        let least_open_count = with.iter().map(|w| w.open_count).min()?;
        let least_byte_count = with.iter().map(|w| w.byte_count).min()?;
        let daemon: Vec<DrainSample> = with.into_iter().map(|w| w.drain).collect();
        let ratios: Vec<f64> = daemon
            .iter()
            .zip(without)
            .map(|(with, without)| with.events_per_second / without.events_per_second)
            .collect();
        Some(Self {
            client_count,
            without_events_per_second: rates(without)?,
            with_events_per_second: rates(&daemon)?,
            ratio: median(&ratios)?,
            least_open_count,
            least_byte_count,
            daemon,
        })
    }

    /// One line of the report.
    pub fn line(&self) -> String {
        format!(
            "Beside {} live pages of the console: {:.0} → {:.0} events/s ({:.3} ×, the median of {} pairs; at least {} were live and \
             took {:.1} MB)",
            self.client_count,
            self.without_events_per_second,
            self.with_events_per_second,
            self.ratio,
            self.daemon.len(),
            self.least_open_count,
            self.least_byte_count as f64 / 1e6
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn a_pair_is_compared_with_its_own() {
        let drains = sample().drains.daemon;
        let with = |by: f64| {
            move |d: &DrainSample| Watched {
                drain: DrainSample { events_per_second: d.events_per_second * by, ..d.clone() },
                open_count: 200,
                byte_count: 3_000_000,
            }
        };
        let found = BesideConsole::of(200, &drains, drains.iter().map(with(0.98)).collect()).unwrap();
        assert!((found.ratio - 0.98).abs() < 1e-9, "{found:?}");
        assert!(found.line().contains("(0.980 ×, the median of 3 pairs; at least 200 were live"), "{}", found.line());
        assert_eq!(BesideConsole::of(200, &drains, Vec::new()), None);
    }
}
