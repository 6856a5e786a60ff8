//! The tasks of the graph `lakehouse_upkeep`, over all tables of a pipeline.

use chrono::Utc;

use super::{Clock, Merging, merge, vacuum};
use crate::batch::entry::CHECKPOINT_EVERY;
use crate::batch::graph::{Graph, silver_columns};
use crate::batch::{BatchError, Lake, Layer, TaskContext, TaskReport, refused_table};
use crate::bronze::upkeep::{Upkeep as LogUpkeep, look_after};
use crate::config::{Pipeline, Upkeep};

/// The tables that a pipeline's upkeep looks after; not all of them need to be there.
pub fn tables_of(pipeline: &Pipeline) -> Vec<(Layer, String)> {
    let mut tables = vec![
        (Layer::Bronze, pipeline.name.clone()),
        (Layer::Silver, pipeline.name.clone()),
        (Layer::Silver, refused_table(&pipeline.name)),
    ];
    // A model that is wrong has a table from earlier, which `validate` is not asked about here.
    let models = match Graph::build(pipeline, &silver_columns(pipeline)) {
        Ok(graph) => graph.nodes.into_iter().map(|node| node.model.name).collect(),
        Err(_) => pipeline.models.iter().map(|model| model.name.clone()).collect::<Vec<_>>(),
    };
    tables.extend(models.into_iter().map(|name| (Layer::Gold, name)));
    tables.push((Layer::Gold, crate::batch::RESULTS.to_owned()));
    tables
}

/// Merges small files of closed hours and dates.
pub async fn compact_tables(
    lake: &Lake,
    pipeline: &Pipeline,
    settings: &Upkeep,
    context: &TaskContext,
) -> Result<TaskReport, BatchError> {
    let mut report = TaskReport::default();
    let (mut before, mut after, mut tables) = (0, 0, 0);
    for (layer, name) in tables_of(pipeline) {
        context.check()?;
        let merging = Merging { target: settings.file_size.0, now: Utc::now(), time: settings.merge_time };
        let merged = merge(lake, layer, &name, Some(pipeline), merging, context).await?;
        if merged.files_before > 0 {
            tables += 1;
            context.info(format!(
                "{layer}.{name}: {} files with {} rows merged into {}",
                merged.files_before, merged.rows, merged.files_after
            ));
        }
        if let Some(left) = &merged.left {
            context.info(format!("{layer}.{name}: {left}"));
        }
        (before, after) = (before + merged.files_before, after + merged.files_after);
        report.rows_in += merged.rows;
        report.rows_out += merged.rows;
    }
    report.summary = format!("{before} small files of {tables} tables merged into {after}");
    Ok(report)
}

/// Makes checkpoints where they are due, and removes log entries that are older than the tables keep them.
pub async fn clean_logs(
    lake: &Lake,
    pipeline: &Pipeline,
    clock: &Clock,
    context: &TaskContext,
) -> Result<TaskReport, BatchError> {
    let clean_log = trusted(clock, "no log entry is removed", context);
    let (mut checkpoints, mut cleaned) = (0, 0);
    for (layer, name) in tables_of(pipeline) {
        context.check()?;
        if !lake.may_exist(layer, &name) {
            continue;
        }
        let checkpoint_every = match layer {
            Layer::Bronze => u64::from(pipeline.bronze.checkpoint_commits),
            Layer::Silver | Layer::Gold => CHECKPOINT_EVERY,
        };
        let done = look_after(&lake.log_store(layer, &name)?, &LogUpkeep { checkpoint_every, clean_log }).await;
        let done = done.map_err(|e| BatchError::unavailable(format!("the log of {layer}.{name}"), e))?;
        if let Some(version) = done.checkpoint {
            checkpoints += 1;
            cleaned += done.cleaned;
            context
                .info(format!("{layer}.{name}: checkpoint at version {version}, {} old log files gone", done.cleaned));
        }
    }
    let summary = format!("{checkpoints} checkpoints made, {cleaned} old log files removed");
    Ok(TaskReport { summary, ..TaskReport::default() })
}

/// Deletes files that left their tables long ago.
pub async fn vacuum_tables(
    lake: &Lake,
    pipeline: &Pipeline,
    settings: &Upkeep,
    clock: &Clock,
    context: &TaskContext,
) -> Result<TaskReport, BatchError> {
    if !trusted(clock, "no file is deleted", context) {
        let summary = "left out: the clock was set".to_owned();
        return Ok(TaskReport { summary, ..TaskReport::default() });
    }
    let (mut files, mut bytes) = (0, 0);
    for (layer, name) in tables_of(pipeline) {
        context.check()?;
        let gone = vacuum(lake, layer, &name, settings.vacuum_after, false, context).await?;
        if !gone.is_empty() {
            let size: u64 = gone.iter().map(|file| file.bytes).sum();
            context.info(format!("{layer}.{name}: {} files of {size} bytes deleted", gone.len()));
            (files, bytes) = (files + gone.len(), bytes + size);
        }
    }
    let days = settings.vacuum_after.as_secs() / 86_400;
    let summary = format!("{files} files of {bytes} bytes deleted that no table has needed for {days} days");
    Ok(TaskReport { summary, ..TaskReport::default() })
}

/// Whether what is old may be told from the clock.
fn trusted(clock: &Clock, what: &str, context: &TaskContext) -> bool {
    let Some(jump) = clock.jump() else { return true };
    let by = humantime::format_duration(std::time::Duration::from_secs(jump.as_secs()));
    context.warn(format!("the clock was set by {by}: {what} until the daemon is started again"));
    false
}
