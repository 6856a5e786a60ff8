//! The table's metadata: what a new table begins with, and what a start finds to be changed. Pure.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::BronzeError;
use super::log::TableState;
use super::schema::{PARTITION_COLUMN, delta_columns, schema_string};
use super::settings::{key, settings, settings_hash};
use crate::config::Pipeline;
use crate::remedy;

/// Why the settings are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A daemon starts.
    Start,
    /// An operator goes back to settings on purpose.
    AcceptSettings,
    /// An operator takes on a topic that was made anew.
    AdoptTopic,
    /// An operator mends marks that a wrong clock has moved: (application id of the mark, microseconds).
    LowerMarks(Vec<(String, i64)>),
    /// An operator goes on behind records that Kafka's retention removed. A fresh epoch comes with it: ClickHouse may
    /// have counted some of them, ahead of Bronze, which will never have them.
    AcceptGap(Vec<Gap>),
    /// An operator takes bad records as dead letters: application ids, and the offsets below which they are accepted. No
    /// position, mark or verdict moves, so that the epoch stays.
    AcceptBadRecords(Vec<(String, i64)>),
}

/// Offsets of one partition that nobody has any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Application id of the partition's position.
    pub id: String,
    /// Where Bronze stands.
    pub from: i64,
    /// Where it goes on.
    pub to: i64,
}

impl Purpose {
    /// Application ids whose versions the decision depends on.
    pub fn ids(&self) -> Vec<String> {
        match self {
            Self::AcceptGap(gaps) => gaps.iter().map(|gap| gap.id.clone()).collect(),
            Self::AcceptBadRecords(accepted) => accepted.iter().map(|(id, _)| id.clone()).collect(),
            _ => Vec::new(),
        }
    }
}

/// What is to be done so that a configuration's settings are in force.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// Nothing.
    InForce { epoch: String, generation: i32, table_id: String, topic_id: Option<String> },
    /// This metadata commit.
    Change(Change),
}

/// A metadata commit.
#[derive(Debug, PartialEq)]
pub struct Change {
    /// What it does, for the log.
    pub what: String,
    /// Delta's name of the operation.
    pub operation: &'static str,
    pub protocol: Option<Value>,
    /// Application ids and their new versions.
    pub txns: Vec<(String, i64)>,
    /// The content of the `metaData` action.
    pub metadata: Value,
}

/// Every reader of the last years can read it.
pub fn first_protocol() -> Value {
    json!({"minReaderVersion": 1, "minWriterVersion": 2})
}

/// What a new table says of itself, whoever makes it: the content of its first `metaData` action.
pub fn table_metadata(
    id: &str,
    name: &str,
    schema: &str,
    partition_columns: &[&str],
    configuration: Value,
    now_ms: i64,
) -> Value {
    json!({
        "id": id,
        "name": name,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema,
        "partitionColumns": partition_columns,
        "configuration": configuration,
        "createdTime": now_ms,
    })
}

/// The commit that makes a new table. `ids`: two fresh ones, for the epoch and the table.
pub fn create(pipeline: &Pipeline, topic_id: Option<&str>, now_ms: i64, ids: [String; 2]) -> Change {
    Change {
        what: "created the Bronze table".into(),
        operation: "CREATE TABLE",
        protocol: Some(first_protocol()),
        txns: Vec::new(),
        metadata: first_metadata(pipeline, topic_id, now_ms, ids),
    }
}

/// The metadata of a new table.
fn first_metadata(pipeline: &Pipeline, topic_id: Option<&str>, now_ms: i64, [epoch, id]: [String; 2]) -> Value {
    let settings = settings(pipeline);
    let mut configuration = json!({
        key::PIPELINE: pipeline.name,
        key::TOPIC: pipeline.topic,
        key::GENERATION: "0",
        key::EPOCH: epoch,
        key::SETTINGS: settings.to_string(),
        key::SETTINGS_HASH: settings_hash(&settings),
        key::EARLIER: "",
    });
    if let Some(id) = topic_id {
        configuration[key::TOPIC_ID] = json!(id);
    }
    let schema = schema_string(&delta_columns(pipeline));
    table_metadata(&id, &format!("bronze.{}", pipeline.name), &schema, &[PARTITION_COLUMN], configuration, now_ms)
}

