//! Two streams of rows beside each other, both in the order of a key: what one has and the other has not, and which
//! columns differ. Memory: one batch of each side, whatever their length.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Date32Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::NaiveDate;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Serialize;

use super::super::BatchError;
use super::super::gold::date_of;

/// Examples that are kept of each kind of difference.
const EXAMPLES: usize = 3;
/// Longest shown part of a value.
const SHOWN: usize = 80;
/// Rows between two tellings of how far a comparison is.
const TOLD_ROWS: u64 = 8192;

/// Rows in the order of the key, in the layout's columns.
pub type Ordered<'a> = BoxStream<'a, Result<RecordBatch, BatchError>>;

/// What the rows of both sides look like.
pub struct Layout {
    pub schema: SchemaRef,
    /// The columns by which both sides are ordered, ascending, nulls first.
    pub key: Vec<usize>,
    /// The columns by which an example names a row.
    pub name: Vec<usize>,
    /// The column (Date32) under whose dates differences are counted.
    pub date: Option<usize>,
}

impl Layout {
    /// A layout by the names of its columns; none where a name is no column.
    pub fn new(schema: SchemaRef, key: &[&str], name: &[&str], date: Option<&str>) -> Option<Self> {
        let index = |names: &[&str]| names.iter().map(|n| schema.index_of(n).ok()).collect::<Option<Vec<_>>>();
        let date = match date {
            None => None,
            Some(date) => Some(schema.index_of(date).ok()?),
        };
        Some(Self { key: index(key)?, name: index(name)?, date, schema })
    }
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Unknown,
    /// It is there with another value.
    Differing,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    pub kind: Kind,
    /// Which row, as `event_date=2026-02-06, page=/shop`.
    pub row: String,
    /// The column that differs; none where the whole row does.
    pub column: Option<String>,
    pub expected: Option<String>,
    pub found: Option<String>,
}

/// Rows that differ on one date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct OnDate {
    pub missing_rows: u64,
    pub unknown_rows: u64,
    pub differing_rows: u64,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows that should be there.
    pub expected: u64,
    pub missing: u64,
    pub unknown: u64,
    pub differing: u64,
    pub dates: BTreeMap<NaiveDate, OnDate>,
    pub examples: Vec<Example>,
}

impl Tally {
    pub fn differs(&self) -> bool {
        self.missing + self.unknown + self.differing > 0
    }

    fn note(&mut self, kind: Kind, date: Option<NaiveDate>, example: impl FnOnce() -> Vec<Example>) {
        let seen = match kind {
            Kind::Missing => &mut self.missing,
            Kind::Unknown => &mut self.unknown,
            Kind::Differing => &mut self.differing,
        };
        *seen += 1;
        if *seen <= EXAMPLES as u64 {
            self.examples.extend(example());
        }
        if let Some(date) = date {
            let on = self.dates.entry(date).or_default();
            match kind {
                Kind::Missing => on.missing_rows += 1,
                Kind::Unknown => on.unknown_rows += 1,
                Kind::Differing => on.differing_rows += 1,
            }
        }
    }
}

/// Compares what should be there with what is, to the end of both. `each` is told rows as they are done.
pub async fn compare(
    layout: &Layout,
    expected: Ordered<'_>,
    found: Ordered<'_>,
    tally: &mut Tally,
    each: &(dyn Fn(u64) + Sync),
) -> Result<(), BatchError> {
    let sides = Converters::new(layout).map_err(|e| odd(&e))?;
    let (mut expected, mut found) = (Cursor::new(expected, "expected"), Cursor::new(found, "found"));
    let mut told = tally.expected;
    loop {
        if tally.expected >= told + TOLD_ROWS {
            each(tally.expected - told);
            told = tally.expected;
        }
        if !expected.fill(layout, &sides).await? {
            while found.fill(layout, &sides).await? {
                found.unknown(layout, tally);
            }
            return Ok(());
        }
        if !found.fill(layout, &sides).await? {
            loop {
                expected.missing(layout, tally);
                if !expected.fill(layout, &sides).await? {
                    return Ok(());
                }
            }
        }
        let (Some(e), Some(f)) = (&expected.page, &found.page) else { return Ok(()) };
        match e.keys.row(e.at).cmp(&f.keys.row(f.at)) {
            Ordering::Less => expected.missing(layout, tally),
            Ordering::Greater => found.unknown(layout, tally),
            Ordering::Equal => {
                tally.expected += 1;
                if e.values.row(e.at) != f.values.row(f.at) {
                    let date = date(layout, &e.batch, e.at);
                    tally.note(Kind::Differing, date, || differing(layout, e, f));
                }
                expected.step();
                found.step();
            }
        }
    }
}

struct Converters {
    keys: RowConverter,
    values: RowConverter,
}

impl Converters {
    fn new(layout: &Layout) -> Result<Self, ArrowError> {
        let field = |i: usize| SortField::new(layout.schema.field(i).data_type().clone());
        Ok(Self {
            keys: RowConverter::new(layout.key.iter().map(|i| field(*i)).collect())?,
            values: RowConverter::new((0..layout.schema.fields().len()).map(field).collect())?,
        })
    }

