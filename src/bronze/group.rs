//! A row group in the making: Bronze's columns, each in the encoding that suits it.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use parquet::errors::{ParquetError, Result};
use parquet::file::writer::SerializedRowGroupWriter;

use super::chunks::Chunks;
use super::pages::{
    HeaderColumn, Measured, NumberColumn, PlainColumn, PlainLayout, TextColumn, WordColumn, ZstdContext,
};
use super::schema::PLACE_OF_HEADERS;
use crate::event::{Batch, Coder};
use crate::window::Verdict;

/// How a field's column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Strings that hardly repeat.
    Text,
    /// Strings of which few are distinct.
    Enumerated,
    /// Strings of which nothing is known.
    Word,
    /// Integers and timestamps.
    Number,
    /// Whatever else.
    Plain,
}

/// The fields that are columns of their own, in column order.
#[derive(Debug, Clone)]
pub struct OwnField {
    /// Place in `Columns::fields`.
    pub field: usize,
    pub way: Way,
}

/// What encoding needs beside the columns; kept from file to file.
pub struct Tools {
    zstd: ZstdContext,
    coder: Coder,
    micros: Vec<i64>,
    offsets: Vec<i32>,
}

impl Tools {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: ZstdContext::new()?, coder: Coder::new(), micros: Vec::new(), offsets: Vec::new() })
    }
}

/// See the file's head. The columns stand in the order of the file's schema.
pub struct RowGroup {
    rows: usize,
    topic: WordColumn,
    generation: NumberColumn,
    partition: NumberColumn,
    offset: NumberColumn,
    kafka_timestamp: NumberColumn,
    key: TextColumn,
    headers: HeaderColumn,
    own: Vec<(OwnField, FieldColumn)>,
    event_time: NumberColumn,
    time_status: WordColumn,
    parse_error: WordColumn,
    payload: TextColumn,
    ingestion_time: NumberColumn,
}

enum FieldColumn {
    Text(TextColumn),
    Word(WordColumn),
    Number(NumberColumn),
    Plain(PlainColumn),
}

impl RowGroup {
    /// An empty row group of a file with these columns.
    pub fn new(layout: &PlainLayout, own: &[OwnField]) -> Result<Self> {
        let parquet = &layout.parquet;
        // Headers are two leaves, every other column is one.
        let mut leaf = 0;
        let mut next = || {
            leaf += 1;
            parquet.column(leaf - 1)
        };
        let topic = WordColumn::new(next(), true);
        let generation = NumberColumn::new(next(), true);
        let partition = NumberColumn::new(next(), true);
        let offset = NumberColumn::new(next(), false);
        let kafka_timestamp = NumberColumn::new(next(), false);
        let key = TextColumn::new(next());
        let headers = HeaderColumn::new(layout.clone(), PLACE_OF_HEADERS);
        next();
        next();
        let mut fields = Vec::with_capacity(own.len());
        for (i, field) in own.iter().enumerate() {
            let column = next();
            let column = match field.way {
                Way::Text => FieldColumn::Text(TextColumn::new(column)),
                Way::Enumerated => FieldColumn::Word(WordColumn::new(column, true)),
                Way::Word => FieldColumn::Word(WordColumn::new(column, false)),
                Way::Number => FieldColumn::Number(NumberColumn::new(column, false)),
                Way::Plain => FieldColumn::Plain(PlainColumn::new(layout, PLACE_OF_HEADERS + 1 + i)?),
            };
            fields.push((field.clone(), column));
        }
        Ok(Self {
            rows: 0,
            topic,
            generation,
            partition,
            offset,
            kafka_timestamp,
            key,
            headers,
            own: fields,
            event_time: NumberColumn::new(next(), true),
            time_status: WordColumn::new(next(), true),
            parse_error: WordColumn::new(next(), true),
            payload: TextColumn::new(next()),
            ingestion_time: NumberColumn::new(next(), true),
        })
    }

