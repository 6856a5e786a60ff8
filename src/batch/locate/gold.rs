//! The rows of gold that an event is part of: each model is run over its row alone, and the keys that come out are looked
//! up in the model's table and in what ClickHouse serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use chrono::{Days, NaiveDate};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, col, lit};
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::gold::{self, Inputs, PinnedSilver, days_since_epoch};
use super::super::graph::{Node, silver_columns};
use super::super::hour::Hour;
use super::super::model::Kind;
use super::super::publish::{served_error, served_model};
use super::super::{BatchError, Lake};
use super::silver::{Record, silver_has};
use super::{CommitRef, date_of_instant, row_as_json};
use crate::config::Pipeline;
use crate::serving::{Client, PublishedDate};

/// A row of gold that an event is part of.
#[derive(Debug, Clone, Serialize)]
pub struct Contribution {
    /// As `gold.daily_active_users`.
    pub table: String,
    pub key: Map<String, Value>,
    /// The other columns of the row as Delta has it; none where it is not there.
    pub values: Option<Map<String, Value>>,
    pub version: Option<u64>,
    /// Version of silver that the table was computed from.
    pub silver_version: Option<u64>,
    /// The table's newest commit.
    pub commit: Option<CommitRef>,
    /// Whether the row was computed from a silver that had the event.
    pub includes_event: bool,
    pub served: Option<Served>,
    pub note: Option<String>,
}

/// The same row in ClickHouse.
#[derive(Debug, Clone, Serialize)]
pub struct Served {
    /// As `gold.daily_active_users`.
    pub view: String,
    pub values: Option<Map<String, Value>>,
    /// Whether it is what Delta has.
    pub same: bool,
    pub run_id: Option<String>,
    pub silver_version: Option<u64>,
    pub published_at: Option<chrono::DateTime<chrono::Utc>>,
    pub note: Option<String>,
}

/// Finds the rows of gold that a kept row of silver is part of. Without a client ClickHouse is not asked.
pub async fn contributions(
    lake: &Lake,
    pipeline: &Pipeline,
    client: Option<&Client>,
    record: &Record,
    row: &RecordBatch,
) -> Result<Vec<Contribution>, BatchError> {
    let graph = gold::graph(pipeline)?;
    let Some(silver) = PinnedSilver::newest(lake, pipeline).await? else { return Ok(Vec::new()) };
    let (Some(event_id), Some(event_time)) = (&record.event_id, record.event_time) else { return Ok(Vec::new()) };
    let hour = Hour::of_micros(event_time);
    let date = date_of_instant(event_time);
    let mut alone = Inputs::default();
    alone.silver(&pipeline.name, of_rows(&silver_columns(pipeline), vec![row.clone()])?);
    let mut had: BTreeMap<u64, bool> = BTreeMap::from([(silver.version, true)]);
    let mut found = Vec::new();
    for node in &graph.nodes {
        let mut rows = Vec::new();
        match node.model.header.kind {
            Kind::ByDate => {
                // Rows of later dates that look back at this one are made from it, too.
                for ahead in 0..=u64::from(node.reach_days) {
                    let Some(day) = date.checked_add_days(Days::new(ahead)) else { continue };
                    let mut computed = alone.date(lake, node, day).await?;
                    while let Some(batch) = computed.next(node).await? {
                        rows.push(batch);
                    }
                }
            }
            Kind::Snapshot => {
                let mut computed = alone.snapshot(lake, node).await?;
                while let Some(batch) = computed.next(node).await? {
                    rows.push(batch);
                }
            }
        }
        alone.model(node, of_rows(&node.schema, rows.clone())?);
        let loaded = gold::load(lake, &node.model.name, &silver.id).await?;
        let at = loaded.standing.silver;
        let includes = match at {
            None => false,
            Some(at) => match had.get(&at) {
                Some(had) => *had,
                None => {
                    let has = silver_has(lake, pipeline, at, (event_id, hour), &record.place).await?;
                    had.insert(at, has);
                    has
                }
            },
        };
        let commit = match &loaded.table {
            Some(table) => newest_commit(table).await,
            None => None,
        };
        for batch in &rows {
            for row in 0..batch.num_rows() {
                let key = Key::of(node, batch, row);
                let mut one = Contribution {
                    table: format!("gold.{}", node.model.name),
                    key: row_as_json(batch, row, |c| node.model.header.grain.iter().any(|g| g == c)),
                    values: None,
                    version: loaded.table.as_ref().and_then(|t| t.version()),
                    silver_version: at,
                    commit: commit.clone(),
                    includes_event: includes,
                    served: None,
                    note: None,
                };
                let mut delta = None;
                match &loaded.table {
                    None => one.note = Some("the table is not there yet; the next run makes it".into()),
                    Some(table) => {
                        delta = key.find(lake, gold::provider(table, &node.model.name).await?, node).await?;
                        one.values = delta.as_ref().map(|b| key.values(b));
                        if !includes {
                            one.note = Some("computed before silver had the event; the next run does it anew".into());
                        } else if delta.is_none() {
                            one.note = Some("the row is not there: `boathouse reconcile --only gold`".into());
                        }
                    }
                }
                if let Some(client) = client {
                    one.served = served(client, pipeline, node, &key, delta.as_ref()).await?;
                }
                found.push(one);
            }
        }
    }
    Ok(found)
}

