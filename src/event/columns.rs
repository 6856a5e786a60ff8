//! The columns of a batch while they are filled: by row number, so that a row may be written again.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::schema::Schema;
use crate::config::FieldType;

/// Bytes of a string column's buffer that stay from batch to batch; what records of a megabyte needed does not.
const VALUES_KEPT: usize = 2 << 20;

/// One column for each field, those of one type side by side. The buffers stay for the next batch: what is handed on is a
/// copy of the rows at hand, no larger than it must be.
pub(crate) struct ColumnSet {
    rows: usize,
    /// Where each field's column is.
    pub places: Vec<Place>,
    pub texts: Vec<TextColumn>,
    /// Integers, and timestamps in microseconds since the epoch.
    pub longs: Vec<Vec<i64>>,
    pub floats: Vec<Vec<f64>>,
    pub bools: Vec<Vec<bool>>,
    /// One per field.
    nulls: Vec<Nulls>,
}

/// A field's column: its type, and its index among those of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub kind: FieldType,
    pub index: usize,
}

/// Strings one behind the other. Row `i` is `values[offsets[i]..offsets[i + 1]]`; what lies behind the last row written
/// is void, so that a row written again needs no clearing away.
#[derive(Default)]
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

/// A value on its way into a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Text(&'a [u8]),
    /// An integer or a timestamp.
    Long(i64),
    Float(f64),
    Bool(bool),
}

impl ColumnSet {
    pub fn new(schema: &Schema) -> Self {
        let mut set = Self {
            rows: 0,
            places: Vec::new(),
            texts: Vec::new(),
            longs: Vec::new(),
            floats: Vec::new(),
            bools: Vec::new(),
            nulls: Vec::new(),
        };
        for field in &schema.fields {
            let index = match field.kind {
                FieldType::String => push(&mut set.texts),
                FieldType::Int | FieldType::Timestamp => push(&mut set.longs),
                FieldType::Float => push(&mut set.floats),
                FieldType::Bool => push(&mut set.bools),
            };
            set.places.push(Place { kind: field.kind, index });
            set.nulls.push(Nulls::default());
        }
        set
    }

    /// Makes room for `rows` rows. What they hold is void until it is written.
    pub fn begin(&mut self, rows: usize) {
        self.rows = rows;
        self.nulls.iter_mut().for_each(|n| n.begin(rows));
        self.texts.iter_mut().for_each(|t| make_room(&mut t.offsets, rows + 1));
        self.longs.iter_mut().for_each(|v| make_room(v, rows));
        self.floats.iter_mut().for_each(|v| make_room(v, rows));
        self.bools.iter_mut().for_each(|v| make_room(v, rows));
    }

    /// Writes a value of the field's type, or null.
    pub fn set(&mut self, field: usize, row: usize, cell: Cell) {
        let Place { kind, index } = self.places[field];
        match cell {
            Cell::Null => self.nulls[field].set(row),
            _ => self.nulls[field].clear(row),
        }
        match (kind, cell) {
            (FieldType::String, Cell::Text(text)) => self.texts[index].set(row, text),
            (FieldType::String, _) => self.texts[index].set(row, &[]),
            (FieldType::Int | FieldType::Timestamp, Cell::Long(v)) => self.longs[index][row] = v,
            (FieldType::Int | FieldType::Timestamp, _) => self.longs[index][row] = 0,
            (FieldType::Float, Cell::Float(v)) => self.floats[index][row] = v,
            (FieldType::Float, _) => self.floats[index][row] = 0.0,
            (FieldType::Bool, Cell::Bool(v)) => self.bools[index][row] = v,
            (FieldType::Bool, _) => self.bools[index][row] = false,
        }
    }

    pub fn set_null(&mut self, field: usize, row: usize) {
        self.set(field, row, Cell::Null);
    }

    pub fn set_row_null(&mut self, row: usize) {
        (0..self.places.len()).for_each(|field| self.set_null(field, row));
    }

    /// The microseconds of a timestamp column.
    pub fn micros(&self, field: usize) -> &[i64] {
        &self.longs[self.places[field].index][..self.rows]
    }

    /// The finished columns as arrays, one per field.
    pub fn finish(&mut self) -> Vec<ArrayRef> {
        let rows = self.rows;
        let finish = |field: usize| -> ArrayRef {
            let Place { kind, index } = self.places[field];
            let nulls = self.nulls[field].finish(rows);
            match kind {
                FieldType::String => Arc::new(self.texts[index].finish(rows, nulls)),
                FieldType::Int => Arc::new(Int64Array::new(self.longs[index][..rows].to_vec().into(), nulls)),
                FieldType::Float => Arc::new(Float64Array::new(self.floats[index][..rows].to_vec().into(), nulls)),
                FieldType::Bool => Arc::new(BooleanArray::new(BooleanBuffer::from(&self.bools[index][..rows]), nulls)),
                FieldType::Timestamp => {
                    let micros = self.longs[index][..rows].to_vec().into();
                    Arc::new(TimestampMicrosecondArray::new(micros, nulls).with_timezone("UTC"))
                }
            }
        };
        (0..self.places.len()).map(finish).collect()
    }
}

impl TextColumn {
    pub fn set(&mut self, row: usize, text: &[u8]) {
        let start = self.offsets[row] as usize;
        let end = start + text.len();
        if self.values.len() < end {
            self.grow(end);
        }
        self.values[start..end].copy_from_slice(text);
        self.offsets[row + 1] = end as i32;
    }

    /// Makes `values` reach to `end` or further.
    #[cold]
    pub fn grow(&mut self, end: usize) {
        self.values.resize(end.max(4096).max(self.values.len() * 2), 0);
    }

    fn finish(&mut self, rows: usize, nulls: Option<NullBuffer>) -> StringArray {
        let offsets = &self.offsets[..rows + 1];
        let values = self.values[..offsets[rows] as usize].to_vec();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets.to_vec()));
        if self.values.len() > VALUES_KEPT {
            self.values.truncate(VALUES_KEPT);
            self.values.shrink_to_fit();
        }
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

    fn finish(&self, rows: usize) -> Option<NullBuffer> {
        if !self.any {
            return None;
        }
        let valid: Vec<u64> = self.bits.iter().map(|w| !w).collect();
        Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(valid), 0, rows)))
    }
}

/// Adds an empty column; its index.
fn push<T: Default>(columns: &mut Vec<T>) -> usize {
    columns.push(T::default());
    columns.len() - 1
}

/// Makes the vector `rows` long at least; it never shrinks.
fn make_room<T: Copy + Default>(v: &mut Vec<T>, rows: usize) {
    if v.len() < rows {
        v.resize(rows, T::default());
    }
}
