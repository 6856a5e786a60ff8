//! An aggregate of the configuration, compiled: what a partition counts, and the name of that definition.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::{Aggregate, FieldType, Pipeline};

/// The reserved dimension value under which a window counts what has no cell of its own.
pub const OTHER: &str = "__other__";

/// Longest dimension value that gets a cell of its own, in bytes; longer ones are counted under [`OTHER`], so that the
/// cap on combinations bounds memory too.
pub const DIMENSION_BYTES_MAX: usize = 256;

/// Names that the tables of realtime windows need for themselves.
const RESERVED_COLUMNS: [&str; 6] =
    ["window_start", "topic", "generation", "partition", "partial_count", "partial_version"];
const RESERVED_VIEWS: [&str; 4] = ["windows", "positions", "intents", "migrations"];

/// A field that an aggregate groups by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimension {
    /// The column's name in the view.
    pub name: String,
    /// Index of the field in the pipeline.
    pub field: usize,
}

/// A condition on a field: its value must be one of these. A null never is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub name: String,
    /// Index of the field in the pipeline.
    pub field: usize,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
}

/// One aggregate of one pipeline, ready to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregatePlan {
    pub pipeline: Arc<str>,
    /// Name of the view in the `realtime` database.
    pub name: String,
    /// Name of the view's column that holds the count.
    pub measure: String,
    pub dimensions: Vec<Dimension>,
    /// By name of the field; all must hold.
    pub filters: Vec<Filter>,
    /// Length of the window in microseconds; whole seconds.
    pub window: i64,
    /// Length of the pipeline's base window in microseconds.
    pub base_window: i64,
    /// How far behind the mark a window's end must lie for the window to be closed: bound + allowed lateness,
    /// microseconds.
    pub closing: i64,
    /// Combinations of dimension values that one window of one partition keeps, first come.
    pub combinations_max: usize,
    /// How long ClickHouse keeps windows, microseconds; none for ever.
    pub retention: Option<i64>,
    /// Twelve hexadecimal digits that stand for everything totals depend on, Bronze's epoch included: totals of two
    /// definitions are never mixed, because each has a table of its own.
    pub definition: String,
}

/// Why an aggregate cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pipeline `{pipeline}`, aggregate `{aggregate}`: {what}")]
pub struct PlanError {
    pub pipeline: String,
    pub aggregate: String,
    pub what: String,
}

