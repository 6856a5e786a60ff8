//! A record's row of silver, or the reason why it has none.

use arrow::array::{Array, AsArray, RecordBatch};
use chrono::NaiveDate;
use datafusion::common::{Column, DataFusionError, ScalarValue};
use datafusion::logical_expr::{Expr, col, lit};
use deltalake::DeltaTable;

use super::super::gold;
use super::super::graph::silver_columns;
use super::super::hour::Hour;
use super::super::lake::refused_table;
use super::super::silver::{Definitions, EVENT_DATE, EVENT_HOUR, REASONS};
use super::super::target::Target;
use super::super::{BatchError, Lake, Layer};
use super::{CommitRef, Place, commit_of, date_of_instant};
use crate::config::{Pipeline, Role};

/// Where a record is in silver.
#[derive(Debug, Clone)]
pub enum SilverPlace {
    /// Its row, in silver's columns; the files of its event-hour and the commit that wrote them last.
    Kept { row: RecordBatch, silver_version: u64, files: Vec<String>, commit: Option<CommitRef> },
    /// A rule refuses it.
    Refused { reasons: Vec<String>, refused_version: u64 },
    /// Another copy of the event stayed.
    Duplicate { of: Place, silver_version: u64 },
    /// The batch has not read it yet.
    NotYetRun { why: String },
    /// Its date has left silver by retention: the first date that is kept.
    Expired { kept: NaiveDate },
    /// Silver has read Bronze past it, and it is in none of the tables.
    Missing { silver_version: u64, read_to: u64 },
}

/// What is known of a record from Bronze.
#[derive(Debug, Clone)]
pub struct Record {
    pub place: Place,
    pub event_id: Option<String>,
    /// Microseconds since the epoch.
    pub event_time: Option<i64>,
}

/// Finds a record in silver's tables. `in_bronze` says whether Bronze held it at a version.
pub async fn locate_in_silver<F>(
    lake: &Lake,
    pipeline: &Pipeline,
    bronze_table_id: &str,
    record: &Record,
    in_bronze: impl Fn(u64) -> F,
) -> Result<SilverPlace, BatchError>
where
    F: Future<Output = Result<bool, BatchError>>,
{
    let definitions = Definitions::of(pipeline)?;
    let name = &pipeline.name;
    let look = async |table: &str, definition| {
        let target = Target::look(lake, (Layer::Silver, table), definition, bronze_table_id).await?;
        Ok::<_, BatchError>(target.found.is_some().then_some(target))
    };
    let silver = look(name, &definitions.silver).await?;
    let refused = look(&refused_table(name), &definitions.refused).await?;
    let mut duplicate = None;
    if let (Some(target), Some(event_id), Some(event_time)) = (&silver, &record.event_id, record.event_time)
        && let Some(found) = &target.found
    {
        let hour = Hour::of_micros(event_time);
        let rows = copies(lake, pipeline, &target.store, found.version, event_id, hour).await?;
        let places: Vec<Place> =
            rows.iter().flat_map(|batch| (0..batch.num_rows()).filter_map(|r| Place::of_row(batch, r).ok())).collect();
        let mut at = 0;
        for batch in &rows {
            for row in 0..batch.num_rows() {
                if places.get(at) == Some(&record.place) {
                    let of_hour = |f: &&super::super::target::TableFile| Hour::of_partition(&f.partition) == Some(hour);
                    let files: Vec<String> = target.files().iter().filter(of_hour).map(|f| f.path.clone()).collect();
                    let commit = commit_of(&target.store, found.version, &files, None).await?;
                    let (row, silver_version) = (batch.slice(row, 1), found.version);
                    return Ok(SilverPlace::Kept { row, silver_version, files, commit });
                }
                at += 1;
            }
        }
        if let Some(of) = places.into_iter().next()
            && reached(found.facts.read_to, &in_bronze).await?
        {
            duplicate = Some(SilverPlace::Duplicate { of, silver_version: found.version });
        }
    }
    if let Some(target) = &refused
        && let Some(found) = &target.found
        && let Some(reasons) = reasons(lake, &target.store, found.version, &record.place).await?
    {
        return Ok(SilverPlace::Refused { reasons, refused_version: found.version });
    }
    // A refused copy is no duplicate: it would not have stayed alone either.
    if let Some(duplicate) = duplicate {
        return Ok(duplicate);
    }
    let Some(found) = silver.and_then(|target| target.found) else {
        let why = format!("there is no silver/{name} yet; `boathouse batch run` makes it");
        return Ok(SilverPlace::NotYetRun { why });
    };
    let silver_version = found.version;
    match found.facts.read_to {
        None => {
            let why = "silver was made from another Bronze table; the next run makes it anew".into();
            Ok(SilverPlace::NotYetRun { why })
        }
        Some(read_to) if in_bronze(read_to).await? => {
            let older = |kept: &NaiveDate| record.event_time.is_some_and(|time| date_of_instant(time) < *kept);
            match found.horizon.filter(older) {
                Some(kept) => Ok(SilverPlace::Expired { kept }),
                None => Ok(SilverPlace::Missing { silver_version, read_to }),
            }
        }
        Some(read_to) => {
            let why = format!("silver has read Bronze to version {read_to}; the next run takes it");
            Ok(SilverPlace::NotYetRun { why })
        }
    }
}

