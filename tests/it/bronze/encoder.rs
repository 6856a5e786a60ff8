//! What is read back from a file equals what went in.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use boathouse::bronze::{Encoder, SealedFile};
use boathouse::config::{FieldType, KeepPayload};
use boathouse::window::Verdict;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::{Feed, NOW, Record, event, pipeline, source};

fn read(file: &SealedFile) -> RecordBatch {
    let bytes: Bytes = file.chunks.concat().into();
    assert_eq!(bytes.len(), file.size);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<_> = builder.build().unwrap().map(|b| b.unwrap()).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let array = batch.column_by_name(column).unwrap().as_string::<i32>();
    array.is_valid(row).then(|| array.value(row))
}

fn bytes<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a [u8]> {
    let array = batch.column_by_name(column).unwrap().as_binary::<i32>();
    array.is_valid(row).then(|| array.value(row))
}

fn int(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let array = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>();
    array.is_valid(row).then(|| array.value(row))
}

fn time(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let array = batch.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>();
    array.is_valid(row).then(|| array.value(row))
}

#[test]
fn every_kind_of_record_comes_back() {
    let pipeline = pipeline();
    let headers = vec![("origin".to_string(), Some(b"a/0/1/2".to_vec())), ("empty".to_string(), None)];
    let records = [
        event(0),
        Record { value: None, timestamp: 5, ..Record::default() },
        Record { value: Some(b"{not json \xff".to_vec()), key: Some(Vec::new()), timestamp: -1, headers },
        Record { key: None, headers: vec![("x".into(), Some(Vec::new()))], ..event(3) },
        event(4),
    ];
    let mut feed = Feed::new(&pipeline, source(2), 10, None);
    let batch = feed.batch(&records);
    let mut encoder = Encoder::new(&pipeline).unwrap();
    encoder.push(&batch).unwrap();
    assert_eq!(encoder.rows(), 5);
    let file = encoder.seal().unwrap().unwrap();
    assert!(encoder.is_empty() && encoder.seal().unwrap().is_none());
    let rows = read(&file);

    assert_eq!(rows.num_rows(), 5);
    let partition = rows.column_by_name("partition").unwrap().as_primitive::<Int32Type>();
    for (row, record) in records.iter().enumerate().take(5) {
        assert_eq!(text(&rows, "topic", row), Some("user-events"));
        assert_eq!(partition.value(row), 2);
        assert_eq!(int(&rows, "offset", row), Some(10 + row as i64));
        assert_eq!(bytes(&rows, "key", row), record.key.as_deref(), "key of row {row}");
        assert_eq!(time(&rows, "ingestion_time", row), Some(NOW));
        let timestamp = record.timestamp;
        assert_eq!(time(&rows, "kafka_timestamp", row), (timestamp >= 0).then_some(timestamp * 1000));
        assert_eq!(text(&rows, "time_status", row), Some(batch.verdicts[row].as_str()));
    }
    for row in [0, 3, 4] {
        assert_eq!(text(&rows, "event_id", row), Some(format!("e{row:08}").as_str()));
        assert_eq!(int(&rows, "user_id", row), Some(row as i64));
        assert_eq!(time(&rows, "event_time", row), Some(NOW + row as i64 * 1_000_000));
        assert_eq!(text(&rows, "parse_error", row), None);
        assert_eq!(bytes(&rows, "payload", row), None, "the columns say it all");
    }
    for row in [1, 2] {
        assert_eq!(batch.verdicts[row], Verdict::Unparsed);
        assert_eq!((text(&rows, "event_id", row), time(&rows, "event_time", row)), (None, None));
        assert!(text(&rows, "parse_error", row).is_some());
        assert_eq!(bytes(&rows, "payload", row), records[row].value.as_deref(), "payload of row {row}");
    }
    let headers = rows.column_by_name("headers").unwrap().as_list::<i32>();
    assert_eq!((0..5).map(|row| headers.is_valid(row)).collect::<Vec<_>>(), [false, false, true, true, false]);
    let of_row = headers.value(2);
    let of_row = of_row.as_struct();
    assert_eq!(of_row.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["origin", "empty"]);
    assert_eq!(of_row.column(1).as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&b"a/0/1/2"[..]), None]);
}

