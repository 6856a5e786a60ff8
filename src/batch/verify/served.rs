//! What ClickHouse serves = what gold's Delta tables hold, row by row, as a dashboard sees it: through the views.

use chrono::NaiveDate;

use super::super::gold::{self, date_of, dates_of, days_since_epoch};
use super::super::graph::Node;
use super::super::publish::{marks, served_error, served_model};
use super::super::upkeep::retention::{RETENTION_ID, horizon};
use super::super::{BatchError, Lake};
use super::gold::{as_of, rows_of};
use super::rows::{Layout, Tally, compare};
use super::{Scope, TableCheck, Verdict, Watch, sql};
use crate::config::Pipeline;
use crate::serving::{Client, ErrorKind, GoldStanding, ServedModel};

/// Days that one question to ClickHouse names.
const DAYS_MAX: usize = 366;
/// Times that everything is looked at again because a run has published meanwhile.
const TRIES: u32 = 3;

/// Compares every view with the table that it shows, on every date of either, as of the version of silver that was
/// published last.
pub async fn verify_served(
    lake: &Lake,
    pipeline: &Pipeline,
    client: &Client,
    scope: &Scope,
    watch: &dyn Watch,
) -> Result<Vec<TableCheck>, BatchError> {
    let graph = gold::graph(pipeline)?;
    let models: Vec<(&Node, ServedModel)> = graph.served().filter_map(|n| Some((n, served_model(n)?))).collect();
    let all = |verdict, why: &str| {
        let fresh = |m: &ServedModel| TableCheck::new(&pipeline.name, format!("gold.{}", m.view));
        Ok(models.iter().map(|(_, m)| fresh(m).ended(verdict, why)).collect())
    };
    if models.is_empty() {
        return Ok(Vec::new());
    }
    for _ in 0..TRIES {
        let standing = match client.gold_standing(&pipeline.name).await {
            Ok(standing) => standing,
            Err(e) if e.kind == ErrorKind::Missing => None,
            Err(e) => return Err(served_error(e)),
        };
        let Some(standing) = standing else {
            return all(Verdict::NotYetRun, "nothing is published; `boathouse batch run` does it");
        };
        if standing.mark.models != marks(&models) {
            return all(Verdict::NotYetRun, "a served model was changed since the last run; the next one publishes it");
        }
        let checks = look(lake, pipeline, client, &models, &standing, scope, watch).await?;
        if client.gold_standing(&pipeline.name).await.map_err(served_error)?.as_ref() == Some(&standing) {
            return Ok(checks);
        }
    }
    all(Verdict::NotChecked, "runs publish all the time; `boathouse batch pause` holds them back")
}

async fn look(
    lake: &Lake,
    pipeline: &Pipeline,
    client: &Client,
    models: &[(&Node, ServedModel)],
    standing: &GoldStanding,
    scope: &Scope,
    watch: &dyn Watch,
) -> Result<Vec<TableCheck>, BatchError> {
    let mut checks = Vec::new();
    for (node, model) in models {
        let mut check = TableCheck::new(&pipeline.name, format!("gold.{}", model.view));
        check.source_version = Some(standing.mark.version);
        let loaded = gold::load(lake, &node.model.name, &standing.mark.table).await?;
        let served = standing.mark.version;
        if let Some(at) = loaded.standing.silver.filter(|at| *at > served) {
            check.notes.push(format!("gold is at version {at} of silver, served is {served}: not yet published"));
        }
        let table = match loaded.table {
            Some(table) => as_of(table, &standing.mark.table, served).await?,
            None => None,
        };
        let Some(table) = table else {
            let why = format!(
                "gold/{} as of version {served} of silver, from which it was published, is gone: run the batch and compare again",
                node.model.name
            );
            checks.push(check.ended(Verdict::NotChecked, why));
            continue;
        };
        check.version = table.version();
        checks.push(one(lake, client, node, model, &table, check, scope, watch).await?);
    }
    Ok(checks)
}

#[expect(clippy::too_many_arguments, reason = "the comparison of one view, told apart from the choice of its versions")]
async fn one(
    lake: &Lake,
    client: &Client,
    node: &Node,
    model: &ServedModel,
    table: &deltalake::DeltaTable,
    mut check: TableCheck,
    scope: &Scope,
    watch: &dyn Watch,
) -> Result<TableCheck, BatchError> {
    let grain: Vec<&str> = model.order().collect();
    let layout = Layout::new(node.schema.clone(), &grain, &grain, Some(&model.date)).ok_or_else(|| {
        BatchError::refused(format!("gold.{}", model.view), "its grain is no column", "run `boathouse validate`")
    })?;
    let mut days = dates_of(table, &model.date).await?;
    let served = match client.served_days(model).await {
        Ok(days) => Some(days),
        Err(e) if e.kind == ErrorKind::Missing => None,
        Err(e) => return Err(served_error(e)),
    };
    let there = served.is_some();
    if !there {
        check.notes.push(format!("ClickHouse has no view gold.{}", model.view));
    }
    days.extend(served.into_iter().flatten().filter_map(|d| date_of(i32::from(d))));
    let kept = horizon(lake, table, RETENTION_ID).await;
    let kept = kept.map_err(|e| BatchError::unavailable(format!("gold/{}", node.model.name), e))?;
    if let Some(kept) = kept {
        check.notes.push(format!("dates before {kept} are left out: retention.gold has taken them"));
    }
    let due = |d: &NaiveDate| scope.holds(*d) && kept.is_none_or(|kept| *d >= kept);
    let days: Vec<NaiveDate> = days.into_iter().filter(due).collect();
    watch.begin(&format!("{} in ClickHouse", check.table), rows_of(table));
    let provider = gold::provider(table, &node.model.name).await?;
    let mut tally = Tally::default();
    for days in days.chunks(DAYS_MAX) {
        let (Some(first), Some(last)) = (days.first(), days.last()) else { continue };
        let frame = lake.session().read_table(provider.clone());
        let frame = frame.and_then(|f| f.filter(sql::between(&model.date, *first, *last)));
        let frame = frame.map_err(|e| BatchError::unavailable(format!("gold/{}", node.model.name), e))?;
        let expected = sql::ordered(frame, &grain, node.schema.clone(), &format!("gold/{}", node.model.name)).await?;
        let found = match there {
            true => {
                let numbers: Vec<u16> = days.iter().filter_map(|d| u16::try_from(days_since_epoch(*d)).ok()).collect();
                let schema = node.schema.clone();
                let rows = client.gold_rows(model, &numbers).map_err(served_error)?;
                let rows = futures::StreamExt::map(rows, move |batch| {
                    let batch = batch.map_err(served_error)?;
                    gold::conform(&batch, &schema).map_err(|e| BatchError::unavailable("rows of ClickHouse", e))
                });
                futures::StreamExt::boxed(rows)
            }
            false => futures::StreamExt::boxed(futures::stream::empty()),
        };
        compare(&layout, expected, found, &mut tally, &|rows| watch.rows(rows)).await?;
    }
    Ok(check.counted(tally, |_| {
        "where gold differs from silver, mend that first; find out who changed what is served; `boathouse sql --on clickhouse \"DROP TABLE gold.progress\"` and \
         `boathouse batch run --wait` publish every date again, and no reader sees an empty one meanwhile"
            .into()
    }))
}
