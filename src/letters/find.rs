//! Which letters there are: rows of Bronze that are no events or whose clock is ahead, and rows that silver has refused.

use std::collections::BTreeSet;

use anyhow::bail;
use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};

use super::resolved::{Resolutions, resolutions};
use super::row::{Letter, text};
use crate::batch::locate::Place;
use crate::batch::quoting::literal;
use crate::batch::refused_table;
use crate::cli::lake::Lake;
use crate::config::{Config, Pipeline};

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Status {
    /// It is no event.
    Unparsed,
    /// Its clock is ahead.
    Future,
    /// Silver has refused it: a value that is not allowed, or an expectation.
    Refused,
}

/// Whether a corrected event has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    Resolved,
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The pipeline; without it all.
    pub pipeline: Option<String>,
    pub status: Option<Status>,
    /// Taken from Kafka at this moment or later.
    pub from: Option<DateTime<Utc>>,
    /// Taken from Kafka before this moment.
    pub to: Option<DateTime<Utc>>,
    /// The reason contains this.
    pub reason: Option<String>,
    pub state: Option<State>,
    pub limit: usize,
}

/// The reason of a row of Bronze, in SQL.
const REASON: &str = "case time_status when 'future' then \
    'event time ' || cast(event_time as varchar) || ' lies ahead of its Kafka timestamp' else parse_error end";
/// The same without what differs from record to record.
const KIND_OF_REASON: &str = "case time_status when 'future' then 'event time ahead of Kafka timestamp' \
    else regexp_replace(parse_error, '(byte|found|:) -?[0-9][0-9.eE+-]*', '\\1 …', 'g') end";
/// The reasons of a row that silver has refused.
const REASONS: &str = "array_to_string(reasons, ', ')";
/// A record's place.
const SOURCE: &str = "topic || '/' || generation || '/' || \"partition\" || '/' || \"offset\"";

/// One table in which letters are.
struct Table<'a> {
    table: String,
    status: &'a str,
    reason: &'a str,
    kind: &'a str,
    condition: &'a str,
}

impl Search {
    /// The tables that may hold letters of a pipeline.
    fn places(&self, lake: &Lake, pipeline: &str) -> Vec<Table<'static>> {
        let refused = refused_table(pipeline);
        let mut places = Vec::new();
        let tables = lake.tables();
        if self.status != Some(Status::Refused) {
            let condition = match self.status {
                // What is no event has no time, and the files' statistics count those: most files are not opened.
                Some(Status::Unparsed) => "event_time is null and time_status = 'unparsed'",
                Some(Status::Future) => "time_status = 'future'",
                _ => "time_status in ('unparsed', 'future')",
            };
            let table = format!("bronze.{pipeline}");
            places.push(Table { table, status: "time_status", reason: REASON, kind: KIND_OF_REASON, condition });
        }
        if matches!(self.status, None | Some(Status::Refused)) {
            // Those that are no events or of the future are in Bronze already, with their headers.
            let condition = "time_status in ('ok', 'late')";
            let table = format!("silver.{refused}");
            places.push(Table { table, status: "'refused'", reason: REASONS, kind: REASONS, condition });
        }
        places.retain(|place| tables.contains(&place.table));
        places
    }

    fn condition(&self, place: &Table, resolved: &Resolutions) -> String {
        let mut conditions = vec![place.condition.to_owned()];
        // The partition column spares the files of other days.
        if let Some(from) = self.from {
            conditions.push(format!("ingestion_time >= '{}'", from.format("%Y-%m-%dT%H:%M:%S%.6fZ")));
            conditions.push(format!("ingestion_date >= '{}'", from.format("%Y-%m-%d")));
        }
        if let Some(to) = self.to {
            conditions.push(format!("ingestion_time < '{}'", to.format("%Y-%m-%dT%H:%M:%S%.6fZ")));
            conditions.push(format!("ingestion_date <= '{}'", to.format("%Y-%m-%d")));
        }
        if let Some(reason) = &self.reason {
            conditions.push(format!("strpos({}, {}) > 0", place.reason, literal(reason)));
        }
        if let Some(state) = self.state {
            let origins: BTreeSet<String> = resolved.origins().map(literal).collect();
            let list = origins.into_iter().collect::<Vec<_>>().join(", ");
            conditions.push(match (state, list.is_empty()) {
                (State::Open, true) => "true".into(),
                (State::Resolved, true) => "false".into(),
                (State::Open, false) => format!("{SOURCE} not in ({list})"),
                (State::Resolved, false) => format!("{SOURCE} in ({list})"),
            });
        }
        conditions.join(" and ")
    }

    /// The pipelines asked for that have a Bronze table.
    fn pipelines<'a>(&self, config: &'a Config, lake: &Lake) -> anyhow::Result<Vec<&'a Pipeline>> {
        let named = |p: &&Pipeline| self.pipeline.as_ref().is_none_or(|name| *name == p.name);
        let found: Vec<&Pipeline> = config.pipelines.iter().map(|p| &**p).filter(named).collect();
        if found.is_empty() {
            let names: Vec<&str> = config.pipelines.iter().map(|p| p.name.as_str()).collect();
            let name = self.pipeline.as_deref().unwrap_or_default();
            bail!("there is no pipeline `{name}`; the pipelines are {}", names.join(", "));
        }
        let tables = lake.tables();
        Ok(found.into_iter().filter(|p| tables.contains(&format!("bronze.{}", p.name))).collect())
    }

    /// What letters are told apart by, where the search asks for a state; nothing where it does not.
    async fn resolutions(&self, lake: &Lake, pipeline: &Pipeline) -> anyhow::Result<Resolutions> {
        match self.state {
            Some(_) => resolutions(lake, pipeline, None).await,
            None => Ok(Resolutions::default()),
        }
    }

    /// The newest letters that fit, newest first, each with what resolves it.
    pub(crate) async fn newest(&self, config: &Config, lake: &Lake) -> anyhow::Result<Vec<Letter>> {
        let mut letters = Vec::new();
        for pipeline in self.pipelines(config, lake)? {
            let mut resolved = self.resolutions(lake, pipeline).await?;
            let first = letters.len();
            for place in self.places(lake, &pipeline.name) {
                let sql = format!(
                    "select *, {} as letter_status, {} as letter_reason from {} where {} \
                     order by ingestion_time desc, generation, \"partition\", \"offset\" desc limit {}",
                    place.status,
                    place.reason,
                    place.table,
                    self.condition(&place, &resolved),
                    self.limit
                );
                for batch in collect(lake, &sql).await? {
                    for row in 0..batch.num_rows() {
                        letters.push(Letter::read(&pipeline.name, &pipeline.fields, &batch, row)?);
                    }
                }
            }
            let own: &mut [Letter] = &mut letters[first..];
            if self.state.is_none()
                && let Some(oldest) = own.iter().map(|letter| letter.ingested.as_str()).min()
            {
                resolved = resolutions(lake, pipeline, Some(oldest)).await?;
            }
            own.iter_mut().for_each(|letter| letter.resolved_by = resolved.of(&letter.source()));
        }
        letters.sort_by(|a, b| b.ingested.cmp(&a.ingested));
        letters.truncate(self.limit);
        Ok(letters)
    }
}

