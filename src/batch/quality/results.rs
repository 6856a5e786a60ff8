//! Results of expectations, kept in the Delta table `gold/expectation_results`: one row a check and run, by SQL too.
//! Committed as everything that batch makes: an entry that is put once, durable before anybody sees it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::prelude::SessionContext;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::entry::{checkpoint, land, protocol};
use super::super::output::{Layout, PartitionWriter};
use super::super::silver::delta_schema;
use super::super::target::Landing;
use super::super::{BatchError, Lake, Layer, encoding, gold};
use super::ExpectationResult;
use crate::bronze::{EntryWriter, table_metadata};

/// The table's name.
pub const RESULTS: &str = "expectation_results";
/// Tries of a commit: every one is behind what others have committed meanwhile. Appending is right behind anything.
const TRIES: u32 = 20;

/// A result as it was kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeptResult {
    pub pipeline: String,
    pub run_id: String,
    pub checked_at: DateTime<Utc>,
    #[serde(flatten)]
    pub result: ExpectationResult,
}

/// Keeps the results of a run of a pipeline, as of a moment.
pub(super) async fn keep(
    lake: &Lake,
    pipeline: &str,
    run_id: &str,
    at: DateTime<Utc>,
    results: &[ExpectationResult],
) -> Result<(), BatchError> {
    if results.is_empty() {
        return Ok(());
    }
    let unwritten = |e: &dyn std::fmt::Display| BatchError::unavailable(format!("gold/{RESULTS} cannot be written"), e);
    let batch = batch(pipeline, run_id, at, results).map_err(|e| unwritten(&e))?;
    let store = lake.log_store(Layer::Gold, RESULTS)?;
    let layout = Layout { store: store.clone(), schema: batch.schema(), properties: Arc::new(properties(&batch)) };
    let mut writer = PartitionWriter::new(layout, Vec::new());
    writer.write(&batch).await?;
    let adds = writer.finish().await?;
    for _ in 0..TRIES {
        let newest = match lake.open(Layer::Gold, RESULTS).await? {
            Some(table) => Some(table.snapshot().map_err(|e| unwritten(&e))?.version()),
            None => None,
        };
        let entry = entry(&batch.schema(), newest.is_none(), &adds);
        let version = newest.map_or(0, |newest| newest + 1);
        if let Landing::Landed(version) = land(&store, &format!("gold/{RESULTS}"), version, &entry).await? {
            checkpoint(lake, Layer::Gold, RESULTS, version, adds.len()).await;
            return Ok(());
        }
    }
    Err(unwritten(&"others commit all the time"))
}

/// The log entry that appends files, and makes the table where there is `none`.
fn entry(schema: &Schema, none: bool, adds: &[Value]) -> Bytes {
    let (id, now_ms) = (|| Uuid::new_v4().to_string(), Utc::now().timestamp_millis());
    let mut entry = EntryWriter::new("WRITE", json!({"mode": "Append"}), true, &id(), now_ms);
    if none {
        entry.action(protocol());
        let name = format!("gold.{RESULTS}");
        let mut metadata = table_metadata(&id(), &name, &delta_schema(schema, &[]), &[], json!({}), now_ms);
        metadata["description"] =
            json!("What expectations were held against, and how they were met: one row a check and run.");
        entry.action(json!({"metaData": metadata}));
    }
    adds.iter().for_each(|add| entry.action(add.clone()));
    entry.finish()
}

/// How the columns are written.
fn properties(batch: &RecordBatch) -> WriterProperties {
    let schema = batch.schema();
    let one = |builder: WriterPropertiesBuilder, field: &Arc<Field>| {
        let path = ColumnPath::from(field.name().as_str());
        match field.data_type() {
            DataType::Utf8 => encoding::text(builder, path),
            DataType::Boolean => builder.set_column_dictionary_enabled(path, false),
            _ => encoding::number(builder, path),
        }
    };
    schema.fields().iter().fold(encoding::properties(), one).build()
}

