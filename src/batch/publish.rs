//! Gold to ClickHouse: the rows of touched dates, then one insert that shows them all.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use bytes::BytesMut;
use chrono::{NaiveDate, Utc};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{col, lit};
use deltalake::DeltaTable;
use futures::StreamExt;

use super::gold::{self, PinnedSilver, Touched, date_of, days_since_epoch};
use super::graph::{Graph, Node};
use super::mark::{Marked, replaced};
use super::quality::{self, Held};
use super::{BatchError, Lake, Layer, TaskContext, TaskReport};
use crate::config::Pipeline;
use crate::failpoint;
use crate::serving::{
    self, Client, ErrorKind, GoldStanding, GoldSteps, LayerFreshness, Publication, ServedColumn, ServedModel,
    ServedType, SilverMark, gold_row_binary,
};

/// Dates that one insert may span: ClickHouse takes 100 partitions at once, and a month is one.
const DATES_PER_INSERT: usize = 60;
/// Bytes after which an insert is closed and another begun.
const BYTES_PER_INSERT: usize = 16 << 20;

/// Serves what the gold tables hold, once it meets every expectation: inserts the rows of every date that is newer than
/// what is published, and shows them in all views at once. What is published already is not written again, so that a
/// retry changes nothing.
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
    for view in &ready.dropped {
        task.warn(format!(
            "the view gold.{view} is gone: no model of {} is served under that name any more; the rows that it showed are \
             there until `boathouse tables drop gold.{view}`",
            pipeline.name
        ));
    }
    let Some(silver) = PinnedSilver::newest(lake, pipeline).await? else {
        return Ok(nothing(task, format!("there is no silver/{} yet: nothing to serve", pipeline.name)));
    };
    // Nothing that breaks an expectation with the severity `fail` is ever served.
    let hold = async |dates: &BTreeSet<NaiveDate>| {
        let held = Held { graph: &graph, silver: &silver, dates };
        quality::hold_expectations(lake, pipeline, held, run_id, task).await
    };
    if models.is_empty() {
        hold(&silver.dates().await?.last().copied().into_iter().collect()).await?;
        return Ok(nothing(task, format!("{} serves no model", pipeline.name)));
    }
    let facts = Facts::look(lake, client, pipeline, &models, &silver, ready.made_tables).await?;
    let mark = &facts.mark;
    if let Some(standing) =
        facts.shown.standing().filter(|s| s.mark.table == mark.table && s.mark.models == mark.models)
        && standing.mark.version >= mark.version
    {
        hold(&BTreeSet::new()).await?;
        // How far a layer lies behind grows while nothing comes.
        freshness(lake, client, pipeline, &silver, standing.mark.version, run_id).await?;
        let (version, run) = (standing.mark.version, &standing.run_id);
        return Ok(nothing(task, format!("version {version} of silver is served already, by run {run}")));
    }
    let (dates, why) = dates(client, pipeline, &graph, &silver, &models, &facts).await?;
    hold(&dates).await?;
    client.clean_gold(&pipeline.name, &served).await.map_err(served_error)?;

    task.info(format!("{} dates to publish: {why}", dates.len()));
    let Facts { pinned, mark, shown } = facts;
    let publication =
        client.begin_publication(&pipeline.name, run_id, mark, shown.gives_way()).await.map_err(served_error)?;
    let mut rows = 0;
    for ((_, model), (_, table)) in models.iter().zip(&pinned.tables) {
        task.check()?;
        rows += insert(lake, client, model, table, &dates, &publication).await?;
    }
    failpoint::hit("publish.after_rows");
    task.check()?;
    let days: Vec<u16> = dates.iter().filter_map(|d| u16::try_from(days_since_epoch(*d)).ok()).collect();
    client.publish_gold_dates(&publication, &days).await.map_err(served_error)?;
    failpoint::hit("publish.after_published");
    client.complete_publication(&publication, run_id).await.map_err(served_error)?;
    client.settle_gold(&publication, &served).await.map_err(served_error)?;
    freshness(lake, client, pipeline, &silver, publication.mark.version, run_id).await?;
    let summary = format!(
        "{} dates of {} models published as of version {} of silver, {rows} rows",
        dates.len(),
        models.len(),
        publication.mark.version
    );
    task.info(&summary);
    Ok(TaskReport { rows_in: rows, rows_out: rows, summary, ..TaskReport::default() })
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

/// What gold's tables hold, and what is published of them.
struct Facts {
    pinned: Pinned,
    mark: SilverMark,
    shown: Shown,
}

impl Facts {
    async fn look(
        lake: &Lake,
        client: &Client,
        pipeline: &Pipeline,
        models: &[(&Node, ServedModel)],
        silver: &PinnedSilver,
        made_tables: bool,
    ) -> Result<Self, BatchError> {
        let pinned = pin(lake, models, silver).await?;
        let Marked { version, mark: entry } = pinned.silver;
        let mark = SilverMark { table: silver.id.clone(), version, entry, models: marks(models) };
        let shown = Shown::look(client, pipeline, silver, made_tables).await?;
        Ok(Self { pinned, mark, shown })
    }
}

/// What is published, as far as a publication may go on from it.
enum Shown {
    Nothing,
    /// Dates touched since are all that is to be published.
    Standing(GoldStanding, Touched),
    /// Whatever is shown gives way, also to what was made from an earlier version of the same silver; why.
    GivesWay(String),
}

