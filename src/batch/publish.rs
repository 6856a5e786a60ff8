//! Gold to ClickHouse: the rows of touched dates, then one insert that shows them all.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use bytes::BytesMut;
use chrono::{NaiveDate, Utc};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{col, lit};
use futures::StreamExt;

use super::gold::{self, PinnedSilver, date_of, days_since_epoch};
use super::graph::{Graph, Node};
use super::{BatchError, Lake, Layer, TaskContext, TaskReport, quality};
use crate::config::Pipeline;
use crate::failpoint;
use crate::serving::{
    self, Client, ErrorKind, GoldStanding, LayerFreshness, Publication, ServedColumn, ServedModel, ServedType,
    SilverMark, gold_row_binary,
};

/// Dates that one insert may span: ClickHouse takes 100 partitions at once, and a month is one.
const DATES_PER_INSERT: usize = 60;
/// Bytes after which an insert is closed and another begun.
const BYTES_PER_INSERT: usize = 16 << 20;

/// Serves what the gold tables hold, once it meets every expectation: inserts the rows of every date that is newer than what is published, and shows
/// them in all views at once. What is published already is not written again, so that a retry changes nothing.
pub async fn publish_gold(
    lake: &Lake,
    pipeline: &Pipeline,
    client: &Client,
    run_id: &str,
    task: &TaskContext,
) -> Result<TaskReport, BatchError> {
    let graph = gold::graph(pipeline)?;
    let models: Vec<(&Node, ServedModel)> = graph.served().filter_map(|n| Some((n, served_model(n)?))).collect();
    let served: Vec<ServedModel> = models.iter().map(|(_, m)| m.clone()).collect();
    let ready = client.prepare_gold(&pipeline.name, &served).await.map_err(served_error)?;
    let Some(silver) = PinnedSilver::newest(lake, pipeline).await? else {
        return Ok(nothing(task, format!("there is no silver/{} yet: nothing to serve", pipeline.name)));
    };
    if models.is_empty() {
        return Ok(nothing(task, format!("{} serves no model", pipeline.name)));
    }
    let pinned = pin(lake, &models, &silver).await?;
    let mark = SilverMark { table: silver.id.clone(), version: pinned.silver_version, models: marks(&models) };
    let standing = client.gold_standing(&pipeline.name).await.map_err(served_error)?;
    let standing = standing.filter(|_| !ready.made_tables);
    if let Some(standing) = standing.as_ref().filter(|s| s.mark.table == mark.table && s.mark.models == mark.models)
        && standing.mark.version >= mark.version
    {
        let (version, run) = (standing.mark.version, &standing.run_id);
        return Ok(nothing(task, format!("version {version} of silver is served already, by run {run}")));
    }
    // Nothing that breaks an expectation with the severity `fail` is ever served.
    quality::hold_expectations(lake, pipeline, client, run_id, task).await?;
    client.clean_gold(&pipeline.name, &served).await.map_err(served_error)?;

    let (dates, why) = dates(client, pipeline, &graph, &silver, &mark, standing.as_ref()).await?;
    task.info(format!("{} dates to publish: {why}", dates.len()));
    let publication =
        client.begin_publication(&pipeline.name, run_id, mark, ready.made_tables).await.map_err(served_error)?;
    let mut rows = 0;
    for ((_, model), table) in models.iter().zip(&pinned.tables) {
        task.check()?;
        rows += insert(lake, client, model, table, &dates, &publication).await?;
    }
    failpoint::hit("publish.after_rows");
    task.check()?;
    let days: Vec<u16> = dates.iter().filter_map(|d| u16::try_from(days_since_epoch(*d)).ok()).collect();
    client.publish_gold_dates(&publication, &days).await.map_err(served_error)?;
    failpoint::hit("publish.after_published");
    client.complete_publication(&publication, run_id).await.map_err(served_error)?;
    client.settle_gold(&pipeline.name, &served).await.map_err(served_error)?;
    freshness(lake, client, pipeline, &silver, &publication, run_id).await?;
    let summary = format!(
        "{} dates of {} models published as of version {} of silver, {rows} rows",
        dates.len(),
        models.len(),
        publication.mark.version
    );
    task.info(&summary);
    Ok(TaskReport { rows_in: rows, rows_out: rows, summary, ..TaskReport::default() })
}

