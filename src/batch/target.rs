//! A table that batch makes: what it records about itself, and commits that land only on the version that they were
//! planned on ([`super::entry::land`]). A run that is told of another commit plans again; two runs at once cannot both land.

use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDate;
use deltalake::DeltaTableError;
use deltalake::kernel::Action;
use deltalake::logstore::LogStoreRef;
use serde_json::{Value, json};
use uuid::Uuid;

use super::entry::{land, protocol};
use super::mark::{Marked, mark_id};
use super::plan::TargetFacts;
use super::upkeep::retention::{RETENTION_ID, horizon};
use super::{BatchError, Lake, Layer};
use crate::bronze::{EntryWriter, table_metadata};

/// Key of a table's metadata: the id of the table that it was made from.
const SOURCE: &str = "boathouse.made_from";
/// Key of a table's metadata: the hash of the settings that it was made with.
const SETTINGS: &str = "boathouse.settings_hash";

/// What a table that batch makes is.
#[derive(Debug, Clone)]
pub struct Definition {
    /// As `silver.user_events`.
    pub name: String,
    /// Columns in Delta's JSON form.
    pub schema: String,
    pub partition_columns: Vec<String>,
    /// Hash of the settings that its rows depend on.
    pub settings: String,
}

/// A data file of a table at one version.
#[derive(Debug, Clone)]
pub struct TableFile {
    /// Path below the table's root, decoded.
    pub path: String,
    pub size: u64,
    pub rows: u64,
    pub partition: BTreeMap<String, Option<String>>,
    /// The action that takes it out of the table.
    pub remove: Value,
}

/// A table as it was found.
pub struct Target {
    pub store: LogStoreRef,
    /// None where there is no table.
    pub found: Option<Found>,
}

pub struct Found {
    pub version: u64,
    pub facts: TargetFacts,
    /// The first date that retention keeps of it; none where it keeps all.
    pub horizon: Option<NaiveDate>,
    pub files: Vec<TableFile>,
    metadata: Value,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    Landed(u64),
    /// Somebody else has committed since; plan again.
    Overtaken,
}

/// What a commit does to a table's rows.
#[derive(Debug, Default)]
pub struct Change {
    /// Delta's name of the operation.
    pub operation: &'static str,
    /// For the log's readers.
    pub parameters: Value,
    pub added: Vec<Value>,
    pub removed: Vec<Value>,
    /// The version of the source up to which the table holds everything from now on; none leaves it as it is.
    pub read_to: Option<Marked>,
    /// A further application id and its version: how far a backfill has come, where a new table begins.
    pub progress: Option<(String, i64)>,
}

/// The application id under which a table records how far it has read another.
pub fn app_id(table: &str, source_id: &str) -> String {
    format!("boathouse/{table}/{source_id}")
}

impl Target {
    /// Looks at a table: its version, its files, and what it says about how it was made from `source_id`.
    pub async fn look(
        lake: &Lake,
        (layer, table): (Layer, &str),
        definition: &Definition,
        source_id: &str,
    ) -> Result<Self, BatchError> {
        let name = &definition.name;
        let failed = |e: DeltaTableError| BatchError::unavailable(format!("table {name} cannot be loaded"), e);
        let store = lake.log_store(layer, table)?;
        let Some(table) = lake.open(layer, table).await? else { return Ok(Self { store, found: None }) };
        let state = table.snapshot().map_err(failed)?;
        let json_failed =
            |e: serde_json::Error| BatchError::unavailable(format!("metadata of {name} cannot be read"), e);
        let metadata = serde_json::to_value(state.metadata()).map_err(json_failed)?;
        let configuration: HashMap<String, String> =
            serde_json::from_value(metadata["configuration"].clone()).map_err(json_failed)?;
        let read_to = lake.noted(&table, &app_id(name, source_id)).await.map_err(failed)?;
        let read_mark = lake.noted(&table, &mark_id(source_id)).await.map_err(failed)?;
        let mut files = Vec::new();
        for file in state.log_data().iter() {
            let remove = serde_json::to_value(Action::Remove(file.remove_action(true))).map_err(json_failed)?;
            files.push(TableFile {
                path: file.object_store_path().to_string(),
                size: file.size() as u64,
                rows: file.num_records().unwrap_or_default() as u64,
                partition: file.partition_values_map().into_iter().collect(),
                remove,
            });
        }
        let facts = TargetFacts {
            source_id: configuration.get(SOURCE).cloned(),
            read_to: read_to.and_then(|v| v.try_into().ok()),
            read_mark: read_mark.and_then(|v| v.try_into().ok()),
            settings: configuration.get(SETTINGS).cloned(),
        };
        let horizon = horizon(lake, &table, RETENTION_ID).await.map_err(failed)?;
        Ok(Self { store, found: Some(Found { version: state.version(), facts, horizon, files, metadata }) })
    }

    pub fn facts(&self) -> Option<&TargetFacts> {
        self.found.as_ref().map(|f| &f.facts)
    }

    /// The first date that retention keeps of it; none where it keeps all.
    pub fn horizon(&self) -> Option<NaiveDate> {
        self.found.as_ref().and_then(|f| f.horizon)
    }

    pub fn files(&self) -> &[TableFile] {
        self.found.as_ref().map_or(&[], |f| &f.files)
    }

    /// Commits on the version that was looked at; creates the table where there was none. The table's metadata follow
    /// the definition where the change reads the source to some version.
    pub async fn commit(
        &self,
        definition: &Definition,
        source_id: &str,
        change: Change,
    ) -> Result<Landing, BatchError> {
        let version = self.found.as_ref().map_or(0, |f| f.version + 1);
        let now_ms = chrono::Utc::now().timestamp_millis();
        let id = Uuid::new_v4().to_string();
        let mut entry = EntryWriter::new(change.operation, change.parameters, false, &id, now_ms);
        let metadata = self.metadata(definition, source_id, now_ms);
        if self.found.is_none() {
            entry.action(protocol());
        }
        if self.found.as_ref().is_none_or(|f| change.read_to.is_some() && f.metadata != metadata) {
            entry.action(json!({"metaData": metadata}));
        }
        if let Some(read_to) = change.read_to {
            entry.txn(&app_id(&definition.name, source_id), read_to.version as i64);
            entry.txn(&mark_id(source_id), read_to.mark as i64);
        }
        if let Some((id, at)) = &change.progress {
            entry.txn(id, *at);
        }
        change.removed.into_iter().for_each(|a| entry.action(a));
        change.added.into_iter().for_each(|a| entry.action(a));
        land(&self.store, &definition.name, version, &entry.finish()).await
    }

    fn metadata(&self, definition: &Definition, source_id: &str, now_ms: i64) -> Value {
        let mut metadata = match &self.found {
            Some(found) => found.metadata.clone(),
            None => {
                let id = Uuid::new_v4().to_string();
                table_metadata(&id, &definition.name, &definition.schema, &[], json!({}), now_ms)
            }
        };
        metadata["schemaString"] = json!(definition.schema);
        metadata["partitionColumns"] = json!(definition.partition_columns);
        metadata["configuration"][SOURCE] = json!(source_id);
        metadata["configuration"][SETTINGS] = json!(definition.settings);
        metadata
    }
}
