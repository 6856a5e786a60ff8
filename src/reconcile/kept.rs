//! What is kept of a comparison: a verdict a layer and a line for each thing that was compared, small enough for a page
//! and for a file.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::report::{BronzeCheck, RealtimeCheck, Report};
use super::{Verdict, layers};
use crate::batch::verify::TableCheck;
use crate::telemetry::{LayerDifference, Reconciled};

/// A comparison that came to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Kept {
    #[schemars(with = "String")]
    pub begun: DateTime<Utc>,
    #[schemars(with = "String")]
    pub ended: DateTime<Utc>,
    /// Who asked for it, or `schedule`.
    pub by: String,
    pub verdict: Verdict,
    pub layers: Vec<KeptLayer>,
    pub checks: Vec<KeptCheck>,
}

/// A layer in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeptLayer {
    /// `bronze`, `realtime`, `silver`, `gold` or `clickhouse_gold`.
    pub layer: String,
    /// What is compared with what.
    pub title: String,
    pub verdict: Verdict,
    pub summary: String,
}

/// One partition, view or table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeptCheck {
    pub layer: String,
    pub pipeline: String,
    /// As `user-events/0/2`, `realtime.events_per_minute` or `silver.user_events`.
    pub what: String,
    pub checked_rows: u64,
    pub missing_rows: u64,
    /// Also those that are there once more than they should.
    pub unknown_rows: u64,
    pub differing_rows: u64,
    pub verdict: Verdict,
    pub examples: Vec<String>,
    pub notes: Vec<String>,
    /// What to do about a difference.
    pub remedy: Option<String>,
}

impl KeptCheck {
    /// Rows that are not as they should be; at least one where it differs at all.
    pub fn wrong_rows(&self) -> u64 {
        let rows = self.missing_rows + self.unknown_rows + self.differing_rows;
        rows.max(u64::from(self.verdict == Verdict::Different))
    }
}

impl Kept {
    pub(crate) fn of(report: &Report, begun: DateTime<Utc>, ended: DateTime<Utc>, by: &str) -> Self {
        let kept = |l: &layers::LayerVerdict| KeptLayer {
            layer: l.check.to_owned(),
            title: l.layer.to_owned(),
            verdict: l.verdict,
            summary: l.summary.clone(),
        };
        let batch = &report.batch;
        let silver = batch.silver.iter().map(|s| &s.table).chain(&batch.refused);
        let tables = silver
            .map(|t| ("silver", t))
            .chain(batch.gold.iter().map(|t| ("gold", t)))
            .chain(batch.clickhouse_gold.iter().map(|t| ("clickhouse_gold", t)));
        let checks = report
            .bronze
            .iter()
            .map(of_partition)
            .chain(report.realtime.iter().map(of_view))
            .chain(tables.filter_map(|(layer, table)| of_table(layer, table)));
        Self {
            begun,
            ended,
            by: by.to_owned(),
            verdict: report.verdict,
            layers: report.layers.iter().map(kept).collect(),
            checks: checks.collect(),
        }
    }

    /// What the board is told.
    pub fn reconciled(&self) -> Reconciled {
        let mut rows: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for check in &self.checks {
            *rows.entry((&check.pipeline, &check.layer)).or_default() += check.wrong_rows();
        }
        let layer = |((pipeline, layer), rows): ((&str, &str), u64)| LayerDifference {
            pipeline: pipeline.to_owned(),
            layer: layer.to_owned(),
            rows,
        };
        Reconciled {
            ended: self.ended,
            seconds: (self.ended - self.begun).num_milliseconds() as f64 / 1e3,
            verdict: self.verdict.as_str().to_owned(),
            layers: rows.into_iter().map(layer).collect(),
        }
    }
}

fn of_partition(check: &BronzeCheck) -> KeptCheck {
    let tally = &check.tally;
    let examples = tally
        .samples()
        .iter()
        .map(|d| format!("offset {}: {}: Kafka {}, Bronze {}", d.offset, d.what, d.kafka, d.bronze));
    KeptCheck {
        layer: "bronze".to_owned(),
        pipeline: check.pipeline.clone(),
        what: format!("{}/{}/{}", check.topic, check.generation, check.partition),
        checked_rows: tally.checked,
        missing_rows: tally.lost,
        unknown_rows: tally.unknown + tally.duplicated,
        differing_rows: tally.differing,
        verdict: check.verdict,
        examples: examples.collect(),
        notes: check.notes.clone(),
        remedy: None,
    }
}

fn of_view(check: &RealtimeCheck) -> KeptCheck {
    let through =
        check.through.as_ref().map(|through| format!("windows up to {through}, which are closed at both positions"));
    KeptCheck {
        layer: "realtime".to_owned(),
        pipeline: check.pipeline.clone(),
        what: format!("realtime.{}", check.aggregate),
        checked_rows: check.checked,
        missing_rows: check.missing,
        unknown_rows: check.unknown,
        differing_rows: check.differing,
        verdict: check.verdict,
        examples: check.samples().iter().map(ToString::to_string).collect(),
        notes: through.into_iter().chain(check.notes.iter().cloned()).collect(),
        remedy: None,
    }
}

/// None where the question left it out.
fn of_table(layer: &str, check: &TableCheck) -> Option<KeptCheck> {
    Some(KeptCheck {
        layer: layer.to_owned(),
        pipeline: check.pipeline.clone(),
        what: check.table.clone(),
        checked_rows: check.checked_rows,
        missing_rows: check.missing_rows,
        unknown_rows: check.unknown_rows,
        differing_rows: check.differing_rows,
        verdict: layers::of_table(check.verdict)?,
        examples: check.examples.iter().map(layers::example).collect(),
        notes: check.notes.iter().filter(|note| !note.is_empty()).cloned().collect(),
        remedy: check.remedy.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(layer: &str, missing_rows: u64, verdict: Verdict) -> KeptCheck {
        KeptCheck {
            layer: layer.into(),
            pipeline: "p".into(),
            what: "x".into(),
            checked_rows: 10,
            missing_rows,
            unknown_rows: 0,
            differing_rows: 0,
            verdict,
            examples: Vec::new(),
            notes: Vec::new(),
            remedy: None,
        }
    }

    #[test]
    fn a_layer_that_differs_never_counts_as_none() {
        let (begun, ended) =
            (DateTime::from_timestamp_millis(0).unwrap(), DateTime::from_timestamp_millis(1_500).unwrap());
        let kept = Kept {
            begun,
            ended,
            by: "ada".into(),
            verdict: Verdict::Different,
            layers: Vec::new(),
            checks: vec![
                check("bronze", 0, Verdict::Different),
                check("silver", 2, Verdict::Different),
                check("silver", 3, Verdict::Different),
                check("gold", 0, Verdict::Same),
            ],
        };
        let told = kept.reconciled();
        let rows: Vec<(&str, u64)> = told.layers.iter().map(|l| (l.layer.as_str(), l.rows)).collect();
        assert_eq!(rows, [("bronze", 1), ("gold", 0), ("silver", 5)]);
        assert_eq!((told.seconds, told.verdict.as_str()), (1.5, "different"));
        let read: Kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(read, kept);
    }
}
