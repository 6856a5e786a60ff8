//! Why a row of Bronze is not taken into silver.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::NaiveDate;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use serde_json::{Value, json};

use super::columns::silver_schema;
use crate::batch::BatchError;
use crate::batch::hour::Hour;
use crate::batch::quoting::value;
use crate::config::{FieldType, Pipeline, Role};
use crate::event::EVENT_TIME_COLUMN;

/// An expectation on single rows whose severity is `quarantine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Its name; the reason is `expectation:<name>`.
    pub name: String,
    /// A SQL predicate over the columns of one row of silver. A row for which it is false is refused; as with a CHECK
    /// constraint, one for which it is neither true nor false passes.
    pub holds: String,
}

impl Quarantine {
    /// The pipeline's expectations of this kind.
    pub fn of(pipeline: &Pipeline) -> Result<Vec<Self>, BatchError> {
        let expectations = crate::batch::quarantine(pipeline)?.into_iter();
        Ok(expectations.map(|(name, holds)| Self { name, holds }).collect())
    }
}

/// The reasons of a row, a bit for each entry of [`Rules::names`]; none means that the row is kept.
pub type Reasons = u128;

/// More cannot be told apart in [`Reasons`].
const RULES_MAX: usize = 128;

const UNPARSED: usize = 0;
const FUTURE: usize = 1;

/// The rules of a pipeline, compiled.
pub struct Rules {
    names: Vec<String>,
    /// True where the row breaks the rule; in the order of `names`, behind the verdicts.
    broken: Vec<Arc<dyn PhysicalExpr>>,
    /// The columns that the rules look at, with the event's id, `event_time` and `time_status`.
    columns: SchemaRef,
    /// Microseconds since the epoch: rows of earlier events are older than silver is kept, and left alone.
    pub since: Option<i64>,
}

/// What the rules are, for the hash of the settings.
pub(super) fn canonical(pipeline: &Pipeline, quarantine: &[Quarantine]) -> Value {
    let invalid: Vec<Value> = invalid(pipeline).into_iter().map(|(name, sql)| json!([name, sql])).collect();
    let quarantine: Vec<Value> = quarantine.iter().map(|q| json!([q.name, q.holds])).collect();
    json!({"invalid": invalid, "quarantine": quarantine})
}

/// (reason, SQL that is true where a row has it).
fn invalid(pipeline: &Pipeline) -> Vec<(String, String)> {
    let mut rules = Vec::new();
    for field in &pipeline.fields {
        let column = if field.role == Some(Role::EventTime) { EVENT_TIME_COLUMN } else { &field.name };
        let mut broken = Vec::new();
        if field.required {
            // Bronze calls a record without it unparsed; a row from before the field was declared has none either.
            broken.push(format!("\"{column}\" is null"));
        }
        match &field.allowed {
            Some(allowed) => {
                let values: Vec<String> = allowed.iter().map(value).collect();
                broken.push(format!("\"{column}\" not in ({})", values.join(", ")));
            }
            None if field.required && field.kind == FieldType::String => broken.push(format!("\"{column}\" = ''")),
            None => {}
        }
        if !broken.is_empty() {
            rules.push((format!("invalid:{}", field.name), broken.join(" or ")));
        }
    }
    rules
}

impl Rules {
    /// Compiles a pipeline's rules. A predicate that is no SQL over silver's columns is refused with its name.
    pub fn compile(
        session: &SessionContext,
        pipeline: &Pipeline,
        quarantine: &[Quarantine],
    ) -> Result<Self, BatchError> {
        let row = silver_schema(pipeline);
        let all = DFSchema::try_from(row.as_ref().clone()).map_err(|e| bug(&e))?;
        let invalid = invalid(pipeline);
        let predicates =
            quarantine.iter().map(|q| (format!("expectation:{}", q.name), format!("({}) is false", q.holds)));
        let rules: Vec<(String, String)> = invalid.into_iter().chain(predicates).collect();
        let mut names: Vec<String> = vec!["unparsed".into(), "future".into()];
        let mut parsed: Vec<Expr> = Vec::new();
        let mut columns = BTreeSet::from([EVENT_TIME_COLUMN.to_string(), "time_status".to_string()]);
        columns.extend(pipeline.role(Role::EventId).map(|i| pipeline.fields[i].name.clone()));
        for (name, sql) in rules {
            let expression = session.parse_sql_expr(&sql, &all).map_err(|e| wrong(pipeline, &name, &e))?;
            columns.extend(expression.column_refs().into_iter().map(|c| c.name.clone()));
            names.push(name);
            parsed.push(expression);
        }
        if names.len() > RULES_MAX {
            return Err(BatchError::refused(
                format!("pipeline {} has {} reasons to refuse a row", pipeline.name, names.len()),
                format!("at most {RULES_MAX} can be told apart"),
                "join some of its expectations",
            ));
        }
        let fields: Vec<Field> = columns.iter().filter_map(|c| row.field_with_name(c).ok().cloned()).collect();
        let columns: SchemaRef = Arc::new(Schema::new(fields));
        let narrow = DFSchema::try_from(columns.as_ref().clone()).map_err(|e| bug(&e))?;
        let compiled = parsed.into_iter().zip(&names[FUTURE + 1..]).map(|(expression, name)| {
            session.create_physical_expr(expression, &narrow).map_err(|e| wrong(pipeline, name, &e))
        });
        Ok(Self { broken: compiled.collect::<Result<_, _>>()?, names, columns, since: None })
    }

