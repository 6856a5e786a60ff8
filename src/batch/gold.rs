//! Silver to gold: every model's Delta table, brought up to silver's newest version.
//!
//! Progress lives in the tables: each notes the version of silver that its rows were computed from in the same commit
//! that brings the rows. A run may thus be stopped anywhere and started again; what is done is not done twice.

mod compute;
mod files;
mod merge;
mod plan;
mod snapshot;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use chrono::NaiveDate;
use deltalake::DeltaTable;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;

pub(crate) use compute::Inputs;
use compute::Rows;
pub(crate) use compute::{conform, date_of, days_since_epoch, in_memory, nullable};
use files::Files;
pub use plan::Work;
pub(crate) use plan::{Standing, Touched, plan, reached};
use snapshot::{Snapshot, input_txn};
use table::Replace;
pub(crate) use table::{FINGERPRINT, GoldTable, silver_txn};

use super::changes::{ChangedFile, LogRange};
use super::graph::{Graph, Node, silver_columns, table_type};
use super::mark::{Marked, mark_id, replaced};
use super::model::Kind;
use super::target::Landing;
use super::upkeep::retention::{RETENTION_ID, horizon};
use super::{BatchError, Lake, Layer, TaskContext, TaskReport};
use crate::config::Pipeline;
use crate::event::EVENT_TIME_COLUMN;
use crate::failpoint;

/// Silver's column of the event's date (UTC), which its files are partitioned by.
pub const DATE_COLUMN: &str = "event_date";
/// Tries of a model's commit; every try sees what others have committed meanwhile.
const TRIES: u32 = 5;

/// What a run did to each model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoldOutcome {
    /// The version of silver that every table is up to now; none where there is no silver table yet.
    pub silver_version: Option<u64>,
    /// In the order in which they were computed.
    pub models: Vec<ModelOutcome>,
}

/// What a run did to one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOutcome {
    pub name: String,
    pub work: Work,
    /// Rows written.
    pub rows: u64,
}

/// A version of the silver table, pinned for a run.
pub(crate) struct PinnedSilver {
    pub table: DeltaTable,
    /// Delta's id of the table.
    pub id: String,
    pub version: u64,
    /// The version, as those who read it note it.
    pub marked: Marked,
    /// The first date that retention keeps of it; none where it keeps all.
    pub horizon: Option<NaiveDate>,
}

impl PinnedSilver {
    /// Silver's newest version; none where the table is not there yet.
    pub async fn newest(lake: &Lake, pipeline: &Pipeline) -> Result<Option<Self>, BatchError> {
        let Some(table) = lake.open(Layer::Silver, &pipeline.name).await? else { return Ok(None) };
        let unreadable = |e| BatchError::unavailable(format!("silver/{} cannot be read", pipeline.name), e);
        let state = table.snapshot().map_err(unreadable)?;
        let (id, version) = (state.metadata().id().to_owned(), state.version());
        let horizon = horizon(lake, &table, RETENTION_ID).await.map_err(unreadable)?;
        let marked = Marked::read(&table.log_store(), version).await?;
        Ok(Some(Self { table, id, version, marked, horizon }))
    }

    /// The dates that have rows.
    pub async fn dates(&self) -> Result<BTreeSet<NaiveDate>, BatchError> {
        dates_of(&self.table, DATE_COLUMN).await
    }

    /// [`Self::touched`], with what is known of it already: most tables stand at the same version.
    async fn touched_once(
        &self,
        since: u64,
        mark: Option<u64>,
        known: &mut BTreeMap<(u64, Option<u64>), Touched>,
    ) -> Result<Touched, BatchError> {
        if let Some(touched) = known.get(&(since, mark)) {
            return Ok(touched.clone());
        }
        let touched = self.touched(since, mark).await?;
        known.insert((since, mark), touched.clone());
        Ok(touched)
    }

    /// The version that it has now, whatever is pinned.
    pub async fn newest_version(&self) -> Result<u64, BatchError> {
        let newest = self.table.get_latest_version().await;
        newest.map_err(|e| BatchError::unavailable("silver's newest version cannot be read", e))
    }

