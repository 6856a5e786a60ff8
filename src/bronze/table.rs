//! The Bronze table of a pipeline: opened or created, its settings in force, its data files written.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use uuid::Uuid;

use super::delta_log::DeltaLog;
use super::durable::fsync;
use super::entry::AddFile;
use super::ledger::Position;
use super::log::CommitLog;
use super::metadata::{Decision, Gap, Purpose, another_topic, decide};
use super::schema::PARTITION_COLUMN;
use super::settings::{settings, settings_hash};
use super::settle::settle;
use super::{BronzeError, Ledger, SealedFile, table_key};
use crate::config::{Pipeline, Role};
use crate::kafka::Source;
use crate::remedy;
use crate::storage::{Conditional, conditional_writes};

/// How the name of a data file begins whose rows are all of one partition, in offset order. No other writer's file has
/// such a name, whatever it merges.
pub(crate) const SINGLE_SOURCE_PREFIX: &str = "partition-";

/// A pipeline's Bronze table, with this configuration's settings in force.
#[derive(Debug, Clone)]
pub struct Table {
    log: DeltaLog,
    pipeline: Arc<Pipeline>,
    epoch: String,
    generation: i32,
    table_id: String,
    topic_id: Option<String>,
    /// Version at which the settings were seen to be in force.
    opened_at: u64,
}

impl Table {
    /// Opens `bronze/<pipeline>` below the lakehouse, creates it where it is missing, and puts the configuration's
    /// settings in force: changed ones by a metadata commit with a fresh epoch. Settings that the table has already
    /// left behind, a field with another type and another topic are refused with the command that resolves it.
    ///
    /// `topic_id` is the broker's id of the topic, where it has one.
    pub async fn open_or_create(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
    ) -> Result<Self, BronzeError> {
        Self::settle(lakehouse_uri, pipeline, topic_id, Purpose::Start).await
    }

    /// The table as it stands, for looking at it: nothing is made and nothing put in force. None where there is none.
    /// With it, whether the configuration's settings are in force (`None`), what a start would do to put them, or why a
    /// start would be refused.
    pub async fn as_it_stands(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
    ) -> Result<Option<(Self, Result<Option<String>, BronzeError>)>, BronzeError> {
        let log = open_log(lakehouse_uri, &pipeline.name)?;
        // Looking at storage would make the table's folder.
        if log.local().is_some_and(|root| !root.join("_delta_log").is_dir()) {
            return Ok(None);
        }
        let Some(state) = log.load(&[]).await? else { return Ok(None) };
        let start = decide(&state, pipeline, None, &Purpose::Start, || log.fresh_id()).map(|decision| match decision {
            Decision::InForce { .. } => None,
            Decision::Change(change) => Some(change.what),
        });
        let text = |name: &str| state.configuration.get(name).cloned();
        let table = Self {
            epoch: text(table_key::EPOCH).unwrap_or_default(),
            generation: text(table_key::GENERATION).and_then(|g| g.parse().ok()).unwrap_or(0),
            table_id: state.metadata["id"].as_str().unwrap_or_default().to_owned(),
            topic_id: text(table_key::TOPIC_ID),
            opened_at: state.version,
            pipeline: Arc::new(pipeline.clone()),
            log,
        };
        Ok(Some((table, start)))
    }

    /// Puts the configuration's settings in force although the table has left them behind, under a fresh epoch.
    pub async fn accept_settings(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
    ) -> Result<Self, BronzeError> {
        Self::settle(lakehouse_uri, pipeline, topic_id, Purpose::AcceptSettings).await
    }

    /// Takes on a topic that was made anew: the next generation, under a fresh epoch.
    pub async fn adopt_topic(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
    ) -> Result<Self, BronzeError> {
        Self::settle(lakehouse_uri, pipeline, topic_id, Purpose::AdoptTopic).await
    }

    /// Sets the marks of partitions back (microseconds since the epoch), under a fresh epoch: where a wrong clock has
    /// moved them so far that everything since is late.
    pub async fn lower_marks(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
        marks: &[(Arc<Source>, i64)],
    ) -> Result<Self, BronzeError> {
        let marks = marks.iter().map(|(source, mark)| (source.mark_id(), *mark)).collect();
        Self::settle(lakehouse_uri, pipeline, topic_id, Purpose::LowerMarks(marks)).await
    }

    /// Goes on behind records that Kafka's retention removed before Bronze had them, under a fresh epoch: realtime may
    /// have counted some of them. `gaps`: the partition, where it stands, and the offset that it goes on at.
    pub async fn accept_gap(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
        gaps: &[(Arc<Source>, Position, i64)],
    ) -> Result<Self, BronzeError> {
        let gap = |(source, at, to): &(Arc<Source>, Position, i64)| Gap {
            id: source.txn_id(),
            from: at.next_offset,
            to: *to,
        };
        Self::settle(lakehouse_uri, pipeline, topic_id, Purpose::AcceptGap(gaps.iter().map(gap).collect())).await
    }

    /// Takes bad records of partitions as dead letters: whatever was refused below the offsets given.
    pub async fn accept_bad_records(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
        below: &[(Arc<Source>, i64)],
    ) -> Result<Self, BronzeError> {
        let accepted = below.iter().map(|(source, offset)| (source.bad_records_id(), *offset)).collect();
        Self::settle(lakehouse_uri, pipeline, topic_id, Purpose::AcceptBadRecords(accepted)).await
    }