#[test]
fn statistics_are_exact() {
    let pipeline = pipeline();
    let mut encoder = Encoder::new(&pipeline).unwrap();
    encoder.push(&Feed::new(&pipeline, source(1), 7, None).events(0..100)).unwrap();
    let mut second = Feed::new(&pipeline, source(2), 1000, None);
    second.received_at = NOW + 1;
    let tombstone = Record { timestamp: -1, ..Record::default() };
    encoder.push(&second.batch(&[event(200), tombstone])).unwrap();
    let file = encoder.seal().unwrap().unwrap();
    let stats: serde_json::Value = serde_json::from_str(&file.stats).unwrap();
    assert_eq!(stats["numRecords"], 102);
    assert_eq!((&stats["minValues"]["offset"], &stats["maxValues"]["offset"]), (&7.into(), &1001.into()));
    assert_eq!((&stats["minValues"]["partition"], &stats["maxValues"]["partition"]), (&1.into(), &2.into()));
    assert_eq!(stats["minValues"]["event_time"], "2026-02-06T14:30:00.000000Z");
    assert_eq!(stats["maxValues"]["event_time"], "2026-02-06T14:33:20.000000Z");
    assert_eq!(stats["maxValues"]["ingestion_time"], "2026-02-06T14:30:00.000001Z");
    assert_eq!((&stats["nullCount"]["event_time"], &stats["nullCount"]["kafka_timestamp"]), (&1.into(), &1.into()));
    assert!(!file.single_source);
}

#[test]
fn a_file_has_one_ingestion_date() {
    let pipeline = pipeline();
    let mut feed = Feed::new(&pipeline, source(0), 0, None);
    let mut encoder = Encoder::new(&pipeline).unwrap();
    let today = feed.events(0..3);
    feed.received_at = NOW + 24 * 3600 * 1_000_000;
    let tomorrow = feed.events(3..6);
    assert!(encoder.accepts(&tomorrow), "an empty file takes any date");
    encoder.push(&today).unwrap();
    assert!(encoder.accepts(&today) && !encoder.accepts(&tomorrow));
    let file = encoder.seal().unwrap().unwrap();
    assert_eq!(file.ingestion_date.to_string(), "2026-02-06");
    assert!(encoder.accepts(&tomorrow));
}

#[test]
fn payloads_are_kept_by_configuration() {
    let mut pipeline = pipeline();
    pipeline.bronze.keep_payload = KeepPayload::Always;
    let mut encoder = Encoder::new(&pipeline).unwrap();
    encoder.push(&Feed::new(&pipeline, source(0), 0, None).events(0..10)).unwrap();
    let rows = read(&encoder.seal().unwrap().unwrap());
    for row in 0..10 {
        assert_eq!(bytes(&rows, "payload", row), event(row as i64).value.as_deref());
    }
}

#[test]
fn row_groups_have_a_bound() {
    let pipeline = pipeline();
    let mut feed = Feed::new(&pipeline, source(0), 0, None);
    let mut encoder = Encoder::new(&pipeline).unwrap();
    let mut random = 1u64;
    let mut noise = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut large =
        |n: i64| Record { value: Some((0..2500).flat_map(|_| noise().to_le_bytes()).collect()), ..event(n) };
    for n in 0..12 {
        encoder.push(&feed.batch(&(n * 100..(n + 1) * 100).map(&mut large).collect::<Vec<_>>())).unwrap();
    }
    let file = encoder.seal().unwrap().unwrap();
    let bytes: Bytes = file.chunks.concat().into();
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let groups: Vec<i64> = builder.metadata().row_groups().iter().map(|g| g.compressed_size()).collect();
    assert!(groups.len() > 1 && groups.iter().all(|size| *size < 16 << 20), "{groups:?}");
}