/// Compares the table with the configuration. `fresh_id` gives the id of a fresh epoch.
pub fn decide(
    state: &TableState,
    pipeline: &Pipeline,
    topic_id: Option<&str>,
    purpose: &Purpose,
    fresh_id: impl FnOnce() -> String,
) -> Result<Decision, BronzeError> {
    let table = Configuration { state, pipeline };
    let generation = table.generation()?;
    let (settings, columns) = (settings(pipeline), table.columns()?);
    let hash = settings_hash(&settings);
    let mut changed = state.configuration.clone();
    let mut what = Vec::new();

    let same_topic = table.get(key::TOPIC) == pipeline.topic
        && match (state.configuration.get(key::TOPIC_ID), topic_id) {
            (Some(known), Some(seen)) => known == seen,
            _ => true,
        };
    let mut fresh_epoch = false;
    if *purpose == Purpose::AdoptTopic {
        changed.insert(key::TOPIC.into(), pipeline.topic.clone());
        changed.remove(key::TOPIC_ID);
        changed.insert(key::GENERATION.into(), (generation + 1).to_string());
        what.push(format!("took the topic {} on as generation {}", pipeline.topic, generation + 1));
        fresh_epoch = true;
    } else if !same_topic {
        return Err(table.another_topic(topic_id));
    }
    if let (Some(id), None) = (topic_id, changed.get(key::TOPIC_ID)) {
        changed.insert(key::TOPIC_ID.into(), id.into());
        what.push("noted the topic's id".into());
    }

    let in_force = table.get(key::SETTINGS_HASH);
    if in_force != hash {
        let mut earlier: Vec<&str> = table.get(key::EARLIER).split(',').filter(|h| !h.is_empty()).collect();
        if earlier.contains(&hash.as_str()) && *purpose != Purpose::AcceptSettings {
            return Err(table.left_behind(&hash));
        }
        earlier.retain(|h| *h != hash);
        earlier.push(in_force);
        changed.insert(key::EARLIER.into(), earlier.join(","));
        changed.insert(key::SETTINGS.into(), settings.to_string());
        changed.insert(key::SETTINGS_HASH.into(), hash);
        what.push("put changed settings in force".into());
        fresh_epoch = true;
    } else if *purpose == Purpose::AcceptSettings {
        // Asked for on purpose: totals that were counted under the epoch so far are to be counted again.
        what.push("put the settings in force anew".into());
        fresh_epoch = true;
    }
    let missing = table.missing_columns();
    if in_force == settings_hash(&settings) && !missing.is_empty() {
        what.push(format!("put back columns that somebody had dropped: {}", missing.join(", ")));
    }
    let mut txns = Vec::new();
    if *purpose == Purpose::AcceptSettings {
        // Everything below was looked at by somebody: rows removed by hand do not stop anybody any more.
        txns.push((format!("{}/accepted", pipeline.name), state.version as i64 + 1));
    }
    if let Purpose::LowerMarks(marks) = purpose {
        txns.extend(marks.iter().cloned());
        what.push(format!("set the marks of {} partitions back", marks.len()));
        fresh_epoch = true;
    }
    if let Purpose::AcceptGap(gaps) = purpose {
        txns = table.moves(gaps)?;
        if !txns.is_empty() {
            what.push(format!("went on behind a gap in {} partitions", txns.len()));
            fresh_epoch = true;
        }
    }
    if let Purpose::AcceptBadRecords(accepted) = purpose {
        // Never less than somebody has accepted already; an earlier try may have landed although its answer was lost.
        let more = accepted.iter().filter(|(id, to)| state.txns.get(id).is_none_or(|at| at < to));
        txns = more.cloned().collect();
        if !txns.is_empty() {
            what.push(format!("accepted bad records of {} partitions", txns.len()));
        }
    }
    if fresh_epoch {
        // An id, not a counter: this very commit may be lost.
        changed.insert(key::EPOCH.into(), fresh_id());
    }
    if what.is_empty() {
        let table_id = state.metadata["id"].as_str().unwrap_or_default().to_string();
        let topic_id = state.configuration.get(key::TOPIC_ID).cloned();
        return Ok(Decision::InForce { epoch: table.get(key::EPOCH).into(), generation, table_id, topic_id });
    }
    let mut metadata = state.metadata.clone();
    metadata["schemaString"] = json!(schema_string(&columns));
    metadata["configuration"] = json!(changed);
    let what = what.join(", ");
    Ok(Decision::Change(Change { what, operation: "SET TBLPROPERTIES", protocol: None, txns, metadata }))
}

