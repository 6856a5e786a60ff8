//! Quality: what rows are held against before they are served, and what is served against what Delta holds.

mod over;
mod query;
mod results;
mod served;
mod unique;

use std::collections::BTreeSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use chrono::{NaiveDate, Utc};
use datafusion::common::DataFusionError;
use datafusion::prelude::SessionContext;
use serde::Serialize;

pub use over::{Over, Stretch, kept_over};
pub use results::{KeptResult, RESULTS, kept_results};
pub use served::check_served;

use super::gold::{self, Inputs, PinnedSilver};
use super::graph::{Graph, silver_columns};
use super::{BatchError, Lake, Layer, TaskContext, TaskReport};
use crate::config::{Check, ConfigError, Expectation, Origin, Pipeline, Severity};
use crate::serving::Client;
use crate::telemetry::names;
use query::{Question, Target, Targets};
use unique::Search;

/// How an expectation was met.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExpectationResult {
    pub name: String,
    /// `silver.user_events`, `gold.fact_events`.
    pub table: String,
    /// What is checked, as in the configuration; `served` for the comparison of Delta and ClickHouse.
    pub check: String,
    /// `warn`, `quarantine` or `fail`.
    pub severity: String,
    pub holds: bool,
    pub rows_checked: u64,
    pub rows_failed: u64,
    /// What was looked at, in words; with a failure, what is wrong.
    pub detail: String,
}

/// An expectation and where it stands.
struct Placed<'a> {
    expectation: &'a Expectation,
    on: Option<String>,
    origin: Origin,
}

fn all<'a>(pipeline: &'a Pipeline, graph: &'a Graph) -> Vec<Placed<'a>> {
    let ours =
        pipeline.expectations.iter().map(|e| Placed { expectation: e, on: e.on.clone(), origin: e.origin.clone() });
    let models = graph.nodes.iter().flat_map(|n| {
        n.model.header.expectations.iter().map(|(e, line)| Placed {
            expectation: e,
            on: Some(format!("gold.{}", n.model.name)),
            origin: Origin::File { path: n.model.file.clone(), line: Some(*line) },
        })
    });
    ours.chain(models).collect()
}

/// What is wrong with a pipeline's expectations.
pub(super) fn mistakes(pipeline: &Pipeline, graph: &Graph) -> Vec<ConfigError> {
    let targets = Targets::new(pipeline, graph, &silver_columns(pipeline));
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    for placed in all(pipeline, graph) {
        let name = &placed.expectation.name;
        let mut add = |message: String| {
            let message = format!("expectation `{name}` of {}: {message}", pipeline.name);
            found.push(ConfigError { origin: placed.origin.clone(), message, hint: None });
        };
        if !names.insert(name.clone()) {
            add("there is another one of that name".into());
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            add("names are of small letters, digits and underscores".into());
        }
        let checked = targets.find(placed.on.as_deref()).and_then(|target| {
            query::severity(placed.expectation, target)?;
            query::question(placed.expectation, target, &targets)
        });
        if let Err(message) = checked {
            add(message);
        }
    }
    found
}

/// A condition on single rows whose breach refuses the row on its way into silver: its name and the SQL predicate that
/// holds for a good row.
pub fn quarantine(pipeline: &Pipeline) -> Result<Vec<(String, String)>, BatchError> {
    let targets = Targets::new(pipeline, &Graph::default(), &silver_columns(pipeline));
    let silver = targets.find(None).map_err(|e| wrong(pipeline, e))?;
    let refusing = pipeline.expectations.iter().filter(|e| e.severity == Severity::Quarantine);
    refusing.map(|e| Ok((e.name.clone(), query::row_predicate(e, silver).map_err(|m| wrong(pipeline, m))?))).collect()
}

fn wrong(pipeline: &Pipeline, message: String) -> BatchError {
    BatchError::refused(format!("the expectations of {} are wrong", pipeline.name), message, "run `boathouse validate`")
}

