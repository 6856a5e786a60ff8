//! What goes in comes out again, read by arrow-rs; other readers read whole Bronze tables in the integration tests.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::ColumnDescPtr;
use proptest::prelude::*;

use super::*;
use crate::bronze::chunks::Chunks;
use crate::bronze::schema::header_element;
use crate::event::Coder;

fn layout(kind: DataType) -> PlainLayout {
    let arrow = Arc::new(Schema::new(vec![Field::new("c", kind, true)]));
    PlainLayout::new(arrow, WriterProperties::default()).expect("a layout")
}

/// A file of one column as arrow-rs reads it.
fn read_back(layout: &PlainLayout, write: impl FnOnce(&mut SerializedRowGroupWriter<'_, Chunks>)) -> ArrayRef {
    let mut file = layout.begin().expect("a file");
    let mut group = file.next_row_group().expect("a row group");
    write(&mut group);
    group.close().expect("closes");
    let bytes = bytes::Bytes::from(file.into_inner().expect("finishes").into_bytes().concat());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("a Parquet file").build().expect("opens");
    let batches: Vec<RecordBatch> = reader.collect::<Result<_, _>>().expect("reads");
    let schema = batches.first().map_or(layout.arrow.clone(), RecordBatch::schema);
    concat_batches(&schema, &batches).expect("one batch").column(0).clone()
}

fn one(kind: DataType, column: impl FnOnce(ColumnDescPtr, &mut ZstdContext) -> page::Chunk) -> ArrayRef {
    let layout = layout(kind);
    let mut zstd = ZstdContext::new().expect("zstd");
    let chunk = column(layout.parquet.column(0), &mut zstd);
    read_back(&layout, |group| chunk.append_to(group).expect("fits"))
}

fn numbers() -> impl Strategy<Value = Vec<Option<i64>>> {
    let value = prop_oneof![
        Just(-1..=1),
        Just(0..=300),
        Just(-2_000_000_000_000..=2_000_000_000_000),
        Just(i64::MIN..=i64::MAX),
    ];
    let some = (value, 0.0..1.0)
        .prop_flat_map(|(range, there)| prop::collection::vec(prop::option::weighted(there, range), 0..3000));
    prop_oneof![some, prop::collection::vec(prop::option::weighted(0.999, i64::MIN..=i64::MAX), 0..3000)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn numbers_come_back(rows in numbers(), repeats: bool, size in 1_usize..2000, constant: Option<i64>) {
        let array = Int64Array::from(rows);
        let back = one(DataType::Int64, |column, zstd| {
            let mut column = NumberColumn::new(column, repeats);
            for from in (0..array.len()).step_by(size) {
                let part = array.slice(from, size.min(array.len() - from));
                column.push(part.values(), part.nulls(), zstd).expect("pushes");
            }
            if let Some(value) = constant {
                column.repeat(value, 7, zstd).expect("repeats");
            }
            column.close(zstd).expect("closes")
        });
        let expected: Int64Array =
            array.iter().chain(constant.map(|v| [Some(v); 7]).into_iter().flatten()).collect();
        prop_assert_eq!(back.as_primitive::<Int64Type>(), &expected);
    }

    #[test]
    fn strings_come_back(
        rows in prop::collection::vec(prop::option::weighted(0.8, "[a-c]{0,2}|.{0,40}"), 0..2000),
        size in 1_usize..2000,
        enumerated: bool,
    ) {
        let array = StringArray::from(rows);
        let parts = || (0..array.len()).step_by(size).map(|from| array.slice(from, size.min(array.len() - from)));
        let words = one(DataType::Utf8, |column, zstd| {
            let (mut column, mut coder) = (WordColumn::new(column, enumerated), Coder::new());
            parts().for_each(|part| column.push(&part, &mut coder, zstd).expect("pushes"));
            column.close(zstd).expect("closes")
        });
        prop_assert_eq!(words.as_string::<i32>(), &array);
        let texts = one(DataType::Utf8, |column, zstd| {
            let mut column = TextColumn::new(column);
            parts().for_each(|part| {
                column.push(part.value_offsets(), part.value_data(), part.nulls(), zstd).expect("pushes");
            });
            column.close(zstd).expect("closes")
        });
        prop_assert_eq!(texts.as_string::<i32>(), &array);
    }
}

#[test]
fn a_dictionary_that_overflows_goes_on_without() {
    let rows: Vec<i64> = (0..100_000).map(|i| if i % 3 == 0 { 5 } else { i * 1_000_000 }).collect();
    let back = one(DataType::Int64, |column, zstd| {
        let mut column = NumberColumn::new(column, true);
        rows.chunks(9999).for_each(|part| column.push(part, None, zstd).expect("pushes"));
        column.close(zstd).expect("closes")
    });
    assert_eq!(back.as_primitive::<Int64Type>().values()[..], rows);

    let words = StringArray::from_iter_values((0..60_000).map(|i| format!("value number {}", i / 2)));
    let back = one(DataType::Utf8, |column, zstd| {
        let (mut column, mut coder) = (WordColumn::new(column, false), Coder::new());
        for from in (0..words.len()).step_by(10_000) {
            column.push(&words.slice(from, 10_000), &mut coder, zstd).expect("pushes");
        }
        column.close(zstd).expect("closes")
    });
    assert_eq!(back.as_string::<i32>(), &words);
}

#[test]
fn constants_and_nulls_take_no_room() {
    let mut size = 0;
    let back = one(DataType::Int32, |column, zstd| {
        let mut column = NumberColumn::new(column, true);
        (0..10).for_each(|i| column.repeat(i / 5, 10_000, zstd).expect("repeats"));
        size = column.bytes();
        column.close(zstd).expect("closes")
    });
    let expected = Int32Array::from_iter_values((0..100_000).map(|i| i / 50_000));
    assert_eq!(back.as_primitive::<Int32Type>(), &expected);
    assert!(size < 400, "{size} bytes");

    let back = one(DataType::Binary, |column, zstd| {
        let mut column = TextColumn::new(column);
        column.null(50_000, zstd).expect("nulls");
        column.push(&[3, 7], b"no here", None, zstd).expect("a value");
        column.null(10, zstd).expect("nulls");
        size = column.bytes();
        column.close(zstd).expect("closes")
    });
    let mut expected = vec![None; 50_011];
    expected[50_000] = Some(&b"here"[..]);
    assert_eq!(back.as_binary::<i32>(), &BinaryArray::from(expected));
    assert!(size < 400, "{size} bytes");
}

#[test]
fn headers_come_back_whether_there_are_any_or_not() {
    let layout = layout(DataType::List(Arc::new(header_element())));
    for with in [false, true] {
        let back = read_back(&layout, |group| {
            let mut column = HeaderColumn::new(layout.clone(), 0);
            column.push(3, &[]).expect("pushes");
            if with {
                let headers = vec![("a".to_owned(), Some(b"1".to_vec())), ("b".to_owned(), None)];
                column.push(2, &[(1, headers)]).expect("pushes");
            }
            column.append_to(group).expect("fits");
        });
        let rows = back.as_list::<i32>();
        assert_eq!((rows.len(), rows.null_count()), if with { (5, 4) } else { (3, 3) });
        if with {
            let keys = rows.value(4).as_struct().column(0).as_string::<i32>().clone();
            assert_eq!(keys, StringArray::from(vec!["a", "b"]));
        }
    }
}
