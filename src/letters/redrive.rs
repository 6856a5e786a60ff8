//! Sending letters again, corrected: first what would be sent and what would become of it, then the sending.

pub mod bulk;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::edit::{self, Change, Difference};
use super::find::record;
use super::foresee::{Foreseen, Oracle};
use super::in_flight::in_flight;
use super::resolved::{Resolutions, resolutions};
use super::row::{Letter, bytes_as_json};
use super::send::Sender;
use super::{ORIGIN, place};
use crate::bronze::Lookup;
use crate::cli::lake::Lake;
use crate::config::{Config, Pipeline};
use crate::event::Headers;
use crate::kafka::{Source, now_micros};
use crate::owned_file;

/// Greatest accepted event times, in microseconds, by pipeline and partition, as the daemon knows them.
pub type Marks = HashMap<(String, i32), i64>;

/// Longest look for corrected events that Bronze does not hold yet.
const LOOK: Duration = Duration::from_secs(20);

/// The origins that records of a topic bear, with the record's offset.
type InTopic = BTreeMap<String, i64>;

/// The file in `data_dir` that whoever sends has locked.
const LOCK: &str = "redrive.lock";

/// One at a time in a process: between the look for what is in flight and the sending nobody else may send.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How a letter is corrected.
#[derive(Debug, Clone)]
pub enum Edit {
    /// The whole value.
    Value(Vec<u8>),
    /// Single fields; none for the value as it was.
    Changes(Vec<Change>),
}

/// A corrected event that has not been sent.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) letter: Letter,
    pub value: Vec<u8>,
    pub foreseen: Foreseen,
    /// What differs from the letter; none where only the whole can be compared.
    pub differences: Option<Vec<Difference>>,
    pipeline: Arc<Pipeline>,
}

impl Prepared {
    /// Why it should not be sent.
    pub fn objections(&self) -> Vec<String> {
        let letter = &self.letter;
        let mut objections = Vec::new();
        if !letter.is_dead() {
            objections.push(format!("{} is no dead letter: it is {}", letter.source(), letter.status));
        }
        if !letter.resolved_by.is_empty() {
            objections.push(format!("{} is resolved already, by {}", letter.source(), letter.resolved_by.join(", ")));
        }
        if !self.foreseen.is_good() {
            objections.push(format!("{} would be a dead letter again: {}", letter.source(), self.foreseen.text));
        }
        objections
    }

    pub fn json(&self) -> Value {
        json!({
            "letter": self.letter.json(),
            "topic": self.pipeline.topic,
            "value": bytes_as_json(&self.value),
            "foreseen": self.foreseen,
            "differences": self.differences,
            "objections": self.objections(),
        })
    }
}

/// A corrected event that the topic holds.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Sent {
    /// The letter that it corrects: `topic/generation/partition/offset`.
    pub origin: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Prepares corrected events and sends them.
pub struct Redriver {
    config: Config,
    lake: Lake,
    marks: Marks,
    oracles: HashMap<String, Oracle>,
}

impl Redriver {
    pub(crate) fn new(config: Config, lake: Lake, marks: Marks) -> Self {
        Self { config, lake, marks, oracles: HashMap::new() }
    }

    pub fn pipeline(&self, name: &str) -> anyhow::Result<&Arc<Pipeline>> {
        let found = self.config.pipelines.iter().find(|p| p.name == name);
        found.with_context(|| format!("there is no pipeline `{name}`"))
    }

