//! Retention: whole old dates leave a layer. The commit that takes them out bears an application id of its own with the
//! first date that is kept, so that nobody takes it for rows that were removed by hand, and everybody can tell up to where
//! a layer is whole.
//!
//! A date goes only once the layer above has read it: silver all of Bronze's rows of it, gold all of silver's.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use deltalake::kernel::Action;
use deltalake::{DeltaTable, DeltaTableError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::commit::{Planned, commit};
use crate::batch::changes::{LogRange, changes, decoded};
use crate::batch::gold::{self, DATE_COLUMN, date_of, days_since_epoch, partition_date};
use crate::batch::graph::Graph;
use crate::batch::publish::served_error;
use crate::batch::silver::Definitions;
use crate::batch::target::{Landing, Target};
use crate::batch::{BatchError, Lake, Layer, TaskContext, TaskReport, refused_table};
use crate::bronze::{EntryWriter, PARTITION_COLUMN, RETENTION};
use crate::config::Pipeline;
use crate::{failpoint, serving};

/// The application id of retention in tables that batch makes.
pub(crate) const RETENTION_ID: &str = "boathouse/retention";

/// The application id of retention in a pipeline's Bronze.
fn bronze_id(pipeline: &str) -> String {
    format!("{pipeline}{RETENTION}")
}

/// The first date that a table is to keep; none where it keeps all.
fn cutoff(keep: Option<Duration>, now: DateTime<Utc>) -> Option<NaiveDate> {
    let keep = TimeDelta::from_std(keep?).ok()?;
    Some(now.checked_sub_signed(keep)?.date_naive())
}

/// The first ingestion date that a pipeline's Bronze still holds whole; none where nothing was ever taken out for its age.
pub(crate) async fn bronze_horizon(lake: &Lake, pipeline: &str) -> Result<Option<NaiveDate>, BatchError> {
    let Some(table) = lake.open(Layer::Bronze, pipeline).await? else { return Ok(None) };
    horizon(lake, &table, &bronze_id(pipeline)).await.map_err(|e| unreadable(Layer::Bronze, pipeline, &e))
}

/// The date that retention has noted in a loaded table.
pub(crate) async fn horizon(lake: &Lake, table: &DeltaTable, id: &str) -> Result<Option<NaiveDate>, DeltaTableError> {
    let day = lake.noted(table, id).await?;
    Ok(day.and_then(|day| i32::try_from(day).ok()).and_then(date_of))
}

fn unreadable(layer: Layer, name: &str, e: &DeltaTableError) -> BatchError {
    BatchError::unavailable(format!("table {layer}.{name} cannot be read"), e)
}

/// Takes the dates out of each layer that are older than `retention` says; from ClickHouse gold's.
pub async fn apply_retention(
    lake: &Lake,
    pipeline: &Pipeline,
    clickhouse: &serving::Client,
    now: DateTime<Utc>,
    context: &TaskContext,
) -> Result<TaskReport, BatchError> {
    let retention = &pipeline.retention;
    let (bronze, silver, gold) =
        (cutoff(retention.bronze, now), cutoff(retention.silver, now), cutoff(retention.gold, now));
    if bronze.is_none() && silver.is_none() && gold.is_none() {
        let summary = "every layer is kept for ever".to_owned();
        return Ok(TaskReport { summary, ..TaskReport::default() });
    }
    let graph = gold::graph(pipeline)?;
    let mut report = TaskReport::default();
    let mut files = 0;
    if let Some(kept) = bronze {
        let name = &pipeline.name;
        match unread_by_silver(lake, pipeline, kept).await? {
            Some(why) => context.info(format!("bronze.{name}: dates before {kept} stay for now: {why}")),
            None => {
                let old =
                    Old { layer: Layer::Bronze, name, column: PARTITION_COLUMN, id: &bronze_id(name), kept, lead: 0 };
                files += old.take_out(lake, &mut report, context).await?;
            }
        }
    }
    if let Some(kept) = silver {
        let name = &pipeline.name;
        match unread_by_gold(lake, pipeline, &graph, kept).await? {
            Some(why) => context.info(format!("silver.{name}: dates before {kept} stay for now: {why}")),
            None => {
                // Models that look back at other dates find those.
                let lead = graph.nodes.iter().map(|node| node.reach_days).max().unwrap_or(0);
                let old = Old { layer: Layer::Silver, name, column: DATE_COLUMN, id: RETENTION_ID, kept, lead };
                files += old.take_out(lake, &mut report, context).await?;
            }
        }
        let name = &refused_table(name);
        let old = Old { layer: Layer::Silver, name, column: PARTITION_COLUMN, id: RETENTION_ID, kept, lead: 0 };
        files += old.take_out(lake, &mut report, context).await?;
    }
    if let Some(kept) = gold {
        for node in &graph.nodes {
            let Some(column) = &node.model.header.partition else { continue };
            let old = Old { layer: Layer::Gold, name: &node.model.name, column, id: RETENTION_ID, kept, lead: 0 };
            files += old.take_out(lake, &mut report, context).await?;
        }
        if graph.served().next().is_some() {
            let day = u16::try_from(days_since_epoch(kept)).unwrap_or(0);
            match clickhouse.forget_gold_before(&pipeline.name, day).await.map_err(served_error) {
                Ok(0) => {}
                Ok(dates) => context.info(format!("ClickHouse gold: {dates} dates before {kept} are shown no more")),
                Err(e) if e.is_transient() => {
                    context.warn(format!("ClickHouse gold keeps old dates until the next upkeep: {e}"))
                }
                Err(e) => return Err(e),
            }
        }
    }
    report.summary = format!("{files} files with {} rows left for their age", report.rows_out);
    Ok(report)
}

/// The old dates of a table.
struct Old<'a> {
    layer: Layer,
    name: &'a str,
    /// The partition column that is a date.
    column: &'a str,
    /// The application id that the commit bears.
    id: &'a str,
    /// The first date that is kept.
    kept: NaiveDate,
    /// Days before it whose rows stay all the same.
    lead: u32,
}