    /// What was touched after a version that was read, of which `mark` was noted.
    pub async fn touched(&self, since: u64, mark: Option<u64>) -> Result<Touched, BatchError> {
        let store = self.table.log_store();
        if since > self.version || replaced(&store, since, mark).await? {
            return Ok(Touched::Replaced);
        }
        let range = super::changes::changes(&store, since, self.version).await?;
        let LogRange::Whole(changes) = range else { return Ok(Touched::TooLongAgo) };
        let date = |file: &ChangedFile| partition_date(file.partition.get(DATE_COLUMN));
        // A file whose entry does not name its date could be of any.
        let dates: Option<BTreeSet<NaiveDate>> = changes.added.iter().chain(&changes.removed).map(date).collect();
        Ok(dates.map_or(Touched::TooLongAgo, Touched::Dates))
    }
}

/// The date that a file's partition is of, by its value in the log.
pub(crate) fn partition_date(value: Option<&Option<String>>) -> Option<NaiveDate> {
    value?.as_deref()?.parse().ok()
}

/// The dates of a table's files.
pub(crate) async fn dates_of(table: &DeltaTable, column: &str) -> Result<BTreeSet<NaiveDate>, BatchError> {
    let unreadable = |e| BatchError::unavailable(format!("the files of {} cannot be listed", table.table_url()), e);
    let log_store = table.log_store();
    let snapshot = table.snapshot().map_err(unreadable)?.snapshot();
    let mut files = snapshot.file_views(log_store.as_ref(), None);
    let mut dates = BTreeSet::new();
    while let Some(file) = files.try_next().await.map_err(unreadable)? {
        dates.extend(partition_date(file.partition_values_map().get(column)));
    }
    Ok(dates)
}

/// The pipeline's models over its silver table's columns, or what is wrong with them.
pub(crate) fn graph(pipeline: &Pipeline) -> Result<Graph, BatchError> {
    Graph::build(pipeline, &silver_columns(pipeline)).map_err(|mistakes| {
        let text = crate::config::ConfigErrors(mistakes).to_string();
        BatchError::refused(format!("the models of {} are wrong", pipeline.name), text, "run `boathouse validate`")
    })
}

/// Brings every model's table up to silver's newest version. Only touched dates are computed; a table that is not
/// there, a changed model, another silver table or a log that was cleaned up lead to a wider plan, which says why.
pub async fn run_gold(
    lake: &Lake,
    pipeline: &Pipeline,
    task: &TaskContext,
) -> Result<(GoldOutcome, TaskReport), BatchError> {
    let graph = graph(pipeline)?;
    let Some(silver) = PinnedSilver::newest(lake, pipeline).await? else {
        let summary = format!("there is no silver/{} yet: nothing to do", pipeline.name);
        task.info(&summary);
        return Ok((GoldOutcome::default(), TaskReport { summary, ..TaskReport::default() }));
    };
    let mut run = Run {
        lake,
        task,
        silver: &silver,
        inputs: Inputs::default(),
        made: BTreeMap::new(),
        touched: BTreeMap::new(),
        read: BTreeSet::new(),
    };
    let provider = provider(&silver.table, &pipeline.name).await?;
    run.inputs.silver(&pipeline.name, provider);
    let mut outcome = GoldOutcome { silver_version: Some(silver.version), models: Vec::new() };
    for node in &graph.nodes {
        task.check()?;
        outcome.models.push(run.model(node).await?);
    }
    let rows = outcome.models.iter().map(|m| m.rows).sum();
    let changed = outcome.models.iter().filter(|m| !matches!(m.work, Work::Nothing | Work::Note)).count();
    let summary = format!(
        "{changed} of {} models brought up to version {} of silver, {rows} rows written",
        outcome.models.len(),
        silver.version
    );
    let rows_in = rows_on(&silver.table, &run.read);
    Ok((outcome, TaskReport { rows_in, rows_out: rows, summary, ..TaskReport::default() }))
}

