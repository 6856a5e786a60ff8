//! What ClickHouse serves, compared row by row with what Delta holds.

use bytes::BytesMut;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{col, lit};
use futures::StreamExt;

use super::super::gold::{self, PinnedSilver, date_of, days_since_epoch};
use super::super::publish::{served_error, served_model};
use super::super::{BatchError, Lake, TaskContext};
use super::{ExpectationResult, note};
use crate::config::{Pipeline, Severity};
use crate::serving::{Client, ServedModel, gold_row_binary};

/// Compares what ClickHouse serves with Delta, value by value, on the dates of the last publication. A difference has the
/// severity `fail`: the run ends with an error, and the next publication must be looked at.
pub async fn check_served(
    lake: &Lake,
    pipeline: &Pipeline,
    client: &Client,
    task: &TaskContext,
) -> Result<Vec<ExpectationResult>, BatchError> {
    let graph = gold::graph(pipeline)?;
    let Some(silver) = PinnedSilver::newest(lake, pipeline).await? else { return Ok(Vec::new()) };
    let Some(standing) = client.gold_standing(&pipeline.name).await.map_err(served_error)? else {
        return Ok(Vec::new());
    };
    let days = client.days_of_version(&pipeline.name, standing.version).await.map_err(served_error)?;
    let mut results = Vec::new();
    for node in graph.served() {
        task.check()?;
        let Some(model) = served_model(node) else { continue };
        let loaded = gold::load(lake, &node.model.name, &silver.id).await?;
        let Some(table) = loaded.table else { continue };
        let mut result = ExpectationResult {
            name: format!("{}_is_served", model.view),
            table: format!("gold.{}", node.model.name),
            check: "served".into(),
            severity: Severity::Fail.as_str().into(),
            holds: true,
            rows_checked: 0,
            rows_failed: 0,
            detail: String::new(),
        };
        if loaded.standing.silver != Some(standing.mark.version) {
            // Another run has gone on: what it computed is compared when it is published.
            result.detail = "not compared: gold is newer than what is served".into();
        } else {
            let provider = gold::provider(&table, &node.model.name).await?;
            let (rows, expected) = expected(lake, &model, provider, &days).await?;
            let served = client.served_rows(&model, &days).await.map_err(served_error)?;
            result.rows_checked = rows;
            result.holds = expected[..] == served[..];
            if !result.holds {
                let found = client.count_served(&model, &days).await.map_err(served_error)?;
                result.rows_failed = rows.abs_diff(found).max(1);
                result.detail = format!("{rows} rows in Delta, {found} served, and they are not the same");
            } else {
                result.detail = format!("{rows} rows on {} dates are the same", days.len());
            }
        }
        note(pipeline, &result, task);
        results.push(result);
    }
    Ok(results)
}

/// Delta's rows of these days in the order of the grain, in RowBinary; and their number.
async fn expected(
    lake: &Lake,
    model: &ServedModel,
    table: std::sync::Arc<dyn datafusion::catalog::TableProvider>,
    days: &[u16],
) -> Result<(u64, BytesMut), BatchError> {
    let unreadable = |e| BatchError::unavailable(format!("the rows of gold.{} cannot be read", model.view), e);
    let wanted =
        days.iter().filter_map(|d| date_of(i32::from(*d))).map(|d| lit(ScalarValue::Date32(Some(days_since_epoch(d)))));
    let wanted: Vec<_> = wanted.collect();
    let (mut rows, mut buffer) = (0, BytesMut::new());
    if wanted.is_empty() {
        return Ok((rows, buffer));
    }
    let order = model.order().map(|c| col(Column::from_name(c)).sort(true, false)).collect();
    let read = async {
        let frame = lake.session().read_table(table)?;
        let frame = frame.filter(col(Column::from_name(&model.date)).in_list(wanted, false))?;
        frame.sort(order)?.execute_stream().await
    };
    let mut batches = read.await.map_err(unreadable)?;
    while let Some(batch) = batches.next().await {
        let batch = gold::plain(&batch.map_err(unreadable)?)?;
        rows += batch.num_rows() as u64;
        gold_row_binary(model, None, &batch, &mut buffer).map_err(|e| {
            BatchError::refused(format!("a row of gold.{} cannot be served", model.view), e, "mend its model")
        })?;
    }
    Ok((rows, buffer))
}