    /// The rules for rows of events from this date on; those of earlier ones are left alone.
    pub fn since(self, date: Option<NaiveDate>) -> Self {
        Self { since: date.map(|date| Hour::of_date(date, 0).micros().0), ..self }
    }

    /// All reasons there are, by their bit.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The columns that [`Self::judge`] wants.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// The reasons of each row of a batch with [`Self::columns`].
    pub fn judge(&self, batch: &RecordBatch) -> Result<Vec<Reasons>, BatchError> {
        let status = batch.column_by_name("time_status").and_then(|c| c.as_string_opt::<i32>());
        let status = status.ok_or_else(|| bug(&"no column time_status"))?;
        let verdicts = (0..batch.num_rows()).map(|row| match status.is_valid(row).then(|| status.value(row)) {
            Some("ok" | "late") => 0,
            Some("future") => 1 << FUTURE,
            _ => 1 << UNPARSED,
        });
        let mut reasons: Vec<Reasons> = verdicts.collect();
        for (place, rule) in self.broken.iter().enumerate() {
            let value = rule.evaluate(batch).and_then(|v| v.into_array(batch.num_rows()));
            let value = value.map_err(|e| {
                BatchError::refused(
                    format!("the rule {} cannot be evaluated", self.names[FUTURE + 1 + place]),
                    e.strip_backtrace(),
                    "correct its expression in pipeline.toml",
                )
            })?;
            let broken = value.as_boolean_opt().ok_or_else(|| bug(&"a rule is no condition"))?;
            if broken.true_count() == 0 {
                continue;
            }
            for row in (0..batch.num_rows()).filter(|row| broken.is_valid(*row) && broken.value(*row)) {
                // What is no event has no fields to be judged.
                if reasons[row] & (1 << UNPARSED) == 0 {
                    reasons[row] |= 1 << (FUTURE + 1 + place);
                }
            }
        }
        Ok(reasons)
    }
}

fn wrong(pipeline: &Pipeline, rule: &str, cause: &DataFusionError) -> BatchError {
    BatchError::refused(
        format!("the rule {rule} of pipeline {}", pipeline.name),
        cause.strip_backtrace(),
        "its expression must be SQL over the columns of one row of silver",
    )
}

fn bug(cause: &dyn std::fmt::Display) -> BatchError {
    BatchError::refused("rows cannot be judged", cause, "this is a fault of the program: please report it")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array};

    use super::super::testing::pipeline;
    use super::*;

    fn rows(schema: &SchemaRef, columns: &[(&str, ArrayRef)]) -> RecordBatch {
        let length = columns[0].1.len();
        let all = schema.fields().iter().map(|f| {
            let given = columns.iter().find(|(name, _)| name == f.name()).map(|(_, values)| values.clone());
            given.unwrap_or_else(|| new_null_array(f.data_type(), length))
        });
        RecordBatch::try_new(schema.clone(), all.collect()).unwrap()
    }

    fn names(rules: &Rules, reasons: Reasons) -> Vec<&str> {
        rules.names().iter().enumerate().filter(|(i, _)| reasons & (1 << i) != 0).map(|(_, n)| n.as_str()).collect()
    }

    fn text(values: [&str; 8]) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }

    #[test]
    fn each_reason_is_found_and_all_of_them() {
        let quarantine = [Quarantine { name: "small_users".into(), holds: "user_id < 100".into() }];
        let rules = Rules::compile(&SessionContext::new(), &pipeline(), &quarantine).unwrap();
        let instants = TimestampMicrosecondArray::from(vec![1; 8]).with_timezone("UTC");
        let users = Int64Array::from(vec![Some(1), Some(1), Some(1), Some(1), Some(100), Some(1), None, Some(1)]);
        let batch = rows(
            rules.columns(),
            &[
                ("event_id", text(["a", "", "c", "d", "e", "f", "g", "h"])),
                ("user_id", Arc::new(users)),
                ("event_type", text(["click", "click", "view", "click", "click", "view", "click", "it's"])),
                ("page", text(["/", "/", "", "/", "/", "/", "/", "/"])),
                ("source", text(["web", "web", "web", "tv", "web", "web", "web", "web"])),
                ("event_time", Arc::new(instants)),
                ("time_status", text(["ok", "late", "ok", "future", "ok", "unparsed", "ok", "late"])),
            ],
        );
        let judged = rules.judge(&batch).unwrap();
        let found: Vec<Vec<&str>> = judged.iter().map(|r| names(&rules, *r)).collect();
        let expected: [&[&str]; 8] = [
            &[],
            &["invalid:event_id"],
            &["invalid:event_type", "invalid:page"],
            &["future", "invalid:source"],
            &["expectation:small_users"],
            &["unparsed"],
            &["invalid:user_id"],
            &["invalid:event_type"],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_predicate_that_is_none_is_refused_by_name() {
        for holds in ["nonsense = 1", "user_id <", "user_id"] {
            let quarantine = [Quarantine { name: "q".into(), holds: holds.into() }];
            let error = Rules::compile(&SessionContext::new(), &pipeline(), &quarantine).err();
            let error = error.unwrap_or_else(|| panic!("{holds} was taken"));
            assert!(error.to_string().contains("expectation:q") && !error.is_transient(), "{error}");
        }
    }
}
