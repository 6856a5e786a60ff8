//! Settings that verdicts depend on: in force, changed, left behind.

use std::time::Duration;

use boathouse::bronze::{BronzeError, Table};
use boathouse::config::{FieldType, Pipeline};

use super::{Writer, pipeline, source};

async fn open(folder: &tempfile::TempDir, pipeline: &Pipeline) -> Result<Table, BronzeError> {
    Table::open_or_create(folder.path().to_str().unwrap(), pipeline, Some("topic-id-1".into())).await
}

fn with_bound(seconds: u64) -> Pipeline {
    let mut pipeline = pipeline();
    pipeline.time.bound = Duration::from_secs(seconds);
    pipeline
}

#[tokio::test]
async fn changed_settings_take_a_fresh_epoch_and_old_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder, &with_bound(30)).await.unwrap();
    let same = open(&folder, &with_bound(30)).await.unwrap();
    assert_eq!((first.epoch(), first.opened_at()), (same.epoch(), same.opened_at()));

    let second = open(&folder, &with_bound(40)).await.unwrap();
    assert_ne!(first.epoch(), second.epoch());
    assert_eq!(first.table_id(), second.table_id());

    let error = open(&folder, &with_bound(30)).await.unwrap_err();
    assert!(error.is_loud_stop() && error.to_string().contains("accept-settings user_events"), "{error}");

    let lakehouse = folder.path().to_str().unwrap();
    let back = Table::accept_settings(lakehouse, &with_bound(30), Some("topic-id-1".into())).await.unwrap();
    assert!(back.epoch() != first.epoch() && back.epoch() != second.epoch());
    open(&folder, &with_bound(30)).await.unwrap();
    let error = open(&folder, &with_bound(40)).await.unwrap_err();
    assert!(error.is_loud_stop(), "now the other one is left behind: {error}");
}

#[tokio::test]
async fn what_verdicts_do_not_depend_on_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder, &pipeline()).await.unwrap();
    let mut other = pipeline();
    other.bronze.flush_interval = Duration::from_secs(1);
    other.time.idle_after = Duration::from_secs(5);
    other.fields[2].allowed = None;
    let second = open(&folder, &other).await.unwrap();
    assert_eq!((first.epoch(), first.opened_at()), (second.epoch(), second.opened_at()));
}

#[tokio::test]
async fn a_running_daemon_stops_when_settings_change() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    open(&folder, &with_bound(40)).await.unwrap();
    let error = running.commit_events(0, 0..10).await.unwrap_err();
    assert!(error.is_loud_stop() && error.to_string().contains("settings were changed"), "{error}");
    let error = running.ledger.acquire(&[source(0)]).await.unwrap_err();
    assert!(error.is_loud_stop(), "it stays down: {error}");
}

#[tokio::test]
async fn an_added_field_is_an_added_column() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    before.commit_events(0, 0..10).await.unwrap();
    let mut wider = pipeline();
    let field = boathouse::config::Field { name: "country".into(), required: false, ..wider.fields[3].clone() };
    wider.fields.push(field);
    let mut after = Writer::open(folder.path(), &wider, &[0]).await.unwrap();
    assert_ne!(before.table.epoch(), after.table.epoch());
    after.commit_events(0, 10..20).await.unwrap();

    let url = deltalake::ensure_table_uri(folder.path().join("bronze/user_events").to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    let context = deltalake::datafusion::prelude::SessionContext::new();
    context.register_table("bronze", table.table_provider().await.unwrap()).unwrap();
    let sql = "select count(*), count(country), count(event_id) from bronze";
    let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    assert!(text.contains("| 20       | 0"), "{text}");
}

#[tokio::test]
async fn a_fields_type_never_changes() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder, &pipeline()).await.unwrap();
    let mut other = pipeline();
    other.fields[1].kind = FieldType::String;
    let error = open(&folder, &other).await.unwrap_err();
    assert!(error.is_loud_stop() && error.to_string().contains("user_id"), "{error}");
    // Not by the way of leaving it out for a while, either.
    let mut without = pipeline();
    without.fields.remove(1);
    open(&folder, &without).await.unwrap();
    other.time.bound = Duration::from_secs(1);
    assert!(open(&folder, &other).await.unwrap_err().is_loud_stop());
}

