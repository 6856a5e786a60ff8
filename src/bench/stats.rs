//! Medians and percentiles.

use serde::{Deserialize, Serialize};

/// The middle value; the mean of the two middle ones where their number is even. None of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n.is_multiple_of(2) => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        _ => Some(sorted[middle]),
    }
}

/// Latencies in milliseconds, summed up. A percentile is a measured value, by nearest rank: with fewer than 1,000 samples
/// the p99.9 is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    pub sample_count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl LatencyMs {
    /// None of nothing.
    pub fn of(samples_ms: &[f64]) -> Option<Self> {
        let sorted = sorted(samples_ms);
        let rank = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted[rank.clamp(1, sorted.len()) - 1]
        };
        (!sorted.is_empty()).then(|| Self {
            sample_count: sorted.len() as u64,
            p50_ms: rank(0.5),
            p99_ms: rank(0.99),
            p999_ms: rank(0.999),
            max_ms: sorted[sorted.len() - 1],
        })
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn percentiles_are_measured_values_by_nearest_rank() {
        assert_eq!(LatencyMs::of(&[]), None);
        let backwards: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        let found = LatencyMs::of(&backwards).unwrap();
        assert_eq!((found.p50_ms, found.p99_ms, found.p999_ms, found.max_ms), (500.0, 990.0, 999.0, 1000.0));
        assert_eq!(found.sample_count, 1000);
        let one = LatencyMs::of(&[7.0]).unwrap();
        assert_eq!((one.p50_ms, one.p999_ms), (7.0, 7.0));
    }
}
