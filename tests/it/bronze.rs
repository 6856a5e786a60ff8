//! Bronze as its callers use it: batches in, a Delta table out, on a local disk.

mod encoder;
mod independent_readers;
mod reading;
mod settings;
mod spark;
mod table;

pub use self::spark::jars as spark_jars;

use std::collections::BTreeMap;
use std::sync::Arc;

use boathouse::bronze::{Advance, BronzeError, Committed, DeltaLog, Encoder, Ledger, Table};
use boathouse::config::{
    AllowedValue, BronzeSettings, Field, FieldType, Pipeline, RealtimeSettings, Retention, Role, TimeSettings,
};
use boathouse::event::{Batch, Decoder, Headers, RawBatch, Schema};
use boathouse::kafka::Source;
use boathouse::window::{EventClock, Verdict};

/// 2026-02-06T14:30:00Z in microseconds, the moment at which the tests take records from Kafka.
pub const NOW: i64 = 1_770_388_200_000_000;

/// The fields of the seed's events.
pub fn pipeline() -> Pipeline {
    let field = |name: &str, kind, role| Field { name: name.into(), kind, required: true, allowed: None, role };
    let mut fields = vec![
        field("event_id", FieldType::String, Some(Role::EventId)),
        field("user_id", FieldType::Int, None),
        field("event_type", FieldType::String, None),
        field("page", FieldType::String, None),
        field("timestamp", FieldType::Timestamp, Some(Role::EventTime)),
        field("source", FieldType::String, None),
    ];
    let words = |words: &[&str]| Some(words.iter().map(|w| AllowedValue::Text(w.to_string())).collect());
    fields[2].allowed = words(&["login", "click", "purchase", "logout"]);
    fields[5].allowed = words(&["web", "mobile"]);
    Pipeline {
        name: "user_events".into(),
        models: Vec::new(),
        topic: "user-events".into(),
        start_at: Default::default(),
        fields,
        aggregates: Vec::new(),
        expectations: Vec::new(),
        bronze: BronzeSettings::default(),
        realtime: RealtimeSettings::default(),
        time: TimeSettings::default(),
        retention: Retention::default(),
        bad_records: Default::default(),
        schedule: Default::default(),
    }
}

pub fn source(partition: i32) -> Arc<Source> {
    Arc::new(Source { pipeline: "user_events".into(), topic: "user-events".into(), generation: 0, partition })
}

/// One record as Kafka has it.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch, -1 for none.
    pub timestamp: i64,
    pub headers: Headers,
}

/// The n-th event of a topic: one a second, by turns of four types on five pages.
pub fn event(n: i64) -> Record {
    let at = chrono::DateTime::from_timestamp_micros(NOW + n * 1_000_000).unwrap().format("%Y-%m-%dT%H:%M:%S");
    let kind = ["login", "click", "purchase", "logout"][n as usize % 4];
    let (user, page, source) = (n % 100, n % 5, ["web", "mobile"][n as usize % 2]);
    let value = format!(
        r#"{{"event_id":"e{n:08}","user_id":{user},"event_type":"{kind}","page":"/page/{page}","timestamp":"{at}","source":"{source}"}}"#
    );
    Record {
        key: Some(user.to_string().into_bytes()),
        value: Some(value.into_bytes()),
        timestamp: NOW / 1000 + n * 1000,
        headers: Vec::new(),
    }
}

/// Makes batches of one partition as its consumer would: decoded, judged, with position and mark.
pub struct Feed {
    source: Arc<Source>,
    decoder: Decoder,
    clock: EventClock,
    next: i64,
    /// Microseconds since the epoch.
    pub received_at: i64,
}

impl Feed {
    pub fn new(pipeline: &Pipeline, source: Arc<Source>, at: i64, mark: Option<i64>) -> Self {
        let decoder = Decoder::new(Schema::new(pipeline), &[]);
        Self { source, decoder, clock: EventClock::new(&pipeline.time, mark), next: at, received_at: NOW }
    }

