//! An expectation as SQL: one row of how many rows were looked at and how many break it. Pure.

use arrow::datatypes::{DataType, SchemaRef};

use super::super::graph::{GOLD, Graph, SILVER};
use super::super::quoting::{identifier, value};
use crate::config::{Check, Expectation, Pipeline, Severity};

/// A table that expectations look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub schema: &'static str,
    pub name: String,
    pub columns: SchemaRef,
    /// The column of the date, for tables by date.
    pub date: Option<String>,
}

impl Target {
    fn sql(&self) -> String {
        format!("{}.{}", identifier(self.schema), identifier(&self.name))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The tables of a pipeline.
pub struct Targets {
    all: Vec<Target>,
}

impl Targets {
    pub fn new(pipeline: &Pipeline, graph: &Graph, silver: &SchemaRef) -> Self {
        let mut all = vec![Target {
            schema: SILVER,
            name: pipeline.name.clone(),
            columns: silver.clone(),
            date: Some(super::super::gold::DATE_COLUMN.to_owned()),
        }];
        all.extend(graph.nodes.iter().map(|n| Target {
            schema: GOLD,
            name: n.model.name.clone(),
            columns: n.schema.clone(),
            date: n.model.header.partition.clone(),
        }));
        Self { all }
    }

    /// The table that `silver.a` or `gold.b` names; silver where nothing is said.
    pub fn find(&self, on: Option<&str>) -> Result<&Target, String> {
        let Some(on) = on else { return self.all.first().ok_or_else(|| "there is no silver table".into()) };
        let found = self.all.iter().find(|t| t.to_string() == on);
        found.ok_or_else(|| {
            let names: Vec<String> = self.all.iter().map(Target::to_string).collect();
            format!("there is no table `{on}`; there are {}", names.join(", "))
        })
    }
}

/// What is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A query for two counts: rows looked at, rows that break the expectation.
    Counts(String),
    /// How many rows of a table are alike in these columns, both as SQL.
    Unique { columns: String, from: String },
    /// A query for the newest time, to be compared with now.
    Newest(String),
}

/// The question of an expectation, or why it makes no sense.
pub fn question(expectation: &Expectation, target: &Target, targets: &Targets) -> Result<Question, String> {
    let from = target.sql();
    let broken = |predicate: String| {
        format!("SELECT count(*) AS checked, count(*) FILTER (WHERE {predicate}) AS failed FROM {from}")
    };
    Ok(Question::Counts(match expectation.check {
        Check::NotNull => {
            let columns = columns(expectation, target, 1, usize::MAX)?;
            broken(columns.iter().map(|c| format!("{c} IS NULL")).collect::<Vec<_>>().join(" OR "))
        }
        Check::AcceptedValues => {
            let column = columns(expectation, target, 1, 1)?.remove(0);
            broken(format!("{column} NOT IN ({})", values(expectation)?.join(", ")))
        }
        Check::Range => {
            let column = columns(expectation, target, 1, 1)?.remove(0);
            broken(outside(expectation, &column)?)
        }
        Check::Unique => {
            let columns = columns(expectation, target, 1, usize::MAX)?.join(", ");
            return Ok(Question::Unique { columns, from });
        }
        Check::Relationship => {
            let column = columns(expectation, target, 1, 1)?.remove(0);
            let (other, key) = related(expectation, targets)?;
            format!(
                "SELECT count(*) AS checked, count(*) FILTER (WHERE other.found IS NULL) AS failed \
                 FROM (SELECT {column} AS wanted FROM {from} WHERE {column} IS NOT NULL) AS these \
                 LEFT JOIN (SELECT DISTINCT {key} AS found FROM {other}) AS other ON these.wanted = other.found"
            )
        }
        Check::RowCount => {
            let change = expectation.change.filter(|c| *c >= 0.0 && c.is_finite());
            let change = change.ok_or("`row_count` needs `change`, a number such as 0.5")?;
            let date = target.date.as_ref().ok_or_else(|| format!("{target} is not by date"))?;
            let date = identifier(date);
            format!(
                "WITH days AS (SELECT {date} AS day, CAST(count(*) AS DOUBLE) AS n FROM {from} GROUP BY {date}) \
                 SELECT count(*) AS checked, count(*) FILTER (WHERE abs(a.n - b.n) > {change:?} * b.n) AS failed \
                 FROM days AS a JOIN days AS b ON a.day = b.day + INTERVAL '1' DAY"
            )
        }
        Check::Freshness => {
            expectation.within.ok_or("`freshness` needs `within`, a duration such as 2h")?;
            let column = columns(expectation, target, 1, 1)?.remove(0);
            let kind = target.columns.field_with_name(&expectation.columns[0]).map(|f| f.data_type().clone());
            if !matches!(kind, Ok(DataType::Timestamp(_, _))) {
                return Err(format!("column {column} holds no times"));
            }
            return Ok(Question::Newest(format!("SELECT max({column}) AS newest FROM {from}")));
        }
        Check::Sql => {
            let sql =
                expectation.sql.as_deref().ok_or("`sql` is missing: a query that gives the rows that are wrong")?;
            let sql = sql.trim().trim_end_matches(';');
            format!("SELECT (SELECT count(*) FROM {from}) AS checked, (SELECT count(*) FROM ({sql})) AS failed")
        }
    }))
}

/// The predicate that a row of silver must not break, for expectations that refuse rows.
pub fn row_predicate(expectation: &Expectation, silver: &Target) -> Result<String, String> {
    let one = |e: &Expectation| columns(e, silver, 1, 1).map(|mut c| c.remove(0));
    match expectation.check {
        Check::NotNull => {
            let columns = columns(expectation, silver, 1, usize::MAX)?;
            Ok(columns.iter().map(|c| format!("{c} IS NOT NULL")).collect::<Vec<_>>().join(" AND "))
        }
        Check::AcceptedValues => Ok(format!("{} IN ({})", one(expectation)?, values(expectation)?.join(", "))),
        Check::Range => Ok(format!("NOT ({})", outside(expectation, &one(expectation)?)?)),
        other => Err(format!("`{}` looks at more than one row: it cannot quarantine", other.as_str())),
    }
}

/// Whether the severity fits.
pub fn severity(expectation: &Expectation, target: &Target) -> Result<(), String> {
    if expectation.severity == Severity::Quarantine {
        if target.schema != SILVER {
            return Err("only rows on their way into silver can be quarantined".into());
        }
        row_predicate(expectation, target)?;
    }
    Ok(())
}

/// The expectation's columns, quoted.
fn columns(expectation: &Expectation, target: &Target, least: usize, most: usize) -> Result<Vec<String>, String> {
    let names = &expectation.columns;
    if names.len() < least || names.len() > most {
        let check = expectation.check.as_str();
        return Err(if most == 1 { format!("`{check}` needs one column") } else { format!("`{check}` needs columns") });
    }
    for name in names {
        if target.columns.field_with_name(name).is_err() {
            let known: Vec<&str> = target.columns.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(format!("{target} has no column `{name}`; it has {}", known.join(", ")));
        }
    }
    Ok(names.iter().map(|n| identifier(n)).collect())
}

fn values(expectation: &Expectation) -> Result<Vec<String>, String> {
    let values = expectation.values.as_deref().filter(|v| !v.is_empty());
    Ok(values.ok_or("`accepted_values` needs `values`")?.iter().map(value).collect())
}

fn outside(expectation: &Expectation, column: &str) -> Result<String, String> {
    let least = expectation.min.map(|min| format!("{column} < {}", number(min)));
    let greatest = expectation.max.map(|max| format!("{column} > {}", number(max)));
    let bounds: Vec<String> = least.into_iter().chain(greatest).collect();
    if bounds.is_empty() { Err("`range` needs `min` or `max`".into()) } else { Ok(bounds.join(" OR ")) }
}

/// Whole numbers stay whole, so that integers are compared as such.
fn number(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 9e15 { format!("{n:.0}") } else { format!("{n:?}") }
}

/// `gold.dim_users.user_id` → the table and its column.
fn related(expectation: &Expectation, targets: &Targets) -> Result<(String, String), String> {
    let to = expectation.to.as_deref().ok_or("`relationship` needs `to`, as in gold.dim_users.user_id")?;
    let (table, column) = to.rsplit_once('.').ok_or_else(|| format!("`{to}` is not like gold.dim_users.user_id"))?;
    let other = targets.find(Some(table))?;
    if other.columns.field_with_name(column).is_err() {
        return Err(format!("{other} has no column `{column}`"));
    }
    Ok((other.sql(), identifier(column)))
}
