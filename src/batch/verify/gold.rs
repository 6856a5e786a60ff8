//! Gold = its models run again over silver, row by row.
//!
//! Every model is run from silver: where a table that others read is not what its model gives, those are run over what
//! it should be, so that one wrong value is told once, where it is.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use deltalake::DeltaTable;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::gold::{self, Inputs, PinnedSilver, dates_of, partition_date, reached, silver_txn};
use super::super::graph::{Graph, Node};
use super::super::model::Kind;
use super::super::txn::{Txn, of_entry};
use super::super::upkeep::retention::{RETENTION_ID, horizon};
use super::super::{BatchError, Lake, Layer};
use super::part::{Deal, plain};
use super::rows::{Layout, Tally};
use super::{Scope, TableCheck, Verdict, Watch, at_version, sql};
use crate::config::Pipeline;

/// Entries of a table's log that are read for an earlier version.
const ENTRIES_MAX: u64 = 200;

/// Compares every model's table with the model run over silver, as of the version of silver that gold was made from.
pub async fn verify_gold(
    lake: &Lake,
    pipeline: &Pipeline,
    scope: &Scope,
    watch: &dyn Watch,
) -> Result<Vec<TableCheck>, BatchError> {
    let graph = gold::graph(pipeline)?;
    let fresh = |node: &Node| TableCheck::new(&pipeline.name, format!("gold.{}", node.model.name));
    let Some(silver) = PinnedSilver::newest(lake, pipeline).await? else {
        let ended = graph.nodes.iter().map(|node| match lake.may_exist(Layer::Gold, &node.model.name) {
            true => {
                fresh(node).ended(Verdict::NotChecked, "there is no silver to compare it with; the next run makes it")
            }
            false => fresh(node).ended(Verdict::NotYetRun, "there is no silver yet; `boathouse batch run` makes it"),
        });
        return Ok(ended.collect());
    };
    // What each table says of itself; a run that is under way has brought some further than others.
    let mut loaded = BTreeMap::new();
    for node in &graph.nodes {
        let table = gold::load(lake, &node.model.name, &silver.id).await?;
        let standing = standing(node, &table, silver.version);
        loaded.insert(node.model.name.as_str(), (table, standing));
    }
    let Some(version) = loaded.values().filter_map(|(_, standing)| standing.as_ref().ok()).min().copied() else {
        let ended = graph.nodes.iter().map(|node| {
            let why = loaded.get(node.model.name.as_str()).and_then(|(_, s)| s.as_ref().err().cloned());
            fresh(node).ended(Verdict::NotYetRun, why.unwrap_or_default())
        });
        return Ok(ended.collect());
    };
    let pinned = match at_version(silver.table, version).await {
        Ok(pinned) => pinned,
        Err(e) => {
            let why = format!("version {version} of silver, which it was made from, cannot be read any more ({e})");
            return Ok(graph.nodes.iter().map(|node| fresh(node).ended(Verdict::NotChecked, &why)).collect());
        }
    };
    let mut run = Recomputed {
        lake,
        graph: &graph,
        silver_dates: dates_of(&pinned, gold::DATE_COLUMN).await?,
        inputs: Inputs::default(),
        wrong: BTreeSet::new(),
        shortened: BTreeSet::new(),
        silver_kept: silver.horizon,
        absent: BTreeMap::new(),
        scope,
        watch,
    };
    run.inputs.silver(&pipeline.name, gold::provider(&pinned, &pipeline.name).await?);
    let mut checks = Vec::new();
    for node in &graph.nodes {
        let mut check = fresh(node);
        check.source_version = Some(version);
        if silver.version > version {
            check.notes.push(format!("silver has gone on from version {version} to {}: not yet run", silver.version));
        }
        let Some((table, standing)) = loaded.remove(node.model.name.as_str()) else { continue };
        let check = match (table.table, standing) {
            (Some(table), Ok(_)) => match as_of(table, &silver.id, version).await? {
                Some(table) => run.check(node, &table, check).await?,
                None => {
                    let why = format!("its state as of version {version} of silver, where others stand, is gone");
                    check.ended(Verdict::NotChecked, why)
                }
            },
            (_, Err(why)) => check.ended(Verdict::NotYetRun, why),
            (None, Ok(_)) => check.ended(Verdict::NotYetRun, "it is not there yet"),
        };
        match check.verdict {
            Verdict::Same | Verdict::LeftOut => {}
            Verdict::Different => drop(run.wrong.insert(node.model.name.clone())),
            Verdict::NotYetRun | Verdict::NotChecked => {
                run.absent.insert(node.model.name.clone(), check.verdict);
            }
        }
        checks.push(check);
    }
    Ok(checks)
}

