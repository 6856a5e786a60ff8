//! Puts a configuration's settings in force: compares them with the table's and commits what is to be changed. All I/O
//! goes through [`CommitLog`].

use super::BronzeError;
use super::entry::EntryWriter;
use super::log::{CommitLog, PutOutcome};
use super::metadata::{Change, Decision, Purpose, create, decide};
use crate::config::Pipeline;

/// Tries of a settings commit before giving up; every try sees what the others have committed meanwhile.
const TRIES: u32 = 20;

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    pub epoch: String,
    pub generation: i32,
    pub table_id: String,
    /// The broker's id of the topic, where it has told one.
    pub topic_id: Option<String>,
    /// Version at which they were seen to be in force.
    pub version: u64,
    /// Whether this call made the table.
    pub created: bool,
}

/// See the file's head.
pub async fn settle(
    log: &impl CommitLog,
    pipeline: &Pipeline,
    topic_id: Option<&str>,
    mut purpose: Purpose,
) -> Result<InForce, BronzeError> {
    let mut created = false;
    for attempt in 1..=TRIES {
        let ids = purpose.ids();
        let (version, change) = match log.load(&ids).await? {
            None => (0, create(pipeline, topic_id, now_ms(), [log.fresh_id(), log.fresh_id()])),
            Some(state) => match decide(&state, pipeline, topic_id, &purpose, || log.fresh_id())? {
                Decision::InForce { epoch, generation, table_id, topic_id } => {
                    return Ok(InForce { epoch, generation, table_id, topic_id, version: state.version, created });
                }
                Decision::Change(change) => (state.version + 1, change),
            },
        };
        match log.put(version, change.entry(&log.fresh_id(), now_ms())).await {
            PutOutcome::Landed => {
                log.sync(version).await?;
                created |= version == 0;
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
    Err(BronzeError::io(format!("the settings of {} cannot be committed", log.name()), "others commit all the time"))
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
