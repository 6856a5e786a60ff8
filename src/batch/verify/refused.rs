//! The refused rows of silver = those of Bronze that a rule refuses, with their reasons.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::DataFusionError;
use deltalake::DeltaTable;

use super::super::gold;
use super::super::lake::refused_table;
use super::super::silver::{Definitions, REASONS};
use super::super::{BatchError, Lake};
use super::part::Deal;
use super::rows::{Layout, Tally};
use super::silver::{PLACE, pair, range};
use super::{TableCheck, Watch, sql};
use crate::bronze::PARTITION_COLUMN;
use crate::config::Pipeline;
use crate::event::EVENT_TIME_COLUMN;

/// Compares the refused rows and their reasons with Bronze as of the version that their table has read. They have no
/// event date: all of them are looked at.
pub async fn verify_refused(lake: &Lake, pipeline: &Pipeline, watch: &dyn Watch) -> Result<TableCheck, BatchError> {
    let table = refused_table(&pipeline.name);
    let mut check = TableCheck::new(&pipeline.name, format!("silver.{table}"));
    let definitions = Definitions::of(pipeline)?;
    let pair = match pair(lake, pipeline, &definitions.refused, &table).await? {
        Ok(pair) => pair,
        Err((verdict, why)) => return Ok(check.ended(verdict, why)),
    };
    let version = pair.target.found.as_ref().map(|f| f.version);
    (check.version, check.source_version) = (version, Some(pair.read_to));
    let unreadable = |e| BatchError::unavailable(format!("silver/{table} cannot be read"), e);
    let mut refused = DeltaTable::new(pair.target.store.clone());
    refused.load_version(version.unwrap_or_default()).await.map_err(unreadable)?;

    let field = |name: &str, kind| Field::new(name, kind, true);
    let schema = Arc::new(Schema::new(vec![
        field("topic", DataType::Utf8),
        field("generation", DataType::Int32),
        field("partition", DataType::Int32),
        field("offset", DataType::Int64),
        field(PARTITION_COLUMN, DataType::Date32),
        field(REASONS, DataType::Utf8),
    ]));
    let named = ["topic", "generation", "partition", "offset"];
    let layout = Layout::new(schema.clone(), &PLACE, &named, Some(PARTITION_COLUMN));
    let layout = layout.ok_or_else(|| {
        BatchError::refused("refused rows cannot be compared", "a column is missing", "this is a fault of the program")
    })?;
    let kept = pair.target.horizon();
    if let Some(kept) = kept {
        check.notes.push(format!("what was ingested before {kept} is left out: retention.silver has taken it"));
    }
    let since = pair.bronze_begins().max(kept);
    let session = lake.session();
    let reasons = sql::reasons_text(pipeline)?;
    let (bronze, refused) = (gold::provider(&pair.bronze, "bronze").await?, gold::provider(&refused, &table).await?);
    let planned = async {
        session.register_table("bronze", bronze)?;
        session.register_table("refused", refused)?;
        let place = "topic, generation, partition, \"offset\", ingestion_date";
        // What was ingested before Bronze begins has left it by retention; earlier rows may have left this table, too,
        // and so may those that came when their events were already older than silver is kept.
        let mut rows = vec!["true".to_owned()];
        rows.extend(since.map(|since| format!("ingestion_date >= date '{since}'")));
        rows.extend(kept.map(|kept| format!("({EVENT_TIME_COLUMN} is null or {EVENT_TIME_COLUMN} >= date '{kept}')")));
        let rows = rows.join(" and ");
        let expected = format!(
            "select * from (select {place}, {reasons} as {REASONS} from bronze where {rows}) where {REASONS} is not null"
        );
        let found = format!("select {place}, array_to_string({REASONS}, ', ') as {REASONS} from refused where {rows}");
        Ok::<_, DataFusionError>((session.sql(&expected).await?, session.sql(&found).await?))
    };
    let failed = |e: DataFusionError| BatchError::engine("refused rows cannot be compared", &e);
    let (expected, found) = planned.await.map_err(failed)?;
    let rows = pair.target.files().iter().map(|f| f.rows).sum();
    watch.begin(&check.table, rows);
    let mut tally = Tally::default();
    let deal = Deal::of(lake, rows, &PLACE);
    for (expected, found) in deal.pairs((expected, "Bronze"), (found, &check.table), &schema).await? {
        let (expected, found) = ((expected, "Bronze"), (found, check.table.as_str()));
        sql::compare_in_order(&layout, expected, found, &mut tally, &|rows| watch.rows(rows)).await?;
    }
    Ok(check.counted(tally, |dates| {
        let (from, to) = range(dates);
        format!(
            "find out who changed it; `boathouse batch backfill --from {from} --to {to}` makes the refused rows that were \
             taken from Kafka on these dates from Bronze again"
        )
    }))
}
