//! Arrow batches as RowBinary.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Date32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use bytes::{BufMut, BytesMut};

use super::{ServedColumn, ServedModel, ServedType};

/// A row that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoldRowError {
    #[error("the column `{0}` is missing or has another type")]
    Column(String),
    #[error("a row has no `{0}`, which is part of its grain or never null by the model's SQL")]
    Null(String),
    #[error("a date of `{column}` lies outside 1970 to 2149: day {day} since 1970")]
    Date { column: String, day: i32 },
}

/// Appends the rows of a batch, each after the run's id where one is given. Batches have the model's columns by name: dates as Date32,
/// timestamps in microseconds, texts as Utf8.
pub fn gold_row_binary(
    model: &ServedModel,
    run_id: Option<&str>,
    batch: &RecordBatch,
    buffer: &mut BytesMut,
) -> Result<(), GoldRowError> {
    let columns: Result<Vec<_>, _> = model
        .columns
        .iter()
        .map(|c| {
            let array = batch.column_by_name(&c.name).ok_or_else(|| GoldRowError::Column(c.name.clone()))?;
            reader(c, array.as_ref())
        })
        .collect();
    let columns = columns?;
    for row in 0..batch.num_rows() {
        if let Some(run_id) = run_id {
            put_text(buffer, run_id);
        }
        for column in &columns {
            column(row, buffer)?;
        }
    }
    Ok(())
}

type Reader<'a> = Box<dyn Fn(usize, &mut BytesMut) -> Result<(), GoldRowError> + 'a>;

/// Writes one row's value of a column.
fn reader<'a>(column: &'a ServedColumn, array: &'a dyn Array) -> Result<Reader<'a>, GoldRowError> {
    let wrong = || GoldRowError::Column(column.name.clone());
    let put: Reader<'a> = match column.kind {
        ServedType::Day => {
            let values = array.as_primitive_opt::<Date32Type>().ok_or_else(wrong)?;
            Box::new(move |row, out| {
                let day = values.value(row);
                let wrong = |_| GoldRowError::Date { column: column.name.clone(), day };
                out.put_u16_le(u16::try_from(day).map_err(wrong)?);
                Ok(())
            })
        }
        ServedType::Date => {
            let values = array.as_primitive_opt::<Date32Type>().ok_or_else(wrong)?;
            plain(move |row, out| out.put_i32_le(values.value(row)))
        }
        ServedType::Int32 => {
            let values = array.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
            plain(move |row, out| out.put_i32_le(values.value(row)))
        }
        ServedType::Int64 => {
            let values = array.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
            plain(move |row, out| out.put_i64_le(values.value(row)))
        }
        ServedType::Float64 => {
            let values = array.as_primitive_opt::<Float64Type>().ok_or_else(wrong)?;
            plain(move |row, out| out.put_f64_le(values.value(row)))
        }
        ServedType::Timestamp => {
            let values = array.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(wrong)?;
            plain(move |row, out| out.put_i64_le(values.value(row)))
        }
        ServedType::Bool => {
            let values = array.as_boolean_opt().ok_or_else(wrong)?;
            plain(move |row, out| out.put_u8(u8::from(values.value(row))))
        }
        ServedType::Text => {
            let values = array.as_string_opt::<i32>().ok_or_else(wrong)?;
            plain(move |row, out| put_text(out, values.value(row)))
        }
    };
    Ok(Box::new(move |row, out| match (array.is_null(row), column.nullable) {
        (true, false) => Err(GoldRowError::Null(column.name.clone())),
        (true, true) => {
            out.put_u8(1);
            Ok(())
        }
        (false, nullable) => {
            if nullable {
                out.put_u8(0);
            }
            put(row, out)
        }
    }))
}

/// A value that always has a form in ClickHouse.
fn plain<'a>(put: impl Fn(usize, &mut BytesMut) + 'a) -> Reader<'a> {
    Box::new(move |row, out| {
        put(row, out);
        Ok(())
    })
}

/// RowBinary's String: its length as LEB128, then its bytes.
pub(super) fn put_text(buffer: &mut BytesMut, text: &str) {
    let mut left = text.len();
    loop {
        let byte = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            buffer.put_u8(byte);
            break;
        }
        buffer.put_u8(byte | 0x80);
    }
    buffer.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, Int64Array, StringArray};

    use super::*;

    fn model() -> ServedModel {
        let column =
            |name: &str, kind, nullable| ServedColumn { name: name.into(), kind, nullable, doc: String::new() };
        ServedModel {
            view: "x".into(),
            description: String::new(),
            date: "day".into(),
            grain: vec!["day".into(), "page".into()],
            columns: vec![
                column("day", ServedType::Day, false),
                column("page", ServedType::Text, false),
                column("n", ServedType::Int64, true),
            ],
        }
    }

    fn batch(day: i32, page: Option<&str>, n: Option<i64>) -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            // The order of the batch is not the model's.
            ("n", Arc::new(Int64Array::from(vec![n]))),
            ("day", Arc::new(Date32Array::from(vec![day]))),
            ("page", Arc::new(StringArray::from(vec![page]))),
        ];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    fn encode(batch: &RecordBatch) -> Result<Vec<u8>, GoldRowError> {
        let mut buffer = BytesMut::new();
        gold_row_binary(&model(), Some("r"), batch, &mut buffer).map(|()| buffer.to_vec())
    }

    #[test]
    fn rows_are_written_in_the_models_order() {
        let expected = [&[1, b'r', 2, 1, 2][..], b"/p", &[0, 7, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(encode(&batch(258, Some("/p"), Some(7))), Ok(expected));
        let expected = [&[1, b'r', 2, 1, 0][..], &[1]].concat();
        assert_eq!(encode(&batch(258, Some(""), None)), Ok(expected));
    }

    #[test]
    fn what_cannot_be_served_is_an_error() {
        assert_eq!(encode(&batch(1, None, None)), Err(GoldRowError::Null("page".into())));
        assert_eq!(encode(&batch(-1, Some(""), None)), Err(GoldRowError::Date { column: "day".into(), day: -1 }));
        let lacking = batch(1, Some(""), None).project(&[0, 1]).expect("columns");
        assert_eq!(encode(&lacking), Err(GoldRowError::Column("page".into())));
    }
}