impl Old<'_> {
    /// Takes the files out; how many.
    async fn take_out(&self, lake: &Lake, report: &mut TaskReport, context: &TaskContext) -> Result<u64, BatchError> {
        context.check()?;
        let (layer, name) = (self.layer, self.name);
        let at = Instant::now();
        let Some(table) = lake.open(layer, name).await? else { return Ok(0) };
        let failed = |e: DeltaTableError| unreadable(layer, name, &e);
        let state = table.snapshot().map_err(failed)?;
        let first = self.kept.checked_sub_days(Days::new(self.lead.into())).unwrap_or(self.kept);
        let (mut removes, mut removed, mut rows) = (Vec::<Value>::new(), HashSet::new(), 0);
        let mut dates = BTreeSet::new();
        for file in state.log_data().iter() {
            let date = partition_date(file.partition_values_map().get(self.column));
            let Some(date) = date.filter(|date| *date < first) else {
                continue;
            };
            let remove = serde_json::to_value(Action::Remove(file.remove_action(true)));
            removes
                .push(remove.map_err(|e| BatchError::unavailable(format!("table {layer}.{name} cannot be read"), e))?);
            removed.insert(decoded(file.object_store_path().as_ref()));
            rows += file.num_records().unwrap_or_default() as u64;
            dates.insert(date);
        }
        let (Some(oldest), Some(newest)) = (dates.first(), dates.last()) else { return Ok(0) };
        // What was taken out once does not come back when the setting is raised.
        let known = horizon(lake, &table, self.id).await.map_err(failed)?;
        let kept = known.map_or(self.kept, |known| known.max(self.kept));
        let parameters = json!({"predicate": format!("{} < '{first}'", self.column)});
        let id = Uuid::new_v4().to_string();
        let mut entry = EntryWriter::new("DELETE", parameters, false, &id, Utc::now().timestamp_millis());
        entry.txn(self.id, days_since_epoch(kept).into());
        let files = removes.len() as u64;
        removes.into_iter().for_each(|remove| entry.action(remove));
        let planned =
            Planned { store: table.log_store(), name: format!("{layer}.{name}"), version: state.version(), at };
        failpoint::hit("upkeep.before_retention_commit");
        if commit(&planned, entry.finish(), &removed).await? == Landing::Overtaken {
            context.info(format!("{layer}.{name}: somebody else has changed the table meanwhile; later again"));
            return Ok(0);
        }
        context.info(format!("{layer}.{name}: dates {oldest} to {newest} are gone, {files} files with {rows} rows"));
        report.rows_out += rows;
        Ok(files)
    }
}

