//! A model's Delta table: what it says of itself, and the one commit that replaces dates of it.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use deltalake::DeltaTable;
use deltalake::DeltaTableError;
use deltalake::kernel::{Action, LogicalFileView};
use futures::TryStreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::entry::{checkpoint, land, protocol};
use super::super::graph::{Node, table_type};
use super::super::mark::mark_id;
use super::super::target::Landing;
use super::super::{BatchError, Lake, Layer};
use super::partition_date;
use super::plan::Standing;
use crate::bronze::{EntryWriter, table_metadata};

/// The table property that holds the fingerprint of the model whose rows are in force.
pub const FINGERPRINT: &str = "boathouse.model";

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

impl GoldTable {
    /// Loads a model's table.
    pub async fn load(lake: &Lake, model: &str, silver_table: &str) -> Result<Self, BatchError> {
        let Some(table) = lake.open(Layer::Gold, model).await? else {
            return Ok(Self { table: None, standing: Standing::default() });
        };
        let standing = standing(lake, &table, silver_table).await.map_err(|e| unreadable(model, &e))?;
        Ok(Self { table: Some(table), standing })
    }

    /// Commits files in place of what `replace` names, with the versions of silver (and of a snapshot's input) that they
    /// were computed from, their marks and the model's fingerprint and columns where these are new. All or nothing.
    pub async fn replace(
        &self,
        lake: &Lake,
        node: &Node,
        replace: &Replace,
        adds: Vec<Value>,
        read: &[(String, u64)],
    ) -> Result<Landing, BatchError> {
        let name = &node.model.name;
        let failed = |e: DeltaTableError| BatchError::unavailable(format!("gold/{name} cannot be committed"), e);
        let described =
            |e| BatchError::refused(format!("a commit of gold/{name}"), e, "this is a fault of the program");
        let partition: Vec<&String> = node.model.header.partition.iter().collect();
        let parameters = json!({"mode": "Overwrite", "partitionBy": json!(partition).to_string()});
        let now_ms = chrono::Utc::now().timestamp_millis();
        let mut entry = EntryWriter::new("WRITE", parameters, false, &Uuid::new_v4().to_string(), now_ms);
        if self.standing.fingerprint.as_deref() != Some(&node.fingerprint) {
            if self.table.is_none() {
                entry.action(protocol());
            }
            entry.action(json!({"metaData": self.metadata(node, now_ms).map_err(described)?}));
        }
        for (id, version) in read {
            entry.txn(id, i64::try_from(*version).unwrap_or(i64::MAX));
        }
        let removes = match &self.table {
            Some(table) => removes(table, node, replace).await.map_err(failed)?,
            None => Vec::new(),
        };
        let files = removes.len() + adds.len();
        for remove in removes {
            entry.action(serde_json::to_value(remove).map_err(described)?);
        }
        adds.into_iter().for_each(|add| entry.action(add));
        let (store, version) = match &self.table {
            Some(table) => (table.log_store(), table.snapshot().map_err(failed)?.version() + 1),
            None => (lake.log_store(Layer::Gold, name)?, 0),
        };
        let landing = land(&store, &format!("gold/{name}"), version, &entry.finish()).await?;
        if let Landing::Landed(version) = landing {
            checkpoint(lake, Layer::Gold, name, version, files).await;
        }
        Ok(landing)
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

    /// The table's description in Delta: its columns with what they mean. Whatever else a table that is there says of
    /// itself stays.
    fn metadata(&self, node: &Node, now_ms: i64) -> Result<Value, serde_json::Error> {
        let header = &node.model.header;
        let doc =
            |name: &str| header.columns.iter().find(|c| c.name == name).map(|c| c.doc.as_str()).unwrap_or_default();
        let columns: Vec<Value> = node
            .schema
            .fields()
            .iter()
            .map(|f| {
                // Every column may be null: Delta's NOT NULL is a feature that not every reader knows.
                let comment = json!({"comment": doc(f.name())});
                json!({"name": f.name(), "type": delta_type(f.data_type()), "nullable": true, "metadata": comment})
            })
            .collect();
        let schema = json!({"type": "struct", "fields": columns}).to_string();
        let partition: Vec<&str> = header.partition.iter().map(String::as_str).collect();
        let mut metadata = match self.table.as_ref().and_then(|t| t.snapshot().ok()) {
            Some(state) => serde_json::to_value(state.metadata())?,
            None => {
                let (id, name) = (Uuid::new_v4().to_string(), format!("gold.{}", node.model.name));
                table_metadata(&id, &name, &schema, &partition, json!({}), now_ms)
            }
        };
        metadata["description"] = json!(header.description);
        metadata["schemaString"] = json!(schema);
        metadata["partitionColumns"] = json!(partition);
        metadata["configuration"][FINGERPRINT] = json!(node.fingerprint);
        Ok(metadata)
    }
}

/// What a table says of itself.
async fn standing(lake: &Lake, table: &DeltaTable, silver_table: &str) -> Result<Standing, DeltaTableError> {
    let state = table.snapshot()?;
    let silver = lake.noted(table, &silver_txn(silver_table)).await?;
    let mark = lake.noted(table, &mark_id(silver_table)).await?;
    Ok(Standing {
        fingerprint: state.metadata().configuration().get(FINGERPRINT).cloned(),
        silver: silver.and_then(|v| u64::try_from(v).ok()),
        silver_mark: mark.and_then(|v| u64::try_from(v).ok()),
    })
}

fn unreadable(model: &str, e: &DeltaTableError) -> BatchError {
    BatchError::unavailable(format!("gold/{model} cannot be read"), e)
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
