//! Silver = Bronze without what is refused and without duplicates, row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Date32Type, Int64Type};
use chrono::NaiveDate;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::prelude::DataFrame;
use deltalake::DeltaTable;
use serde::Serialize;

use super::super::gold::{self, date_of, partition_date};
use super::super::graph::silver_columns;
use super::super::plan::TargetFacts;
use super::super::quoting::identifier;
use super::super::silver::{Definitions, EVENT_DATE, EVENT_HOUR};
use super::super::target::{Definition, Target};
use super::super::{BatchError, Lake, Layer};
use super::part::{Deal, rows_max};
use super::rows::{Layout, Tally};
use super::{Scope, TableCheck, Verdict, Watch, at_version, sql};
use crate::bronze::PARTITION_COLUMN;
use crate::config::{Pipeline, Role};
use crate::event::EVENT_TIME_COLUMN;

/// The order of rows: their place in Kafka.
pub const PLACE: [&str; 3] = ["generation", "partition", "offset"];

/// Silver beside Bronze.
#[derive(Debug, Clone, Serialize)]
pub struct SilverCheck {
    #[serde(flatten)]
    pub table: TableCheck,
    /// Rows of Bronze on the dates looked at, up to the version that silver has read; what is no event has no date and
    /// is counted where every date is looked at.
    pub bronze_rows: u64,
    pub refused_rows: u64,
    pub duplicate_rows: u64,
    /// Bronze's newest version; commits above the one that silver has read are not yet run.
    pub bronze_newest_version: Option<u64>,
    /// Rows of silver that Bronze's retention has outlived, which nothing can be compared with.
    pub unchecked_rows: u64,
}

impl SilverCheck {
    /// Nothing counted yet.
    pub fn of(table: TableCheck) -> Self {
        Self {
            table,
            bronze_rows: 0,
            refused_rows: 0,
            duplicate_rows: 0,
            bronze_newest_version: None,
            unchecked_rows: 0,
        }
    }
}

/// A table that was made from Bronze, and Bronze as it has read it.
pub(super) struct Pair {
    pub target: Target,
    pub bronze: DeltaTable,
    pub read_to: u64,
    pub bronze_newest: u64,
}

/// What a table that is made from Bronze says of itself, or why nothing can be compared.
pub(super) async fn pair(
    lake: &Lake,
    pipeline: &Pipeline,
    definition: &Definition,
    table: &str,
) -> Result<Result<Pair, (Verdict, String)>, BatchError> {
    let not_yet = |why: String| Ok(Err((Verdict::NotYetRun, why)));
    let Some(newest) = lake.open(Layer::Bronze, &pipeline.name).await? else {
        return not_yet("there is no Bronze table yet".into());
    };
    let unreadable = |e| BatchError::unavailable(format!("bronze/{} cannot be read", pipeline.name), e);
    let state = newest.snapshot().map_err(unreadable)?;
    let (id, bronze_newest) = (state.metadata().id().to_owned(), state.version());
    let target = Target::look(lake, (Layer::Silver, table), definition, &id).await?;
    let Some(facts) = target.facts() else {
        return not_yet(format!("there is no silver/{table} yet; `boathouse batch run` makes it"));
    };
    let read_to = match standing(facts, &definition.settings, bronze_newest) {
        Ok(read_to) => read_to,
        Err(why) => return not_yet(format!("{why}; the next run makes it anew")),
    };
    match at_version(newest, read_to).await {
        Ok(bronze) => Ok(Ok(Pair { target, bronze, read_to, bronze_newest })),
        Err(e) => {
            let why = format!(
                "version {read_to} of Bronze, which it was made from, cannot be read any more ({e}); run the batch and compare again"
            );
            Ok(Err((Verdict::NotChecked, why)))
        }
    }
}

/// The version of Bronze that a table holds, or why it is none of this one's.
fn standing(facts: &TargetFacts, settings: &str, bronze_newest: u64) -> Result<u64, &'static str> {
    if facts.settings.as_deref() != Some(settings) {
        return Err("it was made with other fields, allowed values or rules");
    }
    match facts.read_to {
        None => Err("it was made from another Bronze table"),
        Some(read_to) if read_to > bronze_newest => Err("it has read more of Bronze than there is"),
        Some(read_to) => Ok(read_to),
    }
}