fn of_rows(schema: &Schema, rows: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, BatchError> {
    gold::in_memory(schema, rows).map_err(|e| BatchError::unavailable("one event's rows cannot be kept", e))
}

/// What the entry of a table's newest version says of itself.
async fn newest_commit(table: &deltalake::DeltaTable) -> Option<CommitRef> {
    let version = table.version()?;
    let entry = super::commits::entry(&table.log_store(), version).await.ok().flatten()?;
    Some(super::commits::described(version, &entry))
}

/// The grain of one row: which row of the model's table it is.
struct Key<'a> {
    node: &'a Node,
    columns: Vec<(&'a str, ScalarValue)>,
}

impl<'a> Key<'a> {
    fn of(node: &'a Node, batch: &RecordBatch, row: usize) -> Self {
        let value = |name: &'a String| {
            let column = batch.column_by_name(name)?;
            Some((name.as_str(), ScalarValue::try_from_array(column, row).ok()?))
        };
        Self { node, columns: node.model.header.grain.iter().filter_map(value).collect() }
    }

    fn date(&self) -> Option<NaiveDate> {
        let partition = self.node.model.header.partition.as_deref()?;
        match self.columns.iter().find(|(name, _)| *name == partition)?.1 {
            ScalarValue::Date32(Some(day)) => gold::date_of(day),
            _ => None,
        }
    }

    /// The columns of a row that are not of the key.
    fn values(&self, batch: &RecordBatch) -> Map<String, Value> {
        row_as_json(batch, 0, |c| self.columns.iter().all(|(name, _)| *name != c))
    }

    /// The row in the model's table.
    async fn find(
        &self,
        lake: &Lake,
        table: Arc<dyn TableProvider>,
        node: &Node,
    ) -> Result<Option<RecordBatch>, BatchError> {
        let is = |(name, value): &(&str, ScalarValue)| {
            let column = col(Column::from_name(*name));
            if value.is_null() { column.is_null() } else { column.eq(lit(value.clone())) }
        };
        let rows = self.columns.iter().map(is).reduce(Expr::and);
        let read = async {
            let frame = lake.session().read_table(table)?;
            let frame = match rows {
                Some(rows) => frame.filter(rows)?,
                None => frame,
            };
            frame.limit(0, Some(1))?.collect().await
        };
        let unreadable =
            |e: &dyn std::fmt::Display| BatchError::unavailable(format!("gold/{} cannot be read", node.model.name), e);
        let batches = read.await.map_err(|e| unreadable(&e.strip_backtrace()))?;
        let found = batches.into_iter().find(|b| b.num_rows() > 0);
        found.map(|b| gold::conform(&b, &node.schema).map_err(|e| unreadable(&e))).transpose()
    }

    fn is(&self, batch: &RecordBatch, row: usize) -> bool {
        self.columns.iter().all(|(name, value)| {
            let column = batch.column_by_name(name);
            column.and_then(|c| ScalarValue::try_from_array(c, row).ok()).as_ref() == Some(value)
        })
    }
}

async fn served(
    client: &Client,
    pipeline: &Pipeline,
    node: &Node,
    key: &Key<'_>,
    delta: Option<&RecordBatch>,
) -> Result<Option<Served>, BatchError> {
    let Some(model) = served_model(node) else { return Ok(None) };
    let mut served = Served {
        view: format!("gold.{}", model.view),
        values: None,
        same: false,
        run_id: None,
        silver_version: None,
        published_at: None,
        note: None,
    };
    let day = key.date().and_then(|d| u16::try_from(days_since_epoch(d)).ok());
    let Some(day) = day else { return Ok(Some(served)) };
    let looked = async {
        let published = client.published_date(&pipeline.name, day).await?;
        let mut rows = client.gold_rows(&model, &[day])?;
        while let Some(batch) = rows.try_next().await? {
            if let Some(row) = (0..batch.num_rows()).find(|row| key.is(&batch, *row)) {
                return Ok((published, Some(batch.slice(row, 1))));
            }
        }
        Ok::<(Option<PublishedDate>, Option<RecordBatch>), crate::serving::Error>((published, None))
    };
    match looked.await {
        Ok((published, row)) => {
            if published.is_none() {
                served.note = Some("its date is not published yet; the next run does it".into());
            }
            if let Some(published) = published {
                served.run_id = Some(published.run_id);
                served.silver_version = Some(published.silver_version);
                served.published_at = published.at;
            }
            if let Some(row) = row {
                let row = gold::conform(&row, &node.schema).map_err(|e| BatchError::unavailable("served rows", e))?;
                served.values = Some(key.values(&row));
                served.same = delta.is_some_and(|d| d.columns() == row.columns());
            }
        }
        Err(e) => served.note = Some(served_error(e).to_string()),
    }
    Ok(Some(served))
}
