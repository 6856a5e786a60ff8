//! System columns of a batch as Arrow arrays. Constant columns are built once and sliced.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int32Array, ListArray, StringArray, StringBuilder, StructArray,
    new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;

use super::schema::{header_element, header_fields};
use crate::event::Headers;
use crate::kafka::Source;
use crate::window::Verdict;

/// Columns that are the same in every row, long enough to be sliced; one set for each partition seen.
#[derive(Default)]
pub struct Constants {
    sets: Vec<(Arc<Source>, ConstantColumns)>,
}

#[derive(Clone)]
pub struct ConstantColumns {
    rows: usize,
    pub topic: ArrayRef,
    pub generation: ArrayRef,
    pub partition: ArrayRef,
    pub no_bytes: ArrayRef,
    pub no_text: ArrayRef,
    pub no_headers: ArrayRef,
    pub all_ok: ArrayRef,
}

impl ConstantColumns {
    fn new(source: &Source, rows: usize) -> Self {
        Self {
            rows,
            topic: Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&*source.topic, rows))),
            generation: Arc::new(Int32Array::from(vec![source.generation; rows])),
            partition: Arc::new(Int32Array::from(vec![source.partition; rows])),
            no_bytes: new_null_array(&DataType::Binary, rows),
            no_text: new_null_array(&DataType::Utf8, rows),
            no_headers: new_null_array(&DataType::List(Arc::new(header_element())), rows),
            all_ok: Arc::new(StringArray::from_iter_values(std::iter::repeat_n(Verdict::Ok.as_str(), rows))),
        }
    }
}

impl Constants {
    /// The constant columns of a partition, at least `rows` long.
    pub fn of(&mut self, source: &Arc<Source>, rows: usize) -> &ConstantColumns {
        let place = match self.sets.iter().position(|(s, _)| Arc::ptr_eq(s, source) || s == source) {
            Some(place) => place,
            None => {
                self.sets.push((source.clone(), ConstantColumns::new(source, rows.next_power_of_two())));
                self.sets.len() - 1
            }
        };
        let (_, columns) = &mut self.sets[place];
        if columns.rows < rows {
            *columns = ConstantColumns::new(source, rows.next_power_of_two());
        }
        columns
    }
}

/// A binary column of the rows in `present`, from values that stand one behind the other; `none` gives the column
/// where no row is present.
pub fn binary(
    rows: usize,
    present: impl Iterator<Item = bool>,
    bytes: &[u8],
    ends: &[u32],
    none: impl FnOnce() -> ArrayRef,
) -> ArrayRef {
    let present: Vec<bool> = present.collect();
    let count = present.iter().filter(|p| **p).count();
    if count == 0 {
        return none();
    }
    let start = |row: usize| if row == 0 { 0 } else { ends[row - 1] as usize };
    if count == rows {
        // Every value is there: one copy of all of them.
        let end = ends[rows - 1] as usize;
        let offsets: Vec<i32> = std::iter::once(0).chain(ends[..rows].iter().map(|e| *e as i32)).collect();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        return Arc::new(BinaryArray::new(offsets, Buffer::from(&bytes[..end]), None));
    }
    let mut builder = BinaryBuilder::with_capacity(rows, 0);
    for (row, present) in present.into_iter().enumerate() {
        builder.append_option(present.then(|| &bytes[start(row)..ends[row] as usize]));
    }
    Arc::new(builder.finish())
}

/// The `time_status` column.
pub fn time_status(verdicts: &[Verdict]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(verdicts.iter().map(|v| v.as_str())))
}

/// The `parse_error` column from the few rows that have one, by row.
pub fn parse_errors(rows: usize, errors: &[(u32, String)]) -> ArrayRef {
    let mut builder = StringBuilder::with_capacity(rows, errors.iter().map(|(_, e)| e.len()).sum());
    let mut errors = errors.iter().peekable();
    for row in 0..rows {
        builder.append_option(errors.next_if(|(at, _)| *at as usize == row).map(|(_, error)| error));
    }
    Arc::new(builder.finish())
}

/// The `headers` column from the few rows that have any, by row; null in the others.
pub fn headers(rows: usize, headers: &[(u32, Headers)]) -> ArrayRef {
    let mut keys = StringBuilder::new();
    let mut values = BinaryBuilder::new();
    let mut lengths = vec![0usize; rows];
    let mut present = vec![false; rows];
    for (row, list) in headers {
        lengths[*row as usize] = list.len();
        present[*row as usize] = true;
        for (key, value) in list {
            keys.append_value(key);
            values.append_option(value.as_deref());
        }
    }
    let entries: Vec<ArrayRef> = vec![Arc::new(keys.finish()), Arc::new(values.finish())];
    let entries = StructArray::new(header_fields(), entries, None);
    Arc::new(ListArray::new(
        Arc::new(header_element()),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(entries),
        Some(NullBuffer::from(present)),
    ))
}
