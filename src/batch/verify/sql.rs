//! A pipeline's rules for silver in SQL over Bronze, written a second time.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::NaiveDate;
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::DataFrame;
use futures::{StreamExt, TryStreamExt};

use super::super::gold::{conform, days_since_epoch};
use super::super::quoting::{identifier, literal, value};
use super::super::{BatchError, quarantine};
use super::rows::{Layout, Ordered, Tally, compare};
use crate::config::{FieldType, Pipeline, Role};
use crate::event::EVENT_TIME_COLUMN;

/// Whether an instant is an event's at all: what parsed and whose clock is not ahead.
const IS_EVENT: &str = "time_status in ('ok', 'late')";

/// The reasons for which a row is refused: name, and the condition under which it has it.
fn reasons(pipeline: &Pipeline) -> Result<Vec<(String, String)>, BatchError> {
    let mut reasons = vec![("future".to_owned(), "time_status = 'future'".to_owned())];
    for field in &pipeline.fields {
        let name = if field.role == Some(Role::EventTime) { EVENT_TIME_COLUMN } else { &field.name };
        let column = identifier(name);
        let mut wrong = Vec::new();
        if field.required {
            wrong.push(format!("{column} is null"));
        }
        match &field.allowed {
            Some(values) => {
                let ones: Vec<String> = values.iter().map(|v| format!("{column} = {}", value(v))).collect();
                wrong.push(match ones.is_empty() {
                    true => format!("{column} is not null"),
                    false => format!("not ({})", ones.join(" or ")),
                });
            }
            None if field.required && field.kind == FieldType::String => wrong.push(format!("length({column}) = 0")),
            None => {}
        }
        if !wrong.is_empty() {
            reasons.push((format!("invalid:{}", field.name), wrong.join(" or ")));
        }
    }
    for (name, holds) in quarantine(pipeline)? {
        reasons.push((format!("expectation:{name}"), format!("({holds}) is false")));
    }
    Ok(reasons)
}

/// The condition under which a row of Bronze is kept.
pub fn kept(pipeline: &Pipeline) -> Result<String, BatchError> {
    let reasons = reasons(pipeline)?;
    let broken: Vec<String> = reasons.iter().map(|(_, condition)| format!("({condition})")).collect();
    Ok(format!("({IS_EVENT}) and ({}) is not true", broken.join(" or ")))
}

/// The reasons of a row as one text; null where there is none. What is no event has no fields to be judged.
pub fn reasons_text(pipeline: &Pipeline) -> Result<String, BatchError> {
    let cases: Vec<String> = reasons(pipeline)?
        .into_iter()
        .map(|(name, condition)| format!("case when {condition} then {} end", literal(&name)))
        .collect();
    Ok(format!(
        "case when time_status not in ('ok', 'late', 'future') or time_status is null then 'unparsed' \
         else nullif(concat_ws(', ', {}), '') end",
        cases.join(", ")
    ))
}

/// A copy's place among those of its event, from 1: the first one stays.
pub fn copy_number(pipeline: &Pipeline) -> Result<String, BatchError> {
    let id = pipeline.role(Role::EventId).map(|i| identifier(&pipeline.fields[i].name)).ok_or_else(|| {
        BatchError::refused(
            format!("pipeline {}", pipeline.name),
            "no field has the role `event_id`",
            "give the role to one field of pipeline.toml",
        )
    })?;
    Ok(format!(
        "row_number() over (partition by {id}, date_trunc('hour', {EVENT_TIME_COLUMN}) \
         order by kafka_timestamp asc nulls last, generation asc, partition asc, \"offset\" asc)"
    ))
}

/// Whether a column of dates lies between two, both included.
pub fn between(column: &str, first: NaiveDate, last: NaiveDate) -> Expr {
    let day = |date| lit(ScalarValue::Date32(Some(days_since_epoch(date))));
    col(Column::from_name(column)).between(day(first), day(last))
}

/// Whether a column of instants lies on a date or between two, both included (UTC).
pub fn on_dates(column: &str, first: NaiveDate, last: NaiveDate) -> Expr {
    const DAY: i64 = 86_400_000_000;
    let at = |days: i64| lit(ScalarValue::TimestampMicrosecond(Some(days * DAY), Some("UTC".into())));
    let (first, end) = (i64::from(days_since_epoch(first)), i64::from(days_since_epoch(last)) + 1);
    let column = || col(Column::from_name(column));
    column().gt_eq(at(first)).and(column().lt(at(end)))
}

/// A frame's rows in the order of columns, in the types of a schema.
pub async fn ordered(
    frame: DataFrame,
    by: &[&str],
    schema: SchemaRef,
    what: &str,
) -> Result<Ordered<'static>, BatchError> {
    let what = format!("the rows of {what} cannot be read");
    let order = by.iter().map(|c| col(Column::from_name(*c)).sort(true, true)).collect();
    let failed = |e: DataFusionError| BatchError::engine(what.clone(), &e);
    let stream = async { frame.sort(order)?.execute_stream().await }.await.map_err(failed)?;
    let batches = stream.map(move |batch| {
        let batch = batch.map_err(|e| BatchError::engine(what.clone(), &e))?;
        conform(&batch, &schema).map_err(|e| BatchError::unavailable(what.clone(), e))
    });
    Ok(batches.boxed())
}

/// Rows to be compared, and where they are from, for errors.
pub type Side<'a> = (DataFrame, &'a str);

/// Compares the rows of two sides, both in the layout's order.
pub async fn compare_in_order(
    layout: &Layout,
    expected: Side<'_>,
    found: Side<'_>,
    tally: &mut Tally,
    each: &(dyn Fn(u64) + Sync),
) -> Result<(), BatchError> {
    let by: Vec<&str> = layout.key.iter().map(|at| layout.schema.field(*at).name().as_str()).collect();
    let expected = ordered(expected.0, &by, layout.schema.clone(), expected.1).await?;
    let found = ordered(found.0, &by, layout.schema.clone(), found.1).await?;
    compare(layout, expected, found, tally, each).await
}

/// All rows of a short answer.
pub async fn collect(frame: DataFrame, what: &str) -> Result<Vec<RecordBatch>, BatchError> {
    let failed = |e: DataFusionError| BatchError::engine(format!("{what} cannot be read"), &e);
    let stream = frame.execute_stream().await.map_err(failed)?;
    stream.try_collect().await.map_err(failed)
}