#[test]
fn fields_of_every_type_come_back() {
    let mut pipeline = pipeline();
    let mut add = |name: &str, kind| {
        let field = pipeline.fields[1].clone();
        pipeline.fields.push(boathouse::config::Field { name: name.into(), kind, required: false, ..field });
    };
    add("price", FieldType::Float);
    add("paid", FieldType::Bool);
    add("due", FieldType::Timestamp);
    let with = |extra: &str| {
        let mut record = event(1);
        let value = String::from_utf8(record.value.unwrap()).unwrap();
        record.value = Some(value.replace("}", &format!("{extra}}}")).into_bytes());
        record
    };
    let records = [with(r#","price":1.5,"paid":true,"due":"2026-02-06T15:00:00""#), with("")];
    let mut encoder = Encoder::new(&pipeline).unwrap();
    encoder.push(&Feed::new(&pipeline, source(0), 0, None).batch(&records)).unwrap();
    let rows = read(&encoder.seal().unwrap().unwrap());
    let float = rows.column_by_name("price").unwrap().as_primitive::<arrow::datatypes::Float64Type>();
    assert_eq!((float.value(0), float.is_null(1)), (1.5, true));
    let paid = rows.column_by_name("paid").unwrap().as_boolean();
    assert_eq!((paid.value(0), paid.is_null(1)), (true, true));
    assert_eq!((time(&rows, "due", 0), time(&rows, "due", 1)), (Some(NOW + 30 * 60_000_000), None));
}

fn any_record() -> impl Strategy<Value = Record> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let headers = proptest::collection::vec(("[a-z]{0,5}", bytes()), 0..3);
    let odd = (bytes(), bytes(), -1i64..5_000_000_000_000, headers)
        .prop_map(|(key, value, timestamp, headers)| Record { key, value, timestamp, headers });
    prop_oneof![3 => (0i64..10_000).prop_map(event), 1 => odd]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever arrives, in whatever batches, is in the file once, in order, with its key, its headers and either its
    /// columns or its bytes.
    #[test]
    fn nothing_is_lost(batches in proptest::collection::vec(proptest::collection::vec(any_record(), 0..30), 1..5)) {
        let pipeline = pipeline();
        let mut feed = Feed::new(&pipeline, source(0), 0, None);
        let mut encoder = Encoder::new(&pipeline).unwrap();
        let mut verdicts = Vec::new();
        for records in &batches {
            let batch = feed.batch(records);
            verdicts.extend(batch.verdicts.iter().copied());
            encoder.push(&batch).unwrap();
        }
        let records: Vec<&Record> = batches.iter().flatten().collect();
        let Some(file) = encoder.seal().unwrap() else {
            prop_assert!(records.is_empty());
            return Ok(());
        };
        let rows = read(&file);
        prop_assert_eq!(rows.num_rows(), records.len());
        let headers = rows.column_by_name("headers").unwrap().as_list::<i32>();
        for (row, record) in records.into_iter().enumerate() {
            prop_assert_eq!(int(&rows, "offset", row), Some(row as i64));
            prop_assert_eq!(bytes(&rows, "key", row), record.key.as_deref());
            prop_assert_eq!(text(&rows, "time_status", row), Some(verdicts[row].as_str()));
            let found = if headers.is_valid(row) { headers.value(row).len() } else { 0 };
            prop_assert_eq!(found, record.headers.len());
            match verdicts[row] {
                Verdict::Unparsed => prop_assert_eq!(bytes(&rows, "payload", row), record.value.as_deref()),
                _ => prop_assert!(text(&rows, "event_id", row).is_some() && time(&rows, "event_time", row).is_some()),
            }
        }
    }
}
