//! Rows in offset order for the recovery of windows, and the last row of a partition.

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use boathouse::bronze::{LastRow, OkRows, first_event_time_after};
use boathouse::window::Verdict;
use futures::TryStreamExt;

use super::{NOW, Record, Writer, event, pipeline, source};

async fn read(writer: &Writer, version: Option<u64>, wanted: OkRows) -> Vec<(i64, String)> {
    let batches: Vec<_> = writer.table.ok_rows(version, wanted).await.unwrap().try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        let offsets = batch.column(0).as_primitive::<Int64Type>();
        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
        let kinds = batch.column_by_name("event_type").unwrap().as_string::<i32>();
        for row in 0..batch.num_rows() {
            assert!(times.value(row) >= NOW);
            rows.push((offsets.value(row), kinds.value(row).to_string()));
        }
    }
    rows
}

fn wanted(partition: i32, offsets: std::ops::Range<i64>) -> OkRows {
    OkRows { source: source(partition), offsets, event_time_from: None, fields: vec!["event_type".into()] }
}

fn kinds(range: std::ops::Range<i64>) -> Vec<(i64, String)> {
    range.map(|n| (n, ["login", "click", "purchase", "logout"][n as usize % 4].to_string())).collect()
}

/// Six commits with rows of two partitions side by side.
async fn two_partitions(folder: &std::path::Path) -> Writer {
    let mut writer = Writer::open(folder, &pipeline(), &[0, 1]).await.unwrap();
    for n in 0..6 {
        let batches = [
            writer.feeds.get_mut(&0).unwrap().events(n * 100..n * 100 + 60),
            writer.feeds.get_mut(&1).unwrap().events(n * 10..n * 10 + 10),
            writer.feeds.get_mut(&0).unwrap().events(n * 100 + 60..n * 100 + 100),
        ];
        writer.commit(&batches).await.unwrap();
    }
    writer
}

#[tokio::test]
async fn rows_come_in_offset_order_within_the_wanted_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let writer = two_partitions(folder.path()).await;
    assert_eq!(read(&writer, None, wanted(0, 0..i64::MAX)).await, kinds(0..600));
    assert_eq!(read(&writer, None, wanted(0, 50..333)).await, kinds(50..333));
    assert_eq!(read(&writer, None, wanted(1, 0..25)).await, kinds(0..25));
    assert_eq!(read(&writer, None, wanted(2, 0..25)).await, []);
    // Version 3 is the second commit with rows.
    assert_eq!(read(&writer, Some(3), wanted(0, 0..i64::MAX)).await, kinds(0..200));
    let from = first_event_time_after(NOW + 420_500_000, 60_000_000);
    let late = OkRows { event_time_from: Some(from), ..wanted(0, 0..i64::MAX) };
    assert_eq!(read(&writer, None, late).await, kinds(420..600));
}

#[tokio::test]
async fn merged_files_are_read_in_offset_order_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = two_partitions(folder.path()).await;
    let url = deltalake::ensure_table_uri(folder.path().join("bronze/user_events").to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    let (_, metrics) = table.optimize().await.unwrap();
    assert_eq!((metrics.num_files_added, metrics.num_files_removed), (1, 6));
    writer.commit_events(0, 600..650).await.unwrap();
    assert_eq!(read(&writer, None, wanted(0, 0..i64::MAX)).await, kinds(0..650));
    assert_eq!(read(&writer, None, wanted(1, 5..55)).await, kinds(5..55));
    let last = writer.table.last_row(None, &source(1)).await.unwrap().unwrap();
    assert_eq!((last.offset, last.event_id.as_deref()), (59, Some("e00000059")));
}

#[tokio::test]
async fn the_newest_rows_come_with_their_verdicts_from_as_many_files_as_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = two_partitions(folder.path()).await;
    let newest = async |writer: &Writer, partition: i32, offsets: std::ops::Range<i64>, most: usize| {
        let rows = writer.table.newest_rows(&source(partition), offsets, most).await.unwrap();
        assert!(rows.iter().all(|row| row.verdict == Verdict::Ok && row.error.is_none()));
        rows.iter().map(|row| row.offset).collect::<Vec<_>>()
    };
    let all = |range: std::ops::Range<i64>| range.collect::<Vec<i64>>();
    assert_eq!(newest(&writer, 0, 0..600, 250).await, all(350..600));
    assert_eq!(newest(&writer, 0, 0..333, 40).await, all(293..333));
    assert_eq!(newest(&writer, 0, 310..333, 40).await, all(310..333));
    assert_eq!(newest(&writer, 1, 0..60, 25).await, all(35..60), "files whose offsets are the other's, too");
    assert_eq!(newest(&writer, 1, 0..1000, 1000).await, all(0..60));
    assert_eq!(newest(&writer, 2, 0..1000, 10).await, all(0..0));
    assert_eq!(newest(&writer, 0, 600..600, 10).await, all(0..0));

    let future = Record { timestamp: NOW / 1000, ..event(7200) };
    let batch = writer.feeds.get_mut(&1).unwrap().batch(&[Record::default(), future]);
    writer.commit(&[batch]).await.unwrap();
    let rows = writer.table.newest_rows(&source(1), 0..62, 3).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.offset, row.verdict, row.error.as_deref())).collect();
    let unparsed = (60, Verdict::Unparsed, Some("tombstone (null value)"));
    assert_eq!(rows, [(59, Verdict::Ok, None), unparsed, (61, Verdict::Future, None)]);
}

#[tokio::test]
async fn only_ok_rows_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    let late = Record { timestamp: NOW / 1000 + 3_600_000, ..event(0) };
    let future = Record { timestamp: NOW / 1000, ..event(7200) };
    let records = [event(3600), late, Record::default(), future, event(3601)];
    let batch = writer.feeds.get_mut(&0).unwrap().batch(&records);
    writer.commit(&[batch]).await.unwrap();
    let offsets: Vec<i64> = read(&writer, None, wanted(0, 0..10)).await.into_iter().map(|(o, _)| o).collect();
    assert_eq!(offsets, [0, 4]);
}

#[tokio::test]
async fn the_last_row_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0, 1]).await.unwrap();
    assert_eq!(writer.table.last_row(None, &source(0)).await.unwrap(), None);
    writer.commit_events(0, 0..10).await.unwrap();
    writer.commit_events(1, 0..3).await.unwrap();
    let last = writer.table.last_row(None, &source(0)).await.unwrap();
    let expected = LastRow { offset: 9, kafka_timestamp: Some(NOW / 1000 + 9000), event_id: Some("e00000009".into()) };
    assert_eq!(last, Some(expected));
    let tombstone = Record { timestamp: -1, ..Record::default() };
    let batch = writer.feeds.get_mut(&0).unwrap().batch(&[event(10), tombstone]);
    writer.commit(&[batch]).await.unwrap();
    let last = writer.table.last_row(None, &source(0)).await.unwrap();
    assert_eq!(last, Some(LastRow { offset: 11, kafka_timestamp: None, event_id: None }));
}