    /// The offset below which somebody has accepted bad records of a partition; 0 where nobody has.
    pub async fn bad_records_accepted(&self, source: &Source) -> Result<i64, BronzeError> {
        let id = source.bad_records_id();
        let state = self.log.load(std::slice::from_ref(&id)).await?;
        Ok(state.and_then(|state| state.txns.get(&id).copied()).unwrap_or(0))
    }

    async fn settle(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
        purpose: Purpose,
    ) -> Result<Self, BronzeError> {
        let log = open_log(lakehouse_uri, &pipeline.name)?;
        check_storage(&log).await?;
        let in_force = settle(&log, pipeline, topic_id.as_deref(), purpose).await?;
        if in_force.created
            && let Some(root) = log.local()
        {
            let folders = root.ancestors().take(3).map(|p| p.to_path_buf()).collect();
            fsync(folders).await.map_err(|e| BronzeError::io("the new table cannot be flushed", e))?;
        }
        Ok(Self {
            log,
            pipeline: Arc::new(pipeline.clone()),
            epoch: in_force.epoch,
            generation: in_force.generation,
            table_id: in_force.table_id,
            topic_id: in_force.topic_id,
            opened_at: in_force.version,
        })
    }

    /// The state machine for commits to this table; one per daemon and pipeline.
    pub fn ledger(&self) -> Ledger<DeltaLog> {
        let settings = settings_hash(&settings(&self.pipeline));
        Ledger::new(self.log.clone(), &self.pipeline.name, &self.epoch, settings)
    }

    /// The pipeline whose table this is.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// The id under which the settings in force were committed.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// The topic's generation; part of every [`Source`].
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Delta's id of the table, the same for its whole life.
    pub fn table_id(&self) -> &str {
        &self.table_id
    }

    /// The broker's id of the topic that the table holds, where one was known when it was opened.
    pub fn topic_id(&self) -> Option<&str> {
        self.topic_id.as_deref()
    }

    /// Whether the topic with the id that the broker tells now is the one that the table holds.
    pub fn confirm_topic(&self, seen: &str) -> Result<(), BronzeError> {
        match self.topic_id() {
            Some(known) if known != seen => {
                let topic = (self.pipeline.topic.as_str(), Some(known));
                Err(another_topic(topic, &self.pipeline, Some(seen), self.url()))
            }
            _ => Ok(()),
        }
    }

    /// The table's URL.
    pub fn url(&self) -> String {
        self.log.name()
    }

    /// The version at which the settings were seen to be in force.
    pub fn opened_at(&self) -> u64 {
        self.opened_at
    }

    pub(super) fn event_id_column(&self) -> Option<&str> {
        self.pipeline.role(Role::EventId).map(|i| self.pipeline.fields[i].name.as_str())
    }

    pub(super) fn log(&self) -> &DeltaLog {
        &self.log
    }

    /// Writes a data file to the table's storage, durably. It belongs to the table once it is committed; a file whose
    /// commit fails is left for vacuum, never deleted: the commit may have landed.
    pub async fn write_file(&self, file: SealedFile) -> Result<AddFile, BronzeError> {
        let ingestion_date = file.ingestion_date.to_string();
        let prefix = if file.single_source { SINGLE_SOURCE_PREFIX } else { "partitions-" };
        let path = format!("{PARTITION_COLUMN}={ingestion_date}/{prefix}{}.parquet", Uuid::new_v4());
        let add = AddFile {
            size: file.size as u64,
            modified_ms: now_ms(),
            rows: file.rows,
            stats: file.stats,
            ingestion_date,
            path,
        };
        let payload: PutPayload = file.chunks.into_iter().collect();
        let store = self.log.store().object_store(None);
        let failed = |e: &dyn std::fmt::Display| {
            BronzeError::io(format!("file {} of {} cannot be written", add.path, self.log.name()), e)
        };
        store.put(&Path::from(add.path.as_str()), payload).await.map_err(|e| failed(&e))?;
        if let Some(root) = self.log.local() {
            let path = root.join(&add.path);
            let folder = path.parent().unwrap_or(root).to_path_buf();
            fsync(vec![path, folder, root.clone()]).await.map_err(|e| failed(&e))?;
        }
        Ok(add)
    }
}

/// The log of a pipeline's Bronze table, whether it exists or not.
pub(super) fn open_log(lakehouse_uri: &str, pipeline: &str) -> Result<DeltaLog, BronzeError> {
    let uri = format!("{}/bronze/{pipeline}", lakehouse_uri.trim_end_matches('/'));
    let failed = |e: deltalake::DeltaTableError| BronzeError::io(format!("{uri} cannot be a table's place"), e);
    let url = deltalake::ensure_table_uri(&uri).map_err(failed)?;
    let store = deltalake::DeltaTableBuilder::from_url(url).and_then(|b| b.build_storage()).map_err(failed)?;
    Ok(DeltaLog::new(store, pipeline))
}

/// Refuses a bucket whose store lets one writer overwrite another's log entry. A file system's hard links cannot.
async fn check_storage(log: &DeltaLog) -> Result<(), BronzeError> {
    if log.local().is_some() {
        return Ok(());
    }
    let store = log.store().object_store(None);
    match conditional_writes(store.as_ref(), &Path::default()).await {
        Ok(Conditional::Kept) => Ok(()),
        Ok(Conditional::Ignored) => Err(BronzeError::stopped(
            "the object store ignores If-None-Match: two writers would overwrite each other's commits",
            log.name(),
            remedy::CONDITIONAL_WRITES,
        )),
        Err(e) => Err(BronzeError::io(format!("{} cannot be written", log.name()), e)),
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