/// What the next run would do to a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelPlan {
    pub model: String,
    /// `nothing`, `note` (only silver's version), `dates`, or `whole`.
    pub work: &'static str,
    /// The dates that are computed anew, where it is these.
    pub dates: BTreeSet<NaiveDate>,
    /// Why a model is computed whole.
    pub reason: Option<String>,
}

/// Plans gold for when silver's next run has touched these dates, or, `from_scratch`, all that it has as well.
pub async fn plan_gold(
    lake: &Lake,
    pipeline: &Pipeline,
    dates: &BTreeSet<NaiveDate>,
    from_scratch: bool,
) -> Result<Vec<ModelPlan>, BatchError> {
    let graph = graph(pipeline)?;
    let silver = PinnedSilver::newest(lake, pipeline).await?;
    let mut dates = dates.clone();
    let mut version = u64::from(!dates.is_empty());
    if let Some(silver) = &silver {
        version += silver.version;
        if from_scratch {
            dates.extend(silver.dates().await?);
        }
    }
    let mut known = BTreeMap::new();
    let mut plans = Vec::new();
    for node in &graph.nodes {
        let name = &node.model.name;
        let id = silver.as_ref().map(|silver| silver.id.as_str()).unwrap_or_default();
        let standing = GoldTable::load(lake, name, id).await?.standing;
        let touched = match (&silver, standing.silver) {
            (Some(silver), Some(at)) => match silver.touched_once(at, standing.silver_mark, &mut known).await? {
                Touched::Dates(touched) => Touched::Dates(touched.union(&dates).copied().collect()),
                unknown => unknown,
            },
            _ => Touched::TooLongAgo,
        };
        let snapshot = node.model.header.kind == Kind::Snapshot;
        let (work, dates, reason) = match plan(name, &node.fingerprint, &standing, version, touched, node.reach_days) {
            Work::Nothing => ("nothing", BTreeSet::new(), None),
            Work::Note => ("note", BTreeSet::new(), None),
            Work::Dates(_) if snapshot => ("whole", BTreeSet::new(), Some("it is a snapshot of models by date".into())),
            Work::Dates(dates) => ("dates", dates, None),
            Work::Everything(why) => ("whole", BTreeSet::new(), Some(why)),
        };
        plans.push(ModelPlan { model: name.clone(), work, dates, reason });
    }
    Ok(plans)
}

/// Silver's rows on some dates, by its files' statistics.
fn rows_on(silver: &DeltaTable, dates: &BTreeSet<NaiveDate>) -> u64 {
    let Ok(state) = silver.snapshot() else { return 0 };
    let on = |file: &deltalake::kernel::LogicalFileView| {
        partition_date(file.partition_values_map().get(DATE_COLUMN)).is_some_and(|d| dates.contains(&d))
    };
    state.log_data().iter().filter(on).filter_map(|f| f.num_records()).map(|n| n as u64).sum()
}

pub(crate) async fn provider(
    table: &DeltaTable,
    name: &str,
) -> Result<std::sync::Arc<dyn datafusion::catalog::TableProvider>, BatchError> {
    table.table_provider().await.map_err(|e| BatchError::unavailable(format!("the table {name} cannot be read"), e))
}

/// One run over the models.
struct Run<'a> {
    lake: &'a Lake,
    task: &'a TaskContext,
    silver: &'a PinnedSilver,
    inputs: Inputs,
    /// The models' tables that are up to date.
    made: BTreeMap<&'a str, (&'a Node, DeltaTable)>,
    /// What was touched since a version of silver with a mark.
    touched: BTreeMap<(u64, Option<u64>), Touched>,
    /// The dates that were read of silver.
    read: BTreeSet<NaiveDate>,
}

