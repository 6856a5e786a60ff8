//! Entries of the logs of tables that batch makes or looks after: put where there is none, durable before anybody sees
//! them. And the checkpoints behind them.

use std::time::Duration;

use bytes::Bytes;
use deltalake::DeltaTableError;
use deltalake::logstore::{CommitOrBytes, LogStoreRef};
use serde_json::{Value, json};
use uuid::Uuid;

use super::target::Landing;
use super::{BatchError, Lake, Layer};
use crate::bronze::upkeep::make_checkpoint;
use crate::bronze::{first_protocol, fsync, local_path, put_new};

/// Tries of a put whose answer does not come.
const TRIES: u32 = 8;
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Commits between two checkpoints: loading a table costs what was committed since the last one.
pub const CHECKPOINT_EVERY: u64 = 20;
/// Files of a commit behind which a checkpoint is due at once: who loads the table would read them all from JSON.
const CHECKPOINT_FILES: usize = 100;

/// The first action of a table that is made.
pub fn protocol() -> Value {
    json!({"protocol": first_protocol()})
}

/// Puts an entry; false where the version is taken. On a local disk nobody sees it before it is durable: whoever commits
/// behind it would otherwise make an entry durable whose predecessor a power cut empties.
pub async fn put(store: &LogStoreRef, version: u64, entry: &Bytes) -> Result<bool, String> {
    let Some(root) = local_path(store.root_url()) else {
        let put = CommitOrBytes::LogBytes(entry.clone());
        let written = store.write_commit_entry(version, put, Uuid::new_v4()).await;
        return written.map(|()| true).map_err(|e| e.to_string());
    };
    let log = root.join("_delta_log");
    if version == 0 {
        // The first entry comes with the folders that lead to it.
        tokio::fs::create_dir_all(&log).await.map_err(|e| format!("{}: {e}", log.display()))?;
        let folders = log.ancestors().take(4).map(std::path::Path::to_path_buf).collect();
        fsync(folders).await.map_err(|e| e.to_string())?;
    }
    let path = log.join(format!("{version:020}.json"));
    put_new(path.clone(), entry.clone()).await.map_err(|e| format!("{}: {e}", path.display()))
}

/// Commits an entry right behind the version that it was planned on (`version` is its own), or not at all: whatever else
/// has landed there, another run, compaction or a change by hand, the caller is told. The same bytes are never put under
/// a version that was not planned on.
pub async fn land(store: &LogStoreRef, name: &str, version: u64, entry: &Bytes) -> Result<Landing, BatchError> {
    let failed = |e: &dyn std::fmt::Display| BatchError::unavailable(format!("{name} cannot be committed"), e);
    if version > 0 {
        // A run may take longer than the log keeps entries: the place of one that was cleaned up is free.
        match store.get_latest_version(version - 1).await {
            Ok(newest) if newest + 1 == version => {}
            Ok(_) | Err(DeltaTableError::InvalidVersion(_)) => return Ok(Landing::Overtaken),
            Err(e) => return Err(failed(&e)),
        }
    }
    let mut last = String::new();
    for attempt in 0..TRIES {
        match put(store, version, entry).await {
            Ok(true) => return Ok(Landing::Landed(version)),
            Ok(false) => {}
            Err(e) => last = e,
        }
        // Neither an error nor "taken" says whose entry is there.
        match store.read_commit_entry(version).await.map_err(|e| failed(&e))? {
            Some(there) if there == *entry => {
                if let Some(root) = local_path(store.root_url()) {
                    fsync(vec![root.join("_delta_log")]).await.map_err(|e| failed(&e))?;
                }
                return Ok(Landing::Landed(version));
            }
            Some(_) => return Ok(Landing::Overtaken),
            None => {
                let longest = PAUSE_MAX.min(Duration::from_millis(20 << attempt));
                tokio::time::sleep(longest.mul_f64(rand::random_range(0.5..1.0))).await;
            }
        }
    }
    Err(failed(&last))
}

/// A checkpoint where one is due behind a commit of so many files. Nothing depends on it: a failure is told and the next
/// one is waited for.
pub async fn checkpoint(lake: &Lake, layer: Layer, name: &str, version: u64, files: usize) {
    if files < CHECKPOINT_FILES && (version == 0 || !version.is_multiple_of(CHECKPOINT_EVERY)) {
        return;
    }
    let made = async {
        match lake.open(layer, name).await.map_err(|e| e.to_string())? {
            Some(table) => make_checkpoint(&table).await.map(drop).map_err(|e| e.to_string()),
            None => Ok(()),
        }
    };
    if let Err(cause) = made.await {
        tracing::warn!("no checkpoint of {layer}/{name} at version {version}: {cause}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_entry_lands_once_behind_the_version_that_it_was_planned_on() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap(), 1 << 20, folder.path().join("spill")).unwrap();
        let store = lake.log_store(Layer::Gold, "t").unwrap();
        let entry = |n: i32| Bytes::from(format!("{{\"commitInfo\":{{\"n\":{n}}}}}\n"));
        let land = async |version, n| land(&store, "gold.t", version, &entry(n)).await.unwrap();
        assert_eq!(land(0, 1).await, Landing::Landed(0));
        assert_eq!(land(0, 1).await, Landing::Landed(0), "the same bytes are the same commit");
        assert_eq!(land(0, 2).await, Landing::Overtaken);
        assert_eq!(land(1, 3).await, Landing::Landed(1));
        assert_eq!(land(1, 4).await, Landing::Overtaken);
        assert_eq!(land(3, 5).await, Landing::Overtaken, "nothing is behind a gap");
        let log = folder.path().join("gold/t/_delta_log");
        assert_eq!(std::fs::read_dir(log).unwrap().count(), 2, "nothing is left aside");
    }
}