/// The version of silver that a model's table was computed from, or why it is to be computed first.
fn standing(node: &Node, loaded: &gold::GoldTable, silver_version: u64) -> Result<u64, String> {
    let standing = &loaded.standing;
    match (&standing.fingerprint, standing.silver) {
        (None, _) => Err("it is not there yet; the next run makes it".into()),
        (Some(f), _) if *f != node.fingerprint => {
            Err("its model, or one that it reads, was changed since; the next run computes it anew".into())
        }
        (_, None) => Err("it was computed from another silver table; the next run computes it anew".into()),
        (_, Some(at)) if at > silver_version => Err(format!(
            "it was computed from version {at} of silver, which has {silver_version}; the next run computes it anew"
        )),
        (_, Some(at)) => Ok(at),
    }
}

/// A gold table as it is while it holds what was made from a version of a silver table, or as it was: none where its log
/// no longer says. Whatever somebody else has committed since belongs to what it holds.
pub(super) async fn as_of(table: DeltaTable, silver: &str, version: u64) -> Result<Option<DeltaTable>, BatchError> {
    let unreadable = |e| BatchError::unavailable("a gold table cannot be read", e);
    let newest = table.snapshot().map_err(unreadable)?.version();
    let (app_id, of_any) = (silver_txn(silver), silver_txn(""));
    let mut end = newest;
    for at in (newest.saturating_sub(ENTRIES_MAX)..=newest).rev() {
        let Some(entry) = table.log_store().read_commit_entry(at).await.map_err(unreadable)? else { break };
        let of_silver = |txn: &Txn| txn.app_id.starts_with(&of_any);
        let Some(noted) = of_entry(&entry).into_iter().flatten().find(of_silver) else { continue };
        let (is_ours, at_silver) = (noted.app_id == app_id, u64::try_from(noted.version).unwrap_or_default());
        if is_ours && at_silver == version {
            return Ok(at_version(table, end).await.ok());
        }
        if is_ours && at_silver < version || at == 0 {
            return Ok(None);
        }
        end = at - 1;
    }
    if end < newest {
        return Ok(None);
    }
    // The log is cleaned up to here; what the table's state says is the newest.
    let state = table.snapshot().map_err(unreadable)?;
    let noted = state.transaction_version(table.log_store().as_ref(), app_id).await.map_err(unreadable)?;
    Ok((noted.and_then(|v| u64::try_from(v).ok()) == Some(version)).then_some(table))
}

/// The models, run again.
struct Recomputed<'a> {
    lake: &'a Lake,
    graph: &'a Graph,
    silver_dates: BTreeSet<NaiveDate>,
    /// Silver, and the tables that are what they should be.
    inputs: Inputs,
    /// Models whose tables are not.
    wrong: BTreeSet<String>,
    /// Models that have lost old dates by retention, and those that read them.
    shortened: BTreeSet<String>,
    /// The first date that silver still has whole; none where nothing was taken out for its age.
    silver_kept: Option<NaiveDate>,
    /// Models whose tables cannot be used.
    absent: BTreeMap<String, Verdict>,
    scope: &'a Scope,
    watch: &'a dyn Watch,
}

