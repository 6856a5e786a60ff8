//! What people who look at the console cost the stream.

use serde::{Deserialize, Serialize};

use super::stats::median;

/// A stretch of one drain, without live pages of the console or beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Whether the pages were live, all of them.
    pub live: bool,
    pub events_per_second: f64,
    pub cpu_seconds_per_million: f64,
}

/// Drains in which live pages of the console come and go, turn by turn. A turn is compared with the one right before it and
/// the one right after it: a machine's speed changes more from drain to drain than the pages cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BesideConsole {
    /// Live pages open at the same time.
    pub client_count: usize,
    /// The median over the turns.
    pub without_events_per_second: f64,
    pub with_events_per_second: f64,
    /// With by without: the median over the comparisons.
    pub ratio: f64,
    /// Of the comparisons' mean.
    pub ratio_standard_error: f64,
    /// The same of the daemon's CPU seconds per million events.
    pub cpu_ratio: f64,
    pub cpu_ratio_standard_error: f64,
    pub comparison_count: usize,
    /// Bytes that the pages took in all.
    pub byte_count: u64,
    /// By drain, in their order.
    pub turns: Vec<Vec<Turn>>,
}

impl BesideConsole {
    /// None where no drain lasted for three turns.
    pub fn of(client_count: usize, turns: Vec<Vec<Turn>>, byte_count: u64) -> Option<Self> {
        let rate = compared(&turns, |turn| turn.events_per_second);
        let cpu = compared(&turns, |turn| turn.cpu_seconds_per_million);
        let rates = |live| {
            let of = turns.iter().flatten().filter(|turn| turn.live == live);
            median(&of.map(|turn| turn.events_per_second).collect::<Vec<_>>())
        };
        Some(Self {
            client_count,
            without_events_per_second: rates(false)?,
            with_events_per_second: rates(true)?,
            ratio: median(&rate)?,
            ratio_standard_error: standard_error(&rate),
            cpu_ratio: median(&cpu)?,
            cpu_ratio_standard_error: standard_error(&cpu),
            comparison_count: rate.len(),
            byte_count,
            turns,
        })
    }

    /// One line of the report.
    pub fn line(&self) -> String {
        format!(
            "Beside {} live pages of the console: {:.0} → {:.0} events/s ({:.3} × ± {:.3}, the median of {} comparisons), CPU per \
             million {:.3} × ± {:.3}; the pages took {:.1} MB",
            self.client_count,
            self.without_events_per_second,
            self.with_events_per_second,
            self.ratio,
            self.ratio_standard_error,
            self.comparison_count,
            self.cpu_ratio,
            self.cpu_ratio_standard_error,
            self.byte_count as f64 / 1e6
        )
    }
}

/// With by without, of every turn that has one before and one after it.
fn compared(drains: &[Vec<Turn>], of: fn(&Turn) -> f64) -> Vec<f64> {
    let ratio = |three: &[Turn]| match three {
        [before, turn, after] => {
            let around = (of(before) * of(after)).sqrt();
            let ratio = if turn.live { of(turn) / around } else { around / of(turn) };
            (before.live != turn.live && turn.live != after.live && ratio.is_finite()).then_some(ratio)
        }
        _ => None,
    };
    drains.iter().flat_map(|turns| turns.windows(3)).filter_map(ratio).collect()
}

/// Of the mean of values that vary independently; 0 of fewer than two.
fn standard_error(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.len() < 2 { 0.0 } else { (squares / (count - 1.0) / count).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_compared_with_its_neighbours() {
        // A machine that becomes slower by a tenth with every turn, and pages that cost two per cent.
        let drain = |first_live: bool| -> Vec<Turn> {
            (0..6)
                .map(|number| {
                    let live = (number % 2 == 0) == first_live;
                    let speed = 2e6 * 0.9f64.powi(number) * if live { 0.98 } else { 1.0 };
                    Turn { live, events_per_second: speed, cpu_seconds_per_million: 1e6 / speed }
                })
                .collect()
        };
        let found = BesideConsole::of(200, vec![drain(true), drain(false)], 5_000_000).unwrap();
        assert!((found.ratio - 0.98).abs() < 1e-9 && found.ratio_standard_error < 1e-9, "{found:?}");
        assert!((found.cpu_ratio - 1.0 / 0.98).abs() < 1e-9 && found.comparison_count == 8, "{found:?}");
        assert!(found.line().contains("(0.980 × ± 0.000, the median of 8 comparisons)"), "{}", found.line());
        assert_eq!(BesideConsole::of(200, vec![drain(true)[..2].to_vec()], 0), None, "two turns are no comparison");
    }

    #[test]
    fn the_error_of_a_mean() {
        assert_eq!((standard_error(&[]), standard_error(&[3.0])), (0.0, 0.0));
        assert!((standard_error(&[1.0, 2.0, 3.0, 4.0]) - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    }
}
