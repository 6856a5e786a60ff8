//! Drawings as SVG, made on the server: the flow, charts. Pure. No style attributes: the policy of the pages refuses
//! them, so that colours come by class from the style sheet.

pub mod chart;
pub mod flow;
mod frame;
pub mod result;
pub mod strip;

/// The least round number that is not below `max`, so that the scale is calm while values move.
fn top_of_scale(max: f64) -> f64 {
    if max <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(max.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= max * 0.999).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    #[test]
    fn scales_end_at_round_numbers() {
        let tops = [0.0, 0.3, 1.0, 1.1, 5.2, 99.0, 12_345.0].map(super::top_of_scale);
        assert_eq!(tops.map(|t| (t * 10.0).round() / 10.0), [1.0, 0.5, 1.0, 2.0, 10.0, 100.0, 20_000.0]);
    }
}