/// What expectations are held against.
pub(super) struct Held<'a> {
    pub graph: &'a Graph,
    pub silver: &'a PinnedSilver,
    /// The dates that are about to be served; none where nothing is: then the newest one, and those expectations alone
    /// whose answer changes with the time that passes. That nothing comes any more is what they are for.
    pub dates: &'a BTreeSet<NaiveDate>,
}

/// Holds silver and gold against the expectations. Nothing is decided here: see [`verdict`].
async fn check_expectations(
    lake: &Lake,
    pipeline: &Pipeline,
    Held { graph, silver, dates }: Held<'_>,
    task: &TaskContext,
) -> Result<Vec<ExpectationResult>, BatchError> {
    let mut placed = all(pipeline, graph);
    let mut dates = dates.clone();
    if dates.is_empty() {
        placed.retain(|placed| placed.expectation.check == Check::Freshness);
    }
    if placed.is_empty() {
        return Ok(Vec::new());
    }
    if dates.is_empty() {
        dates.extend(silver.dates().await?.last());
    }
    let mut inputs = Inputs::default();
    inputs.silver(&pipeline.name, gold::provider(&silver.table, &pipeline.name).await?);
    for node in &graph.nodes {
        let name = &node.model.name;
        let Some(table) = lake.open(Layer::Gold, name).await? else {
            let cause = "silver to gold must run first";
            return Err(BatchError::unavailable(format!("gold/{name} is not there yet"), cause));
        };
        inputs.model(node, gold::provider(&table, name).await?);
    }
    let targets = Targets::new(pipeline, graph, &silver_columns(pipeline));
    let mut results = Vec::new();
    for placed in &placed {
        task.check()?;
        let target = targets.find(placed.on.as_deref()).map_err(|e| wrong(pipeline, e))?;
        let question = query::question(placed.expectation, target, &targets).map_err(|e| wrong(pipeline, e))?;
        let result = ask(lake, &inputs, &dates, placed.expectation, target, &question).await?;
        note(pipeline, &result, task);
        results.push(result);
    }
    Ok(results)
}

/// Whether what was checked may be served.
pub fn verdict(results: &[ExpectationResult]) -> Result<(), BatchError> {
    let broken: Vec<String> = results
        .iter()
        .filter(|r| !r.holds && r.severity == Severity::Fail.as_str())
        .map(|r| format!("{} ({}, {})", r.name, r.table, r.detail))
        .collect();
    if broken.is_empty() {
        return Ok(());
    }
    let remedy = "mend the data or the model and run again, or lower the expectation's severity; nothing was served";
    Err(BatchError::refused("expectations do not hold", broken.join("; "), remedy))
}

/// Checks expectations, keeps the results, and answers an error where one with the severity `fail` is broken.
pub(super) async fn hold_expectations(
    lake: &Lake,
    pipeline: &Pipeline,
    held: Held<'_>,
    run_id: &str,
    task: &TaskContext,
) -> Result<(), BatchError> {
    let results = check_expectations(lake, pipeline, held, task).await?;
    results::keep(lake, &pipeline.name, run_id, Utc::now(), &results).await?;
    verdict(&results)
}

/// Compares what ClickHouse serves with Delta and keeps the results. A difference is an error.
pub async fn data_quality_checks(
    lake: &Lake,
    pipeline: &Pipeline,
    client: &Client,
    run_id: &str,
    task: &TaskContext,
) -> Result<TaskReport, BatchError> {
    let results = check_served(lake, pipeline, client, task).await?;
    results::keep(lake, &pipeline.name, run_id, Utc::now(), &results).await?;
    if let Some(broken) = results.iter().find(|r| !r.holds) {
        let remedy = "was a table in ClickHouse changed by hand? `boathouse sql --on clickhouse \"DROP TABLE gold.progress\"`, \
                      and the next run publishes every date again";
        return Err(BatchError::refused(format!("{} is not what Delta holds", broken.table), &broken.detail, remedy));
    }
    let rows = results.iter().map(|r| r.rows_checked).sum();
    let summary = format!("{} views serve the same {rows} rows as Delta", results.len());
    Ok(TaskReport { rows_in: rows, rows_out: rows, summary, ..TaskReport::default() })
}