impl Pair {
    /// The earliest value of Bronze's partition column: what was ingested before has left it by retention.
    pub fn bronze_begins(&self) -> Option<NaiveDate> {
        let state = self.bronze.snapshot().ok()?;
        let date =
            |f: deltalake::kernel::LogicalFileView| partition_date(f.partition_values_map().get(PARTITION_COLUMN));
        state.log_data().iter().filter_map(date).min()
    }
}

/// Compares silver with Bronze as of the version that silver has read.
pub async fn verify_silver(
    lake: &Lake,
    pipeline: &Pipeline,
    scope: &Scope,
    watch: &dyn Watch,
) -> Result<SilverCheck, BatchError> {
    let mut check = SilverCheck::of(TableCheck::new(&pipeline.name, format!("silver.{}", pipeline.name)));
    let definitions = Definitions::of(pipeline)?;
    let pair = match pair(lake, pipeline, &definitions.silver, &pipeline.name).await? {
        Ok(pair) => pair,
        Err((verdict, why)) => {
            check.table = check.table.ended(verdict, why);
            return Ok(check);
        }
    };
    check.bronze_newest_version = Some(pair.bronze_newest);
    check.table.source_version = Some(pair.read_to);
    check.table.version = pair.target.found.as_ref().map(|f| f.version);
    if pair.bronze_newest > pair.read_to {
        let note = format!(
            "Bronze has gone on from version {} to {}: that is not yet run and was not looked at",
            pair.read_to, pair.bronze_newest
        );
        check.table.notes.push(note);
    }
    let mut silver = DeltaTable::new(pair.target.store.clone());
    let version = check.table.version.unwrap_or_default();
    let unreadable = |e| BatchError::unavailable(format!("silver/{} cannot be read", pipeline.name), e);
    silver.load_version(version).await.map_err(unreadable)?;

    let comparison = Comparison::new(lake, pipeline, &pair, &silver).await?;
    let mut dates = comparison.dates().await?;
    check.unchecked_rows = comparison.leave_out_what_bronze_outlived(&pair, &silver, &mut dates, &mut check.table);
    if let Some(kept) = pair.target.horizon() {
        dates.retain(|date, _| *date >= kept);
        check.table.notes.push(format!("dates before {kept} are left out: retention.silver has taken them"));
    }
    let kept = |sizes: &Sizes| sizes.kept;
    if scope.is_everything() {
        check.bronze_rows = comparison.dateless().await?;
        check.refused_rows = check.bronze_rows;
    }
    dates.retain(|date, _| scope.holds(*date));
    check.bronze_rows += dates.values().map(|s| s.bronze).sum::<u64>();
    check.refused_rows += dates.values().map(|s| s.bronze - s.kept).sum::<u64>();
    dates.retain(|_, s| s.kept > 0 || s.silver > 0);
    watch.begin(&check.table.table, dates.values().map(kept).sum());
    let mut tally = Tally::default();
    let rows_max = rows_max(lake);
    for (first, last) in groups(&dates, rows_max) {
        let rows = dates.range(first..=last).map(|(_, sizes)| sizes.bronze.max(sizes.silver)).sum();
        comparison.group((first, last), rows, &mut tally, watch).await?;
    }
    check.duplicate_rows = dates.values().map(kept).sum::<u64>().saturating_sub(tally.expected);
    check.table = check.table.counted(tally, remedy);
    Ok(check)
}

/// The first and the last date, for a command.
pub(super) fn range(dates: &[super::DateDifference]) -> (String, String) {
    match (dates.first(), dates.last()) {
        (Some(first), Some(last)) => (first.date.to_string(), last.date.to_string()),
        _ => ("DATE".into(), "DATE".into()),
    }
}

fn remedy(dates: &[super::DateDifference]) -> String {
    let (from, to) = range(dates);
    format!(
        "find out who changed silver; `boathouse batch backfill --from {from} --to {to}` makes these dates from Bronze \
         again, and `boathouse batch run --wait` brings gold and ClickHouse up to it"
    )
}

/// Rows of a date.
#[derive(Debug, Clone, Copy, Default)]
struct Sizes {
    /// Rows of Bronze.
    bronze: u64,
    /// Those that no rule refuses, copies and all.
    kept: u64,
    /// Rows of silver, as its files say.
    silver: u64,
}

