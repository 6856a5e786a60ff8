//! Served rows read back, as they stream: RowBinary as Arrow batches.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use bytes::{Buf, BytesMut};
use clickhouse::Row;
use futures::stream::{BoxStream, StreamExt, try_unfold};
use serde::Deserialize;

use super::super::client::Client;
use super::super::error::{Error, ErrorKind};
use super::{ServedColumn, ServedModel, ServedType, of_days, table};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

#[derive(Row, Deserialize)]
struct Day {
    /// Days since 1970.
    day: u16,
}

impl Client {
    /// The dates that a view shows rows of, as days since 1970.
    pub async fn served_days(&self, model: &ServedModel) -> Result<Vec<u16>, Error> {
        let sql = format!("SELECT DISTINCT toUInt16(`{}`) AS day FROM {} ORDER BY day", model.date, table(&model.view));
        let days: Vec<Day> = self.rows(&format!("list the dates of gold.{}", model.view), self.query(&sql)).await?;
        Ok(days.into_iter().map(|d| d.day).collect())
    }

    /// What a view shows of these days, in the order of [`ServedModel::order`], as it comes: columns by name with the
    /// types that [`super::gold_row_binary`] takes. Memory: one batch.
    pub fn gold_rows(
        &self,
        model: &ServedModel,
        days: &[u16],
    ) -> Result<BoxStream<'static, Result<RecordBatch, Error>>, Error> {
        let order: Vec<String> = model.order().map(|c| format!("`{c}`")).collect();
        let sql = format!("SELECT {} {} ORDER BY {}", model.column_list(), of_days(model), order.join(", "));
        let what = format!("read gold.{}", model.view);
        // The server answers once it has everything: an error half way is an error, not a short answer.
        let query = self.query(&sql).bind(days).with_setting("wait_end_of_query", "1");
        let cursor = query.fetch_bytes("RowBinary").map_err(|e| Error::from_client(&what, self.server(), &e))?;
        let state = (cursor, BytesMut::new(), false, self.clone(), model.clone(), what);
        let batches = try_unfold(state, |(mut cursor, mut buffer, mut ended, client, model, what)| async move {
            loop {
                let batch = decode(&model, &mut buffer)
                    .map_err(|message| client.error(ErrorKind::Permanent, &what, message))?;
                let full = batch.as_ref().is_some_and(|b| b.num_rows() > 0);
                if let Some(batch) = batch.filter(|_| full) {
                    return Ok(Some((batch, (cursor, buffer, ended, client, model, what))));
                }
                if ended {
                    return match buffer.is_empty() {
                        true => Ok(None),
                        false => Err(client.error(ErrorKind::Permanent, &what, "the answer ends within a row")),
                    };
                }
                match client.slowly(&what, cursor.next()).await? {
                    Some(bytes) => buffer.extend_from_slice(&bytes),
                    None => ended = true,
                }
            }
        });
        Ok(batches.boxed())
    }
}

/// Takes the whole rows at the front of a buffer, at most a batch; none where there is not one.
fn decode(model: &ServedModel, buffer: &mut BytesMut) -> Result<Option<RecordBatch>, String> {
    let mut columns: Vec<Values> = model.columns.iter().map(Values::new).collect();
    let mut rows = 0;
    while rows < BATCH_ROWS {
        let Some(length) = row_length(model, buffer) else { break };
        let mut row = &buffer[..length];
        for (column, values) in model.columns.iter().zip(&mut columns) {
            values.take(column, &mut row);
        }
        buffer.advance(length);
        rows += 1;
    }
    if rows == 0 {
        return Ok(None);
    }
    let named = model.columns.iter().zip(columns).map(|(c, values)| (c.name.as_str(), values.finish(), true));
    RecordBatch::try_from_iter_with_nullable(named).map(Some).map_err(|e| e.to_string())
}

/// The length of the row at the front; none where it is not whole yet.
fn row_length(model: &ServedModel, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for column in &model.columns {
        if column.nullable {
            let null = *bytes.get(at)?;
            at += 1;
            if null == 1 {
                continue;
            }
        }
        at += match column.kind {
            ServedType::Bool => 1,
            ServedType::Day => 2,
            ServedType::Date | ServedType::Int32 => 4,
            ServedType::Int64 | ServedType::Float64 | ServedType::Timestamp => 8,
            ServedType::Text => {
                let (length, prefix) = text_length(bytes.get(at..)?)?;
                prefix + length
            }
        };
    }
    (at <= bytes.len()).then_some(at)
}

