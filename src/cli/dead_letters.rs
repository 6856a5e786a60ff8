//! `boathouse dead-letters`: the records that are no events, or whose clock is wrong, as Bronze keeps them.

use std::io::Write;

use anyhow::{Context as _, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::array_value_to_string;
use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::lake::Lake;
use super::output::{self, Grid, count, safe_bytes, safe_text, shorten};
use super::{Context, Outcome, pipelines};
use crate::config::{Config, Field, Role};
use crate::window::Verdict;

/// Records that are no events (`unparsed`) or whose clock is ahead (`future`).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  boathouse dead-letters list                              the newest, with the reason and the first bytes
  boathouse dead-letters list --status unparsed --since 1h
  boathouse dead-letters list --reasons                    how often each reason came
  boathouse dead-letters show user-events/0/2/1041         the whole record: topic/generation/partition/offset")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The newest dead letters.
    List(List),
    /// One record, whole: `topic/generation/partition/offset`.
    Show {
        /// As `list` prints it.
        source: String,
    },
}

#[derive(Debug, Default, clap::Args)]
pub(crate) struct List {
    /// The pipeline; without it all.
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// One kind alone.
    #[arg(long, value_enum)]
    pub status: Option<Status>,
    /// Only what arrived within this time, as 90m or 2d.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub since: Option<std::time::Duration>,
    /// Only where the reason contains this text.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How many.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Count by reason instead.
    #[arg(long)]
    pub reasons: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    Unparsed,
    Future,
}

/// Characters of a payload in the list.
const PREVIEW: usize = 60;

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let lake = Lake::open(Some(&config.server.lakehouse.uri))?;
        context.block_on(async {
            match self.action {
                Action::List(list) if list.reasons => list.reasons(&config, &lake, context.json).await,
                Action::List(list) => list.run(&config, &lake, context.json).await,
                Action::Show { source } => show(&config, &lake, &source, context.json).await,
            }
        })?;
        Ok(Outcome::Right)
    }
}

/// The pipelines asked for that have a Bronze table.
fn read_from(config: &Config, lake: &Lake, named: Option<&str>) -> anyhow::Result<Vec<String>> {
    let tables = lake.tables();
    let wanted = pipelines::chosen(config, named)?.into_iter().map(|p| p.name.clone());
    Ok(wanted.filter(|p| tables.contains(&format!("bronze.{p}"))).collect())
}

/// The reason of a row, in SQL.
const REASON: &str = "case time_status when 'future' then \
    'event time ' || cast(event_time as varchar) || ' lies ahead of its Kafka timestamp' else parse_error end";

impl List {
    fn condition(&self) -> String {
        let status = match self.status {
            None => "time_status in ('unparsed', 'future')".to_string(),
            Some(Status::Unparsed) => "time_status = 'unparsed'".into(),
            Some(Status::Future) => "time_status = 'future'".into(),
        };
        let mut conditions = vec![status];
        if let Some(since) = self.since {
            let from = chrono::Utc::now() - since;
            conditions.push(format!("ingestion_time >= '{}'", from.format("%Y-%m-%dT%H:%M:%S%.6fZ")));
            // The partition column spares the files of earlier days.
            conditions.push(format!("ingestion_date >= '{}'", from.format("%Y-%m-%d")));
        }
        if let Some(reason) = &self.reason {
            conditions.push(format!("strpos({REASON}, '{}') > 0", reason.replace('\'', "''")));
        }
        conditions.join(" and ")
    }

    /// The newest dead letters that fit, newest first.
    pub(crate) async fn newest(&self, config: &Config, lake: &Lake) -> anyhow::Result<Vec<Letter>> {
        let condition = self.condition();
        let mut rows = Vec::new();
        for pipeline in read_from(config, lake, self.pipeline.as_deref())? {
            let sql = format!(
                "select *, topic || '/' || generation || '/' || partition || '/' || \"offset\" as letter_source, \
                 {REASON} as letter_reason from bronze.{pipeline} where {condition} \
                 order by ingestion_time desc, generation, partition, \"offset\" desc limit {}",
                self.limit
            );
            let fields = config.pipelines.iter().find(|p| p.name == pipeline).map(|p| &p.fields[..]);
            for batch in collect(lake, &sql).await? {
                for row in 0..batch.num_rows() {
                    rows.push(Letter::read(&pipeline, fields.unwrap_or_default(), &batch, row)?);
                }
            }
        }
        rows.sort_by(|a, b| b.ingested.cmp(&a.ingested));
        rows.truncate(self.limit);
        Ok(rows)
    }

