//! The lakehouse as batch sees it: where its tables are, and a DataFusion session within the memory limit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::delta_datafusion::{DeltaSessionConfig, DeltaSessionContext};
use deltalake::logstore::LogStoreRef;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::opened::Opened;
use super::yielding::YieldingJoins;
use super::{BatchError, TaskContext};
use crate::bronze::has_log;
use crate::config::Server;
use crate::storage::Place;

/// Parts into which DataFusion splits a plan: batch has its own few threads, the stream has the others.
const PARTS: usize = 2;

/// What was spilled by a process that was killed is taken away once it is this old.
const SPILL_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// How the folders begin that DataFusion spills into.
const SPILL_PREFIX: &str = "datafusion-";

/// A layer of the lakehouse: a folder of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    Bronze,
    Silver,
    Gold,
}

impl Layer {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bronze => "bronze",
            Self::Silver => "silver",
            Self::Gold => "gold",
        }
    }

    /// The layer of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Bronze, Self::Silver, Self::Gold].into_iter().find(|layer| layer.as_str() == name)
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name, below `silver/`, of the table that holds a pipeline's refused rows.
pub fn refused_table(pipeline: &str) -> String {
    format!("{pipeline}_refused")
}

/// The lakehouse. Cheap to clone; all clones and their sessions share one memory limit.
#[derive(Debug, Clone)]
pub struct Lake {
    uri: String,
    memory: usize,
    runtime: Arc<RuntimeEnv>,
    /// Work that may use the whole memory: one at a time.
    turns: Arc<Semaphore>,
    opened: Arc<Opened>,
    /// The task whose queries these are; none where nobody cancels them.
    task: Option<TaskContext>,
}

/// The right to use the lakehouse's memory, given back when it is dropped.
pub struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lake {
    /// The lakehouse of a configuration: `lakehouse.uri`, within `batch.memory`, spilling to `batch.spill_dir`.
    pub fn new(server: &Server) -> Result<Self, BatchError> {
        let (memory, spill) = (server.batch.memory.0 as usize, server.spill_dir());
        Self::within(&server.lakehouse.uri, memory, spill, server.batch.spill_max.0)
    }

    /// The lakehouse at `uri`, within `memory` bytes; what does not fit is spilled to the folder `spill`, or where that
    /// cannot be made (a command run by somebody else than the daemon) to the system's temporary folder.
    pub fn at(uri: &str, memory: usize, spill: PathBuf) -> Result<Self, BatchError> {
        Self::within(uri, memory, spill, Server::default().batch.spill_max.0)
    }

    /// As [`Self::at`], with at most `spill_max` bytes spilled.
    pub fn within(uri: &str, memory: usize, spill: PathBuf, spill_max: u64) -> Result<Self, BatchError> {
        let mode = match std::fs::create_dir_all(&spill) {
            Ok(()) if clear(&spill).is_err() => DiskManagerMode::OsTmpDirectory,
            Ok(()) => DiskManagerMode::Directories(vec![spill]),
            Err(_) => DiskManagerMode::OsTmpDirectory,
        };
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(spill_max);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(|e| BatchError::unavailable("the batch engine cannot be set up", e))?;
        let turns = Arc::new(Semaphore::new(1));
        let opened = Arc::new(Opened::default());
        Ok(Self { uri: uri.trim_end_matches('/').into(), memory, runtime, turns, opened, task: None })
    }

    /// The same lakehouse for the queries of a task, which end soon after it is cancelled.
    pub fn of_task(&self, task: &TaskContext) -> Self {
        Self { task: Some(task.clone()), ..self.clone() }
    }

    /// Bytes that a run may hold.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Bytes that queries under way hold of it.
    pub fn memory_used(&self) -> usize {
        self.runtime.memory_pool.reserved()
    }

    /// Waits until no other work uses the whole memory. The pipelines of a process take turns, so that the limit holds
    /// for all of them together.
    pub async fn turn(&self) -> Turn {
        // The semaphore is never closed.
        Turn { _permit: self.turns.clone().acquire_owned().await.ok() }
    }

    /// The address of a table, whether it exists or not.
    pub fn table_uri(&self, layer: Layer, table: &str) -> String {
        format!("{}/{layer}/{table}", self.uri)
    }

    /// The names of a layer's tables, in order.
    pub async fn tables(&self, layer: Layer) -> Result<Vec<String>, BatchError> {
        let place = Place::of(&self.uri).map(|root| root.join(layer.as_str()));
        let failed = |e| BatchError::unavailable(format!("the tables of {layer} cannot be listed"), e);
        place.map_err(failed)?.tables().await.map_err(failed)
    }

    /// The storage of a table and its log, whether it exists or not.
    pub fn log_store(&self, layer: Layer, table: &str) -> Result<LogStoreRef, BatchError> {
        let uri = self.table_uri(layer, table);
        let failed = |e: DeltaTableError| BatchError::unavailable(format!("{uri} cannot be a table's place"), e);
        let url = deltalake::ensure_table_uri(&uri).map_err(failed)?;
        DeltaTableBuilder::from_url(url).and_then(|b| b.build_storage()).map_err(failed)
    }

    /// Whether a table may be there: on a local disk, whether it has a log. Looking at storage would make its folder.
    pub fn may_exist(&self, layer: Layer, table: &str) -> bool {
        match Place::of(&self.table_uri(layer, table)) {
            Ok(Place::Folder(folder)) => has_log(&folder),
            _ => true,
        }
    }

    /// A table at its newest version; none where there is no table.
    pub async fn open(&self, layer: Layer, table: &str) -> Result<Option<DeltaTable>, BatchError> {
        if !self.may_exist(layer, table) {
            return Ok(None);
        }
        match self.opened.newest(self.log_store(layer, table)?).await {
            Ok(opened) => Ok(Some(opened)),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(e) => Err(BatchError::unavailable(format!("table {layer}/{table} cannot be loaded"), e)),
        }
    }

    /// What a loaded table has noted under an application id; none if nothing ever.
    pub async fn noted(&self, table: &DeltaTable, id: &str) -> Result<Option<i64>, DeltaTableError> {
        self.opened.noted(table, id).await
    }

    /// A fresh DataFusion session for Delta tables. Names in SQL are folded to small letters, as users expect; tables
    /// are registered by the caller.
    pub fn session(&self) -> SessionContext {
        let base = DeltaSessionContext::with_runtime_env(self.runtime.clone()).into_inner();
        let config = SessionConfig::from(DeltaSessionConfig::default())
            .set_bool("datafusion.sql_parser.enable_ident_normalization", true)
            .with_target_partitions(PARTS);
        let state = datafusion::execution::SessionStateBuilder::new_from_existing(base.state())
            .with_config(config)
            .with_physical_optimizer_rule(Arc::new(YieldingJoins { task: self.task.clone() }))
            .build();
        SessionContext::new_with_state(state)
    }
}

/// Takes away what killed processes have left of their spilling; an error means that nothing can be done in the folder.
fn clear(spill: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(spill)? {
        let entry = entry?;
        let old = entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > SPILL_AGE_MAX);
        if old && entry.file_name().to_string_lossy().starts_with(SPILL_PREFIX) {
            // Another process may be quicker.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}
