//! One model's SQL: parsed, its tables found, planned without data.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{CatalogProvider, MemTable, MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Constraint, Constraints, DataFusionError, SchemaError, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, Spanned};
use futures::FutureExt;

use super::super::model::{Mistakes, Model};
use super::stable;
use crate::config::{ConfigError, Pipeline, Role};
use crate::event::EVENT_TIME_COLUMN;

/// The catalog of a session over the lakehouse.
pub const CATALOG: &str = "lakehouse";
/// The schema of the pipelines' silver tables.
pub const SILVER: &str = "silver";
/// The schema of the models, which a bare name means.
pub const GOLD: &str = "gold";

/// A model with its statement.
pub(super) struct Parsed {
    pub model: Model,
    pub statement: Statement,
    /// Every table it names: schema and name, and the line of the first mention.
    pub tables: BTreeMap<(String, String), usize>,
    /// The models among them; filled in by [`super::order::sort`].
    pub reads: BTreeMap<String, usize>,
    /// Where it names the pipeline's silver table.
    pub reads_silver: Option<usize>,
}

impl Parsed {
    pub fn read(model: Model) -> Result<Self, Vec<ConfigError>> {
        let mut mistakes = Mistakes::new(&model.file);
        let state = session().state();
        let dialect = state.config_options().sql_parser.dialect;
        match state.sql_to_statement(&model.sql, &dialect) {
            Ok(Statement::Statement(statement)) if matches!(*statement, ast::Statement::Query(_)) => {
                let statement = Statement::Statement(statement);
                match tables(&state.resolve_table_references(&statement), &statement) {
                    Ok(tables) => {
                        return Ok(Self { model, statement, tables, reads: BTreeMap::new(), reads_silver: None });
                    }
                    Err(name) => mistakes.add(None, format!("`{name}` is no table of the lakehouse"), NAMES),
                }
            }
            Ok(_) => mistakes.add(None, "the model is no query", "write one SELECT statement below the header"),
            Err(e) => {
                let text = e.strip_backtrace();
                let line = line_in(&text);
                mistakes.add(line, short(&text), "the model is one SELECT statement in DataFusion's SQL");
            }
        }
        Err(mistakes.found)
    }
}

pub(super) const NAMES: &str = "models read silver.PIPELINE and other models by name, as in gold.user_days";

type Found = Result<Vec<TableReference>, DataFusionError>;

/// The tables of a statement that are no names of its own WITH clauses, with the lines that name them.
fn tables(references: &Found, statement: &Statement) -> Result<BTreeMap<(String, String), usize>, String> {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    if let Statement::Statement(statement) = statement {
        let _ = ast::visit_relations(&**statement, |name| {
            let bare = name.0.last().map(|part| part.to_string().trim_matches('"').to_lowercase()).unwrap_or_default();
            let line = usize::try_from(name.span().start.line).unwrap_or(1);
            lines.entry(bare).or_insert(line);
            ControlFlow::<()>::Continue(())
        });
    }
    let references = references.as_ref().map_err(DataFusionError::to_string)?;
    let mut tables = BTreeMap::new();
    for reference in references {
        let line = lines.get(&reference.table().to_lowercase()).copied().unwrap_or(1);
        let schema = reference.schema().unwrap_or(GOLD);
        if reference.catalog().is_some_and(|c| c != CATALOG) {
            return Err(reference.to_string());
        }
        tables.insert((schema.to_owned(), reference.table().to_owned()), line);
    }
    Ok(tables)
}

/// Sessions that know the columns of tables and nothing else.
pub(super) struct Planner {
    session: SessionContext,
    /// One that knows the tables' keys as well. What it takes for right a run may not: it only tells rows apart.
    keyed: SessionContext,
}

fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_default_catalog_and_schema(CATALOG, GOLD);
    config.options_mut().sql_parser.collect_spans = true;
    SessionContext::new_with_config(config)
}

