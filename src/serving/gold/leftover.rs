//! What is left in the database `gold` of models that nobody serves any more. It is only found here, and dropped where
//! somebody asks for it by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::super::client::Client;
use super::super::error::Error;
use super::table;
use super::tables::{TableInfo, rows_of, shown};

/// What is left of a served model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GoldLeftover {
    /// The pipeline whose view is there; none where only tables of rows are left.
    pub pipeline: Option<String>,
    /// The tables of rows.
    pub tables: Vec<String>,
    pub rows: u64,
    pub bytes: u64,
}

impl Client {
    /// The views that Boathouse has made and that are none of `served`, with their tables of rows, by the name of the
    /// view. What others have put into the database is not among them.
    pub async fn gold_leftovers(&self, served: &BTreeSet<String>) -> Result<BTreeMap<String, GoldLeftover>, Error> {
        Ok(leftovers(&self.gold_tables().await?, served))
    }

    /// Drops what [`Self::gold_leftovers`] has found: the view first, so that nobody reads it half.
    pub async fn drop_gold_leftover(&self, view: &str, left: &GoldLeftover) -> Result<(), Error> {
        if left.pipeline.is_some() {
            self.drop_gold_view(view, "which no model has").await?;
        }
        for name in &left.tables {
            let what = format!("drop gold.{name}, which no model has");
            self.execute(&what, &format!("DROP TABLE IF EXISTS {}", table(name))).await?;
        }
        Ok(())
    }
}

fn leftovers(found: &BTreeMap<String, TableInfo>, served: &BTreeSet<String>) -> BTreeMap<String, GoldLeftover> {
    let mut left: BTreeMap<String, GoldLeftover> = BTreeMap::new();
    for (name, info) in found {
        if let Some(view) = rows_of(name).filter(|view| info.holds_rows() && !served.contains(*view)) {
            let left = left.entry(view.to_owned()).or_default();
            left.tables.push(name.clone());
            left.rows += info.rows;
            left.bytes += info.bytes;
        }
        if let Some(shown) = shown(info).filter(|_| !served.contains(name)) {
            left.entry(name.clone()).or_default().pipeline = Some(shown.pipeline);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_boathouse_made_and_nobody_serves_is_left_over() {
        let table = |engine: &str, comment: &str| TableInfo {
            engine: engine.into(),
            comment: comment.into(),
            rows: 3,
            bytes: 40,
        };
        let ours = r#"boathouse {"pipeline":"shop","tables":["gone_rows_0a1b2c3d"]}"#;
        let found = BTreeMap::from([
            ("published".into(), table("ReplacingMergeTree", "")),
            ("dau".into(), table("View", &ours.replace("gone", "dau"))),
            ("dau_rows_0a1b2c3d".into(), table("ReplacingMergeTree", "")),
            ("gone".into(), table("View", ours)),
            ("gone_rows_0a1b2c3d".into(), table("SharedReplacingMergeTree", "")),
            ("gone_rows_ffffffff".into(), table("ReplacingMergeTree", "")),
            ("rows_rows_00000000".into(), table("ReplacingMergeTree", "")),
            // Somebody else's.
            ("report".into(), table("View", "mine")),
            ("report_rows_old".into(), table("ReplacingMergeTree", "")),
            ("report_rows_0a1b2c3d".into(), table("Memory", "")),
        ]);
        let left = leftovers(&found, &BTreeSet::from(["dau".to_owned()]));
        let tables = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let gone = GoldLeftover {
            pipeline: Some("shop".into()),
            tables: tables(&["gone_rows_0a1b2c3d", "gone_rows_ffffffff"]),
            rows: 6,
            bytes: 80,
        };
        let rows = GoldLeftover { pipeline: None, tables: tables(&["rows_rows_00000000"]), rows: 3, bytes: 40 };
        assert_eq!(left, BTreeMap::from([("gone".into(), gone), ("rows".into(), rows)]));
    }
}