impl Recomputed<'_> {
    async fn check(
        &mut self,
        node: &Node,
        table: &DeltaTable,
        mut check: TableCheck,
    ) -> Result<TableCheck, BatchError> {
        let name = &node.model.name;
        check.version = table.version();
        if let Some((input, verdict)) = node.reads.iter().find_map(|name| self.absent.get_key_value(name)) {
            let why = match verdict {
                Verdict::NotYetRun => format!("it reads gold.{input}, which is to be made first"),
                _ => format!("it reads gold.{input}, which could not be compared"),
            };
            return Ok(check.ended(*verdict, why));
        }
        let provider = gold::provider(table, name).await?;
        let by_date = node.model.header.partition.as_deref();
        let snapshot = node.model.header.kind == Kind::Snapshot;
        if snapshot && !self.scope.is_everything() {
            self.inputs.model(node, provider);
            return Ok(check.ended(Verdict::LeftOut, "a snapshot is of all dates"));
        }
        if snapshot && let Some(input) = node.reads.intersection(&self.wrong).next() {
            let why = format!("it reads gold.{input} on all dates, which is different: mend that and compare again");
            return Ok(check.ended(Verdict::NotChecked, why));
        }
        let own = horizon(self.lake, table, RETENTION_ID).await.map_err(|e| unreadable(name, &e))?;
        if own.is_some() || node.reads.iter().any(|input| self.shortened.contains(input)) {
            self.shortened.insert(name.clone());
        }
        if snapshot && self.shortened.contains(name) {
            self.inputs.model(node, provider);
            let why = "dates that it may have been made from are gone by retention.gold";
            return Ok(check.ended(Verdict::LeftOut, why));
        }
        let kept = own.max(self.silver_kept);
        if let Some(kept) = kept.filter(|_| !snapshot) {
            check.notes.push(format!("dates before {kept} are left out: retention has taken them from gold or silver"));
        }
        let header = &node.model.header;
        let grain: Vec<&str> = header.grain.iter().map(String::as_str).collect();
        let cut_by = plain(&grain, &node.schema);
        let layout = Layout::new(node.schema.clone(), &grain, &grain, by_date);
        let layout = layout.ok_or_else(|| {
            BatchError::refused(
                format!("gold/{name} cannot be compared"),
                "its grain is no column",
                "run `boathouse validate`",
            )
        })?;
        let model = format!("the model {name}");
        self.watch.begin(&check.table, rows_of(table));
        let each = |rows| self.watch.rows(rows);
        let unreadable =
            |e: datafusion::common::DataFusionError| BatchError::engine(format!("gold/{name} cannot be read"), &e);
        let found = || self.lake.session().read_table(provider.clone()).map_err(unreadable);
        let mut tally = Tally::default();
        let pairs = async |rows, expected, found, tally: &mut Tally| {
            let deal = Deal::of(self.lake, rows, &cut_by);
            for (expected, found) in deal.pairs((expected, &model), (found, &check.table), &node.schema).await? {
                let (expected, found) = ((expected, model.as_str()), (found, check.table.as_str()));
                sql::compare_in_order(&layout, expected, found, tally, &each).await?;
            }
            Ok::<_, BatchError>(())
        };
        match (header.kind, by_date) {
            (Kind::ByDate, Some(column)) => {
                let there = rows_by_date(table, column);
                let mut dates = reached(&self.silver_dates, node.reach_days);
                dates.extend(there.keys());
                for date in dates.into_iter().filter(|d| self.scope.holds(*d) && kept.is_none_or(|kept| *d >= kept)) {
                    let rows = there.get(&date).copied().unwrap_or(0);
                    let expected = self.inputs_of(node, date).await?.frame_of_date(self.lake, node, date).await?;
                    let found = found()?.filter(sql::between(column, date, date)).map_err(unreadable)?;
                    pairs(rows, expected, found, &mut tally).await?;
                }
            }
            _ => {
                let expected = self.inputs.frame_of_snapshot(self.lake, node).await?;
                pairs(rows_of(table), expected, found()?, &mut tally).await?;
            }
        }
        let check = check.counted(tally, |_| {
            format!(
                "find out who changed it; delete the folder gold/{name} of the lakehouse, and `boathouse batch run --wait` \
                 computes it anew; then compare again: what ClickHouse serves may have been published from it"
            )
        });
        self.inputs.model(node, provider);
        Ok(check)
    }

    /// What a model reads for one date: where a table is not what its model gives, the rows that it gives.
    fn inputs_of<'s>(&'s self, node: &'s Node, date: NaiveDate) -> BoxFuture<'s, Result<Inputs, BatchError>> {
        async move {
            let mut inputs = self.inputs.clone();
            let days = u64::from(node.model.header.lookback_days);
            for name in node.reads.intersection(&self.wrong) {
                let Some(input) = self.graph.node_of(name) else { continue };
                let mut batches = Vec::new();
                for back in 0..=days {
                    let Some(day) = date.checked_sub_days(Days::new(back)) else { continue };
                    let mut rows = self.inputs_of(input, day).await?.date(self.lake, input, day).await?;
                    while let Some(batch) = rows.next(input).await? {
                        batches.push(batch);
                    }
                }
                let table = gold::in_memory(&input.schema, batches);
                let table = table.map_err(|e| BatchError::unavailable(format!("the model {name}"), e))?;
                inputs.model(input, table);
            }
            Ok(inputs)
        }
        .boxed()
    }
}

fn unreadable(table: &str, e: &deltalake::DeltaTableError) -> BatchError {
    BatchError::unavailable(format!("what retention has taken from {table} cannot be read"), e)
}

/// Rows of a table by the date of their files.
fn rows_by_date(table: &DeltaTable, column: &str) -> BTreeMap<NaiveDate, u64> {
    let mut rows: BTreeMap<NaiveDate, u64> = BTreeMap::new();
    let Ok(state) = table.snapshot() else { return rows };
    for file in state.log_data().iter() {
        if let Some(date) = partition_date(file.partition_values_map().get(column)) {
            *rows.entry(date).or_default() += file.num_records().unwrap_or(0) as u64;
        }
    }
    rows
}

/// A table's rows, as its files say.
pub(super) fn rows_of(table: &DeltaTable) -> u64 {
    let Ok(state) = table.snapshot() else { return 0 };
    state.log_data().iter().filter_map(|f| f.num_records()).map(|n| n as u64).sum()
}