    async fn run(&self, config: &Config, lake: &Lake, json: bool) -> anyhow::Result<()> {
        let rows = self.newest(config, lake).await?;
        if json {
            return output::json(&rows.iter().map(Letter::json).collect::<Vec<_>>());
        }
        let mut out = output::stdout();
        if rows.is_empty() {
            writeln!(out, "No dead letters.")?;
        } else {
            let mut grid = Grid::new(&["source", "arrived", "status", "reason", "payload"]);
            for letter in &rows {
                grid.row([
                    safe_text(&letter.source),
                    letter.ingested.clone(),
                    letter.status.clone(),
                    shorten(&safe_text(&letter.reason), 80),
                    letter.payload.as_deref().map_or_else(|| "–".into(), |p| shorten(&safe_bytes(p), PREVIEW)),
                ]);
            }
            grid.write(&mut out)?;
            if rows.len() == self.limit {
                writeln!(out, "The newest {}; --limit N shows more, --reasons counts all.", count(self.limit as i128))?;
            }
        }
        Ok(out.flush()?)
    }

    async fn reasons(&self, config: &Config, lake: &Lake, json: bool) -> anyhow::Result<()> {
        let condition = self.condition();
        let mut counted = Vec::new();
        for pipeline in read_from(config, lake, self.pipeline.as_deref())? {
            let sql = format!(
                "select time_status, case time_status when 'future' then 'event time ahead of Kafka timestamp' \
                 else regexp_replace(parse_error, '(byte|found|:) -?[0-9][0-9.eE+-]*', '\\1 …', 'g') end as reason, count(*) as n from bronze.{pipeline} where {condition} \
                 group by 1, 2 order by 3 desc limit {}",
                self.limit
            );
            for batch in collect(lake, &sql).await? {
                for row in 0..batch.num_rows() {
                    let n: u64 = text(&batch, "n", row)?.unwrap_or_default().parse().unwrap_or(0);
                    let status = text(&batch, "time_status", row)?.unwrap_or_default();
                    counted.push((pipeline.clone(), status, text(&batch, "reason", row)?.unwrap_or_default(), n));
                }
            }
        }
        counted.sort_by_key(|c| std::cmp::Reverse(c.3));
        if json {
            let rows = counted.iter().map(|(pipeline, status, reason, n)| {
                json!({"pipeline": pipeline, "time_status": status, "reason": reason, "record_count": n})
            });
            return output::json(&rows.collect::<Vec<_>>());
        }
        let mut out = output::stdout();
        let mut grid = Grid::new(&["pipeline", "status", "records", "reason"]);
        for (pipeline, status, reason, n) in counted {
            grid.row([pipeline, status, count(n), shorten(&safe_text(&reason), 100)]);
        }
        grid.write(&mut out)?;
        Ok(out.flush()?)
    }
}

async fn collect(lake: &Lake, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
    lake.sql(sql).await?.collect().await.map_err(|e| lake.explain(e))
}

/// One row of the list.
pub(crate) struct Letter {
    pub pipeline: String,
    /// `topic/generation/partition/offset`.
    pub source: String,
    pub ingested: String,
    pub status: String,
    pub reason: String,
    pub payload: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Letter {
    fn read(pipeline: &str, fields: &[Field], batch: &RecordBatch, row: usize) -> anyhow::Result<Self> {
        let column = |name| text(batch, name, row).map(Option::unwrap_or_default);
        let status = column("time_status")?;
        // An event whose columns say everything has no payload of its own.
        let payload = match bytes(batch, "payload", row) {
            None if status == Verdict::Future.as_str() => Some(event(fields, batch, row)?.into_bytes()),
            payload => payload,
        };
        Ok(Self {
            pipeline: pipeline.to_string(),
            source: column("letter_source")?,
            ingested: column("ingestion_time")?,
            status,
            reason: column("letter_reason")?,
            payload,
            key: bytes(batch, "key", row),
        })
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "pipeline": self.pipeline,
            "source": self.source,
            "ingestion_time": self.ingested,
            "time_status": self.status,
            "reason": self.reason,
            "payload": self.payload.as_deref().map(bytes_as_json),
            "key": self.key.as_deref().map(bytes_as_json),
        })
    }
}

/// The event that a row's columns stand for, as JSON.
fn event(fields: &[Field], batch: &RecordBatch, row: usize) -> anyhow::Result<String> {
    let mut members = Vec::new();
    for field in fields {
        let is_time = field.role == Some(Role::EventTime);
        let column = if is_time { "event_time" } else { field.name.as_str() };
        let value = match cell_as_json(batch, column, row)? {
            // Without a payload it was written like this.
            Value::String(time) if is_time => Value::from(time.trim_end_matches('Z')),
            value => value,
        };
        if value != Value::Null {
            members.push(format!("{}:{value}", Value::from(field.name.as_str())));
        }
    }
    Ok(format!("{{{}}}", members.join(",")))
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> anyhow::Result<Option<String>> {
    let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    Ok(if column.is_null(row) { None } else { Some(array_value_to_string(column, row)?) })
}

fn bytes(batch: &RecordBatch, name: &str, row: usize) -> Option<Vec<u8>> {
    let column = batch.column_by_name(name)?;
    if column.is_null(row) {
        return None;
    }
    if let Some(binary) = column.as_binary_opt::<i32>() {
        return Some(binary.value(row).to_vec());
    }
    column.as_binary_view_opt().map(|view| view.value(row).to_vec())
}

/// A text where the bytes are one, else `{"hex": "…"}`.
fn bytes_as_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "hex": bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() }),
    }
}