    /// Appends a batch's rows. `event_time`: the place of the event time among the fields.
    pub fn push(&mut self, batch: &Batch, event_time: usize, keep_all: bool, tools: &mut Tools) -> Result<()> {
        let Tools { zstd, coder, micros, offsets } = tools;
        let (rows, columns, source) = (batch.len(), &batch.columns, &batch.source);
        let raw = &columns.raw;
        self.rows += rows;
        self.topic.repeat(&source.topic, rows, zstd)?;
        self.generation.repeat(source.generation.into(), rows, zstd)?;
        self.partition.repeat(source.partition.into(), rows, zstd)?;
        self.offset.push(&raw.offsets, None, zstd)?;
        micros.clear();
        micros.extend(raw.timestamps.iter().map(|t| t * 1000));
        let none = raw.timestamps.contains(&-1);
        let nulls = none.then(|| NullBuffer::from_iter(raw.timestamps.iter().map(|t| *t != -1)));
        self.kafka_timestamp.push(micros, nulls.as_ref(), zstd)?;
        rows_of(&mut self.key, &raw.keys, &raw.key_ends, offsets, zstd, |row| !raw.key_null[row])?;
        self.headers.push(rows, &raw.headers)?;
        for (OwnField { field, .. }, column) in &mut self.own {
            let array = &columns.fields[*field];
            match column {
                FieldColumn::Text(column) => {
                    let array = array.as_string_opt::<i32>().ok_or_else(|| mismatch(array))?;
                    column.push(array.value_offsets(), array.value_data(), array.nulls(), zstd)?;
                }
                FieldColumn::Word(column) => match &columns.codes[*field] {
                    // Fields that aggregates use are enumerated, and the decoder has coded them.
                    Some(codes) => column.push_codes(codes, zstd)?,
                    None => column.push(array.as_string_opt().ok_or_else(|| mismatch(array))?, coder, zstd)?,
                },
                FieldColumn::Number(column) => column.push(longs(array)?, array.nulls(), zstd)?,
                FieldColumn::Plain(column) => column.push(array)?,
            }
        }
        let event_time = &columns.fields[event_time];
        self.event_time.push(longs(event_time)?, event_time.nulls(), zstd)?;
        for run in batch.verdicts.chunk_by(|a, b| a == b) {
            self.time_status.repeat(run[0].as_str(), run.len(), zstd)?;
        }
        let mut at = 0;
        for (row, error) in &columns.errors {
            self.parse_error.null(*row as usize - at, zstd)?;
            self.parse_error.repeat(error, 1, zstd)?;
            at = *row as usize + 1;
        }
        self.parse_error.null(rows - at, zstd)?;
        rows_of(&mut self.payload, &raw.values, &raw.value_ends, offsets, zstd, |row| {
            let keep = keep_all || columns.keep_payload[row] || batch.verdicts[row] == Verdict::Unparsed;
            keep && !raw.value_null[row]
        })?;
        self.ingestion_time.repeat(batch.received_at, rows, zstd)
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of the file, nearly.
    pub fn bytes(&self) -> usize {
        self.columns().map(Measured::bytes).sum()
    }

    /// Bytes of memory, nearly.
    pub fn memory(&self) -> usize {
        self.columns().map(Measured::memory).sum()
    }

    fn columns(&self) -> impl Iterator<Item = &dyn Measured> {
        let system: [&dyn Measured; 12] = [
            &self.topic,
            &self.generation,
            &self.partition,
            &self.offset,
            &self.kafka_timestamp,
            &self.key,
            &self.headers,
            &self.event_time,
            &self.time_status,
            &self.parse_error,
            &self.payload,
            &self.ingestion_time,
        ];
        let own = self.own.iter().map(|(_, column)| -> &dyn Measured {
            match column {
                FieldColumn::Text(column) => column,
                FieldColumn::Word(column) => column,
                FieldColumn::Number(column) => column,
                FieldColumn::Plain(column) => column,
            }
        });
        system.into_iter().chain(own)
    }

    /// Writes all columns.
    pub fn close(self, group: &mut SerializedRowGroupWriter<'_, Chunks>, tools: &mut Tools) -> Result<()> {
        let zstd = &mut tools.zstd;
        self.topic.close(zstd)?.append_to(group)?;
        for column in [self.generation, self.partition, self.offset, self.kafka_timestamp] {
            column.close(zstd)?.append_to(group)?;
        }
        self.key.close(zstd)?.append_to(group)?;
        self.headers.append_to(group)?;
        for (_, column) in self.own {
            match column {
                FieldColumn::Text(column) => column.close(zstd)?.append_to(group)?,
                FieldColumn::Word(column) => column.close(zstd)?.append_to(group)?,
                FieldColumn::Number(column) => column.close(zstd)?.append_to(group)?,
                FieldColumn::Plain(column) => column.append_to(group)?,
            }
        }
        self.event_time.close(zstd)?.append_to(group)?;
        self.time_status.close(zstd)?.append_to(group)?;
        self.parse_error.close(zstd)?.append_to(group)?;
        self.payload.close(zstd)?.append_to(group)?;
        self.ingestion_time.close(zstd)?.append_to(group)
    }
}

/// Appends the values that stand one behind the other in `bytes`, in the rows that have one.
fn rows_of(
    column: &mut TextColumn,
    bytes: &[u8],
    ends: &[u32],
    offsets: &mut Vec<i32>,
    zstd: &mut ZstdContext,
    present: impl Fn(usize) -> bool,
) -> Result<()> {
    let rows = ends.len();
    let mut at = 0;
    while at < rows {
        let here = present(at);
        let to = (at..rows).find(|row| present(*row) != here).unwrap_or(rows);
        if here {
            let start = if at == 0 { 0 } else { ends[at - 1] };
            offsets.clear();
            offsets.push(start as i32);
            offsets.extend(ends[at..to].iter().map(|end| *end as i32));
            column.push(offsets, bytes, None, zstd)?;
        } else {
            column.null(to - at, zstd)?;
        }
        at = to;
    }
    Ok(())
}

/// The values of an integer or timestamp column.
fn longs(array: &ArrayRef) -> Result<&[i64]> {
    let longs = match array.data_type() {
        DataType::Int64 => array.as_primitive_opt::<Int64Type>().map(|a| &a.values()[..]),
        _ => array.as_primitive_opt::<TimestampMicrosecondType>().map(|a| &a.values()[..]),
    };
    longs.ok_or_else(|| mismatch(array))
}

fn mismatch(array: &ArrayRef) -> ParquetError {
    ParquetError::General(format!("a batch has a column of type {}", array.data_type()))
}
