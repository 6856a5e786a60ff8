//! A model's SQL, run: for one date over that date's rows alone, or whole for a snapshot.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use chrono::{Datelike, Days, NaiveDate};
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::{Column, DataFusionError, ScalarValue, TableReference};
use datafusion::datasource::MemTable;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::{DataFrame, SessionContext};

use super::super::error::lack;
use super::super::graph::{CATALOG, GOLD, Node, SILVER};
use super::super::yielding::was_cancelled;
use super::super::{BatchError, Lake};

/// The tables that models read, each at the version that this run has pinned.
#[derive(Clone, Default)]
pub struct Inputs {
    tables: HashMap<(&'static str, String), Input>,
}

#[derive(Clone)]
struct Input {
    provider: Arc<dyn TableProvider>,
    /// The column of the date, for tables by date.
    partition: Option<String>,
}

impl Inputs {
    /// Pins the pipeline's silver table.
    pub fn silver(&mut self, pipeline: &str, provider: Arc<dyn TableProvider>) {
        let partition = Some(super::DATE_COLUMN.to_owned());
        self.tables.insert((SILVER, pipeline.to_owned()), Input { provider, partition });
    }

    /// Pins a model's table.
    pub fn model(&mut self, node: &Node, provider: Arc<dyn TableProvider>) {
        let partition = node.model.header.partition.clone();
        self.tables.insert((GOLD, node.model.name.clone()), Input { provider, partition });
    }

    /// A session over the tables; of those by date it holds the rows that `rows` chooses by the date's column.
    fn session(&self, lake: &Lake, rows: Option<&dyn Fn(&str) -> Expr>) -> Result<SessionContext, DataFusionError> {
        let session = lake.session();
        let catalog = MemoryCatalogProvider::new();
        for schema in [SILVER, GOLD] {
            catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
        }
        session.register_catalog(CATALOG, Arc::new(catalog));
        for ((schema, name), input) in &self.tables {
            let table: Arc<dyn TableProvider> = match (rows, &input.partition) {
                (Some(rows), Some(partition)) => {
                    session.read_table(input.provider.clone())?.filter(rows(partition))?.into_view()
                }
                _ => input.provider.clone(),
            };
            session.register_table(TableReference::full(CATALOG, *schema, name.as_str()), table)?;
        }
        Ok(session)
    }

    /// A session over the rows of some dates; snapshots are there whole. A bare name is a model's.
    pub fn dates(&self, lake: &Lake, dates: &BTreeSet<NaiveDate>) -> Result<SessionContext, DataFusionError> {
        let days: Vec<Expr> = dates.iter().map(|d| day(*d)).collect();
        let rows = move |column: &str| named(column).in_list(days.clone(), false);
        Ok(bare_names(&self.session(lake, Some(&rows))?))
    }

    /// The rows of one date of a model. Its SQL sees only what they may depend on: that date and `lookback_days` before
    /// it. Computing a date alone or all dates one after the other thus gives the same rows, whatever the SQL.
    pub async fn date(&self, lake: &Lake, node: &Node, date: NaiveDate) -> Result<Rows, BatchError> {
        Rows::of(self.frame_of_date(lake, node, date).await?, node).await
    }

    /// [`Self::date`] as a plan, for those who want the rows in an order.
    pub async fn frame_of_date(&self, lake: &Lake, node: &Node, date: NaiveDate) -> Result<DataFrame, BatchError> {
        let header = &node.model.header;
        let planned = async {
            let rows = |column: &str| within(column, date, header.lookback_days);
            let session = self.session(lake, Some(&rows))?;
            let frame = query(&session, node).await?;
            match &header.partition {
                Some(partition) => frame.filter(within(partition, date, 0)),
                None => Ok(frame),
            }
        };
        planned.await.map_err(|e| failed(node, &e))
    }

    /// All rows of a snapshot.
    pub async fn snapshot(&self, lake: &Lake, node: &Node) -> Result<Rows, BatchError> {
        Rows::of(self.frame_of_snapshot(lake, node).await?, node).await
    }

