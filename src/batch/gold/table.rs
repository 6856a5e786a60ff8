//! A model's Delta table: what it says of itself, and the one commit that replaces dates of it.

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDate;
use deltalake::DeltaTable;
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add, LogicalFileView, Metadata, Protocol, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::graph::{Node, table_type};
use super::super::target::sync_entry;
use super::super::{BatchError, Lake, Layer};
use super::partition_date;
use super::plan::Standing;

/// The table property that holds the fingerprint of the model whose rows are in force.
pub const FINGERPRINT: &str = "boathouse.model";
/// Commits between two checkpoints of a gold table.
const CHECKPOINT_EVERY: u64 = 20;

/// The application id under which a table notes the version of silver that it was computed from.
pub fn silver_txn(silver_table: &str) -> String {
    format!("silver/{silver_table}")
}

/// A model's table as it stands, or nothing where there is none.
pub struct GoldTable {
    pub table: Option<DeltaTable>,
    pub standing: Standing,
}

/// What a commit takes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replace {
    /// Every row.
    Everything,
    /// The rows of these dates.
    Dates(BTreeSet<NaiveDate>),
    /// The rows of this date and later ones.
    From(NaiveDate),
    /// Nothing: only the version is noted.
    Nothing,
}

/// How a commit ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    Yes,
    /// Somebody else has committed since the table was loaded: look again.
    Overtaken,
}

impl GoldTable {
    /// Loads a model's table.
    pub async fn load(lake: &Lake, model: &str, silver_table: &str) -> Result<Self, BatchError> {
        let Some(table) = lake.open(Layer::Gold, model).await? else {
            return Ok(Self { table: None, standing: Standing::default() });
        };
        let standing = standing(&table, silver_table).await.map_err(|e| unreadable(model, &e))?;
        Ok(Self { table: Some(table), standing })
    }

    /// Commits files in place of what `replace` names, with the silver version that they were computed from and the
    /// model's fingerprint and columns where these are new. All or nothing.
    pub async fn replace(
        &self,
        lake: &Lake,
        node: &Node,
        replace: &Replace,
        adds: Vec<Add>,
        silver: (&str, u64),
    ) -> Result<Landed, BatchError> {
        let name = &node.model.name;
        let failed = |e: DeltaTableError| BatchError::unavailable(format!("gold/{name} cannot be committed"), e);
        let mut actions: Vec<Action> = Vec::new();
        if self.standing.fingerprint.as_deref() != Some(&node.fingerprint) {
            if self.table.is_none() {
                let protocol: Protocol = typed(json!({"minReaderVersion": 1, "minWriterVersion": 2}), name)?;
                actions.push(Action::Protocol(protocol));
            }
            let metadata: Metadata = typed(metadata(node, self.id()), name)?;
            actions.push(Action::Metadata(metadata));
        }
        if let Some(table) = &self.table {
            actions.extend(removes(table, node, replace).await.map_err(failed)?);
        }
        actions.extend(adds.into_iter().map(Action::Add));
        let (silver_table, silver_version) = silver;
        let txn = Transaction::new(silver_txn(silver_table), i64::try_from(silver_version).unwrap_or(i64::MAX));
        let properties = CommitProperties::default()
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_max_retries(0)
            .with_application_transaction(txn);
        let operation = DeltaOperation::Write {
            mode: SaveMode::Overwrite,
            partition_by: node.model.header.partition.clone().map(|p| vec![p]),
            predicate: None,
        };
        let log_store = match &self.table {
            Some(table) => table.log_store(),
            None => lake.log_store(Layer::Gold, name)?,
        };
        let state = match &self.table {
            Some(table) => Some(table.snapshot().map_err(failed)?),
            None => None,
        };
        let before = state.map(|s| s.version());
        let state = state.map(|s| s as &dyn deltalake::kernel::transaction::TableReference);
        let commit =
            CommitBuilder::from(properties).with_actions(actions).build(state, log_store.clone(), operation).await;
        match commit {
            Ok(done) => {
                sync_entry(&log_store, done.version()).await.map_err(|e| {
                    let what = format!(
                        "version {} of gold/{name} is committed and may not survive a power cut",
                        done.version()
                    );
                    BatchError::unavailable(what, e)
                })?;
                checkpoint(lake, name, done.version()).await;
                Ok(Landed::Yes)
            }
            Err(e) if is_conflict(&e) => Ok(Landed::Overtaken),
            // The commit may be there although its answer is an error: whoever tries again loads the table, sees it
            // in the silver version noted, and has nothing left to do.
            Err(e) => Err(BatchError::unavailable(
                format!("gold/{name} cannot be committed after version {}", before.map_or(-1, |v| v as i64)),
                e,
            )),
        }
    }

