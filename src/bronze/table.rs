//! The Bronze table of a pipeline: opened or created, its settings in force, its data files written.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use uuid::Uuid;

use super::delta_log::DeltaLog;
use super::durable::fsync;
use super::entry::{AddFile, EntryWriter};
use super::log::{CommitLog, PutOutcome};
use super::metadata::{Change, Decision, Purpose, decide, first_metadata, first_protocol};
use super::schema::PARTITION_COLUMN;
use super::{BronzeError, Ledger, SealedFile};
use crate::config::{Pipeline, Role};
use crate::kafka::Source;

/// Tries of a settings commit before giving up; every try sees what the others have committed meanwhile.
const TRIES: u32 = 20;

/// How the name of a data file begins whose rows are all of one partition, in offset order. No other writer's file has
/// such a name, whatever it merges.
pub(super) const SINGLE_SOURCE_PREFIX: &str = "partition-";

/// A pipeline's Bronze table, with this configuration's settings in force.
#[derive(Debug, Clone)]
pub struct Table {
    log: DeltaLog,
    pipeline: Arc<Pipeline>,
    epoch: String,
    generation: i32,
    table_id: String,
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

    async fn settle(
        lakehouse_uri: &str,
        pipeline: &Pipeline,
        topic_id: Option<String>,
        mut purpose: Purpose,
    ) -> Result<Self, BronzeError> {
        let log = open_log(lakehouse_uri, &pipeline.name)?;
        for attempt in 1..=TRIES {
            let (version, change) = match log.load(&[]).await? {
                None => (0, create(pipeline, topic_id.as_deref())),
                Some(state) => match decide(&state, pipeline, topic_id.as_deref(), &purpose)? {
                    Decision::InForce { epoch, generation, table_id } => {
                        let pipeline = Arc::new(pipeline.clone());
                        return Ok(Self { log, pipeline, epoch, generation, table_id, opened_at: state.version });
                    }
                    Decision::Change(change) => (state.version + 1, change),
                },
            };
            match log.put(version, change.entry(&log.fresh_id(), now_ms())).await {
                PutOutcome::Landed => {
                    log.sync(version).await?;
                    if let (0, Some(root)) = (version, log.local()) {
                        let folders = root.ancestors().take(3).map(|p| p.to_path_buf()).collect();
                        fsync(folders).await.map_err(|e| BronzeError::io("the new table cannot be flushed", e))?;
                    }
                    tracing::info!(table = log.name(), version, "{}", change.what);
                    purpose = Purpose::Start;
                }
                PutOutcome::Taken => {}
                PutOutcome::Unknown(cause) => {
                    tracing::debug!(table = log.name(), version, cause, "the answer to a settings commit is unknown");
                    log.pause(attempt).await;
                }
            }
        }
        Err(BronzeError::io(
            format!("the settings of {} cannot be committed", log.name()),
            "others commit all the time",
        ))
    }

    /// The state machine for commits to this table; one per daemon and pipeline.
    pub fn ledger(&self) -> Ledger<DeltaLog> {
        Ledger::new(self.log.clone(), &self.pipeline.name, &self.epoch)
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

fn create(pipeline: &Pipeline, topic_id: Option<&str>) -> Change {
    let metadata = first_metadata(pipeline, topic_id, now_ms());
    Change {
        what: "created the Bronze table".into(),
        operation: "CREATE TABLE",
        protocol: Some(first_protocol()),
        txns: Vec::new(),
        metadata,
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

impl Change {
    fn entry(&self, id: &str, now_ms: i64) -> bytes::Bytes {
        let mut entry = EntryWriter::new(self.operation, serde_json::json!({}), false, id, now_ms);
        self.txns.iter().for_each(|(id, version)| entry.txn(id, *version));
        self.protocol.iter().for_each(|p| entry.action(serde_json::json!({"protocol": p})));
        entry.action(serde_json::json!({"metaData": self.metadata}));
        entry.finish()
    }
}