impl<'a> Run<'a> {
    /// Brings one model's table up to date and makes it an input of those that read it.
    async fn model(&mut self, node: &'a Node) -> Result<ModelOutcome, BatchError> {
        let name = &node.model.name;
        for _ in 0..TRIES {
            let gold = GoldTable::load(self.lake, name, &self.silver.id).await?;
            let work = self.plan(node, &gold.standing).await?;
            let (replace, adds, rows) = match &work {
                Work::Nothing => (Replace::Nothing, Vec::new(), 0),
                Work::Note => (Replace::Nothing, Vec::new(), 0),
                Work::Everything(why) => {
                    self.task.info(format!("{name}: computed whole, because {why}"));
                    self.read.extend(self.silver.dates().await?);
                    let (adds, rows) = self.everything(node).await?;
                    match self.silver.horizon.filter(|_| gold.keeps_columns(node)) {
                        Some(since) if node.model.header.kind == Kind::ByDate => {
                            self.task.info(format!("{name}: dates before {since}, which silver no longer has, stay"));
                            (Replace::From(since), adds, rows)
                        }
                        _ => (Replace::Everything, adds, rows),
                    }
                }
                Work::Dates(_) if node.model.header.kind == Kind::Snapshot => {
                    let (adds, rows) = match self.merged(node, &gold).await? {
                        Some(merged) => merged,
                        None => self.everything(node).await?,
                    };
                    (Replace::Everything, adds, rows)
                }
                Work::Dates(dates) => {
                    self.task.info(format!("{name}: {} dates, {}", dates.len(), span(dates)));
                    self.read.extend(dates);
                    let (adds, rows) = self.dates(node, dates).await?;
                    (Replace::Dates(dates.clone()), adds, rows)
                }
            };
            if work != Work::Nothing {
                failpoint::hit("gold.before_commit");
                let Marked { version, mark } = self.silver.marked;
                let mut read = vec![(silver_txn(&self.silver.id), version), (mark_id(&self.silver.id), mark)];
                if let (Some((_, input)), true) = (self.input_of(node), replace == Replace::Everything)
                    && let (Ok(state), Some(version)) = (input.snapshot(), input.version())
                {
                    let (id, marked) = (state.metadata().id(), Marked::read(&input.log_store(), version).await?);
                    read.extend([(input_txn(id), version), (mark_id(id), marked.mark)]);
                }
                if gold.replace(self.lake, node, &replace, adds, &read).await? == Landing::Overtaken {
                    self.task.warn(format!("{name}: another run has committed; planned again"));
                    continue;
                }
                failpoint::hit("gold.after_commit");
            }
            let loaded = self.lake.open(Layer::Gold, name).await?;
            let table = loaded.ok_or_else(|| {
                let cause = "it was removed while the run was at work";
                BatchError::unavailable(format!("gold/{name} is gone"), cause)
            })?;
            self.inputs.model(node, provider(&table, name).await?);
            self.made.insert(name, (node, table));
            return Ok(ModelOutcome { name: name.clone(), work, rows });
        }
        Err(BatchError::unavailable(format!("gold/{name} cannot be committed"), "others commit all the time"))
    }

    async fn plan(&mut self, node: &Node, standing: &Standing) -> Result<Work, BatchError> {
        let touched = match standing.silver {
            Some(at) if at <= self.silver.version => {
                self.silver.touched_once(at, standing.silver_mark, &mut self.touched).await?
            }
            // A run that was held up must not take a table back to an older silver than another run has reached.
            Some(at) if at > self.silver.version && self.silver.newest_version().await? >= at => {
                let cause = format!(
                    "another run has brought it to version {at} of silver, this one has read {}",
                    self.silver.version
                );
                return Err(BatchError::unavailable(format!("gold/{} is ahead of this run", node.model.name), cause));
            }
            _ => Touched::TooLongAgo,
        };
        let name = &node.model.name;
        Ok(plan(name, &node.fingerprint, standing, self.silver.version, touched, node.reach_days))
    }

    /// The one model by date that a snapshot is made from, with its table.
    fn input_of(&self, node: &Node) -> Option<(&'a Node, &DeltaTable)> {
        let mut reads = node.reads.iter();
        let name = reads.next().filter(|_| reads.next().is_none() && !node.reads_silver)?;
        let (input, table) = self.made.get(name.as_str())?;
        let by_date = input.model.header.kind == Kind::ByDate && node.model.header.kind == Kind::Snapshot;
        by_date.then_some((*input, table))
    }

