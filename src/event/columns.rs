//! The columns of a batch while they are filled: by row number, so that a row may be written again.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::schema::Schema;
use crate::config::FieldType;

/// One column for each field.
pub(crate) struct ColumnSet {
    pub columns: Vec<Column>,
}

/// A column of the batch at hand.
pub(crate) struct Column {
    pub data: Data,
    nulls: Nulls,
}

pub(crate) enum Data {
    Text(TextColumn),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Bool(Vec<bool>),
    /// Microseconds since the epoch.
    Time(Vec<i64>),
}

/// Strings one behind the other. Row `i` is `values[offsets[i]..offsets[i + 1]]`; what lies behind the last row written
/// is void, so that a row written again needs no clearing away.
pub(crate) struct TextColumn {
    pub values: Vec<u8>,
    pub offsets: Vec<i32>,
}

/// Which rows are null: one bit each, set for null.
#[derive(Default)]
struct Nulls {
    bits: Vec<u64>,
    any: bool,
}

impl ColumnSet {
    pub fn new(schema: &Schema) -> Self {
        let column = |kind| match kind {
            FieldType::String => Data::Text(TextColumn { values: Vec::new(), offsets: Vec::new() }),
            FieldType::Int => Data::Int(Vec::new()),
            FieldType::Float => Data::Float(Vec::new()),
            FieldType::Bool => Data::Bool(Vec::new()),
            FieldType::Timestamp => Data::Time(Vec::new()),
        };
        let columns = schema.fields.iter().map(|f| Column { data: column(f.kind), nulls: Nulls::default() });
        Self { columns: columns.collect() }
    }

    /// Makes room for `rows` rows.
    pub fn begin(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.nulls.begin(rows);
            match &mut column.data {
                Data::Text(text) => {
                    text.offsets.clear();
                    text.offsets.resize(rows + 1, 0);
                }
                Data::Int(v) | Data::Time(v) => refill(v, rows),
                Data::Float(v) => refill(v, rows),
                Data::Bool(v) => refill(v, rows),
            }
        }
    }

    pub fn set_text(&mut self, column: usize, row: usize, text: &[u8]) {
        let column = &mut self.columns[column];
        if let Data::Text(t) = &mut column.data {
            t.set(row, text);
            column.nulls.clear(row);
        }
    }

    pub fn set_int(&mut self, column: usize, row: usize, value: i64) {
        let column = &mut self.columns[column];
        if let Data::Int(v) = &mut column.data {
            v[row] = value;
            column.nulls.clear(row);
        }
    }

    pub fn set_time(&mut self, column: usize, row: usize, micros: i64) {
        let column = &mut self.columns[column];
        if let Data::Time(v) = &mut column.data {
            v[row] = micros;
            column.nulls.clear(row);
        }
    }

    pub fn set_float(&mut self, column: usize, row: usize, value: f64) {
        let column = &mut self.columns[column];
        if let Data::Float(v) = &mut column.data {
            v[row] = value;
            column.nulls.clear(row);
        }
    }

    pub fn set_bool(&mut self, column: usize, row: usize, value: bool) {
        let column = &mut self.columns[column];
        if let Data::Bool(v) = &mut column.data {
            v[row] = value;
            column.nulls.clear(row);
        }
    }

    pub fn set_null(&mut self, column: usize, row: usize) {
        let column = &mut self.columns[column];
        column.nulls.set(row);
        match &mut column.data {
            Data::Text(t) => t.set(row, &[]),
            Data::Int(v) | Data::Time(v) => v[row] = 0,
            Data::Float(v) => v[row] = 0.0,
            Data::Bool(v) => v[row] = false,
        }
    }

    pub fn set_row_null(&mut self, row: usize) {
        for column in 0..self.columns.len() {
            self.set_null(column, row);
        }
    }

    /// Takes the finished columns out as arrays.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        self.columns.iter_mut().map(Column::finish).collect()
    }
}

impl Column {
    fn finish(&mut self) -> ArrayRef {
        let rows = match &self.data {
            Data::Text(t) => t.offsets.len() - 1,
            Data::Int(v) | Data::Time(v) => v.len(),
            Data::Float(v) => v.len(),
            Data::Bool(v) => v.len(),
        };
        let nulls = self.nulls.finish(rows);
        match &mut self.data {
            Data::Text(t) => Arc::new(t.finish(nulls)),
            Data::Int(v) => Arc::new(Int64Array::new(take(v).into(), nulls)),
            Data::Float(v) => Arc::new(Float64Array::new(take(v).into(), nulls)),
            Data::Bool(v) => Arc::new(BooleanArray::new(BooleanBuffer::from(v.as_slice()), nulls)),
            Data::Time(v) => Arc::new(TimestampMicrosecondArray::new(take(v).into(), nulls).with_timezone("UTC")),
        }
    }
}

impl TextColumn {
    pub fn set(&mut self, row: usize, text: &[u8]) {
        let start = self.offsets[row] as usize;
        let end = start + text.len();
        self.make_room(end);
        self.values[start..end].copy_from_slice(text);
        self.offsets[row + 1] = end as i32;
    }

    /// Sees to it that `values` can be written up to `end`.
    #[inline]
    pub fn make_room(&mut self, end: usize) {
        if self.values.len() < end {
            self.grow(end);
        }
    }

    #[cold]
    fn grow(&mut self, end: usize) {
        self.values.resize(end.max(self.values.capacity()).max(4096).max(self.values.len() * 2), 0);
    }

    fn finish(&mut self, nulls: Option<NullBuffer>) -> StringArray {
        let rows = self.offsets.len() - 1;
        let used = self.offsets[rows] as usize;
        let room = self.values.len();
        let mut values = std::mem::take(&mut self.values);
        values.truncate(used);
        self.values.reserve_exact(room);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(take(&mut self.offsets)));
        StringArray::new(offsets, Buffer::from_vec(values), nulls)
    }
}

impl Nulls {
    fn begin(&mut self, rows: usize) {
        self.any = false;
        self.bits.clear();
        self.bits.resize(rows.div_ceil(64), 0);
    }

    #[inline]
    fn set(&mut self, row: usize) {
        self.any = true;
        self.bits[row / 64] |= 1 << (row % 64);
    }

    #[inline]
    fn clear(&mut self, row: usize) {
        self.bits[row / 64] &= !(1 << (row % 64));
    }

    fn finish(&mut self, rows: usize) -> Option<NullBuffer> {
        if !self.any {
            return None;
        }
        let valid: Vec<u64> = self.bits.iter().map(|w| !w).collect();
        Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(valid), 0, rows)))
    }
}

/// `rows` zeros.
fn refill<T: Copy + Default>(v: &mut Vec<T>, rows: usize) {
    v.clear();
    v.resize(rows, T::default());
}

/// Hands the vector on and leaves one of its size, for the next batch will be as large.
fn take<T>(v: &mut Vec<T>) -> Vec<T> {
    let room = v.len();
    std::mem::replace(v, Vec::with_capacity(room))
}
