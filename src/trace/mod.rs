//! Where did event X go? One event followed from its place in Kafka through Bronze, its windows, silver and gold to what
//! ClickHouse serves. A function that gives a value: the command and the console show it.
//!
//! Nothing is written and nobody is asked for a favour: the tables' own files and logs say where a row is, and ClickHouse
//! what it serves.

mod timeline;
mod windows;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

pub use timeline::{About, Step};
pub use windows::WindowPart;

use crate::batch::locate::{
    CommitRef, Contribution, Place, Record, SilverPlace, commit_of, contributions, locate_in_silver, row_as_json,
};
use crate::batch::{BatchError, Lake, Layer};
use crate::bronze::{BronzeError, Lookup, Wanted};
use crate::config::{Config, Pipeline, Role};
use crate::kafka::Source;
use crate::serving::Client;

/// Why a trace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error(transparent)]
    Bronze(#[from] BronzeError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    ClickHouse(#[from] crate::serving::Error),
    #[error("a row of Bronze lacks the column `{0}`: the table was changed by hand")]
    Column(&'static str),
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    EventId(String),
    Place(Place),
}

impl Question {
    /// `topic/partition/offset` and `topic/generation/partition/offset` are places, anything else is an event's id.
    pub fn read(text: &str) -> Self {
        let parts: Vec<&str> = text.rsplitn(4, '/').collect();
        let number = |i: usize| parts.get(i).and_then(|p| p.parse::<i64>().ok()).filter(|n| *n >= 0);
        let small = |i: usize| number(i).and_then(|n| i32::try_from(n).ok());
        let place = match (number(0), small(1), parts.len()) {
            (Some(offset), Some(partition), 3..) => match (small(2), parts.get(3)) {
                (Some(generation), Some(topic)) if !topic.is_empty() => {
                    Some(Place { topic: (*topic).to_owned(), generation, partition, offset })
                }
                _ => {
                    // The generation is left out: the topic is everything before.
                    let topic = text.rsplitn(3, '/').nth(2).unwrap_or_default();
                    (!topic.is_empty()).then(|| Place { topic: topic.to_owned(), generation: -1, partition, offset })
                }
            },
            _ => None,
        };
        place.map_or_else(|| Self::EventId(text.to_owned()), Self::Place)
    }
}

/// Everything that is known of an event.
#[derive(Debug, Clone, Serialize)]
pub struct Trace {
    /// As it was asked for.
    pub asked: String,
    /// Every copy, in the order of their Kafka timestamps.
    pub copies: Vec<EventCopy>,
    /// Where was looked.
    pub looked_at: Vec<LookedAt>,
}

/// A Bronze table that was looked through.
#[derive(Debug, Clone, Serialize)]
pub struct LookedAt {
    pub pipeline: String,
    /// None where there is no table yet.
    pub bronze_version: Option<u64>,
    /// Asked for a place: the offset that Bronze reads next of its partition.
    pub next_offset: Option<i64>,
}

/// One record of the event in Kafka, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct EventCopy {
    pub pipeline: String,
    #[serde(flatten)]
    pub place: Place,
    /// By the broker's or the producer's clock; none where the record had none.
    pub kafka_timestamp: Option<DateTime<Utc>>,
    pub event_id: Option<String>,
    pub event_time: Option<DateTime<Utc>>,
    /// The event's fields.
    pub fields: Map<String, Value>,
    /// `ok`, `late`, `future` or `unparsed`.
    pub verdict: String,
    pub parse_error: Option<String>,
    /// When it was taken from Kafka.
    pub ingestion_time: Option<DateTime<Utc>>,
    pub bronze: InBronze,
    pub windows: Vec<WindowPart>,
    /// Why it is in no window, or what hides its windows.
    pub windows_note: Option<String>,
    pub silver: Fate,
    pub gold: Vec<Contribution>,
    /// The same in the order of time, in words.
    pub timeline: Vec<Step>,
}

/// A row's place in Bronze.
#[derive(Debug, Clone, Serialize)]
pub struct InBronze {
    /// Below the table's root.
    pub file: String,
    /// The commit that brought the file: Delta's version and its time; none where the log is cleaned up so far.
    pub commit: Option<CommitRef>,
}