#[tokio::test]
async fn another_topic_is_refused_until_it_is_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder, &pipeline()).await.unwrap();
    let lakehouse = folder.path().to_str().unwrap();
    let anew = || Some("topic-id-2".to_string());
    let error = Table::open_or_create(lakehouse, &pipeline(), anew()).await.unwrap_err();
    assert!(error.is_loud_stop() && error.to_string().contains("adopt-topic user_events"), "{error}");
    let adopted = Table::adopt_topic(lakehouse, &pipeline(), anew()).await.unwrap();
    assert_eq!((first.generation(), adopted.generation()), (0, 1));
    assert_ne!(first.epoch(), adopted.epoch());
    let again = Table::open_or_create(lakehouse, &pipeline(), anew()).await.unwrap();
    assert_eq!((again.generation(), again.epoch()), (1, adopted.epoch()));
}

#[tokio::test]
async fn a_topic_id_that_comes_later_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let lakehouse = folder.path().to_str().unwrap();
    let without = Table::open_or_create(lakehouse, &pipeline(), None).await.unwrap();
    let with = open(&folder, &pipeline()).await.unwrap();
    assert_eq!(without.epoch(), with.epoch());
    assert!(Table::open_or_create(lakehouse, &pipeline(), Some("other".into())).await.is_err());
    Table::open_or_create(lakehouse, &pipeline(), None).await.unwrap();
}

#[tokio::test]
async fn a_mark_is_set_back_under_a_fresh_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    running.commit_events(0, 0..10).await.unwrap();
    let (lakehouse, mark) = (folder.path().to_str().unwrap(), super::NOW + 2_000_000);
    let marks = [(source(0), mark)];
    let table = Table::lower_marks(lakehouse, &pipeline(), Some("topic-id-1".into()), &marks).await.unwrap();
    assert_ne!(table.epoch(), running.table.epoch());
    let error = running.commit_events(0, 10..20).await.unwrap_err();
    assert!(error.reacquire() && !error.is_loud_stop(), "the settings are its own: it begins anew by itself: {error}");
    let again = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    let position = again.ledger.position(&source(0)).unwrap();
    assert_eq!((position.next_offset, position.mark), (10, Some(mark)));
}

#[tokio::test]
async fn bad_records_are_accepted_for_good_and_without_a_fresh_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    running.commit_events(0, 0..10).await.unwrap();
    let lakehouse = folder.path().to_str().unwrap();
    let accept = async |below: i64| {
        let below = [(source(0), below)];
        let table = Table::accept_bad_records(lakehouse, &pipeline(), Some("topic-id-1".into()), &below).await.unwrap();
        (table.bad_records_accepted(&source(0)).await.unwrap(), table)
    };
    assert_eq!(running.table.bad_records_accepted(&source(0)).await.unwrap(), 0);
    let (accepted, table) = accept(5).await;
    assert_eq!((accepted, table.epoch()), (5, running.table.epoch()), "no window is counted again");
    // Once more, or for less, changes nothing.
    for below in [5, 3] {
        let (accepted, again) = accept(below).await;
        assert_eq!((accepted, again.opened_at()), (5, table.opened_at()));
    }
    assert_eq!(table.bad_records_accepted(&source(1)).await.unwrap(), 0);
    // A writer that holds the partition learns of it, and goes on where it stood.
    let error = running.commit_events(0, 10..20).await.unwrap_err();
    assert!(matches!(error, BronzeError::Accepted { .. }) && error.reacquire(), "{error}");
    let mut again = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    assert_eq!(again.ledger.position(&source(0)).unwrap().next_offset, 10);
    again.commit_events(0, 10..20).await.unwrap();
}
