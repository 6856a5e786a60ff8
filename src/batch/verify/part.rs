//! Rows cut into parts that each fit into memory: a sort that spills beside another starves it of the memory that it
//! needs to merge, however much there is.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{Column, DataFusionError};
use datafusion::functions::crypto::expr_fn::md5;
use datafusion::functions::string::expr_fn::concat_ws;
use datafusion::functions::unicode::expr_fn::left;
use datafusion::logical_expr::{cast, col, lit};
use datafusion::prelude::DataFrame;

use super::super::Lake;

/// Bytes that a row is taken to need while it is sorted.
const ROW_BYTES: usize = 512;
/// Two digits of a digest tell parts apart.
const PARTS_MAX: u64 = 256;

/// Rows that may be sorted at once.
pub fn rows_max(lake: &Lake) -> u64 {
    (lake.memory() / ROW_BYTES).max(1000) as u64
}

/// One of several parts of a table's rows, by some columns: rows of the same values are in the same part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    number: u64,
    of: u64,
}

impl Part {
    /// The parts into which so many rows are cut.
    pub fn cut(rows: u64, rows_max: u64) -> impl Iterator<Item = Self> {
        // Half of what fits: parts are not equally large, and both sides are sorted at the same time.
        let of = if rows <= rows_max { 1 } else { rows.div_ceil((rows_max / 2).max(1)).min(PARTS_MAX) };
        (0..of).map(move |number| Self { number, of })
    }

    /// The rows of a frame that are of this part.
    pub fn take(self, frame: DataFrame, by: &[&str]) -> Result<DataFrame, DataFusionError> {
        if self.of == 1 || by.is_empty() {
            // Without a column to cut by, all rows are of the first.
            return if self.number == 0 { Ok(frame) } else { frame.limit(0, Some(0)) };
        }
        let texts = by.iter().map(|name| cast(col(Column::from_name(*name)), DataType::Utf8)).collect();
        // 00 to ff, in steps; a null is left out of the text, whoever has it.
        let digits = left(md5(concat_ws(lit("\u{1f}"), texts)), lit(2_i64));
        let digit = |number: u64| lit(format!("{:02x}", number * PARTS_MAX / self.of));
        let from = digits.clone().gt_eq(digit(self.number));
        let holds = if self.number + 1 == self.of { from } else { from.and(digits.lt(digit(self.number + 1))) };
        compact(frame.filter(holds)?)
    }
}

/// Texts as bytes of their own: a view keeps the whole buffer that it looks into, of which a part needs little.
fn compact(frame: DataFrame) -> Result<DataFrame, DataFusionError> {
    let own = |field: &Arc<Field>| {
        let column = col(Column::from_name(field.name()));
        match field.data_type() {
            DataType::Utf8View => cast(column, DataType::Utf8).alias(field.name()),
            DataType::BinaryView => cast(column, DataType::Binary).alias(field.name()),
            _ => column,
        }
    };
    let columns: Vec<_> = frame.schema().fields().iter().map(own).collect();
    frame.select(columns)
}

/// Those of the columns whose values read the same wherever they were computed: no instants, no fractions.
pub fn plain<'a>(columns: &[&'a str], schema: &SchemaRef) -> Vec<&'a str> {
    let is_plain = |name: &&str| {
        let kind = schema.field_with_name(name).map(|f| f.data_type());
        kind.is_ok_and(|kind| kind.is_integer() || matches!(kind, DataType::Utf8 | DataType::Date32))
    };
    columns.iter().copied().filter(is_plain).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn every_row_is_in_one_part_and_the_same_values_in_the_same() {
        let rows = 10_000;
        let ids: StringArray = (0..rows).map(|n| (n % 7 != 0).then(|| format!("event-{}", n / 2))).collect();
        let numbers = Int64Array::from_iter_values((0..rows).map(|n| n / 2));
        let batch =
            RecordBatch::try_from_iter([("id", Arc::new(ids) as _), ("number", Arc::new(numbers) as _)]).unwrap();
        let session = SessionContext::new();
        for (rows_max, parts) in [(20_000, 1), (5_000, 4), (10, 256)] {
            let all: Vec<Part> = Part::cut(rows as u64, rows_max).collect();
            assert_eq!(all.len(), parts);
            let (mut seen, mut found) = (0, std::collections::BTreeMap::new());
            for part in all {
                let frame = part.take(session.read_batch(batch.clone()).unwrap(), &["id", "number"]).unwrap();
                for batch in frame.collect().await.unwrap() {
                    seen += batch.num_rows();
                    let column = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
                    for id in column.iter().flatten() {
                        assert_eq!(*found.entry(id.to_owned()).or_insert(part), part, "{id} is in two parts");
                    }
                }
            }
            assert_eq!(seen, rows as usize);
        }
    }
}