    fn page(&self, layout: &Layout, batch: RecordBatch) -> Result<Page, ArrowError> {
        let keys: Vec<_> = layout.key.iter().map(|i| batch.column(*i).clone()).collect();
        Ok(Page {
            keys: self.keys.convert_columns(&keys)?,
            values: self.values.convert_columns(batch.columns())?,
            batch,
            at: 0,
        })
    }
}

/// A batch, and the row that is next.
struct Page {
    batch: RecordBatch,
    keys: Rows,
    values: Rows,
    at: usize,
}

struct Cursor<'a> {
    stream: Ordered<'a>,
    page: Option<Page>,
    side: &'static str,
}

impl<'a> Cursor<'a> {
    fn new(stream: Ordered<'a>, side: &'static str) -> Self {
        Self { stream, page: None, side }
    }

    /// Whether there is a next row; it is in hand then.
    async fn fill(&mut self, layout: &Layout, sides: &Converters) -> Result<bool, BatchError> {
        loop {
            if self.page.as_ref().is_some_and(|p| p.at < p.batch.num_rows()) {
                return Ok(true);
            }
            let Some(batch) = self.stream.next().await else { return Ok(false) };
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let page = sides.page(layout, batch).map_err(|e| odd(&e))?;
            let ends = self.page.as_ref().map(|p| p.keys.row(p.batch.num_rows() - 1));
            let ordered = ends.is_none_or(|last| last <= page.keys.row(0))
                && (1..page.batch.num_rows()).all(|i| page.keys.row(i - 1) <= page.keys.row(i));
            if !ordered {
                return Err(odd(&format!("the {} rows do not come in the order of their key", self.side)));
            }
            self.page = Some(page);
        }
    }

    fn step(&mut self) {
        if let Some(page) = &mut self.page {
            page.at += 1;
        }
    }

    /// The row in hand should be there and is not.
    fn missing(&mut self, layout: &Layout, tally: &mut Tally) {
        tally.expected += 1;
        self.alone(Kind::Missing, layout, tally);
    }

    /// The row in hand is there and should not be.
    fn unknown(&mut self, layout: &Layout, tally: &mut Tally) {
        self.alone(Kind::Unknown, layout, tally);
    }

    fn alone(&mut self, kind: Kind, layout: &Layout, tally: &mut Tally) {
        if let Some(page) = &self.page {
            let date = date(layout, &page.batch, page.at);
            tally.note(kind, date, || {
                let whole = Some(values(layout, page, |i| !layout.name.contains(&i)));
                let (expected, found) = if kind == Kind::Missing { (whole, None) } else { (None, whole) };
                vec![Example { kind, row: name(layout, page), column: None, expected, found }]
            });
        }
        self.step();
    }
}

fn date(layout: &Layout, batch: &RecordBatch, row: usize) -> Option<NaiveDate> {
    let column = batch.column(layout.date?).as_primitive_opt::<Date32Type>()?;
    column.is_valid(row).then(|| date_of(column.value(row)))?
}

/// The columns in which two rows differ.
fn differing(layout: &Layout, expected: &Page, found: &Page) -> Vec<Example> {
    let row = name(layout, expected);
    let columns = layout.schema.fields().iter().enumerate().filter_map(|(i, field)| {
        let (a, b) = (cell(&expected.batch, i, expected.at), cell(&found.batch, i, found.at));
        // Values that look alike and are not (a float's last digits) are of one column: told apart by their bits.
        let same = expected.batch.column(i).slice(expected.at, 1) == found.batch.column(i).slice(found.at, 1);
        (!same).then(|| Example {
            kind: Kind::Differing,
            row: row.clone(),
            column: Some(field.name().clone()),
            expected: Some(a),
            found: Some(b),
        })
    });
    columns.collect()
}

fn name(layout: &Layout, page: &Page) -> String {
    values(layout, page, |i| layout.name.contains(&i))
}

fn values(layout: &Layout, page: &Page, wanted: impl Fn(usize) -> bool) -> String {
    let fields = layout.schema.fields().iter().enumerate().filter(|(i, _)| wanted(*i));
    let shown = fields.map(|(i, field)| format!("{}={}", field.name(), cell(&page.batch, i, page.at)));
    shown.collect::<Vec<_>>().join(", ")
}