    /// A snapshot's rows from what has changed in its input; none where they are to be made from all of it.
    async fn merged(&self, node: &Node, gold: &GoldTable) -> Result<Option<(Vec<Value>, u64)>, BatchError> {
        let (Some(table), Some(input)) = (&gold.table, self.input_of(node)) else { return Ok(None) };
        let (lake, inputs) = (self.lake, &self.inputs);
        let Some(merged) = (Snapshot { lake, node, table, input, inputs }).merged().await? else { return Ok(None) };
        self.task.info(format!("{}: merged with what has changed in {}", node.model.name, input.0.model.name));
        self.snapshot(node, Rows::of(merged, node).await?).await.map(Some)
    }

    async fn snapshot(&self, node: &Node, mut rows: Rows) -> Result<(Vec<Value>, u64), BatchError> {
        let mut files = Files::new(self.lake, node)?;
        let mut writer = files.writer(None);
        while let Some(batch) = rows.next(node).await? {
            self.task.check()?;
            files.write(&mut writer, &batch).await?;
        }
        files.finish(writer).await?;
        Ok(files.into_parts())
    }

    async fn everything(&self, node: &Node) -> Result<(Vec<Value>, u64), BatchError> {
        match node.model.header.kind {
            Kind::ByDate => {
                let mut dates = reached(&self.silver.dates().await?, node.reach_days);
                dates.retain(|date| self.silver.horizon.is_none_or(|since| *date >= since));
                self.dates(node, &dates).await
            }
            Kind::Snapshot => self.snapshot(node, self.inputs.snapshot(self.lake, node).await?).await,
        }
    }

    /// Computes dates one after the other.
    async fn dates(&self, node: &Node, dates: &BTreeSet<NaiveDate>) -> Result<(Vec<Value>, u64), BatchError> {
        let mut files = Files::new(self.lake, node)?;
        for date in dates {
            self.task.check()?;
            let mut writer = files.writer(Some(*date));
            let mut rows = self.inputs.date(self.lake, node, *date).await?;
            while let Some(batch) = rows.next(node).await? {
                files.write(&mut writer, &batch).await?;
            }
            files.finish(writer).await?;
        }
        Ok(files.into_parts())
    }
}

/// `2026-02-06`, or `2026-02-01 to 2026-02-06`.
fn span(dates: &BTreeSet<NaiveDate>) -> String {
    match (dates.first(), dates.last()) {
        (Some(first), Some(last)) if first == last => first.to_string(),
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none".into(),
    }
}

/// A model's table as it stands.
pub(crate) async fn load(lake: &Lake, model: &str, silver_table: &str) -> Result<GoldTable, BatchError> {
    GoldTable::load(lake, model, silver_table).await
}

/// A batch of a gold table in the types that [`super::graph::table_type`] gives, however the reader dressed them.
pub(crate) fn plain(batch: &RecordBatch) -> Result<RecordBatch, BatchError> {
    let fields: Vec<_> = batch
        .schema()
        .fields()
        .iter()
        .map(|f| {
            let kind = table_type(f.data_type()).unwrap_or_else(|| f.data_type().clone());
            arrow::datatypes::Field::new(f.name(), kind, true)
        })
        .collect();
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    compute::conform(batch, &schema).map_err(|e| BatchError::unavailable("rows of gold cannot be read", e))
}

/// The newest event time in a table by its files' statistics, microseconds since 1970.
pub(crate) fn newest_event_time(table: &DeltaTable) -> Option<i64> {
    let state = table.snapshot().ok()?;
    let newest = |f: deltalake::kernel::LogicalFileView| {
        let stats: serde_json::Value = serde_json::from_str(&f.stats()?).ok()?;
        let text = stats.get("maxValues")?.get(EVENT_TIME_COLUMN)?.as_str()?.to_owned();
        Some(chrono::DateTime::parse_from_rfc3339(&text).ok()?.timestamp_micros())
    };
    state.log_data().iter().filter_map(newest).max()
}
