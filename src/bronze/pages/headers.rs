//! Record headers: a list column that most files have no value in.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, ListArray, StringBuilder, StructArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use parquet::basic::Encoding;
use parquet::errors::Result;
use parquet::file::writer::{SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::Measured;
use super::hybrid::Runs;
use super::page::{Chunk, Codec, Finished, write_data_page};
use super::plain::{PlainColumn, PlainLayout};
use crate::bronze::chunks::Chunks;
use crate::bronze::schema::{header_element, header_fields};
use crate::event::Headers;

/// The column of headers.
pub struct HeaderColumn {
    layout: PlainLayout,
    /// Its place in the schema.
    place: usize,
    /// Rows without headers, as long as there are no others.
    nulls: usize,
    /// From the first headers on.
    values: Option<PlainColumn>,
}

impl HeaderColumn {
    pub fn new(layout: PlainLayout, place: usize) -> Self {
        Self { layout, place, nulls: 0, values: None }
    }

    /// Appends rows with the headers of the few that have any, by row.
    pub fn push(&mut self, rows: usize, headers: &[(u32, Headers)]) -> Result<()> {
        if headers.is_empty() && self.values.is_none() {
            self.nulls += rows;
            return Ok(());
        }
        let values = match &mut self.values {
            Some(values) => values,
            none => {
                let mut values = PlainColumn::new(&self.layout, self.place)?;
                if self.nulls > 0 {
                    values.push(&new_null_array(self.layout.arrow.field(self.place).data_type(), self.nulls))?;
                }
                none.insert(values)
            }
        };
        values.push(&array(rows, headers))
    }

    /// Puts the column's chunks behind those that the row group has already.
    pub fn append_to(self, group: &mut SerializedRowGroupWriter<'_, Chunks>) -> Result<()> {
        if let Some(values) = self.values {
            return values.append_to(group);
        }
        let parquet = &self.layout.parquet;
        let leaves = (0..parquet.num_columns()).filter(|leaf| parquet.get_column_root_idx(*leaf) == self.place);
        leaves.map(|leaf| parquet.column(leaf)).try_for_each(|leaf| null_chunk(leaf, self.nulls)?.append_to(group))
    }
}

impl Measured for HeaderColumn {
    fn bytes(&self) -> usize {
        self.values.as_ref().map_or(0, Measured::bytes)
    }

    fn memory(&self) -> usize {
        self.values.as_ref().map_or(0, Measured::memory)
    }
}

/// A chunk of a nested column without any value: one page.
fn null_chunk(column: ColumnDescPtr, rows: usize) -> Result<Chunk> {
    let mut body = Vec::new();
    for greatest in [column.max_rep_level(), column.max_def_level()].into_iter().filter(|level| *level > 0) {
        let mut levels = Runs::default();
        levels.push(0, rows as u32);
        levels.encode_levels(&mut body, greatest as u64);
    }
    let mut data = TrackedWrite::new(Vec::new());
    let length = body.len();
    let uncompressed = write_data_page(&mut data, body, length, rows, Encoding::PLAIN)?;
    let pages = Finished { dictionary: Vec::new(), data: data.into_inner()?, uncompressed, rows };
    Chunk::new(column, Codec::None, pages, vec![Encoding::RLE, Encoding::PLAIN], None)
}

/// The headers of a batch, null in the rows that have none.
fn array(rows: usize, headers: &[(u32, Headers)]) -> ArrayRef {
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
    let (element, nulls) = (Arc::new(header_element()), NullBuffer::from(present));
    Arc::new(ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(entries), Some(nulls)))
}