    fn oracle(&mut self, pipeline: &str) -> anyhow::Result<&mut Oracle> {
        let of = self.pipeline(pipeline)?.clone();
        Ok(match self.oracles.entry(pipeline.to_owned()) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(Oracle::of(&of)?),
        })
    }

    /// The record at a place, as a letter. A record that silver would refuse is one before silver has read it.
    pub(crate) async fn letter(&mut self, source: &str) -> anyhow::Result<Letter> {
        Ok(self.letter_and_row(source).await?.0)
    }

    /// The same, with its row of Bronze.
    pub(crate) async fn letter_and_row(&mut self, source: &str) -> anyhow::Result<(Letter, RecordBatch)> {
        let (name, row) = record(&self.config, &self.lake, &place(source)?).await?;
        let pipeline = self.pipeline(&name)?.clone();
        let mut letter = Letter::read(&name, &pipeline.fields, &row, 0)?;
        if !letter.is_dead() {
            let reasons = self.oracle(&name)?.reasons(&row)?;
            if !reasons.is_empty() {
                letter.status = "refused".into();
                letter.reason = reasons.join(", ");
            }
        }
        let resolved = resolutions(&self.lake, &pipeline, Some(&letter.ingested)).await?;
        letter.resolved_by = resolved.of(&letter.source());
        Ok((letter, row))
    }

    /// What would be sent of a letter, and what would become of it.
    pub(crate) fn prepare(&mut self, letter: Letter, edit: &Edit) -> anyhow::Result<Prepared> {
        let pipeline = self.pipeline(&letter.pipeline)?.clone();
        let old = letter.value.clone().unwrap_or_default();
        let value = match edit {
            Edit::Value(value) => value.clone(),
            Edit::Changes(changes) if changes.is_empty() => old.clone(),
            Edit::Changes(changes) => {
                // A tombstone has no object that could be changed.
                let base = if letter.value.is_none() { b"{}".to_vec() } else { old.clone() };
                edit::apply(&base, changes).with_context(|| letter.source())?
            }
        };
        let mark = self.marks.get(&(pipeline.name.clone(), letter.place.partition)).copied();
        let foreseen = self.oracle(&pipeline.name)?.foresee(Some(&value), now_micros() / 1000, mark)?;
        let differences = edit::differences(&old, &value);
        Ok(Prepared { letter, value, foreseen, differences, pipeline })
    }

    /// Sends corrected events one behind the other, and calls `told` for each that the topic has. With `force` also what
    /// there are objections to. Nothing is sent if any of them is refused; one that cannot be sent ends it.
    pub async fn send(
        &self,
        events: &[Prepared],
        force: bool,
        mut told: impl FnMut(&Sent),
    ) -> anyhow::Result<Vec<Sent>> {
        let objections: Vec<String> = events.iter().flat_map(Prepared::objections).collect();
        if !force && !objections.is_empty() {
            bail!("{}; nothing was sent (force sends it all the same)", objections.join("; "));
        }
        let _one_at_a_time = ONE_AT_A_TIME.lock().await;
        let _alone = self.alone().await?;
        let sender = Arc::new(Sender::new(&self.config.server.kafka)?);
        let targets = self.targets(events, &sender).await?;
        if !force {
            self.refuse_what_was_sent(events, &targets).await?;
        }
        let mut done = Vec::new();
        for (event, partition) in events.iter().zip(targets) {
            let origin = event.letter.source();
            let topic = event.pipeline.topic.clone();
            let mut headers = self.headers(&event.letter).await?;
            headers.push((ORIGIN.to_owned(), Some(origin.clone().into_bytes())));
            let key = event.letter.key.as_deref();
            let sent = sender.send(&topic, partition, key, &event.value, &headers).await;
            let offset = sent.with_context(|| format!("{} of {} letters were sent again", done.len(), events.len()))?;
            let sent = Sent { origin, topic, partition, offset };
            told(&sent);
            done.push(sent);
        }
        Ok(done)
    }

    /// Keeps every other process of this machine from sending until it is dropped: what it has sent is then seen by the
    /// look for what is in flight. Where there is no `data_dir` no daemon and no console sends.
    async fn alone(&self) -> anyhow::Result<Option<File>> {
        let data_dir = &self.config.server.data_dir;
        if !data_dir.is_dir() {
            return Ok(None);
        }
        let path = data_dir.join(LOCK);
        let fail = format!("{} cannot be locked; may this user write to data_dir?", path.display());
        let locked = tokio::task::spawn_blocking(move || owned_file::lock(&path)).await?;
        locked.map(Some).context(fail)
    }

    /// The partition of each: the letter's own, so that what has the same key stays in order, whoever chose it; where
    /// the topic has fewer partitions now, always the same other one.
    async fn targets(&self, events: &[Prepared], sender: &Arc<Sender>) -> anyhow::Result<Vec<i32>> {
        let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
        let mut targets = Vec::new();
        for event in events {
            let topic = event.pipeline.topic.as_str();
            let count = match counts.get(topic) {
                Some(count) => *count,
                None => {
                    let (sender, asked) = (sender.clone(), topic.to_owned());
                    let count = tokio::task::spawn_blocking(move || sender.partitions(&asked)).await??;
                    counts.insert(topic, count);
                    count
                }
            };
            targets.push(event.letter.place.partition.rem_euclid(count));
        }
        Ok(targets)
    }

    /// The position is read first: what lies below it is then seen in the table, what lies above it in the topic, and
    /// nothing that lands meanwhile is missed.
    async fn refuse_what_was_sent(&self, events: &[Prepared], targets: &[i32]) -> anyhow::Result<()> {
        let mut looked: BTreeMap<(&str, i32), (Resolutions, InTopic)> = BTreeMap::new();
        for (event, partition) in events.iter().zip(targets) {
            let pipeline = &event.pipeline;
            let of = (pipeline.name.as_str(), *partition);
            let (landed, in_topic) = match looked.entry(of) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(free) => {
                    let from = self.bronze_position(pipeline, *partition).await?;
                    let own = events.iter().filter(|other| other.pipeline.name == pipeline.name);
                    let oldest = own.map(|other| other.letter.ingested.as_str()).min();
                    let landed = resolutions(&self.lake, pipeline, oldest).await?;
                    let (kafka, topic, partition) =
                        (self.config.server.kafka.clone(), pipeline.topic.clone(), *partition);
                    let look = move || in_flight(&kafka, &topic, partition, from, LOOK);
                    free.insert((landed, tokio::task::spawn_blocking(look).await??))
                }
            };
            let origin = event.letter.source();
            let by = landed.of(&origin);
            if !by.is_empty() {
                bail!("{origin} is resolved already, by {}; nothing was sent", by.join(", "));
            }
            if let Some(offset) = in_topic.get(&origin) {
                bail!(
                    "{origin} was sent again already, as offset {offset} of {}/{partition}, which is not in Bronze yet; \
                     nothing was sent",
                    pipeline.topic
                );
            }
        }
        Ok(())
    }

    /// The offset that Bronze reads next of the topic's partition; 0 where it has read nothing of it.
    async fn bronze_position(&self, pipeline: &Pipeline, partition: i32) -> anyhow::Result<i64> {
        let Some(bronze) = Lookup::open(&self.config.server.lakehouse.uri, pipeline).await? else { return Ok(0) };
        let source = Source {
            pipeline: pipeline.name.as_str().into(),
            topic: bronze.topic.as_str().into(),
            generation: bronze.generation,
            partition,
        };
        Ok(bronze.next_offset(&source).await?.unwrap_or(0))
    }

    /// The letter's headers, earlier origins among them: a letter whose correction was wrong is resolved with it.
    async fn headers(&self, letter: &Letter) -> anyhow::Result<Headers> {
        if let Some(headers) = &letter.headers {
            return Ok(headers.clone());
        }
        let (_, row) = record(&self.config, &self.lake, &letter.place).await?;
        Ok(super::row::headers(&row, 0).unwrap_or_default())
    }
}