/// How often each reason came: pipeline, status, reason and count, the most frequent first.
pub(crate) async fn by_reason(
    search: &Search,
    config: &Config,
    lake: &Lake,
) -> anyhow::Result<Vec<(String, String, String, u64)>> {
    let mut counted = Vec::new();
    for pipeline in search.pipelines(config, lake)? {
        let resolved = search.resolutions(lake, pipeline).await?;
        for place in search.places(lake, &pipeline.name) {
            let sql = format!(
                "select {} as status, {} as reason, count(*) as n from {} where {} group by 1, 2 order by 3 desc limit {}",
                place.status,
                place.kind,
                place.table,
                search.condition(&place, &resolved),
                search.limit
            );
            for batch in collect(lake, &sql).await? {
                for row in 0..batch.num_rows() {
                    let n: u64 = text(&batch, "n", row)?.unwrap_or_default().parse().unwrap_or(0);
                    let status = text(&batch, "status", row)?.unwrap_or_default();
                    let reason = text(&batch, "reason", row)?.unwrap_or_default();
                    counted.push((pipeline.name.clone(), status, reason, n));
                }
            }
        }
    }
    counted.sort_by_key(|c| std::cmp::Reverse(c.3));
    Ok(counted)
}

pub(super) async fn collect(lake: &Lake, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
    lake.sql(sql).await?.collect().await.map_err(|e| lake.explain(e))
}

/// One record of Bronze with its pipeline; of a place without a generation the newest one.
pub(crate) async fn record(config: &Config, lake: &Lake, place: &Place) -> anyhow::Result<(String, RecordBatch)> {
    for pipeline in Search::default().pipelines(config, lake)? {
        let generation = match place.generation {
            -1 => "true".to_owned(),
            generation => format!("generation = {generation}"),
        };
        let sql = format!(
            "select *, time_status as letter_status, {REASON} as letter_reason from bronze.{} \
             where topic = {} and {generation} and \"partition\" = {} and \"offset\" = {} \
             order by generation desc limit 1",
            pipeline.name,
            literal(&place.topic),
            place.partition,
            place.offset
        );
        if let Some(batch) = collect(lake, &sql).await?.into_iter().find(|b| b.num_rows() > 0) {
            return Ok((pipeline.name.clone(), batch));
        }
    }
    bail!("Bronze has no record {place}; is it committed yet (`boathouse status`)?");
}