/// What became of a record in silver.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub enum Fate {
    /// It is the event's row.
    Kept {
        silver_version: u64,
        files: Vec<String>,
        commit: Option<CommitRef>,
    },
    Refused {
        reasons: Vec<String>,
        refused_version: u64,
    },
    /// Another copy of the event stayed.
    Duplicate {
        of: Place,
        silver_version: u64,
    },
    NotYetRun {
        why: String,
    },
    /// Its date has left silver by retention.
    Expired {
        kept_from: NaiveDate,
    },
    /// It should be there and is not.
    Missing {
        silver_version: u64,
        bronze_version: u64,
        remedy: String,
    },
}

/// Follows an event through the pipelines of a configuration, or one of them. Without ClickHouse the rest is told, and
/// what it serves is left open with the reason.
pub async fn trace(config: &Config, pipeline: Option<&str>, asked: &str) -> Result<Trace, TraceError> {
    let question = Question::read(asked);
    let lake = Lake::new(&config.server)?;
    let client = Client::new(&config.server.clickhouse)?;
    let mut trace = Trace { asked: asked.to_owned(), copies: Vec::new(), looked_at: Vec::new() };
    for of in config.pipelines.iter().filter(|p| pipeline.is_none_or(|name| name == p.name)) {
        let tracer = Tracer { lake: &lake, client: &client, pipeline: of, uri: &config.server.lakehouse.uri };
        tracer.run(&question, &mut trace).await?;
    }
    trace.copies.sort_by(|a, b| {
        let key = |c: &EventCopy| (c.kafka_timestamp.unwrap_or(DateTime::<Utc>::MAX_UTC), c.place.clone());
        key(a).cmp(&key(b))
    });
    Ok(trace)
}

struct Tracer<'a> {
    lake: &'a Lake,
    client: &'a Client,
    pipeline: &'a Arc<Pipeline>,
    uri: &'a str,
}