/// Whether a name may stand in SQL: a letter, then letters, digits and underscores, at most 64.
pub fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    name.len() <= 64
        && chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl AggregatePlan {
    /// Every aggregate of a pipeline under Bronze's `epoch` (the id of the settings in force).
    pub fn all(pipeline: &Pipeline, epoch: &str) -> Result<Vec<Arc<Self>>, PlanError> {
        pipeline.aggregates.iter().map(|a| Self::new(pipeline, a, epoch).map(Arc::new)).collect()
    }

    pub fn new(pipeline: &Pipeline, aggregate: &Aggregate, epoch: &str) -> Result<Self, PlanError> {
        let refuse =
            |what: String| PlanError { pipeline: pipeline.name.clone(), aggregate: aggregate.name.clone(), what };
        for (what, name) in [("name", &aggregate.name), ("measure", &aggregate.measure)] {
            if !is_identifier(name) {
                return Err(refuse(format!(
                    "{what} `{name}` must begin with a letter and hold letters, digits and underscores only, at most 64"
                )));
            }
        }
        if RESERVED_VIEWS.contains(&aggregate.name.as_str()) || aggregate.name.contains("_partials_") {
            return Err(refuse("this name is taken by Boathouse's own tables; choose another".into()));
        }
        let text_field = |name: &String| {
            let field = pipeline.field(name).ok_or_else(|| {
                refuse(format!("field `{name}` is not one of the pipeline's fields; add it or correct the name"))
            })?;
            match pipeline.fields[field].kind {
                FieldType::String => Ok(field),
                _ => Err(refuse(format!("field `{name}` is no string; only string fields group and filter"))),
            }
        };
        let mut dimensions: Vec<Dimension> = Vec::new();
        for name in &aggregate.dimensions {
            if !is_identifier(name) || RESERVED_COLUMNS.contains(&name.as_str()) || *name == aggregate.measure {
                return Err(refuse(format!(
                    "`{name}` cannot name a dimension's column; rename the field or the measure"
                )));
            }
            if dimensions.iter().any(|d| d.name == *name) {
                return Err(refuse(format!("dimension `{name}` is named twice")));
            }
            dimensions.push(Dimension { name: name.clone(), field: text_field(name)? });
        }
        if RESERVED_COLUMNS.contains(&aggregate.measure.as_str()) {
            return Err(refuse(format!("`{}` cannot name the measure; choose another", aggregate.measure)));
        }
        let mut filters = Vec::new();
        for (name, values) in &aggregate.filter {
            let mut values = values.clone();
            values.sort();
            values.dedup();
            filters.push(Filter { name: name.clone(), field: text_field(name)?, values });
        }
        let time = &pipeline.time;
        let micros = |d: std::time::Duration| d.as_micros() as i64;
        let (window, base_window) = (micros(aggregate.window.unwrap_or(time.window)), micros(time.window));
        if base_window <= 0 || window % 1_000_000 != 0 || window % base_window != 0 {
            return Err(refuse("its window must be whole seconds and a multiple of `time.window`".into()));
        }
        let mut plan = Self {
            pipeline: pipeline.name.as_str().into(),
            name: aggregate.name.clone(),
            measure: aggregate.measure.clone(),
            dimensions,
            filters,
            window,
            base_window,
            closing: micros(time.bound) + micros(time.allowed_lateness),
            combinations_max: pipeline.realtime.max_combinations as usize,
            retention: pipeline.retention.realtime.map(micros),
            definition: String::new(),
        };
        plan.definition = plan.hash(epoch);
        Ok(plan)
    }

    /// The measure's name and the retention are left out: no total depends on them.
    fn hash(&self, epoch: &str) -> String {
        let canonical = serde_json::json!({
            "format": 1,
            "pipeline": &*self.pipeline,
            "name": self.name,
            "dimensions": self.dimensions.iter().map(|d| &d.name).collect::<Vec<_>>(),
            "filters": self.filters.iter().map(|f| (&f.name, &f.values)).collect::<Vec<_>>(),
            "window": self.window,
            "closing": self.closing,
            "combinations_max": self.combinations_max,
            "dimension_bytes_max": DIMENSION_BYTES_MAX,
            "epoch": epoch,
        });
        let digest = Sha256::digest(canonical.to_string().as_bytes());
        digest.iter().take(6).map(|b| format!("{b:02x}")).collect()
    }

    /// Name of the table of partial totals, in the `realtime` database.
    pub fn partials_table(&self) -> String {
        format!("{}_partials_{}", self.name, self.definition)
    }

    /// Start of the window that an event time falls into; both in microseconds since the epoch.
    pub fn window_start(&self, event_time: i64) -> i64 {
        event_time - event_time.rem_euclid(self.window)
    }

    /// Windows that end at or before this instant are final once the partition's mark is `mark`. Microseconds.
    pub fn closed_horizon(&self, mark: Option<i64>) -> Option<i64> {
        mark.map(|m| m - self.closing)
    }

    /// The earliest instant that ClickHouse still keeps at `now`: the start of a day. Windows that start before it are
    /// dropped. Microseconds since the epoch; none where windows are kept for ever.
    pub fn keep_from(&self, now: i64) -> Option<i64> {
        const DAY: i64 = 86_400_000_000;
        // One window more than asked, so that no window is dropped that ends within the retention.
        self.retention.map(|retention| (now - retention - self.window).div_euclid(DAY) * DAY)
    }

    /// The fields whose values decide what is counted where, without duplicates.
    pub fn fields(&self) -> Vec<usize> {
        let mut fields: Vec<usize> =
            self.dimensions.iter().map(|d| d.field).chain(self.filters.iter().map(|f| f.field)).collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }
}
