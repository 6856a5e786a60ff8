//! A table written by this code, read by programs that share none of it: PyPI deltalake and DuckDB's delta extension.

use std::path::Path;

use boathouse::bronze::upkeep::Upkeep;

use super::{Record, Writer, event, pipeline};
use crate::support::python::python;

/// Rows of every kind, in two partitions and several files, one of them with an added field; a checkpoint in between.
async fn write(lakehouse: &Path) {
    let mut writer = Writer::open(lakehouse, &pipeline(), &[0, 1]).await.unwrap();
    let odd = [
        event(0),
        Record { value: Some(b"\xff{broken".to_vec()), timestamp: -1, ..Record::default() },
        Record { headers: vec![("trace".into(), Some(b"abc".to_vec())), ("none".into(), None)], ..event(2) },
        Record::default(),
    ];
    let batches = [writer.feeds.get_mut(&0).unwrap().batch(&odd), writer.feeds.get_mut(&1).unwrap().events(0..5000)];
    writer.commit(&batches).await.unwrap();
    boathouse::bronze::upkeep::run_once(&writer.table, &Upkeep { checkpoint_every: 1, clean_log: true }).await.unwrap();
    let mut wider = pipeline();
    let country = boathouse::config::Field { name: "country".into(), required: false, ..wider.fields[3].clone() };
    wider.fields.push(country);
    let mut writer = Writer::open(lakehouse, &wider, &[0, 1]).await.unwrap();
    writer.commit_events(0, 4..1000).await.unwrap();
}

#[tokio::test]
async fn deltalake_and_duckdb_read_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path()).await;
    let table = folder.path().join("bronze/user_events");
    let expected = concat!(
        "rows 6000\n",
        "partition 0: 1000 rows, offsets 0 to 999\n",
        "partition 1: 5000 rows, offsets 0 to 4999\n",
        "ok 5998, unparsed 2\n",
        "headers of offset 2: trace=616263 none=null\n",
        "payload of offset 1: ff7b62726f6b656e\n",
        "offset 2: e00000002 2 purchase /page/2 web 2026-02-06 14:30:02\n",
        "countries 0\n",
        "dates 2026-02-06\n",
    );
    assert_eq!(python("read_bronze_deltalake.py", &[&table]), expected);
    assert_eq!(python("read_bronze_duckdb.py", &[&table]), expected);
}
