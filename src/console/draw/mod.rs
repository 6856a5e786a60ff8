//! Drawings as SVG, made on the server: the flow, charts. Pure. No style attributes: the policy of the pages refuses
//! them, so that colours come by class from the style sheet.

pub mod chart;
pub mod flow;