impl Tracer<'_> {
    async fn run(&self, question: &Question, trace: &mut Trace) -> Result<(), TraceError> {
        let name = &self.pipeline.name;
        let Some(bronze) = Lookup::open(self.uri, self.pipeline).await? else {
            trace.looked_at.push(LookedAt { pipeline: name.clone(), bronze_version: None, next_offset: None });
            return Ok(());
        };
        let mut looked = LookedAt { pipeline: name.clone(), bronze_version: Some(bronze.version), next_offset: None };
        let wanted = match question {
            Question::EventId(id) => Wanted::EventId(id.clone()),
            Question::Place(place) => {
                if place.topic != bronze.topic {
                    return Ok(());
                }
                let generation = if place.generation < 0 { bronze.generation } else { place.generation };
                let source = self.source(&place.topic, generation, place.partition);
                looked.next_offset = bronze.next_offset(&source).await?;
                Wanted::Place { generation, partition: place.partition, offset: place.offset }
            }
        };
        let mut found = bronze.find(None, &wanted).await?;
        // A place that is an event's: its other copies belong to the story.
        if let (Question::Place(_), Some(id)) = (question, found.first().and_then(|f| self.event_id(&f.row))) {
            let mut all = bronze.find(None, &Wanted::EventId(id)).await?;
            if all.iter().any(|f| f.row.columns() == found[0].row.columns()) {
                std::mem::swap(&mut found, &mut all);
            }
        }
        trace.looked_at.push(looked);
        for row in found {
            trace.copies.push(self.copy(&bronze, &row.file, &row.row).await?);
        }
        Ok(())
    }

    fn source(&self, topic: &str, generation: i32, partition: i32) -> Source {
        Source { pipeline: self.pipeline.name.as_str().into(), topic: topic.into(), generation, partition }
    }

    fn event_id(&self, row: &RecordBatch) -> Option<String> {
        text(row, &self.pipeline.fields[self.pipeline.role(Role::EventId)?].name)
    }

    async fn copy(&self, bronze: &Lookup, file: &str, row: &RecordBatch) -> Result<EventCopy, TraceError> {
        let place = Place::of_row(row, 0).map_err(TraceError::Column)?;
        let event_time = micros(row, "event_time");
        let record = Record { place: place.clone(), event_id: self.event_id(row), event_time };
        let log = self.lake.log_store(Layer::Bronze, &self.pipeline.name)?;
        let taken_at = micros(row, "ingestion_time").and_then(DateTime::from_timestamp_micros);
        let commit = commit_of(&log, bronze.version, &[file.to_owned()], taken_at).await?;
        let verdict = text(row, "time_status").unwrap_or_default();
        let source = self.source(&place.topic, place.generation, place.partition);
        let (windows, windows_note) =
            windows::of(self.client, self.pipeline, &bronze.epoch, &source, place.offset, &verdict, row).await;

        let wanted = Wanted::Place { generation: place.generation, partition: place.partition, offset: place.offset };
        let arrived = commit.as_ref().map(|c| c.version);
        let in_bronze = |version: u64| {
            let wanted = &wanted;
            async move {
                match bronze.find(Some(version), wanted).await {
                    Ok(rows) => Ok(!rows.is_empty()),
                    // A version whose log is gone is an old one: what counts is whether the row came before it.
                    Err(_) => Ok(arrived.is_none_or(|arrived| arrived <= version)),
                }
            }
        };
        let found = locate_in_silver(self.lake, self.pipeline, &bronze.table_id, &record, in_bronze).await?;
        let (silver, kept) = self.fate(found, event_time);
        let gold = match &kept {
            Some(row) => contributions(self.lake, self.pipeline, Some(self.client), &record, row).await?,
            None => Vec::new(),
        };
        let fields = row_as_json(row, 0, |column| self.pipeline.fields.iter().any(|f| f.name == column));
        let mut copy = EventCopy {
            pipeline: self.pipeline.name.clone(),
            kafka_timestamp: micros(row, "kafka_timestamp").and_then(DateTime::from_timestamp_micros),
            event_id: record.event_id,
            event_time: event_time.and_then(DateTime::from_timestamp_micros),
            fields,
            verdict,
            parse_error: text(row, "parse_error"),
            ingestion_time: taken_at,
            bronze: InBronze { file: file.to_owned(), commit },
            windows,
            windows_note,
            silver,
            gold,
            timeline: Vec::new(),
            place,
        };
        copy.timeline = timeline::of(&copy);
        Ok(copy)
    }

    /// What became of a record, and its row of silver.
    fn fate(&self, found: SilverPlace, event_time: Option<i64>) -> (Fate, Option<RecordBatch>) {
        match found {
            SilverPlace::Kept { row, silver_version, files, commit } => {
                (Fate::Kept { silver_version, files, commit }, Some(row))
            }
            SilverPlace::Refused { reasons, refused_version } => (Fate::Refused { reasons, refused_version }, None),
            SilverPlace::Duplicate { of, silver_version } => (Fate::Duplicate { of, silver_version }, None),
            SilverPlace::Expired { kept } => (Fate::Expired { kept_from: kept }, None),
            SilverPlace::NotYetRun { why } => (Fate::NotYetRun { why }, None),
            SilverPlace::Missing { silver_version, read_to } => {
                let date = event_time.and_then(DateTime::from_timestamp_micros).map(|t| t.date_naive());
                let date = date.map_or_else(|| "DATE".into(), |d| d.to_string());
                let remedy = format!(
                    "`boathouse reconcile --only silver` shows what else is missing, `boathouse batch backfill \
                     --from {date} --to {date}` makes the date from Bronze again"
                );
                (Fate::Missing { silver_version, bronze_version: read_to, remedy }, None)
            }
        }
    }
}

/// A text of a row; none where it has none.
fn text(row: &RecordBatch, column: &str) -> Option<String> {
    let values = row.column_by_name(column)?.as_string_opt::<i32>()?;
    values.is_valid(0).then(|| values.value(0).to_owned())
}

/// An instant of a row, microseconds since the epoch.
fn micros(row: &RecordBatch, column: &str) -> Option<i64> {
    let values = row.column_by_name(column)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    values.is_valid(0).then(|| values.value(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_from_ids() {
        let place = |topic: &str, generation, partition, offset| {
            Question::Place(Place { topic: topic.into(), generation, partition, offset })
        };
        assert_eq!(Question::read("user-events/2/1041"), place("user-events", -1, 2, 1041));
        assert_eq!(Question::read("user-events/1/2/1041"), place("user-events", 1, 2, 1041));
        for id in ["7f9c2c1e-0d5a-4a3f-9d0a-000000000001", "17", "2/1041", "a/b/c", "t/-1/4", "/1/2"] {
            assert_eq!(Question::read(id), Question::EventId(id.into()), "{id}");
        }
    }
}
