//! The gold models: whether they fit together, and what is left of those that are gone.

use super::Finding;
use crate::batch::leftover::{delta_leftovers, served_leftovers};
use crate::batch::{Graph, Lake, check_models};
use crate::cli::output::count;
use crate::config::Config;
use crate::serving::Client;

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let graphs = match check_models(&config.pipelines) {
        Ok(graphs) => graphs,
        Err(mistakes) => {
            let first = mistakes.0.first().map(|m| format!("{}: {}", m.origin, m.message)).unwrap_or_default();
            return vec![Finding::fail("models", first, "correct what `boathouse validate` lists")];
        }
    };
    let models: usize = graphs.iter().map(|graph| graph.nodes.len()).sum();
    let (delta, served) = (in_lakehouse(config, &graphs).await, in_clickhouse(config, &graphs).await);
    // What does not answer is told of by the checks of ClickHouse and of the tables.
    let nothing = |left: &Option<Vec<Finding>>| left.as_ref().is_some_and(Vec::is_empty);
    let others = if nothing(&delta) && nothing(&served) { ", and nothing is left of others" } else { "" };
    let mut findings = vec![Finding::ok("models", format!("{models} models{others}"))];
    let notes: usize = graphs.iter().flat_map(|graph| &graph.nodes).map(|node| node.remarks.len()).sum();
    if notes > 0 {
        let found = format!("rows of models may come out differently when they are computed again, in {notes} places");
        findings.push(Finding::warn("models", found, "boathouse validate notes each with its line"));
    }
    findings.extend(delta.into_iter().flatten().chain(served.into_iter().flatten()));
    findings
}

async fn in_lakehouse(config: &Config, graphs: &[Graph]) -> Option<Vec<Finding>> {
    let left = delta_leftovers(&Lake::new(&config.server).ok()?, graphs).await.ok()?;
    let told = left.into_iter().map(|(name, t)| left_over(&name, "the lakehouse has its Delta table", t.rows, t.bytes));
    Some(told.collect())
}

async fn in_clickhouse(config: &Config, graphs: &[Graph]) -> Option<Vec<Finding>> {
    let left = served_leftovers(&Client::new(&config.server.clickhouse).ok()?, graphs).await.ok()?;
    let told = left.into_iter().map(|(name, s)| {
        let there = match s.pipeline {
            Some(pipeline) => format!("ClickHouse has a view of pipeline {pipeline} and its tables"),
            None => "ClickHouse has its tables".into(),
        };
        left_over(&name, &there, s.rows, s.bytes)
    });
    Some(told.collect())
}

fn left_over(name: &str, there: &str, rows: u64, bytes: u64) -> Finding {
    Finding::warn(
        format!("gold.{name}"),
        format!("no model makes it any more, and {there}: {} rows of {} bytes", count(rows), count(bytes)),
        format!("bring the model back, or boathouse tables drop gold.{name} (with --dry-run it only says what)"),
    )
}