/// The topic that the broker has is not the one that the table holds: (name, id).
pub(super) fn another_topic(
    (topic, id): (&str, Option<&str>),
    pipeline: &Pipeline,
    seen: Option<&str>,
    place: String,
) -> BronzeError {
    let what = format!(
        "the table holds topic {topic} with id {}, but the broker has topic {} with id {}: it was deleted and made anew, \
         or it is another cluster",
        id.unwrap_or("unknown"),
        pipeline.topic,
        seen.unwrap_or("unknown"),
    );
    BronzeError::stopped(what, place, remedy::adopt_topic(&pipeline.name))
}

struct Configuration<'a> {
    state: &'a TableState,
    pipeline: &'a Pipeline,
}

impl Configuration<'_> {
    fn get(&self, key: &str) -> &str {
        self.state.configuration.get(key).map(String::as_str).unwrap_or_default()
    }

    fn place(&self) -> String {
        format!("the Bronze table of pipeline {} at version {}", self.pipeline.name, self.state.version)
    }

    fn generation(&self) -> Result<i32, BronzeError> {
        let known = self.state.configuration.contains_key(key::EPOCH);
        self.get(key::GENERATION).parse().ok().filter(|_| known).ok_or_else(|| {
            BronzeError::stopped(
                "a Delta table is there that Boathouse did not make",
                self.place(),
                "move it away, or give the pipeline another name",
            )
        })
    }

    /// The table's columns with those of new fields added. A column's type never changes.
    fn columns(&self) -> Result<Vec<Value>, BronzeError> {
        let schema: Value =
            self.state.metadata["schemaString"].as_str().and_then(|s| serde_json::from_str(s).ok()).unwrap_or_default();
        let mut columns = schema["fields"].as_array().cloned().unwrap_or_default();
        let by_name: HashMap<String, Value> =
            columns.iter().filter_map(|c| Some((c["name"].as_str()?.to_lowercase(), c["type"].clone()))).collect();
        for wanted in delta_columns(self.pipeline) {
            let name = wanted["name"].as_str().unwrap_or_default();
            match by_name.get(&name.to_lowercase()) {
                None => columns.push(wanted),
                Some(known) if same_type(known, &wanted["type"]) => {}
                Some(known) => {
                    return Err(BronzeError::stopped(
                        format!("the column {name} has the type {known}, the configuration says {}", wanted["type"]),
                        self.place(),
                        "a field's type never changes: give the field a new name in pipeline.toml",
                    ));
                }
            }
        }
        Ok(columns)
    }

    /// The moves over gaps that are still to be made.
    fn moves(&self, gaps: &[Gap]) -> Result<Vec<(String, i64)>, BronzeError> {
        let mut moves = Vec::new();
        for Gap { id, from, to } in gaps {
            match self.state.txns.get(id) {
                Some(at) if at == from => moves.push((id.clone(), *to)),
                // An earlier try landed although its answer was lost.
                Some(at) if at == to => {}
                at => {
                    return Err(BronzeError::stopped(
                        format!("{id} was at offset {from} and now is at {at:?}: somebody else has moved it"),
                        self.place(),
                        "stop the daemons of this pipeline, then try again",
                    ));
                }
            }
        }
        Ok(moves)
    }

    /// Columns of this configuration that the table has not.
    fn missing_columns(&self) -> Vec<String> {
        let schema = self.state.metadata["schemaString"].as_str().unwrap_or_default();
        let schema: Value = serde_json::from_str(schema).unwrap_or_default();
        let there: Vec<String> = schema["fields"].as_array().into_iter().flatten().filter_map(name_of).collect();
        delta_columns(self.pipeline).iter().filter_map(name_of).filter(|name| !there.contains(name)).collect()
    }

    fn another_topic(&self, topic_id: Option<&str>) -> BronzeError {
        let known = self.state.configuration.get(key::TOPIC_ID).map(String::as_str);
        another_topic((self.get(key::TOPIC), known), self.pipeline, topic_id, self.place())
    }

    fn left_behind(&self, hash: &str) -> BronzeError {
        BronzeError::stopped(
            format!(
                "the configuration's settings ({hash}) are ones that the table has left behind (now {})",
                self.get(key::SETTINGS_HASH)
            ),
            self.place(),
            format!("use the newer configuration, or: {}", remedy::accept_settings(&self.pipeline.name)),
        )
    }
}

/// A column's name, as Delta compares it.
fn name_of(column: &Value) -> Option<String> {
    column["name"].as_str().map(str::to_lowercase)
}

/// Nested types may have been written by another Delta library with other spellings of the same thing.
fn same_type(known: &Value, wanted: &Value) -> bool {
    match (known, wanted) {
        (Value::String(a), Value::String(b)) => a == b,
        (Value::Object(a), Value::Object(b)) => a.get("type") == b.get("type"),
        _ => false,
    }
}