/// A text's length, and the bytes that say it (LEB128).
fn text_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (i, byte) in bytes.iter().take(9).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((length, i + 1));
        }
    }
    None
}

/// The values of one column.
enum Values {
    Date(Date32Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Values {
    fn new(column: &ServedColumn) -> Self {
        match column.kind {
            ServedType::Day | ServedType::Date => Self::Date(Date32Builder::new()),
            ServedType::Int32 => Self::Int32(Int32Builder::new()),
            ServedType::Int64 => Self::Int64(Int64Builder::new()),
            ServedType::Float64 => Self::Float64(Float64Builder::new()),
            ServedType::Bool => Self::Bool(BooleanBuilder::new()),
            ServedType::Text => Self::Text(StringBuilder::new()),
            ServedType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        }
    }

    /// Takes a value off the front of a row that is whole.
    fn take(&mut self, column: &ServedColumn, row: &mut &[u8]) {
        if column.nullable && row.get_u8() == 1 {
            match self {
                Self::Date(values) => values.append_null(),
                Self::Int32(values) => values.append_null(),
                Self::Int64(values) => values.append_null(),
                Self::Float64(values) => values.append_null(),
                Self::Bool(values) => values.append_null(),
                Self::Text(values) => values.append_null(),
                Self::Timestamp(values) => values.append_null(),
            }
            return;
        }
        match self {
            Self::Date(values) if column.kind == ServedType::Day => values.append_value(i32::from(row.get_u16_le())),
            Self::Date(values) => values.append_value(row.get_i32_le()),
            Self::Int32(values) => values.append_value(row.get_i32_le()),
            Self::Int64(values) => values.append_value(row.get_i64_le()),
            Self::Float64(values) => values.append_value(row.get_f64_le()),
            Self::Bool(values) => values.append_value(row.get_u8() != 0),
            Self::Timestamp(values) => values.append_value(row.get_i64_le()),
            Self::Text(values) => {
                let (length, prefix) = text_length(row).unwrap_or((0, 0));
                row.advance(prefix);
                values.append_value(String::from_utf8_lossy(&row[..length]));
                row.advance(length);
            }
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Date(mut values) => Arc::new(values.finish()),
            Self::Int32(mut values) => Arc::new(values.finish()),
            Self::Int64(mut values) => Arc::new(values.finish()),
            Self::Float64(mut values) => Arc::new(values.finish()),
            Self::Bool(mut values) => Arc::new(values.finish()),
            Self::Text(mut values) => Arc::new(values.finish()),
            Self::Timestamp(mut values) => Arc::new(values.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, StringArray};

    use super::super::gold_row_binary;
    use super::*;

    /// What is written is read back, however the answer is cut into pieces.
    #[test]
    fn rows_are_read_back_as_they_were_written() {
        let column =
            |name: &str, kind, nullable| ServedColumn { name: name.into(), kind, nullable, doc: String::new() };
        let model = ServedModel {
            view: "x".into(),
            description: String::new(),
            date: "day".into(),
            grain: vec!["day".into()],
            columns: vec![
                column("day", ServedType::Day, false),
                column("page", ServedType::Text, true),
                column("n", ServedType::Int64, true),
                column("rate", ServedType::Float64, false),
                column("flag", ServedType::Bool, true),
                column("small", ServedType::Int32, false),
                column("since", ServedType::Date, true),
            ],
        };
        let long = "ä".repeat(100);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("day", Arc::new(Date32Array::from(vec![1, 60_000]))),
            ("page", Arc::new(StringArray::from(vec![Some(long.as_str()), None]))),
            ("n", Arc::new(Int64Array::from(vec![None, Some(-5)]))),
            ("rate", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("small", Arc::new(Int32Array::from(vec![-1, 7]))),
            ("since", Arc::new(Date32Array::from(vec![Some(-30), None]))),
        ];
        let columns = columns.into_iter().map(|(name, values)| (name, values, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let mut bytes = BytesMut::new();
        gold_row_binary(&model, None, &batch, &mut bytes).unwrap();
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            let mut read: Vec<RecordBatch> = decode(&model, &mut buffer).unwrap().into_iter().collect();
            buffer.extend_from_slice(&bytes[cut..]);
            read.extend(decode(&model, &mut buffer).unwrap());
            assert!(buffer.is_empty(), "cut at {cut}");
            let read = arrow::compute::concat_batches(&batch.schema(), &read).unwrap();
            assert_eq!(format!("{read:?}"), format!("{batch:?}"), "cut at {cut}");
        }
    }
}
