//! The Delta tables: whether their logs are sound and their files of a good size.

use super::{Finding, days};
use crate::batch::upkeep::{TableSummary, summary};
use crate::batch::{Lake, Layer};
use crate::bronze;
use crate::cli::lake::Lake as Catalog;
use crate::config::{Config, Pipeline};

/// Small files that a table may have before its readers feel them.
const SMALL_FILES_MOST: usize = 1_000;

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let uri = &config.server.lakehouse.uri;
    let mut findings = Vec::new();
    for pipeline in &config.pipelines {
        findings.extend(reach(pipeline));
        let check = format!("log of bronze.{}", pipeline.name);
        match bronze::damaged_tail(uri, &pipeline.name).await {
            Ok(None) => findings.push(Finding::ok(check, "sound")),
            Ok(Some(tail)) => findings.push(Finding::fail(
                check,
                format!("damaged from version {} on: {}", tail.from, tail.what),
                format!("boathouse bronze repair-log {}", pipeline.name),
            )),
            Err(error) => findings.push(Finding::fail(check, error.to_string(), "look at the rights on lakehouse.uri")),
        }
    }
    let opened = Lake::new(&config.server).map_err(anyhow::Error::from).and_then(|lake| {
        let tables = Catalog::open(Some(uri))?.tables();
        Ok((lake, tables))
    });
    let (lake, tables) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            findings.push(Finding::fail("tables", format!("{error:#}"), "look at lakehouse.uri and its rights"));
            return findings;
        }
    };
    if tables.is_empty() {
        findings.push(Finding::ok("tables", "none yet: the daemon and the batch make them"));
    }
    for table in tables {
        let Some((layer, name)) = table.split_once('.') else { continue };
        let Some(layer) = Layer::named(layer) else { continue };
        match summary(&lake, layer, name).await {
            Ok(None) => {}
            Ok(Some(found)) => findings.push(judge(&table, &found)),
            Err(error) => findings.push(Finding::fail(
                format!("table {table}"),
                error.to_string(),
                "put its files back from a backup; silver and gold can also be made again from Bronze: docs/operations.md",
            )),
        }
    }
    findings
}

/// How far back silver can be made again, where that is less than it is kept.
fn reach(pipeline: &Pipeline) -> Option<Finding> {
    let bronze = pipeline.retention.bronze?;
    let silver = pipeline.retention.silver;
    silver.is_none_or(|silver| silver > bronze).then(|| {
        let (kept, bronze) = (silver.map_or("for ever".to_owned(), days), days(bronze));
        Finding::ok(
            format!("retention of {}", pipeline.name),
            format!(
                "silver is kept {kept}; changed rules, backfills and a new silver reach back {bronze}, as Bronze does"
            ),
        )
    })
}

fn judge(table: &str, t: &TableSummary) -> Finding {
    let check = format!("table {table}");
    let found = format!("version {}, {} rows in {} files, {} of them small", t.version, t.rows, t.files, t.files_small);
    if t.files_small > SMALL_FILES_MOST {
        return Finding::warn(check, found, format!("boathouse tables optimize {table}"));
    }
    Finding::ok(check, found)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn it_is_told_how_far_back_silver_can_be_made_again() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/boathouse.toml");
        let mut pipeline = Pipeline::clone(&Config::load(Some(&file)).unwrap().pipelines[0]);
        let days = |n: u64| Some(std::time::Duration::from_secs(n * 24 * 3600));
        let mut told = |bronze, silver| {
            (pipeline.retention.bronze, pipeline.retention.silver) = (bronze, silver);
            reach(&pipeline).map(|finding| finding.found)
        };
        assert_eq!(told(None, None), None);
        assert_eq!(told(days(60), days(60)), None);
        assert!(told(days(60), None).is_some_and(|found| found.contains("kept for ever") && found.contains("60 days")));
    }

    #[test]
    fn many_small_files_are_worth_a_word() {
        let table =
            |files_small| TableSummary { version: 9, files: 2_000, files_small, bytes: 1, rows: 1, log_entries: 1 };
        assert_eq!(judge("bronze.a", &table(10)).state, State::Ok);
        let many = judge("bronze.a", &table(1_500));
        assert_eq!((many.state, many.advice.as_deref()), (State::Warn, Some("boathouse tables optimize bronze.a")));
    }
}