/// The dates that a publication would write now; the newest one where it would write none.
pub(super) async fn unserved(
    lake: &Lake,
    client: &Client,
    pipeline: &Pipeline,
    graph: &Graph,
    silver: &PinnedSilver,
) -> Result<BTreeSet<NaiveDate>, BatchError> {
    let models: Vec<(&Node, ServedModel)> = graph.served().filter_map(|n| Some((n, served_model(n)?))).collect();
    let mut found = BTreeSet::new();
    if !models.is_empty() {
        let served: Vec<ServedModel> = models.iter().map(|(_, m)| m.clone()).collect();
        let ready = client.prepare_gold(&pipeline.name, &served).await.map_err(served_error)?;
        let version = pin(lake, &models, silver).await?.silver_version;
        let mark = SilverMark { table: silver.id.clone(), version, models: marks(&models) };
        let standing = client.gold_standing(&pipeline.name).await.map_err(served_error)?;
        let standing = standing.filter(|_| !ready.made_tables);
        found = dates(client, pipeline, graph, silver, &mark, standing.as_ref()).await?.0;
    }
    if found.is_empty() {
        found.extend(silver.dates().await?.last());
    }
    Ok(found)
}

fn nothing(task: &TaskContext, summary: String) -> TaskReport {
    task.info(&summary);
    TaskReport { summary, ..TaskReport::default() }
}

/// ClickHouse's error as a task's: only what an operator must mend is not tried again.
pub(super) fn served_error(e: serving::Error) -> BatchError {
    match e.kind {
        ErrorKind::Unavailable | ErrorKind::Missing | ErrorKind::Auth => {
            BatchError::unavailable(format!("{} at {}", e.what, e.server), &e.message)
        }
        ErrorKind::Permanent => BatchError::refused(format!("{} at {}", e.what, e.server), &e.message, e.advice),
    }
}

/// The served models' tables, all of one version of silver.
struct Pinned {
    silver_version: u64,
    /// In the order of the models.
    tables: Vec<Arc<dyn TableProvider>>,
}

async fn pin(lake: &Lake, models: &[(&Node, ServedModel)], silver: &PinnedSilver) -> Result<Pinned, BatchError> {
    let mut version = None;
    let mut tables = Vec::new();
    for (node, _) in models {
        let name = &node.model.name;
        let behind = |cause: String| BatchError::unavailable(format!("gold/{name} cannot be served yet"), cause);
        let loaded = gold::load(lake, name, &silver.id).await?;
        let table = loaded.table.ok_or_else(|| behind("it is not there: silver to gold has not run".into()))?;
        if loaded.standing.fingerprint.as_deref() != Some(&node.fingerprint) {
            return Err(behind("its model has changed since: silver to gold must run first".into()));
        }
        let at = loaded.standing.silver.ok_or_else(|| behind("it was made from another silver table".into()))?;
        if *version.get_or_insert(at) != at {
            let cause = "the gold tables are of different versions of silver: silver to gold must run to its end";
            return Err(behind(cause.into()));
        }
        tables.push(gold::provider(&table, name).await?);
    }
    Ok(Pinned { silver_version: version.unwrap_or(0), tables })
}

/// Changes when any served model does.
pub(super) fn marks(models: &[(&Node, ServedModel)]) -> String {
    models.iter().map(|(n, m)| format!("{}={}", m.view, n.fingerprint)).collect::<Vec<_>>().join(",")
}

/// The dates to publish, and why these.
async fn dates(
    client: &Client,
    pipeline: &Pipeline,
    graph: &Graph,
    silver: &PinnedSilver,
    mark: &SilverMark,
    standing: Option<&GoldStanding>,
) -> Result<(BTreeSet<NaiveDate>, String), BatchError> {
    let reach = graph.served().map(|n| n.reach_days).max().unwrap_or(0);
    let why = match standing {
        None => "nothing is published yet".to_owned(),
        Some(s) if s.mark.table != mark.table => "silver was made again since the last publication".to_owned(),
        Some(s) if s.mark.models != mark.models => "a served model was changed".to_owned(),
        Some(s) => match silver.touched(s.mark.version).await? {
            Some(touched) => {
                let why = format!("touched in silver after version {}", s.mark.version);
                return Ok((gold::reached(&touched, reach), why));
            }
            None => format!("silver's log no longer reaches back to version {}", s.mark.version),
        },
    };
    let mut dates = gold::reached(&silver.dates().await?, reach);
    // A date that silver no longer has is published without rows.
    let published = client.published_days(&pipeline.name).await.map_err(served_error)?;
    dates.extend(published.into_iter().filter_map(|d| date_of(i32::from(d))));
    Ok((dates, why))
}