impl Planner {
    pub fn new(pipeline: &Pipeline, silver: &SchemaRef) -> Result<Self, Vec<ConfigError>> {
        let planner = Self { session: session(), keyed: session() };
        for session in [&planner.session, &planner.keyed] {
            let catalog = MemoryCatalogProvider::new();
            for schema in [SILVER, GOLD] {
                catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new())).map_err(odd)?;
            }
            session.register_catalog(CATALOG, Arc::new(catalog));
        }
        let id = pipeline.role(Role::EventId).map(|i| pipeline.fields[i].name.as_str()).unwrap_or_default();
        // What tells rows apart: their places in Kafka, and an event in its hour.
        let place = ["topic", "generation", "partition", "offset"];
        let keys = [&place[..], &["event_date", "event_hour", id], &[EVENT_TIME_COLUMN, id]];
        planner.add(SILVER, &pipeline.name, silver, &keys)?;
        Ok(planner)
    }

    /// Adds a table; the columns of each of its keys are unique together.
    pub fn add(&self, schema: &str, name: &str, columns: &SchemaRef, keys: &[&[&str]]) -> Result<(), Vec<ConfigError>> {
        let reference = TableReference::full(CATALOG, schema, name);
        let table = Arc::new(EmptyTable::new(columns.clone()));
        self.session.register_table(reference.clone(), table).map_err(odd)?;
        let key = |key: &&[&str]| {
            let places: Option<Vec<usize>> = key.iter().map(|name| columns.index_of(name).ok()).collect();
            places.map(Constraint::PrimaryKey)
        };
        let constraints = Constraints::new_unverified(keys.iter().filter_map(key).collect());
        let table = MemTable::try_new(columns.clone(), vec![Vec::new()]).map_err(odd)?.with_constraints(constraints);
        self.keyed.register_table(reference, Arc::new(table)).map(drop).map_err(odd)
    }

    /// The columns of a model's table; none where the SQL does not fit the tables it reads.
    pub fn plan(&self, parsed: &Parsed, mistakes: &mut Mistakes<'_>, remarks: &mut Mistakes<'_>) -> Option<SchemaRef> {
        let state = self.session.state();
        let calls = match &parsed.statement {
            Statement::Statement(statement) => stable::check(statement, &state, mistakes),
            _ => Vec::new(),
        };
        // Tables in memory are found at once: nothing here waits.
        let planned = state.statement_to_plan(parsed.statement.clone()).now_or_never();
        let plan = match planned.unwrap_or_else(|| Err(DataFusionError::Internal("planning waited".into()))) {
            Ok(plan) => plan,
            Err(e) => {
                wrong(&e, mistakes);
                return None;
            }
        };
        if let Some(name) = unstable(&plan).filter(|_| mistakes.found.is_empty()) {
            let hint = "rows must be a function of the tables: a model that is run again must give the same ones";
            mistakes.add(None, format!("`{name}` gives another value at each run"), hint);
        }
        // Types are reconciled by the analyzer; what is wrong with them shows here.
        match state.optimize(&plan) {
            Ok(plan) => {
                let keyed = self.keyed.state();
                let known = keyed.statement_to_plan(parsed.statement.clone()).now_or_never().and_then(Result::ok);
                if let Some(known) = known.and_then(|known| keyed.optimize(&known).ok()) {
                    stable::doubts(&known, &calls, remarks);
                }
                columns(plan.schema().as_arrow(), mistakes)
            }
            Err(e) => {
                wrong(&e, mistakes);
                None
            }
        }
    }
}

fn odd(e: DataFusionError) -> Vec<ConfigError> {
    let message = format!("the models cannot be planned: {}", short(&e.strip_backtrace()));
    vec![ConfigError { origin: crate::config::Origin::Default, message, hint: None }]
}

/// DataFusion's error with the place in the file, where it knows one.
fn wrong(e: &DataFusionError, mistakes: &mut Mistakes<'_>) {
    let line = place(e).or_else(|| e.diagnostic().and_then(|d| d.span).map(|s| s.start.line));
    let line = line.and_then(|l| usize::try_from(l).ok()).or_else(|| line_in(&e.strip_backtrace()));
    let hint = match e.find_root() {
        DataFusionError::SchemaError(error, _) => match &**error {
            SchemaError::FieldNotFound { valid_fields, .. } if !valid_fields.is_empty() => {
                let names: Vec<String> = valid_fields.iter().take(20).map(|c: &Column| c.name.clone()).collect();
                format!("the columns there are {}", names.join(", "))
            }
            _ => String::new(),
        },
        _ => String::new(),
    };
    mistakes.add(line, short(&e.strip_backtrace()), hint);
}

/// The line of a column that was not found.
fn place(e: &DataFusionError) -> Option<u64> {
    match e.find_root() {
        DataFusionError::SchemaError(error, _) => match &**error {
            SchemaError::FieldNotFound { field, .. } => field.spans.first().map(|s| s.start.line),
            _ => None,
        },
        _ => None,
    }
}

/// `… at Line: 12, Column: 3` → 12.
fn line_in(text: &str) -> Option<usize> {
    let digits = text.rsplit_once("Line: ")?.1;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// The message without DataFusion's prefixes and suggestions, in one line.
fn short(text: &str) -> String {
    let mut text = text.trim();
    for prefix in ["Error during planning: ", "SQL error: ", "Schema error: ", "type_coercion", "caused by"] {
        text = text.trim_start_matches(prefix).trim_start();
    }
    let text = text.split("Valid fields are").next().unwrap_or(text);
    let text = text.split("Did you mean").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("lakehouse.", "")
}

/// A function in the plan whose value depends on more than its arguments.
fn unstable(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|e| {
            e.apply(|e| {
                if let Expr::ScalarFunction(call) = e
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(format!("{}()", call.func.name()));
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found
}

/// The columns with the types that a Delta table has.
fn columns(schema: &Schema, mistakes: &mut Mistakes<'_>) -> Option<SchemaRef> {
    let mut fields = Vec::new();
    for field in schema.fields() {
        match table_type(field.data_type()) {
            Some(kind) => fields.push(Field::new(field.name(), kind, field.is_nullable())),
            None => {
                let message = format!("column `{}` has the type {}", field.name(), field.data_type());
                mistakes.add(None, message, "cast it to BIGINT, DOUBLE, BOOLEAN, VARCHAR, DATE or TIMESTAMP");
            }
        }
    }
    mistakes.found.is_empty().then(|| Arc::new(Schema::new(fields)))
}

/// The type that a gold table has for a type of DataFusion's; none where there is none.
pub fn table_type(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, value) => return table_type(value),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Boolean => DataType::Boolean,
        DataType::Date32 => DataType::Date32,
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return None,
    })
}