/// `topic/generation/partition/offset`.
fn parse_source(source: &str) -> anyhow::Result<(&str, i32, i32, i64)> {
    let wrong = || format!("`{source}` is no source; write topic/generation/partition/offset, as `list` prints it");
    let mut parts = source.rsplitn(4, '/');
    let mut next = || parts.next().with_context(wrong);
    let (offset, partition, generation, topic) = (next()?, next()?, next()?, next()?);
    Ok((
        topic,
        generation.parse().with_context(wrong)?,
        partition.parse().with_context(wrong)?,
        offset.parse().with_context(wrong)?,
    ))
}

/// One record of Bronze with its pipeline: `topic/generation/partition/offset`.
pub(crate) async fn record(config: &Config, lake: &Lake, source: &str) -> anyhow::Result<(String, RecordBatch)> {
    let (topic, generation, partition, offset) = parse_source(source)?;
    for pipeline in read_from(config, lake, None)? {
        let sql = format!(
            "select * from bronze.{pipeline} where topic = '{}' and generation = {generation} \
             and partition = {partition} and \"offset\" = {offset}",
            topic.replace('\'', "''")
        );
        if let Some(batch) = collect(lake, &sql).await?.into_iter().find(|b| b.num_rows() > 0) {
            return Ok((pipeline, batch));
        }
    }
    bail!("Bronze has no record {source}; is it committed yet (`boathouse status`)?");
}

/// A record's columns by name.
pub(crate) fn record_as_json(pipeline: &str, batch: &RecordBatch) -> anyhow::Result<Map<String, Value>> {
    let mut object = Map::new();
    object.insert("pipeline".into(), pipeline.into());
    for field in batch.schema().fields() {
        object.insert(field.name().clone(), cell_as_json(batch, field.name(), 0)?);
    }
    Ok(object)
}

async fn show(config: &Config, lake: &Lake, source: &str, json: bool) -> anyhow::Result<()> {
    let (pipeline, batch) = record(config, lake, source).await?;
    if json {
        return output::json(&Value::Object(record_as_json(&pipeline, &batch)?));
    }
    let mut out = output::stdout();
    let width = batch.schema().fields().iter().map(|f| f.name().len()).max().unwrap_or(0);
    for field in batch.schema().fields() {
        let name = field.name();
        let shown = match name.as_str() {
            "headers" => headers(&batch, 0)
                .map(|headers| {
                    let shown = |(key, value): &(String, Option<Vec<u8>>)| {
                        let value = value.as_deref().map_or_else(|| "null".into(), safe_bytes);
                        format!("{}: {value}", safe_text(key))
                    };
                    headers.iter().map(shown).collect::<Vec<_>>().join("; ")
                })
                .unwrap_or_else(|| "–".into()),
            _ => match bytes(&batch, name, 0) {
                Some(bytes) => safe_bytes(&bytes),
                None => text(&batch, name, 0)?.map_or_else(|| "–".into(), |t| safe_text(&t)),
            },
        };
        writeln!(out, "{name:width$}  {shown}")?;
    }
    Ok(out.flush()?)
}

fn headers(batch: &RecordBatch, row: usize) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    let list = batch.column_by_name("headers")?.as_list_opt::<i32>()?;
    if list.is_null(row) {
        return None;
    }
    let elements = list.value(row);
    let elements = elements.as_struct_opt()?;
    let fields = arrow::datatypes::Schema::new(elements.fields().clone());
    let columns = RecordBatch::try_new(fields.into(), elements.columns().to_vec()).ok()?;
    let element = |i| Some((text(&columns, "key", i).ok()??, bytes(&columns, "value", i)));
    (0..elements.len()).map(element).collect()
}

fn cell_as_json(batch: &RecordBatch, name: &str, row: usize) -> anyhow::Result<Value> {
    if name == "headers" {
        return Ok(headers(batch, row).map_or(Value::Null, |headers| {
            let element = |(key, value): (String, Option<Vec<u8>>)| {
                json!({"key": key, "value": value.as_deref().map(bytes_as_json)})
            };
            headers.into_iter().map(element).collect()
        }));
    }
    if let Some(bytes) = bytes(batch, name, row) {
        return Ok(bytes_as_json(&bytes));
    }
    let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    let Some(text) = text(batch, name, row)? else { return Ok(Value::Null) };
    let kind = column.data_type();
    Ok(if kind.is_integer() || kind.is_floating() || *kind == arrow::datatypes::DataType::Boolean {
        serde_json::from_str(&text).unwrap_or(Value::from(text))
    } else {
        Value::from(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_from_the_end() {
        assert_eq!(parse_source("user-events/0/2/17").unwrap(), ("user-events", 0, 2, 17));
        assert!(parse_source("17").unwrap_err().to_string().contains("topic/generation/partition/offset"));
        assert!(parse_source("t/0/x/1").is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_hexadecimal() {
        assert_eq!(bytes_as_json(b"ab"), json!("ab"));
        assert_eq!(bytes_as_json(b"\xff\x00"), json!({"hex": "ff00"}));
    }
}