fn note(pipeline: &Pipeline, result: &ExpectationResult, task: &TaskContext) {
    let outcome = if result.holds { "holds" } else { "broken" };
    names::EXPECTATIONS.add(1, &[&pipeline.name, &result.name, &result.severity, outcome]);
    if result.holds {
        task.info(format!("{} on {}: holds, {}", result.name, result.table, result.detail));
    } else {
        task.warn(format!("{} on {}: does not hold, {}", result.name, result.table, result.detail));
    }
}

async fn ask(
    lake: &Lake,
    inputs: &Inputs,
    dates: &BTreeSet<NaiveDate>,
    expectation: &Expectation,
    target: &Target,
    question: &Question,
) -> Result<ExpectationResult, BatchError> {
    let failed =
        |e: DataFusionError| BatchError::engine(format!("expectation {} cannot be checked", expectation.name), &e);
    let mut seen = dates.clone();
    if expectation.check == Check::RowCount {
        // Of a day that is not over, nothing can be said.
        seen.retain(|d| *d < chrono::Utc::now().date_naive());
        seen.extend(seen.clone().iter().filter_map(NaiveDate::pred_opt));
    }
    let session = inputs.dates(lake, &seen).map_err(failed)?;
    let place = match (dates.first(), &target.date) {
        (Some(first), Some(_)) if dates.len() > 1 => format!("{} dates from {first}", dates.len()),
        (Some(first), Some(_)) => first.to_string(),
        _ => "all rows".into(),
    };
    let broken = |checked: u64, failed: u64| (checked, failed, format!("{failed} of {checked} break it, {place}"));
    let (rows_checked, rows_failed, detail) = match question {
        Question::Unique { columns, from } => {
            let (checked, failed) =
                Search::new(&session, columns, from, lake.memory() / 2).count().await.map_err(failed)?;
            broken(checked, failed)
        }
        Question::Counts(sql) => {
            let batches = rows(&session, sql).await.map_err(failed)?;
            let row = batches.iter().find(|b| b.num_rows() > 0);
            let count = |i: usize| {
                let column = arrow::compute::cast(row?.column(i), &arrow::datatypes::DataType::Int64).ok()?;
                u64::try_from(column.as_primitive::<Int64Type>().value(0)).ok()
            };
            broken(count(0).unwrap_or(0), count(1).unwrap_or(0))
        }
        Question::Newest(sql) => {
            let batches = rows(&session, sql).await.map_err(failed)?;
            let newest = batches.iter().find(|b| b.num_rows() > 0).and_then(|b| {
                let times = b.column(0).as_primitive_opt::<TimestampMicrosecondType>()?;
                (!arrow::array::Array::is_null(times, 0)).then(|| times.value(0))
            });
            let within = expectation.within.unwrap_or_default();
            let behind = newest.map(|t| chrono::Utc::now().timestamp_micros() - t);
            let fresh = behind.is_some_and(|b| u128::try_from(b).is_ok_and(|b| b <= within.as_micros()) || b < 0);
            let detail =
                behind.map_or("there is none".to_owned(), |b| format!("the newest is {} s old", b / 1_000_000));
            (u64::from(newest.is_some()), u64::from(!fresh), detail)
        }
    };
    Ok(ExpectationResult {
        name: expectation.name.clone(),
        table: target.to_string(),
        check: expectation.check.as_str().to_owned(),
        severity: expectation.severity.as_str().to_owned(),
        holds: rows_failed == 0,
        rows_checked,
        rows_failed,
        detail,
    })
}

async fn rows(session: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
    session.sql(sql).await?.collect().await
}
