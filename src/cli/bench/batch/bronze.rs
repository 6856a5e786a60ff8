//! Bronze of the producer's events, by the product's own writer, without a broker: the generator's records are decoded,
//! judged, encoded and committed as the daemon does with those of Kafka.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::bench::Account;
use crate::bronze::{Advances, DeltaLog, Encoder, Ledger, Table};
use crate::config::{Config, Pipeline};
use crate::event::{Batch, Decoder, RawBatch, Schema, coded_fields};
use crate::kafka::Source;
use crate::producer::clock::EventClock as MadeAt;
use crate::producer::fault::Mix;
use crate::producer::generator::Generator;
use crate::window::{EventClock, Verdict};

const PARTITIONS: i32 = 3;
/// Records of all partitions that are made before they are decoded.
const AT_ONCE: u64 = 30_000;

/// What one call of [`Maker::make`] made.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Made {
    pub bytes: u64,
    pub files: u64,
}

/// Makes one pipeline's Bronze.
pub(super) struct Maker {
    table: Table,
    ledger: Ledger<DeltaLog>,
    feeds: Vec<Feed>,
    encoder: Encoder,
    advances: Advances,
    generator: Generator,
    /// What was made.
    pub account: Account,
    /// Records between two commits.
    commit_records: usize,
    made: Made,
}

/// One partition of the topic that is not there.
struct Feed {
    source: Arc<Source>,
    decoder: Decoder,
    clock: EventClock,
    next: i64,
    raw: RawBatch,
}

impl Maker {
    /// Creates the table.
    pub async fn new(config: &Config, users: u32, mix: Mix, commit_records: usize) -> anyhow::Result<Self> {
        let pipeline: &Pipeline = config.pipelines.first().context("the configuration has no pipeline")?;
        let table = Table::open_or_create(&config.server.lakehouse.uri, pipeline, None).await?;
        let mut ledger = table.ledger();
        let source = |partition| {
            let (pipeline, topic) = (pipeline.name.clone().into(), pipeline.topic.clone().into());
            Arc::new(Source { pipeline, topic, generation: table.generation(), partition })
        };
        let sources: Vec<_> = (0..PARTITIONS).map(source).collect();
        ledger.acquire(&sources).await?;
        ledger.genesis(&sources.iter().map(|s| (s.clone(), 0)).collect::<Vec<_>>()).await?;
        let schema = Schema::new(pipeline);
        let feed = |source: &Arc<Source>| Feed {
            source: source.clone(),
            decoder: Decoder::new(schema.clone(), &coded_fields(pipeline)),
            clock: EventClock::new(&pipeline.time, None),
            next: 0,
            raw: RawBatch::default(),
        };
        Ok(Self {
            feeds: sources.iter().map(feed).collect(),
            encoder: Encoder::new(pipeline)?,
            advances: Advances::default(),
            table,
            ledger,
            generator: Generator::new(42, users, mix),
            account: Account::default(),
            commit_records,
            made: Made::default(),
        })
    }

    /// Appends `count` records that are made from `start_s` (seconds since 1970) on, over `span`, and commits them.
    pub async fn make(&mut self, count: u64, start_s: i64, span: Duration) -> anyhow::Result<Made> {
        self.made = Made::default();
        let made_at = MadeAt::spanning(start_s, span, count);
        let mut value = Vec::new();
        let mut made = 0;
        while made < count {
            let upto = (made + AT_ONCE).min(count);
            let mut at = start_s;
            while made < upto {
                at = made_at.at(made, start_s);
                let written = self.generator.next(at, &mut value);
                self.account.take(&written, &value, at);
                // The producer's key is the user, and a user's records are of one partition.
                let feed = &mut self.feeds[written.user_id as usize % PARTITIONS as usize];
                let key = written.user_id.to_string();
                feed.push(at, key.as_bytes(), (!written.tombstone).then_some(&value[..]));
                made += 1;
            }
            for number in 0..self.feeds.len() {
                if let Some(batch) = self.feeds[number].batch(at * 1_000_000) {
                    self.append(&batch).await?;
                }
            }
        }
        self.commit().await?;
        Ok(self.made)
    }

    async fn append(&mut self, batch: &Batch) -> anyhow::Result<()> {
        if self.encoder.rows() >= self.commit_records || !self.encoder.accepts(batch) {
            self.commit().await?;
        }
        self.advances.extend(batch)?;
        self.encoder.push(batch)?;
        Ok(())
    }

    async fn commit(&mut self) -> anyhow::Result<()> {
        let Some(sealed) = self.encoder.seal()? else { return Ok(()) };
        self.made.bytes += sealed.size as u64;
        self.made.files += 1;
        let add = self.table.write_file(sealed).await?;
        self.ledger.commit(&[add], &std::mem::take(&mut self.advances).into_vec()).await?;
        Ok(())
    }
}

impl Feed {
    fn push(&mut self, at_s: i64, key: &[u8], value: Option<&[u8]>) {
        self.raw.push(self.next + self.raw.len() as i64, at_s * 1000, Some(key), value);
    }

    /// What was pushed, decoded and judged.
    fn batch(&mut self, received_at: i64) -> Option<Batch> {
        if self.raw.is_empty() {
            return None;
        }
        let mut raw = std::mem::take(&mut self.raw);
        raw.seal();
        let columns = self.decoder.decode(raw);
        let mut errors = columns.errors.iter().map(|(row, _)| *row as usize).peekable();
        let verdicts = (0..columns.raw.len())
            .map(|row| match errors.next_if_eq(&row) {
                Some(_) => Verdict::Unparsed,
                None => self.clock.judge(columns.event_time[row], columns.raw.timestamps[row]),
            })
            .collect();
        let from = self.next;
        self.next += columns.raw.len() as i64;
        let (source, mark) = (self.source.clone(), self.clock.mark());
        Some(Batch { source, columns, verdicts, from, next: self.next, mark, received_at })
    }
}

/// Bytes and files below a folder.
pub(super) fn size_of(folder: PathBuf) -> Made {
    let mut made = Made::default();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => {
                    made.bytes += entry.metadata().map_or(0, |m| m.len());
                    made.files += 1;
                }
            }
        }
    }
    made
}