/// Dates one after the other with at most so many rows, or one date.
fn groups(dates: &BTreeMap<NaiveDate, Sizes>, rows_max: u64) -> Vec<(NaiveDate, NaiveDate)> {
    let mut groups: Vec<(NaiveDate, NaiveDate)> = Vec::new();
    let mut rows = 0;
    for (date, sizes) in dates {
        let of_date = sizes.bronze.max(sizes.silver);
        match groups.last_mut() {
            Some((_, last)) if rows + of_date <= rows_max => *last = *date,
            _ => {
                groups.push((*date, *date));
                rows = 0;
            }
        }
        rows += of_date;
    }
    groups
}

struct Comparison<'a> {
    lake: &'a Lake,
    pipeline: &'a Pipeline,
    bronze: Arc<dyn TableProvider>,
    silver: Arc<dyn TableProvider>,
    layout: Layout,
    /// The column of the event's id.
    event_id: String,
    kept: String,
    /// Rows of silver by date, as its files say.
    there: BTreeMap<NaiveDate, u64>,
}

impl<'a> Comparison<'a> {
    async fn new(lake: &'a Lake, pipeline: &'a Pipeline, pair: &Pair, silver: &DeltaTable) -> Result<Self, BatchError> {
        let schema = silver_columns(pipeline);
        let id = pipeline.role(Role::EventId).map(|i| pipeline.fields[i].name.as_str()).unwrap_or_default();
        let layout = Layout::new(schema, &PLACE, &["topic", "generation", "partition", "offset", id], Some(EVENT_DATE));
        let layout = layout.ok_or_else(|| {
            BatchError::refused("silver cannot be compared", "a column is missing", "this is a fault of the program")
        })?;
        let mut there: BTreeMap<NaiveDate, u64> = BTreeMap::new();
        for file in pair.target.files() {
            let date = partition_date(file.partition.get(EVENT_DATE));
            *there.entry(date.unwrap_or_default()).or_default() += file.rows;
        }
        Ok(Self {
            lake,
            pipeline,
            bronze: gold::provider(&pair.bronze, &format!("bronze.{}", pipeline.name)).await?,
            silver: gold::provider(silver, &format!("silver.{}", pipeline.name)).await?,
            layout,
            event_id: id.to_owned(),
            kept: sql::kept(pipeline)?,
            there,
        })
    }

    /// The dates that Bronze or silver has rows of.
    async fn dates(&self) -> Result<BTreeMap<NaiveDate, Sizes>, BatchError> {
        let session = self.lake.session();
        let planned = async {
            session.register_table("bronze", self.bronze.clone())?;
            let statement = format!(
                "select cast({EVENT_TIME_COLUMN} as date) as day, count(*) as n, count(*) filter (where {}) as kept \
                 from bronze where {EVENT_TIME_COLUMN} is not null group by 1",
                self.kept
            );
            session.sql(&statement).await
        };
        let frame = planned.await.map_err(|e| self.wrong(&e))?;
        let mut dates: BTreeMap<NaiveDate, Sizes> = BTreeMap::new();
        for batch in sql::collect(frame, "Bronze").await? {
            let days = batch.column(0).as_primitive::<Date32Type>();
            let (n, kept) = (batch.column(1).as_primitive::<Int64Type>(), batch.column(2).as_primitive::<Int64Type>());
            for row in 0..batch.num_rows() {
                let sizes = Sizes { bronze: n.value(row) as u64, kept: kept.value(row) as u64, silver: 0 };
                dates.insert(date_of(days.value(row)).unwrap_or_default(), sizes);
            }
        }
        for (date, rows) in &self.there {
            dates.entry(*date).or_default().silver = *rows;
        }
        Ok(dates)
    }

    /// Rows of Bronze without an event time: they are no events.
    async fn dateless(&self) -> Result<u64, BatchError> {
        let session = self.lake.session();
        let planned = async {
            session.register_table("bronze", self.bronze.clone())?;
            session.sql(&format!("select count(*) from bronze where {EVENT_TIME_COLUMN} is null")).await
        };
        let batches = sql::collect(planned.await.map_err(|e| self.wrong(&e))?, "Bronze").await?;
        Ok(batches.first().map_or(0, |b| b.column(0).as_primitive::<Int64Type>().value(0) as u64))
    }