/// Why silver still needs dates of Bronze before `kept`; none where it does not.
async fn unread_by_silver(lake: &Lake, pipeline: &Pipeline, kept: NaiveDate) -> Result<Option<String>, BatchError> {
    let Some(bronze) = lake.open(Layer::Bronze, &pipeline.name).await? else { return Ok(None) };
    let failed = |e: DeltaTableError| unreadable(Layer::Bronze, &pipeline.name, &e);
    let state = bronze.snapshot().map_err(failed)?;
    let id = state.metadata().id().to_owned();
    let definitions = Definitions::of(pipeline)?;
    for (name, definition) in
        [(pipeline.name.clone(), &definitions.silver), (refused_table(&pipeline.name), &definitions.refused)]
    {
        let reader = Target::look(lake, (Layer::Silver, &name), definition, &id).await?;
        let read_to = match reader.facts() {
            Some(facts) => facts.read_to,
            None if !pipeline.schedule.enabled => continue,
            None => None,
        };
        let reader = format!("silver.{name}");
        if let Some(why) = behind(&bronze, state.version(), &reader, read_to, PARTITION_COLUMN, kept).await? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// Why gold still needs dates of silver before `kept`; none where it does not.
async fn unread_by_gold(
    lake: &Lake,
    pipeline: &Pipeline,
    graph: &Graph,
    kept: NaiveDate,
) -> Result<Option<String>, BatchError> {
    let Some(silver) = lake.open(Layer::Silver, &pipeline.name).await? else { return Ok(None) };
    let state = silver.snapshot().map_err(|e| unreadable(Layer::Silver, &pipeline.name, &e))?;
    for node in &graph.nodes {
        let name = &node.model.name;
        let read_to = gold::load(lake, name, state.metadata().id()).await?.standing.silver;
        if let Some(why) = behind(&silver, state.version(), &format!("gold.{name}"), read_to, DATE_COLUMN, kept).await?
        {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// Why a reader that has read a table up to a version still needs its dates before `kept`; none where it does not.
async fn behind(
    table: &DeltaTable,
    version: u64,
    reader: &str,
    read_to: Option<u64>,
    column: &str,
    kept: NaiveDate,
) -> Result<Option<String>, BatchError> {
    let Some(read_to) = read_to else { return Ok(Some(format!("{reader} has not read it yet"))) };
    if read_to >= version {
        return Ok(None);
    }
    let LogRange::Whole(changes) = changes(&table.log_store(), read_to, version).await? else {
        return Ok(Some(format!("{reader} has read it up to version {read_to}, which its log no longer reaches")));
    };
    let old = changes
        .added
        .iter()
        .chain(&changes.removed)
        .any(|file| partition_date(file.partition.get(column)).is_none_or(|date| date < kept));
    Ok(old.then(|| format!("{reader} has not read all of them yet")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_kept_as_long_as_any_of_its_hours() {
        let now = "2026-03-10T12:00:00Z".parse().unwrap();
        let days = |n: u64| Some(Duration::from_secs(n * 24 * 3600));
        assert_eq!(cutoff(days(7), now), NaiveDate::from_ymd_opt(2026, 3, 3));
        assert_eq!(cutoff(None, now), None);
        assert_eq!(cutoff(Some(Duration::MAX), now), None);
    }
}