    /// [`Self::snapshot`] as a plan.
    pub async fn frame_of_snapshot(&self, lake: &Lake, node: &Node) -> Result<DataFrame, BatchError> {
        let planned = async { query(&self.session(lake, None)?, node).await };
        planned.await.map_err(|e| failed(node, &e))
    }
}

async fn query(session: &SessionContext, node: &Node) -> Result<DataFrame, DataFusionError> {
    bare_names(session).sql(&node.model.sql).await
}

/// A session in which a bare name is a model's.
fn bare_names(session: &SessionContext) -> SessionContext {
    let state = session.state();
    // A new state would otherwise put an empty catalog of that name in the place of ours.
    let config = state.config().clone().with_default_catalog_and_schema(CATALOG, GOLD);
    let config = config.with_create_default_catalog_and_schema(false);
    SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_config(config).build())
}

/// Whether a column lies on a date or at most so many days before it.
fn within(column: &str, date: NaiveDate, days_before: u32) -> Expr {
    let first = date.checked_sub_days(Days::new(days_before.into())).unwrap_or(date);
    if first == date { named(column).eq(day(date)) } else { named(column).between(day(first), day(date)) }
}

/// A column by its name as the table has it.
fn named(column: &str) -> Expr {
    col(Column::from_name(column))
}

fn day(date: NaiveDate) -> Expr {
    lit(ScalarValue::Date32(Some(days_since_epoch(date))))
}

/// Arrow's and Parquet's count of a date.
pub fn days_since_epoch(date: NaiveDate) -> i32 {
    // 1 January 1970 is day 719,163 of the common era.
    date.num_days_from_ce() - 719_163
}

/// The date of Arrow's count.
pub fn date_of(days: i32) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(days.checked_add(719_163)?)
}

/// Rows as they come, in the types of the model's table.
pub struct Rows {
    stream: SendableRecordBatchStream,
    schema: SchemaRef,
}

impl Rows {
    pub async fn of(frame: DataFrame, node: &Node) -> Result<Self, BatchError> {
        let stream = frame.execute_stream().await.map_err(|e| failed(node, &e))?;
        Ok(Self { stream, schema: node.schema.clone() })
    }

    /// The next batch, never empty; none at the end.
    pub async fn next(&mut self, node: &Node) -> Result<Option<RecordBatch>, BatchError> {
        use futures::StreamExt;
        while let Some(batch) = self.stream.next().await {
            let batch = batch.map_err(|e| failed(node, &e))?;
            if batch.num_rows() > 0 {
                return conform(&batch, &self.schema).map(Some).map_err(|e| failed(node, &e.into()));
            }
        }
        Ok(None)
    }
}

/// Rows as a table of a schema's columns, whatever nulls.
pub fn in_memory(schema: &Schema, rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, DataFusionError> {
    Ok(Arc::new(MemTable::try_new(Arc::new(nullable(schema)), vec![rows])?))
}

/// A schema whose columns may all hold nulls.
pub fn nullable(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>())
}

/// The columns by name, cast to the types of a schema.
pub fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Result<Vec<ArrayRef>, _> = schema
        .fields()
        .iter()
        .map(|field| {
            let index = batch.schema().index_of(field.name())?;
            cast(batch.column(index), field.data_type())
        })
        .collect();
    RecordBatch::try_new(Arc::new(nullable(schema)), columns?)
}

/// DataFusion's error in the user's terms: a lack of memory or of storage may pass, anything else is the model's.
fn failed(node: &Node, e: &DataFusionError) -> BatchError {
    if was_cancelled(e) {
        return BatchError::Cancelled;
    }
    let what = format!("the model {} cannot be computed", node.model.name);
    if let Some(lack) = lack(e) {
        return BatchError::unavailable(what, lack);
    }
    match e.find_root() {
        DataFusionError::ObjectStore(_)
        | DataFusionError::IoError(_)
        | DataFusionError::External(_)
        | DataFusionError::ParquetError(_) => BatchError::unavailable(what, e.strip_backtrace()),
        _ => {
            let remedy = format!("see {}; `boathouse validate` checks its SQL", node.model.file.display());
            BatchError::refused(what, e.strip_backtrace(), remedy)
        }
    }
}