    /// Where Bronze's retention has taken rows that silver was made from, the dates that may have been made from them
    /// are left out; how many rows of silver they have.
    fn leave_out_what_bronze_outlived(
        &self,
        pair: &Pair,
        silver: &DeltaTable,
        dates: &mut BTreeMap<NaiveDate, Sizes>,
        check: &mut TableCheck,
    ) -> u64 {
        let Some(begins) = pair.bronze_begins() else { return 0 };
        // By the clock of Kafka an event is never ingested before the date that it bears, but for the future guard.
        if earliest_ingestion(silver).is_none_or(|earliest| earliest >= begins) {
            return 0;
        }
        let outlived: Vec<NaiveDate> = dates.keys().copied().filter(|date| *date <= begins).collect();
        let rows = outlived.iter().filter_map(|date| dates.remove(date)).map(|s| s.silver).sum();
        check.notes.push(format!(
            "Bronze begins with what was ingested on {begins}: the dates up to it cannot be compared any more"
        ));
        rows
    }

    async fn group(
        &self,
        (first, last): (NaiveDate, NaiveDate),
        rows: u64,
        tally: &mut Tally,
        watch: &dyn Watch,
    ) -> Result<(), BatchError> {
        let schema = &self.layout.schema;
        let planned = async {
            let session = self.lake.session();
            let dates = sql::on_dates(EVENT_TIME_COLUMN, first, last);
            session.register_table("bronze", session.read_table(self.bronze.clone())?.filter(dates)?.into_view())?;
            let columns: Vec<String> = self
                .layout
                .schema
                .fields()
                .iter()
                .map(|f| match f.name().as_str() {
                    EVENT_DATE => format!("cast({EVENT_TIME_COLUMN} as date) as {EVENT_DATE}"),
                    EVENT_HOUR => format!("cast(date_part('hour', {EVENT_TIME_COLUMN}) as int) as {EVENT_HOUR}"),
                    name => identifier(name),
                })
                .collect();
            let kept = session.sql(&format!("select {} from bronze where {}", columns.join(", "), self.kept)).await?;
            let found = session.read_table(self.silver.clone())?.filter(sql::between(EVENT_DATE, first, last))?;
            Ok((kept, found))
        };
        let (kept, found) = planned.await.map_err(|e| self.wrong(&e))?;
        // Copies of an event have its id.
        let id = [self.event_id.as_str()];
        let deal = Deal::of(self.lake, rows, &id);
        for (kept, found) in deal.pairs((kept, "Bronze"), (found, "silver"), schema).await? {
            let expected = (self.without_copies(kept).await?, "Bronze");
            sql::compare_in_order(&self.layout, expected, (found, "silver"), tally, &|rows| watch.rows(rows)).await?;
        }
        Ok(())
    }

    /// Of the copies of an event the one that stays.
    async fn without_copies(&self, kept: DataFrame) -> Result<DataFrame, BatchError> {
        let copy = sql::copy_number(self.pipeline)?;
        let columns: Vec<String> = self.layout.schema.fields().iter().map(|f| identifier(f.name())).collect();
        let statement = format!(
            "select {} from (select *, {copy} as boathouse_copy from kept) where boathouse_copy = 1",
            columns.join(", ")
        );
        let session = self.lake.session();
        let planned = async {
            session.register_table("kept", kept.into_view())?;
            session.sql(&statement).await
        };
        planned.await.map_err(|e: DataFusionError| self.wrong(&e))
    }

    fn wrong(&self, e: &DataFusionError) -> BatchError {
        BatchError::engine(format!("silver of {} cannot be compared", self.pipeline.name), e)
    }
}

/// The date on which the first of a table's rows was taken from Kafka, by its files' statistics.
fn earliest_ingestion(table: &DeltaTable) -> Option<NaiveDate> {
    let state = table.snapshot().ok()?;
    let earliest = |f: deltalake::kernel::LogicalFileView| {
        let stats: serde_json::Value = serde_json::from_str(&f.stats()?).ok()?;
        let text = stats.get("minValues")?.get("ingestion_time")?.as_str()?.to_owned();
        Some(chrono::DateTime::parse_from_rfc3339(&text).ok()?.date_naive())
    };
    state.log_data().iter().filter_map(earliest).min()
}