    /// Whether rows that are there can stay beside those of the model: no column of theirs has another type now.
    pub fn keeps_columns(&self, node: &Node) -> bool {
        let Some(state) = self.table.as_ref().and_then(|t| t.snapshot().ok()) else { return false };
        let there = state.snapshot().arrow_schema();
        node.schema.fields().iter().all(|field| match there.field_with_name(field.name()) {
            Ok(known) => table_type(known.data_type()).as_ref() == Some(field.data_type()),
            Err(_) => true,
        })
    }

    fn id(&self) -> String {
        let known = self.table.as_ref().and_then(|t| t.snapshot().ok()).map(|s| s.metadata().id().to_owned());
        known.unwrap_or_else(|| Uuid::new_v4().to_string())
    }
}

/// What a table says of itself.
async fn standing(table: &DeltaTable, silver_table: &str) -> Result<Standing, DeltaTableError> {
    let state = table.snapshot()?;
    let silver = state.transaction_version(table.log_store().as_ref(), silver_txn(silver_table)).await?;
    Ok(Standing {
        fingerprint: state.metadata().configuration().get(FINGERPRINT).cloned(),
        silver: silver.and_then(|v| u64::try_from(v).ok()),
    })
}

fn unreadable(model: &str, e: &DeltaTableError) -> BatchError {
    BatchError::unavailable(format!("gold/{model} cannot be read"), e)
}

fn typed<T: serde::de::DeserializeOwned>(value: Value, model: &str) -> Result<T, BatchError> {
    serde_json::from_value(value).map_err(|e| {
        BatchError::refused(format!("the table gold/{model} cannot be described"), e, "this is a fault of the program")
    })
}

fn is_conflict(e: &DeltaTableError) -> bool {
    matches!(
        e,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::VersionAlreadyExists(_)
                    | TransactionError::CommitConflict(_)
                    | TransactionError::MaxCommitAttempts(_)
            }
    )
}

/// The removals of a commit.
async fn removes(table: &DeltaTable, node: &Node, replace: &Replace) -> Result<Vec<Action>, DeltaTableError> {
    let snapshot = table.snapshot()?.snapshot();
    let partition = node.model.header.partition.as_deref().unwrap_or_default();
    let date = |file: &LogicalFileView| partition_date(file.partition_values_map().get(partition));
    let log_store = table.log_store();
    let mut files = snapshot.file_views(log_store.as_ref(), None);
    let mut removes = Vec::new();
    while let Some(file) = files.try_next().await? {
        let gone = match replace {
            Replace::Everything => true,
            Replace::Nothing => false,
            Replace::Dates(dates) => date(&file).is_some_and(|d| dates.contains(&d)),
            Replace::From(since) => date(&file).is_none_or(|d| d >= *since),
        };
        if gone {
            removes.push(Action::Remove(file.remove_action(true)));
        }
    }
    Ok(removes)
}

/// The table's description in Delta: its columns with what they mean.
fn metadata(node: &Node, id: String) -> Value {
    let header = &node.model.header;
    let columns: Vec<Value> = node
        .schema
        .fields()
        .iter()
        .map(|f| {
            let doc = header.columns.iter().find(|c| c.name == *f.name()).map(|c| c.doc.as_str()).unwrap_or_default();
            // Every column may be null: Delta's NOT NULL is a feature that not every reader knows.
            json!({"name": f.name(), "type": delta_type(f.data_type()), "nullable": true, "metadata": {"comment": doc}})
        })
        .collect();
    let partition: Vec<&String> = header.partition.iter().collect();
    json!({
        "id": id,
        "name": format!("gold.{}", node.model.name),
        "description": header.description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json!({"type": "struct", "fields": columns}).to_string(),
        "partitionColumns": partition,
        "configuration": HashMap::from([(FINGERPRINT, node.fingerprint.as_str())]),
        "createdTime": chrono::Utc::now().timestamp_millis(),
    })
}

/// Delta's name for a type of [`super::super::graph::table_type`].
fn delta_type(kind: &arrow::datatypes::DataType) -> &'static str {
    use arrow::datatypes::DataType;
    match kind {
        DataType::Int32 => "integer",
        DataType::Int64 => "long",
        DataType::Float64 => "double",
        DataType::Boolean => "boolean",
        DataType::Date32 => "date",
        DataType::Timestamp(_, _) => "timestamp",
        _ => "string",
    }
}

/// Now and then a checkpoint, so that loading the table stays quick. One that fails is made later.
async fn checkpoint(lake: &Lake, model: &str, version: u64) {
    if version == 0 || !version.is_multiple_of(CHECKPOINT_EVERY) {
        return;
    }
    let made = match lake.open(Layer::Gold, model).await {
        Ok(Some(table)) => deltalake::checkpoints::create_checkpoint(&table, None).await.map_err(|e| e.to_string()),
        Ok(None) => Ok(()),
        Err(e) => Err(e.to_string()),
    };
    if let Err(cause) = made {
        tracing::warn!(model, version, cause, "a checkpoint of a gold table failed; it is made later");
    }
}
