//! A snapshot brought up to date by the rows that have gone from the model that it is made from and those that have
//! come, instead of from all of them.
//!
//! That is exact for counts, sums of integers, least and greatest values by group: a group's count is what it was, less
//! the rows that are gone, and those that came. A least value cannot be taken back; it need not be where the group's rows
//! that came have one that is as small as that of those that are gone, which is so when dates are computed again with more
//! events. In any other case there is no merging, and the snapshot is made from all rows.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::{DataFrame, SessionContext};

use super::super::quoting::identifier;

/// The names under which [`Merge::frame`] wants its tables.
pub const BEFORE: &str = "boathouse_before";
pub const GONE: &str = "boathouse_gone";
pub const CAME: &str = "boathouse_came";

/// What a column of a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    /// A count or a sum.
    Sum,
    Least,
    Greatest,
}

/// How a snapshot's rows are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    columns: Vec<(String, Part)>,
}

impl Merge {
    /// From a model's plan and its columns; none where its rows cannot be merged.
    pub fn of(plan: &LogicalPlan, schema: &SchemaRef) -> Option<Self> {
        let LogicalPlan::Projection(projection) = plan else { return None };
        let LogicalPlan::Aggregate(aggregate) = projection.input.as_ref() else { return None };
        if aggregate.group_expr.is_empty() || !is_table(&aggregate.input) {
            return None;
        }
        let keys = aggregate.group_expr.len();
        let mut columns = Vec::new();
        for (expression, field) in projection.expr.iter().zip(schema.fields()) {
            let Expr::Column(column) = expression.clone().unalias_nested().data else { return None };
            let place = aggregate.schema.index_of_column(&column).ok()?;
            let part = match place.checked_sub(keys) {
                None => matches!(aggregate.group_expr[place], Expr::Column(_)).then_some(Part::Key)?,
                Some(place) => part(aggregate.aggr_expr.get(place)?)?,
            };
            if part == Part::Sum && *field.data_type() != DataType::Int64 {
                return None;
            }
            columns.push((field.name().clone(), part));
        }
        let all_keys = columns.iter().filter(|(_, part)| *part == Part::Key).count() == keys;
        (all_keys && columns.len() == schema.fields().len()).then_some(Self { columns })
    }

    /// The merged rows of the session's tables [`BEFORE`], [`GONE`] and [`CAME`], each with the snapshot's columns; none
    /// where they cannot be merged.
    pub async fn frame(&self, session: &SessionContext) -> Result<Option<DataFrame>, DataFusionError> {
        let hindrances = session.sql(&self.hindrances()).await?.collect().await?;
        let count = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().value(0);
        if hindrances.iter().find(|batch| batch.num_rows() > 0).is_none_or(|batch| count(batch) > 0) {
            return Ok(None);
        }
        session.sql(&self.merged()).await.map(Some)
    }

    fn of_part(&self, wanted: Part) -> impl Iterator<Item = String> {
        self.columns.iter().filter(move |(_, part)| *part == wanted).map(|(name, _)| identifier(name))
    }

    /// The condition that two tables' rows are of one group.
    fn same_group(&self, a: &str, b: &str) -> String {
        let same: Vec<String> =
            self.of_part(Part::Key).map(|key| format!("{a}.{key} IS NOT DISTINCT FROM {b}.{key}")).collect();
        same.join(" AND ")
    }

    /// Counts what stands against merging: groups that have lost rows and got none, or whose least or greatest value may
    /// be gone; sums of nothing, which are null.
    fn hindrances(&self) -> String {
        let mut lost = vec!["c.there IS NULL".to_owned()];
        let gone = |name: &str, than: &str| {
            format!("(g.{name} IS NOT NULL AND (c.{name} IS NULL OR c.{name} {than} g.{name}))")
        };
        lost.extend(self.of_part(Part::Least).map(|name| gone(&name, ">")));
        lost.extend(self.of_part(Part::Greatest).map(|name| gone(&name, "<")));
        let nulls: Vec<String> = self.of_part(Part::Sum).map(|name| format!("{name} IS NULL")).collect();
        let nulls = if nulls.is_empty() { "false".to_owned() } else { nulls.join(" OR ") };
        let of = |table: &str| format!("(SELECT count(*) FROM {table} WHERE {nulls})");
        format!(
            "SELECT (SELECT count(*) FROM {GONE} AS g LEFT JOIN (SELECT *, true AS there FROM {CAME}) AS c ON {} WHERE {}) \
             + {} + {} + {} AS hindrances",
            self.same_group("g", "c"),
            lost.join(" OR "),
            of(BEFORE),
            of(GONE),
            of(CAME),
        )
    }

    fn merged(&self) -> String {
        let change: Vec<String> = self
            .columns
            .iter()
            .map(|(name, part)| match (identifier(name), part) {
                (name, Part::Sum) => format!("c.{name} - coalesce(g.{name}, 0) AS {name}"),
                (name, _) => format!("c.{name} AS {name}"),
            })
            .collect();
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(name, part)| {
                let name = identifier(name);
                let one = |than: &str| {
                    format!(
                        "CASE WHEN b.{name} IS NULL OR d.{name} {than} b.{name} THEN d.{name} ELSE b.{name} END AS {name}"
                    )
                };
                match part {
                    Part::Key => format!("coalesce(b.{name}, d.{name}) AS {name}"),
                    Part::Sum => format!("coalesce(b.{name}, 0) + coalesce(d.{name}, 0) AS {name}"),
                    Part::Least => one("<"),
                    Part::Greatest => one(">"),
                }
            })
            .collect();
        format!(
            "WITH changes AS (SELECT {} FROM {CAME} AS c LEFT JOIN {GONE} AS g ON {}) \
             SELECT {} FROM {BEFORE} AS b FULL JOIN changes AS d ON {}",
            change.join(", "),
            self.same_group("c", "g"),
            columns.join(", "),
            self.same_group("b", "d"),
        )
    }
}