impl Shown {
    /// `made_tables`: some of ClickHouse's tables were missing.
    async fn look(
        client: &Client,
        pipeline: &Pipeline,
        silver: &PinnedSilver,
        made_tables: bool,
    ) -> Result<Self, BatchError> {
        if made_tables {
            return Ok(Self::GivesWay("tables were missing in ClickHouse".into()));
        }
        let GoldSteps { standing, begun } = client.gold_steps(&pipeline.name).await.map_err(served_error)?;
        // One that was cut off may have shown its dates.
        for mark in begun.iter().chain(standing.as_ref().map(|s| &s.mark)) {
            if let Some(why) = gone(silver, mark).await? {
                return Ok(Self::GivesWay(why));
            }
        }
        let Some(standing) = standing else { return Ok(Self::Nothing) };
        let mark = &standing.mark;
        let touched = match mark.table == silver.id && mark.version <= silver.version {
            // That it is the same commit is known.
            true => silver.touched(mark.version, None).await?,
            false => Touched::TooLongAgo,
        };
        Ok(Self::Standing(standing, touched))
    }

    fn standing(&self) -> Option<&GoldStanding> {
        match self {
            Self::Standing(standing, _) => Some(standing),
            Self::Nothing | Self::GivesWay(_) => None,
        }
    }

    fn gives_way(&self) -> bool {
        matches!(self, Self::GivesWay(_))
    }
}

/// Why what was made from a version of this silver cannot stand: it is not there any more.
async fn gone(silver: &PinnedSilver, made_from: &SilverMark) -> Result<Option<String>, BatchError> {
    let version = made_from.version;
    if made_from.table != silver.id {
        return Ok(None);
    }
    if version > silver.version {
        // Looked at after what is shown: a version that somebody has published is there.
        let newest = silver.newest_version().await?;
        return Ok((version > newest).then(|| {
            format!(
                "version {version} of silver was published, which has only {newest}: it was restored, or its last \
                 commits were lost"
            )
        }));
    }
    let replaced = replaced(&silver.table.log_store(), version, Some(made_from.entry)).await?;
    Ok(replaced
        .then(|| format!("version {version} of silver was published, which is another commit now: it was restored")))
}

/// The served models' tables, all of one version of silver.
struct Pinned {
    silver: Marked,
    /// In the order of the models.
    tables: Vec<(DeltaTable, Arc<dyn TableProvider>)>,
}

async fn pin(lake: &Lake, models: &[(&Node, ServedModel)], silver: &PinnedSilver) -> Result<Pinned, BatchError> {
    let mut pinned: Option<Marked> = None;
    let mut tables = Vec::new();
    for (node, _) in models {
        let name = &node.model.name;
        let behind = |cause: String| BatchError::unavailable(format!("gold/{name} cannot be served yet"), cause);
        let loaded = gold::load(lake, name, &silver.id).await?;
        let table = loaded.table.ok_or_else(|| behind("it is not there: silver to gold has not run".into()))?;
        if loaded.standing.fingerprint.as_deref() != Some(&node.fingerprint) {
            // Nothing in this run computes it any more.
            let (what, cause) =
                (format!("gold/{name} cannot be served"), "its model has changed since it was computed");
            return Err(BatchError::refused(what, cause, "start a new run, which computes it: `boathouse batch run`"));
        }
        let at = loaded.standing.silver.ok_or_else(|| behind("it was made from another silver table".into()))?;
        let at = Marked { version: at, mark: loaded.standing.silver_mark.unwrap_or_default() };
        pinned = pinned.map_or(Some(at), |pinned| pinned.same(at));
        if pinned.is_none() {
            let cause = "the gold tables are of different versions of silver: silver to gold must run to its end";
            return Err(behind(cause.into()));
        }
        let provider = gold::provider(&table, name).await?;
        tables.push((table, provider));
    }
    Ok(Pinned { silver: pinned.unwrap_or(Marked { version: 0, mark: 0 }), tables })
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
    models: &[(&Node, ServedModel)],
    Facts { pinned, mark, shown }: &Facts,
) -> Result<(BTreeSet<NaiveDate>, String), BatchError> {
    let reach = graph.served().map(|n| n.reach_days).max().unwrap_or(0);
    let why = match shown {
        Shown::Nothing => "nothing is published yet".to_owned(),
        Shown::GivesWay(why) => why.clone(),
        Shown::Standing(s, _) if s.mark.table != mark.table => {
            "silver was made again since the last publication".to_owned()
        }
        Shown::Standing(s, _) if s.mark.models != mark.models => "a served model was changed".to_owned(),
        Shown::Standing(s, touched) => match touched {
            Touched::Dates(touched) => {
                let why = format!("touched in silver after version {}", s.mark.version);
                return Ok((gold::reached(touched, reach), why));
            }
            Touched::TooLongAgo | Touched::Replaced => {
                format!("silver's log no longer reaches back to version {}", s.mark.version)
            }
        },
    };
    // Gold's own dates: it may keep some that silver no longer has. A date that it has no rows of is published without.
    let mut dates = gold::reached(&silver.dates().await?, reach);
    for ((_, model), (table, _)) in models.iter().zip(&pinned.tables) {
        dates.extend(gold::dates_of(table, &model.date).await?);
    }
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
    served_version: u64,
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
    let newest = newest.filter(|_| silver.version == served_version);
    rows.push(("gold", newest, served_version));
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