/// A value as text, shortened.
fn cell(batch: &RecordBatch, column: usize, row: usize) -> String {
    let array = batch.column(column);
    if array.is_null(row) {
        return "null".into();
    }
    let options = FormatOptions::default();
    let text = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        _ => ArrayFormatter::try_new(array, &options).map_or_else(|e| e.to_string(), |f| f.value(row).to_string()),
    };
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn odd(cause: &dyn std::fmt::Display) -> BatchError {
    BatchError::refused("rows cannot be compared", cause, "this is a fault of the program: please report it")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use futures::stream;
    use proptest::prelude::*;

    use super::*;

    /// Date, page, count, rate.
    type Row = (i32, &'static str, Option<i64>, f64);

    fn layout() -> Layout {
        let schema = Schema::new(vec![
            Field::new("day", DataType::Date32, true),
            Field::new("page", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
            Field::new("rate", DataType::Float64, true),
        ]);
        Layout::new(Arc::new(schema), &["day", "page"], &["day", "page"], Some("day")).unwrap()
    }

    /// The rows in batches of `size`.
    fn rows(rows: &[Row], size: usize) -> Ordered<'static> {
        let batches: Vec<_> = rows
            .chunks(size)
            .map(|rows| {
                RecordBatch::try_new(
                    layout().schema,
                    vec![
                        Arc::new(Date32Array::from_iter_values(rows.iter().map(|r| r.0))),
                        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.1))),
                        Arc::new(rows.iter().map(|r| r.2).collect::<Int64Array>()),
                        Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.3))),
                    ],
                )
                .map_err(|e| odd(&e))
            })
            .collect();
        stream::iter(batches).boxed()
    }

    fn tally(expected: &[Row], found: &[Row], sizes: (usize, usize)) -> Tally {
        let mut tally = Tally::default();
        let layout = layout();
        let compared = compare(&layout, rows(expected, sizes.0), rows(found, sizes.1), &mut tally, &|_| {});
        futures::executor::block_on(compared).unwrap();
        tally
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let expected =
            [(0, "/a", Some(1), 0.5), (0, "/b", Some(2), 0.5), (1, "/a", None, 0.5), (2, "/z", Some(9), 0.5)];
        let found =
            [(0, "/a", Some(1), 0.5), (0, "/c", Some(2), 0.5), (1, "/a", Some(0), 0.25), (1, "/a", Some(0), 0.25)];
        let tally = tally(&expected, &found, (2, 3));
        assert_eq!((tally.expected, tally.missing, tally.unknown, tally.differing), (4, 2, 2, 1));
        let shown: Vec<String> = tally
            .examples
            .iter()
            .map(|e| format!("{:?} [{}] {:?} {:?} {:?}", e.kind, e.row, e.column, e.expected, e.found))
            .collect();
        assert_eq!(
            shown,
            [
                r#"Missing [day=1970-01-01, page=/b] None Some("n=2, rate=0.5") None"#,
                r#"Unknown [day=1970-01-01, page=/c] None None Some("n=2, rate=0.5")"#,
                r#"Differing [day=1970-01-02, page=/a] Some("n") Some("null") Some("0")"#,
                r#"Differing [day=1970-01-02, page=/a] Some("rate") Some("0.5") Some("0.25")"#,
                r#"Unknown [day=1970-01-02, page=/a] None None Some("n=0, rate=0.25")"#,
                r#"Missing [day=1970-01-03, page=/z] None Some("n=9, rate=0.5") None"#,
            ]
        );
        let dates: Vec<_> = tally.dates.values().map(|d| (d.missing_rows, d.unknown_rows, d.differing_rows)).collect();
        assert_eq!(dates, [(1, 1, 0), (0, 1, 1), (1, 0, 0)]);
    }

    #[test]
    fn rows_out_of_order_are_an_error_and_no_difference() {
        let odd = [(1, "/a", None, 0.0), (0, "/a", None, 0.0)];
        for size in [1, 2] {
            let mut tally = Tally::default();
            let layout = layout();
            let compared = compare(&layout, rows(&odd, size), rows(&odd, size), &mut tally, &|_| {});
            assert!(futures::executor::block_on(compared).unwrap_err().to_string().contains("order"));
        }
    }

    proptest! {
        /// The counts are those of two multisets, whatever the batches.
        #[test]
        fn counts_are_right(
            mut expected in proptest::collection::vec((0..3i32, 0..3usize, 0..2i64), 0..30),
            mut found in proptest::collection::vec((0..3i32, 0..3usize, 0..2i64), 0..30),
            sizes in (1..5usize, 1..5usize),
        ) {
            let of = |rows: &mut Vec<(i32, usize, i64)>| {
                // One row for a key: with several, which one is the other's partner is a matter of taste.
                rows.sort();
                rows.dedup_by_key(|r| (r.0, r.1));
                rows.iter().map(|r| (r.0, ["/a", "/b", "/c"][r.1], Some(r.2), 0.0)).collect::<Vec<Row>>()
            };
            let (expected, found) = (of(&mut expected), of(&mut found));
            let tally = tally(&expected, &found, sizes);
            let partner = |row: &Row, rows: &[Row]| rows.iter().find(|r| (r.0, r.1) == (row.0, row.1)).copied();
            let missing = expected.iter().filter(|r| partner(r, &found).is_none()).count() as u64;
            let unknown = found.iter().filter(|r| partner(r, &expected).is_none()).count() as u64;
            let differing = expected.iter().filter(|r| partner(r, &found).is_some_and(|f| f != **r)).count() as u64;
            prop_assert_eq!(
                (tally.expected, tally.missing, tally.unknown, tally.differing),
                (expected.len() as u64, missing, unknown, differing)
            );
        }
    }
}