fn is_table(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_table(&alias.input),
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        _ => false,
    }
}

fn part(expression: &Expr) -> Option<Part> {
    let Expr::AggregateFunction(function) = expression.clone().unalias_nested().data else { return None };
    let params = &function.params;
    if params.distinct || params.filter.is_some() || !params.order_by.is_empty() {
        return None;
    }
    match function.func.name() {
        "count" | "sum" => Some(Part::Sum),
        "min" => Some(Part::Least),
        "max" => Some(Part::Greatest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef, Int64Array, StringArray};
    use arrow::util::display::array_value_to_string;
    use datafusion::datasource::MemTable;
    use proptest::prelude::*;

    use super::*;

    const SQL: &str =
        "SELECT page, min(at) AS first, max(at) AS last, count(*) AS days, sum(n) AS events FROM t GROUP BY page";

    type Row = (Option<u8>, Option<i64>, Option<i64>);

    fn table(rows: &[Row]) -> Arc<MemTable> {
        let pages = StringArray::from_iter(rows.iter().map(|row| row.0.map(|page| format!("/{page}"))));
        let columns: [(&str, ArrayRef, bool); 3] = [
            ("page", Arc::new(pages), true),
            ("at", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1))), true),
            ("n", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.2))), true),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap())
    }

    async fn snapshot(rows: &[Row]) -> DataFrame {
        let session = SessionContext::new();
        session.register_table("t", table(rows)).unwrap();
        session.sql(SQL).await.unwrap()
    }

    async fn lines(frame: DataFrame) -> BTreeSet<Vec<String>> {
        let text = |column: &ArrayRef, row| match column.is_null(row) {
            true => "null".into(),
            false => array_value_to_string(column, row).unwrap(),
        };
        let batches = frame.collect().await.unwrap();
        let rows = batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| (b, row)));
        rows.map(|(b, row)| b.columns().iter().map(|column| text(column, row)).collect()).collect()
    }

    async fn merge_of(frame: &DataFrame) -> Option<Merge> {
        Merge::of(frame.logical_plan(), &Arc::new(frame.schema().as_arrow().clone()))
    }

    /// The merged rows, and those made from all.
    async fn both(stay: &[Row], gone: &[Row], came: &[Row]) -> (Option<BTreeSet<Vec<String>>>, BTreeSet<Vec<String>>) {
        let before = snapshot(&[stay, gone].concat()).await;
        let merge = merge_of(&before).await.unwrap();
        let session = SessionContext::new();
        for (name, frame) in [(BEFORE, before), (GONE, snapshot(gone).await), (CAME, snapshot(came).await)] {
            session.register_table(name, frame.into_view()).unwrap();
        }
        let merged = match merge.frame(&session).await.unwrap() {
            Some(frame) => Some(lines(frame).await),
            None => None,
        };
        (merged, lines(snapshot(&[stay, came].concat()).await).await)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Merged rows, where there are any, are those that all rows give; and where rows only come, there are some.
        #[test]
        fn merged_rows_are_those_of_all_rows(
            stay in proptest::collection::vec((proptest::option::of(0..4u8), proptest::option::of(0..9i64), (0..9i64).prop_map(Some)), 0..12),
            gone in proptest::collection::vec((proptest::option::of(0..4u8), proptest::option::of(0..9i64), (0..9i64).prop_map(Some)), 0..4),
            more in proptest::collection::vec((proptest::option::of(0..4u8), proptest::option::of(0..9i64), proptest::option::of(0..9i64)), 0..6),
            again in any::<bool>(),
        ) {
            let came = if again { [gone.clone(), more].concat() } else { more };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (merged, whole) = runtime.block_on(both(&stay, &gone, &came));
            if again && came.iter().all(|row| row.2.is_some()) {
                prop_assert!(merged.is_some());
            }
            if let Some(merged) = merged {
                prop_assert_eq!(merged, whole);
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_merged_is_not() {
        let session = SessionContext::new();
        session.register_table("t", table(&[])).unwrap();
        for sql in [
            "SELECT page, at FROM t",
            "SELECT page, avg(n) AS n FROM t GROUP BY page",
            "SELECT page, count(DISTINCT n) AS n FROM t GROUP BY page",
            "SELECT page, count(*) FILTER (WHERE n > 1) AS n FROM t GROUP BY page",
            "SELECT page, sum(n) + 1 AS n FROM t GROUP BY page",
            "SELECT upper(page) AS page, sum(n) AS n FROM t GROUP BY upper(page)",
            "SELECT sum(n) AS n FROM t",
            "SELECT sum(n) AS n FROM t GROUP BY page",
            "SELECT page, sum(n) AS n FROM t WHERE n > 1 GROUP BY page",
            "SELECT page, sum(n) AS n FROM t GROUP BY page HAVING sum(n) > 1",
            "SELECT page, sum(n) AS n FROM t GROUP BY page LIMIT 1",
            "SELECT page, sum(CAST(n AS DOUBLE)) AS n FROM t GROUP BY page",
        ] {
            assert_eq!(merge_of(&session.sql(sql).await.unwrap()).await, None, "{sql}");
        }
        let frame = session.sql(SQL).await.unwrap();
        assert!(merge_of(&frame).await.is_some(), "{:?}", frame.logical_plan());
    }
}