fn batch(
    pipeline: &str,
    run_id: &str,
    at: DateTime<Utc>,
    results: &[ExpectationResult],
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let n = results.len();
    let text = |of: &dyn Fn(&ExpectationResult) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(results.iter().map(of)))
    };
    let count = |of: &dyn Fn(&ExpectationResult) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(results.iter().map(|r| i64::try_from(of(r)).unwrap_or(i64::MAX))))
    };
    let at = TimestampMicrosecondArray::from(vec![at.timestamp_micros(); n]).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("pipeline", text(&|_| pipeline.to_owned())),
        ("run_id", text(&|_| run_id.to_owned())),
        ("checked_at", Arc::new(at)),
        ("name", text(&|r| r.name.clone())),
        ("table", text(&|r| r.table.clone())),
        ("check", text(&|r| r.check.clone())),
        ("severity", text(&|r| r.severity.clone())),
        ("holds", Arc::new(results.iter().map(|r| Some(r.holds)).collect::<BooleanArray>())),
        ("rows_checked", count(&|r| r.rows_checked)),
        ("rows_failed", count(&|r| r.rows_failed)),
        ("detail", text(&|r| r.detail.clone())),
    ];
    let kind = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(|(name, array)| kind(name, array)).collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(_, array)| array).collect())
}

/// The columns that [`rows`] reads, in their order.
pub(super) const COLUMNS: &str =
    "pipeline, run_id, checked_at, name, \"table\", \"check\", severity, holds, rows_checked, rows_failed, detail";

/// The kept results as of now, to be asked by SQL as `results`.
pub(super) struct Kept(SessionContext);

fn unreadable(e: impl std::fmt::Display) -> BatchError {
    BatchError::unavailable(format!("gold/{RESULTS} cannot be read"), e)
}

impl Kept {
    /// None before anything was checked.
    pub(super) async fn open(lake: &Lake) -> Result<Option<Self>, BatchError> {
        let Some(table) = lake.open(Layer::Gold, RESULTS).await? else { return Ok(None) };
        let session = lake.session();
        session.register_table("results", gold::provider(&table, RESULTS).await?).map_err(unreadable)?;
        Ok(Some(Self(session)))
    }

    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<RecordBatch>, BatchError> {
        let batches = async { self.0.sql(sql).await?.collect().await }.await.map_err(unreadable)?;
        batches.iter().map(gold::plain).collect()
    }
}

/// A condition on results.
pub(super) fn at_or_after(since: DateTime<Utc>) -> String {
    format!("checked_at >= '{}'", since.format("%Y-%m-%dT%H:%M:%S%.6fZ"))
}

/// The results of the last `runs` runs that checked anything, the newest first; `since` a moment, if one is given.
pub async fn kept_results(
    lake: &Lake,
    runs: usize,
    since: Option<DateTime<Utc>>,
) -> Result<Vec<KeptResult>, BatchError> {
    let Some(kept) = Kept::open(lake).await? else { return Ok(Vec::new()) };
    let since = since.map_or_else(|| "true".to_owned(), at_or_after);
    let sql = format!(
        "SELECT {COLUMNS} FROM results WHERE {since} AND run_id IN \
         (SELECT run_id FROM results WHERE {since} GROUP BY run_id ORDER BY max(checked_at) DESC LIMIT {runs}) \
         ORDER BY checked_at DESC, name"
    );
    Ok(kept.ask(&sql).await?.iter().flat_map(rows).collect())
}

pub(super) fn rows(batch: &RecordBatch) -> Vec<KeptResult> {
    let text = |i: usize, row: usize| batch.column(i).as_string::<i32>().value(row).to_owned();
    let count = |i: usize, row: usize| batch.column(i).as_primitive::<Int64Type>().value(row).unsigned_abs();
    (0..batch.num_rows())
        .map(|row| KeptResult {
            pipeline: text(0, row),
            run_id: text(1, row),
            checked_at: DateTime::from_timestamp_micros(
                batch.column(2).as_primitive::<TimestampMicrosecondType>().value(row),
            )
            .unwrap_or_default(),
            result: ExpectationResult {
                name: text(3, row),
                table: text(4, row),
                check: text(5, row),
                severity: text(6, row),
                holds: batch.column(7).as_boolean().value(row),
                rows_checked: count(8, row),
                rows_failed: count(9, row),
                detail: text(10, row),
            },
        })
        .collect()
}