    /// The next records, at consecutive offsets.
    pub fn batch(&mut self, records: &[Record]) -> Batch {
        let mut raw = RawBatch::default();
        for (row, record) in records.iter().enumerate() {
            raw.push(self.next + row as i64, record.timestamp, record.key.as_deref(), record.value.as_deref());
            if !record.headers.is_empty() {
                raw.push_headers(record.headers.clone());
            }
        }
        raw.seal();
        let columns = self.decoder.decode(raw);
        let unparsed: Vec<u32> = columns.errors.iter().map(|(row, _)| *row).collect();
        let verdicts = (0..records.len())
            .map(|row| match unparsed.contains(&(row as u32)) {
                true => Verdict::Unparsed,
                false => self.clock.judge(columns.event_time[row], records[row].timestamp),
            })
            .collect();
        let from = self.next;
        self.next += records.len() as i64;
        Batch {
            source: self.source.clone(),
            columns,
            verdicts,
            from,
            next: self.next,
            mark: self.clock.mark(),
            received_at: self.received_at,
        }
    }

    /// The events `n` of a range, at consecutive offsets.
    pub fn events(&mut self, range: std::ops::Range<i64>) -> Batch {
        self.batch(&range.map(event).collect::<Vec<_>>())
    }
}

/// A table in a folder of its own, the partitions held by one instance.
pub struct Writer {
    pub table: Table,
    pub ledger: Ledger<DeltaLog>,
    pub feeds: BTreeMap<i32, Feed>,
    pub encoder: Encoder,
}

impl Writer {
    /// Opens the table and acquires the partitions; new ones begin at offset 0.
    pub async fn open(
        lakehouse: &std::path::Path,
        pipeline: &Pipeline,
        partitions: &[i32],
    ) -> Result<Self, BronzeError> {
        let table = Table::open_or_create(lakehouse.to_str().unwrap(), pipeline, Some("topic-id-1".into())).await?;
        let mut ledger = table.ledger();
        let sources: Vec<_> = partitions.iter().map(|p| source(*p)).collect();
        let acquired = ledger.acquire(&sources).await?;
        let new = sources.iter().zip(&acquired.positions).filter(|(_, position)| position.is_none());
        let starts: Vec<_> = new.map(|(source, _)| (source.clone(), 0)).collect();
        if !starts.is_empty() {
            ledger.genesis(&starts).await?;
        }
        let feed = |source: &Arc<Source>| {
            let at = ledger.position(source).unwrap();
            (source.partition, Feed::new(pipeline, source.clone(), at.next_offset, at.mark))
        };
        let feeds = sources.iter().map(feed).collect();
        Ok(Self { feeds, encoder: Encoder::new(pipeline)?, table, ledger })
    }

    /// One commit with these batches in one file.
    pub async fn commit(&mut self, batches: &[Batch]) -> Result<Committed, BronzeError> {
        let mut advances: BTreeMap<i32, Advance> = BTreeMap::new();
        for batch in batches {
            self.encoder.push(batch)?;
            let first = Advance { source: batch.source.clone(), from: batch.from, next_offset: 0, mark: None };
            let advance = advances.entry(batch.source.partition).or_insert(first);
            advance.next_offset = batch.next;
            advance.mark = batch.mark;
        }
        let sealed = self.encoder.seal()?.expect("there are rows");
        let add = self.table.write_file(sealed).await?;
        self.ledger.commit(&[add], &advances.into_values().collect::<Vec<_>>()).await
    }

    /// One commit of the events `n` of a range, to one partition.
    pub async fn commit_events(
        &mut self,
        partition: i32,
        range: std::ops::Range<i64>,
    ) -> Result<Committed, BronzeError> {
        let batch = self.feeds.get_mut(&partition).unwrap().events(range);
        self.commit(&[batch]).await
    }
}