/// Inserts a model's rows of these dates; their number.
async fn insert(
    lake: &Lake,
    client: &Client,
    model: &ServedModel,
    table: &Arc<dyn TableProvider>,
    dates: &BTreeSet<NaiveDate>,
    publication: &Publication,
) -> Result<u64, BatchError> {
    let mut rows = 0;
    let dates: Vec<NaiveDate> = dates.iter().copied().collect();
    for dates in dates.chunks(DATES_PER_INSERT) {
        let days = dates.iter().map(|d| lit(ScalarValue::Date32(Some(days_since_epoch(*d))))).collect();
        let date = datafusion::common::Column::from_name(&model.date);
        let read = async {
            lake.session().read_table(table.clone())?.filter(col(date).in_list(days, false))?.execute_stream().await
        };
        let unreadable = |e| BatchError::unavailable(format!("the rows of gold.{} cannot be read", model.view), e);
        let mut batches = read.await.map_err(unreadable)?;
        let mut buffer = BytesMut::new();
        while let Some(batch) = batches.next().await {
            let batch = gold::plain(&batch.map_err(unreadable)?)?;
            gold_row_binary(model, Some(&publication.rows_id), &batch, &mut buffer).map_err(|e| {
                let remedy = format!("mend the model whose view is gold.{}", model.view);
                BatchError::refused(format!("a row of gold.{} cannot be served", model.view), e, remedy)
            })?;
            rows += batch.num_rows() as u64;
            if buffer.len() >= BYTES_PER_INSERT {
                client.insert_gold_rows(model, buffer.split().freeze()).await.map_err(served_error)?;
            }
        }
        if !buffer.is_empty() {
            client.insert_gold_rows(model, buffer.freeze()).await.map_err(served_error)?;
        }
    }
    Ok(rows)
}

/// How ClickHouse serves a model; none where it does not.
pub(super) fn served_model(node: &Node) -> Option<ServedModel> {
    let header = &node.model.header;
    let (view, date) = (header.clickhouse.clone()?, header.partition.clone()?);
    let columns = node
        .schema
        .fields()
        .iter()
        .map(|f| ServedColumn {
            name: f.name().clone(),
            kind: match f.data_type() {
                DataType::Date32 if *f.name() == date => ServedType::Day,
                DataType::Date32 => ServedType::Date,
                DataType::Int32 => ServedType::Int32,
                DataType::Int64 => ServedType::Int64,
                DataType::Float64 => ServedType::Float64,
                DataType::Boolean => ServedType::Bool,
                DataType::Timestamp(_, _) => ServedType::Timestamp,
                _ => ServedType::Text,
            },
            nullable: f.is_nullable() && !header.grain.contains(f.name()),
            doc: header.columns.iter().find(|c| c.name == *f.name()).map(|c| c.doc.clone()).unwrap_or_default(),
        })
        .collect();
    Some(ServedModel { view, description: header.description.clone(), date, grain: header.grain.clone(), columns })
}

/// Keeps how fresh silver and gold are, by SQL.
async fn freshness(
    lake: &Lake,
    client: &Client,
    pipeline: &Pipeline,
    silver: &PinnedSilver,
    publication: &Publication,
    run_id: &str,
) -> Result<(), BatchError> {
    let observed_at = Utc::now().timestamp_micros();
    let mut rows = Vec::new();
    let bronze = lake.open(Layer::Bronze, &pipeline.name).await?;
    if let Some(bronze) = &bronze {
        rows.push(("bronze", gold::newest_event_time(bronze), bronze.version().unwrap_or(0)));
    }
    let newest = gold::newest_event_time(&silver.table);
    rows.push(("silver", newest, silver.version));
    // Gold is a function of silver: it holds the newest event once it has been computed from that version.
    let newest = newest.filter(|_| silver.version == publication.mark.version);
    rows.push(("gold", newest, publication.mark.version));
    let rows: Vec<LayerFreshness<'_>> = rows
        .into_iter()
        .map(|(layer, newest_event_time, table_version)| LayerFreshness {
            pipeline: &pipeline.name,
            layer,
            observed_at,
            newest_event_time,
            table_version,
            run_id,
        })
        .collect();
    client.note_gold_freshness(&rows).await.map_err(served_error)
}
