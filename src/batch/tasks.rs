//! What each task of the graph does.

use std::sync::Arc;

use chrono::{NaiveDate, Utc};
use futures::{FutureExt, TryStreamExt};

use super::run::graph::Task;
use super::run::{Job, Work};
use super::silver::{backfill_silver_of, run_silver};
use super::upkeep::tasks::{clean_logs, compact_tables, vacuum_tables};
use super::upkeep::{Clock, apply_retention};
use super::{BatchError, Lake, Layer, TaskContext, TaskReport, data_quality_checks, publish_gold, run_gold};
use crate::config::{self, Pipeline, Server};
use crate::serving;

/// The tasks of a pipeline on this lakehouse and ClickHouse. A lakehouse that cannot be set up fails each task.
pub fn work(server: &Arc<Server>, pipeline: &Arc<Pipeline>, clickhouse: &serving::Client) -> Work {
    work_on(Lake::new(server), server, pipeline, clickhouse)
}

/// As [`work`], on a lakehouse whose memory others share.
pub fn work_on(
    lake: Result<Lake, BatchError>,
    server: &Arc<Server>,
    pipeline: &Arc<Pipeline>,
    clickhouse: &serving::Client,
) -> Work {
    let upkeep = UpkeepOf { settings: server.upkeep.clone(), clock: Clock::now() };
    let all = Arc::new((lake, pipeline.clone(), clickhouse.clone(), upkeep));
    Arc::new(move |job| {
        let all = all.clone();
        async move {
            let (lake, pipeline, clickhouse, upkeep) = &*all;
            let lake = lake.as_ref().map_err(Clone::clone)?;
            run(lake, pipeline, clickhouse, upkeep, job).await
        }
        .boxed()
    })
}

async fn run(
    lake: &Lake,
    pipeline: &Pipeline,
    clickhouse: &serving::Client,
    upkeep: &UpkeepOf,
    job: Job,
) -> Result<TaskReport, BatchError> {
    let Job { task, run_id, parameters, context } = job;
    let lake = &lake.of_task(&context);
    let _turn = match task {
        Task::RunBronzeToSilver
        | Task::RunSilverToGold
        | Task::BackfillSilver
        | Task::CompactTables
        | Task::GoldToClickhouse
        | Task::DataQualityChecks => Some(tokio::select! {
            turn = lake.turn() => turn,
            () = context.cancelled() => return Err(BatchError::Cancelled),
        }),
        Task::CheckBronzeExists
        | Task::SkipPipeline
        | Task::PipelineDone
        | Task::ApplyRetention
        | Task::CleanLogs
        | Task::VacuumTables => None,
    };
    match task {
        Task::CheckBronzeExists => check_bronze_exists(lake, pipeline, &context).await,
        Task::SkipPipeline => Ok(note(&context, "Bronze holds nothing: nothing to do")),
        Task::RunBronzeToSilver => Ok(run_silver(lake, pipeline, &context).await?.1),
        Task::RunSilverToGold => Ok(run_gold(lake, pipeline, &context).await?.1),
        Task::GoldToClickhouse => publish_gold(lake, pipeline, clickhouse, &run_id, &context).await,
        Task::DataQualityChecks => data_quality_checks(lake, pipeline, clickhouse, &run_id, &context).await,
        Task::PipelineDone => Ok(note(&context, "silver, gold and what is served are up to date")),
        Task::BackfillSilver => {
            let date = |name: &str| parameters.get(name).and_then(|date| date.parse::<NaiveDate>().ok());
            let (Some(from), Some(to)) = (date("from"), date("to")) else {
                let remedy = "ask for it with `boathouse batch backfill --from DATE --to DATE`";
                return Err(BatchError::refused("a backfill", "this run was asked for without its dates", remedy));
            };
            backfill_silver_of(lake, pipeline, &run_id, (from, to), &context).await
        }
        Task::ApplyRetention if upkeep.clock.jump().is_some() => {
            Ok(note(&context, "left out: the clock was set; no date is old until the daemon is started again"))
        }
        Task::ApplyRetention => apply_retention(lake, pipeline, clickhouse, Utc::now(), &context).await,
        Task::CompactTables => compact_tables(lake, pipeline, &upkeep.settings, &context).await,
        Task::CleanLogs => clean_logs(lake, pipeline, &upkeep.clock, &context).await,
        Task::VacuumTables => vacuum_tables(lake, pipeline, &upkeep.settings, &upkeep.clock, &context).await,
    }
}

/// What the tasks of upkeep go by.
struct UpkeepOf {
    settings: config::Upkeep,
    clock: Clock,
}

fn note(context: &TaskContext, summary: &str) -> TaskReport {
    context.info(summary);
    TaskReport { summary: summary.into(), ..TaskReport::default() }
}

/// Counts what Bronze holds, from its log alone. No rows out, and the graph ends with `skip_pipeline`.
async fn check_bronze_exists(
    lake: &Lake,
    pipeline: &Pipeline,
    context: &TaskContext,
) -> Result<TaskReport, BatchError> {
    let (mut files, mut rows) = (0u64, 0u64);
    if let Some(table) = lake.open(Layer::Bronze, &pipeline.name).await? {
        let unreadable = |e| BatchError::unavailable(format!("the log of bronze/{} cannot be read", pipeline.name), e);
        let log_store = table.log_store();
        let snapshot = table.snapshot().map_err(unreadable)?.snapshot();
        let mut views = snapshot.file_views(log_store.as_ref(), None);
        while let Some(file) = views.try_next().await.map_err(unreadable)? {
            files += 1;
            // A file without statistics is not empty: nobody writes empty ones.
            rows += file.num_records().map_or(1, |n| n as u64);
        }
    }
    let summary = format!("bronze/{} holds {rows} rows in {files} files", pipeline.name);
    Ok(TaskReport { rows_out: rows, ..note(context, &summary) })
}
