//! The models of a pipeline as a graph: what each reads, in which order they are computed, what columns they have.
//!
//! Everything is found from the SQL. It is planned against the tables' columns without any data, so that a cycle, an
//! unknown table and an unknown column are mistakes of the configuration, with file and line.

mod check;
mod order;
mod silver;
mod sql;
mod stable;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use sha2::{Digest, Sha256};

use super::model::{Kind, Mistakes, Model};
use crate::config::{ConfigError, ConfigErrors, Pipeline};

pub use silver::silver_columns;
pub use sql::{CATALOG, GOLD, SILVER, table_type};

/// Goes up when the way from a model's SQL to its rows changes, so that every table is computed again.
const REVISION: &str = "1";

/// The models of a pipeline, each after everything that it reads.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

/// A model in its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub model: Model,
    /// Whether it reads the pipeline's silver table.
    pub reads_silver: bool,
    /// The models that it reads, by name.
    pub reads: BTreeSet<String>,
    /// The columns of its table, with the types that the table has.
    pub schema: SchemaRef,
    /// Changes when anything that its rows depend on does: its SQL, its kind, its inputs' columns, the models it reads.
    pub fingerprint: String,
    /// How many days after a touched date of silver its rows may change: its own look back on top of its inputs'.
    pub reach_days: u32,
    /// What may make its rows other ones when they are computed again.
    pub remarks: Vec<ConfigError>,
}

impl Graph {
    /// Reads and plans a pipeline's models over its silver table's columns. All mistakes are given at once.
    pub fn build(pipeline: &Pipeline, silver: &SchemaRef) -> Result<Self, Vec<ConfigError>> {
        let mut mistakes = Vec::new();
        let mut parsed = Vec::new();
        for file in &pipeline.models {
            let read = Model::parse(file).and_then(sql::Parsed::read);
            match read {
                Ok(model) => parsed.push(model),
                Err(found) => mistakes.extend(found),
            }
        }
        if !mistakes.is_empty() {
            // A model that cannot be read would make every model that reads it look wrong.
            return Err(mistakes);
        }
        let parsed = order::sort(&pipeline.name, parsed)?;
        let planner = sql::Planner::new(pipeline, silver)?;
        let mut graph = Graph::default();
        for model in parsed {
            match graph.node(&model, &planner, silver) {
                Ok(node) => {
                    let grain: Vec<&str> = node.model.header.grain.iter().map(String::as_str).collect();
                    planner.add(GOLD, &node.model.name, &node.schema, &[&grain])?;
                    graph.nodes.push(node);
                }
                Err(found) => {
                    mistakes.extend(found);
                    // What reads it cannot be planned; the rest is still to be looked at.
                }
            }
        }
        if mistakes.is_empty() { Ok(graph) } else { Err(mistakes) }
    }

    /// The node of a model.
    pub fn node_of(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.model.name == name)
    }

    /// The models that ClickHouse serves, in the order of the graph.
    pub fn served(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.model.header.clickhouse.is_some())
    }

    fn node(&self, parsed: &sql::Parsed, planner: &sql::Planner, silver: &SchemaRef) -> Result<Node, Vec<ConfigError>> {
        let model = &parsed.model;
        let (mut mistakes, mut remarks) = (Mistakes::new(&model.file), Mistakes::new(&model.file));
        let inputs: Vec<&Node> = self.nodes.iter().filter(|n| parsed.reads.contains_key(&n.model.name)).collect();
        if inputs.len() < parsed.reads.len() {
            // An input was wrong and is reported; this one cannot be judged without it.
            return Err(Vec::new());
        }
        check::inputs(parsed, &inputs, &mut mistakes);
        let schema = planner.plan(parsed, &mut mistakes, &mut remarks);
        if let Some(schema) = &schema {
            check::columns(model, schema, &mut mistakes);
        }
        let Some(schema) = schema.filter(|_| mistakes.found.is_empty()) else { return Err(mistakes.found) };
        let header = &model.header;
        let reach = inputs.iter().map(|n| n.reach_days).max().unwrap_or(0);
        Ok(Node {
            reads_silver: parsed.reads_silver.is_some(),
            reads: parsed.reads.keys().cloned().collect(),
            fingerprint: fingerprint(parsed, &inputs, &schema, silver),
            reach_days: if header.kind == Kind::ByDate { reach + header.lookback_days } else { 0 },
            model: model.clone(),
            schema,
            remarks: remarks.found,
        })
    }
}

/// The first 16 hexadecimal digits of a hash over everything that the rows depend on, besides the data.
fn fingerprint(parsed: &sql::Parsed, inputs: &[&Node], schema: &SchemaRef, silver: &SchemaRef) -> String {
    let header = &parsed.model.header;
    let mut hash = Sha256::new();
    let mut put = |part: &str| {
        hash.update(part.as_bytes());
        hash.update([0]);
    };
    put(REVISION);
    // As parsed, so that comments and white space change nothing.
    put(&parsed.statement.to_string());
    put(&format!("{:?} {:?} {:?} {}", header.kind, header.partition, header.grain, header.lookback_days));
    for field in schema.fields() {
        put(&format!("{} {}", field.name(), field.data_type()));
    }
    for input in inputs {
        put(&input.model.name);
        put(&input.fingerprint);
    }
    if parsed.reads_silver.is_some() {
        for field in silver.fields() {
            put(&format!("{} {}", field.name(), field.data_type()));
        }
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Checks the models of all pipelines; their mistakes are given as the configuration's.
pub fn check(pipelines: &[Arc<Pipeline>]) -> Result<Vec<Graph>, ConfigErrors> {
    let mut mistakes = Vec::new();
    let mut graphs = Vec::new();
    for pipeline in pipelines {
        match Graph::build(pipeline, &silver_columns(pipeline)) {
            Ok(graph) => {
                mistakes.extend(super::quality::mistakes(pipeline, &graph));
                graphs.push(graph);
            }
            Err(found) => mistakes.extend(found),
        }
    }
    mistakes.extend(check::across(&graphs));
    if mistakes.is_empty() { Ok(graphs) } else { Err(ConfigErrors(mistakes)) }
}