/// Whether Bronze held the record at the version that was read.
async fn reached<F>(read_to: Option<u64>, in_bronze: impl Fn(u64) -> F) -> Result<bool, BatchError>
where
    F: Future<Output = Result<bool, BatchError>>,
{
    match read_to {
        Some(read_to) => in_bronze(read_to).await,
        None => Ok(false),
    }
}

/// Whether a version of silver has the row of a record.
pub(super) async fn silver_has(
    lake: &Lake,
    pipeline: &Pipeline,
    version: u64,
    record: (&str, Hour),
    wanted: &Place,
) -> Result<bool, BatchError> {
    let store = lake.log_store(Layer::Silver, &pipeline.name)?;
    let rows = copies(lake, pipeline, &store, version, record.0, record.1).await?;
    Ok(rows.iter().any(|batch| (0..batch.num_rows()).any(|row| Place::of_row(batch, row).as_ref() == Ok(wanted))))
}

/// Silver's rows of an event in its hour: one, if all is well.
async fn copies(
    lake: &Lake,
    pipeline: &Pipeline,
    store: &deltalake::logstore::LogStoreRef,
    version: u64,
    event_id: &str,
    hour: Hour,
) -> Result<Vec<RecordBatch>, BatchError> {
    let id = pipeline.role(Role::EventId).map(|i| pipeline.fields[i].name.clone()).unwrap_or_default();
    let failed = |e: DataFusionError| BatchError::unavailable("silver cannot be read", e.strip_backtrace());
    let rows = named(EVENT_DATE)
        .eq(lit(ScalarValue::Date32(Some(gold::days_since_epoch(hour.date())))))
        .and(named(EVENT_HOUR).eq(lit(hour.hour_of_day() as i32)))
        .and(named(&id).eq(lit(event_id)));
    let mut table = DeltaTable::new(store.clone());
    table.load_version(version).await.map_err(|e| BatchError::unavailable("silver cannot be read", e))?;
    let provider = gold::provider(&table, "silver").await?;
    let read = async { lake.session().read_table(provider)?.filter(rows)?.collect().await };
    let schema = silver_columns(pipeline);
    let batches = read.await.map_err(failed)?.into_iter();
    let conform = |b: RecordBatch| gold::conform(&b, &schema).map_err(|e| BatchError::unavailable("silver", e));
    batches.map(conform).collect()
}

fn named(column: &str) -> Expr {
    col(Column::from_name(column))
}

/// Why a record was refused; none where it is not among the refused.
async fn reasons(
    lake: &Lake,
    store: &deltalake::logstore::LogStoreRef,
    version: u64,
    place: &Place,
) -> Result<Option<Vec<String>>, BatchError> {
    let mut table = DeltaTable::new(store.clone());
    table.load_version(version).await.map_err(|e| BatchError::unavailable("refused rows cannot be read", e))?;
    let provider = gold::provider(&table, "refused").await?;
    let session = lake.session();
    let rows = named("generation")
        .eq(lit(place.generation))
        .and(named("partition").eq(lit(place.partition)))
        .and(named("offset").eq(lit(place.offset)));
    let read = async {
        session.register_table("refused", session.read_table(provider)?.filter(rows)?.into_view())?;
        let sql = format!("select arrow_cast(array_to_string({REASONS}, '\n'), 'Utf8') as reasons from refused");
        session.sql(&sql).await?.collect().await
    };
    let batches = read
        .await
        .map_err(|e: DataFusionError| BatchError::unavailable("refused rows cannot be read", e.strip_backtrace()))?;
    let found = batches.iter().find(|b| b.num_rows() > 0).and_then(|b| b.column(0).as_string_opt::<i32>().cloned());
    Ok(found.map(|texts| match texts.is_valid(0) {
        true => texts.value(0).lines().map(str::to_owned).collect(),
        false => Vec::new(),
    }))
}
