//! Creation, commits, fencing, damage: on a real table in a folder.

use std::path::{Path, PathBuf};

use boathouse::bronze::upkeep::{Upkeep, run_once};
use boathouse::bronze::{Advance, BronzeError, Position, damaged_tail, repair_log};

use super::{NOW, Writer, pipeline, source};

fn log_entry(lakehouse: &Path, version: u64) -> PathBuf {
    lakehouse.join(format!("bronze/user_events/_delta_log/{version:020}.json"))
}

/// (rows, version) as delta-rs sees the table.
async fn rows(lakehouse: &Path) -> (usize, u64) {
    let url = deltalake::ensure_table_uri(lakehouse.join("bronze/user_events").to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    let state = table.snapshot().unwrap();
    (state.log_data().iter().map(|f| f.num_records().unwrap()).sum(), state.version())
}

#[tokio::test]
async fn rows_and_positions_land_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0, 1]).await.unwrap();
    writer.commit_events(0, 0..100).await.unwrap();
    let batches = [
        writer.feeds.get_mut(&0).unwrap().events(100..150),
        writer.feeds.get_mut(&1).unwrap().events(0..20),
        writer.feeds.get_mut(&0).unwrap().events(150..160),
    ];
    let committed = writer.commit(&batches).await.unwrap();
    // 0 creates the table, 1 is genesis.
    assert_eq!((committed.version, committed.attempts), (3, 1));
    assert_eq!(rows(folder.path()).await, (180, 3));

    let again = Writer::open(folder.path(), &pipeline(), &[0, 1, 2]).await.unwrap();
    let mark = |n: i64| Some(NOW + n * 1_000_000);
    assert_eq!(again.ledger.position(&source(0)), Some(Position { next_offset: 160, mark: mark(159) }));
    assert_eq!(again.ledger.position(&source(1)), Some(Position { next_offset: 20, mark: mark(19) }));
    assert_eq!(again.ledger.position(&source(2)), Some(Position { next_offset: 0, mark: None }));
    assert_eq!((again.table.epoch(), again.table.table_id()), (writer.table.epoch(), writer.table.table_id()));
}

#[tokio::test]
async fn a_zombie_is_fenced_and_nothing_lands_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut zombie = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    zombie.commit_events(0, 0..10).await.unwrap();
    let mut owner = Writer::open(folder.path(), &pipeline(), &[0, 1]).await.unwrap();
    owner.commit_events(0, 10..30).await.unwrap();

    let error = zombie.commit_events(0, 10..20).await.unwrap_err();
    assert!(matches!(&error, BronzeError::Fenced { id, .. } if id == &source(0).txn_id()), "{error}");
    assert!(error.reacquire() && zombie.ledger.version().is_none());
    assert_eq!(rows(folder.path()).await.0, 30);
    let nothing = Advance { source: source(0), from: 10, next_offset: 20, mark: None };
    let error = zombie.ledger.commit(&[], &[nothing]).await.unwrap_err();
    assert!(matches!(error, BronzeError::Expired { .. }), "what is not held cannot be committed: {error}");
}

#[tokio::test]
async fn others_partitions_do_not_fence() {
    let folder = tempfile::tempdir().unwrap();
    let mut left = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    let mut right = Writer::open(folder.path(), &pipeline(), &[1]).await.unwrap();
    for n in 0..10 {
        left.commit_events(0, n * 10..n * 10 + 10).await.unwrap();
        right.commit_events(1, n * 10..n * 10 + 10).await.unwrap();
    }
    assert_eq!(rows(folder.path()).await.0, 200);
}

#[tokio::test]
async fn two_instances_at_once_land_everything_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    let second = Writer::open(folder.path(), &pipeline(), &[1]).await.unwrap();
    let run = |mut writer: Writer, partition| async move {
        for n in 0..25 {
            writer.commit_events(partition, n * 10..n * 10 + 10).await.unwrap();
        }
    };
    tokio::join!(run(first, 0), run(second, 1));
    assert_eq!(rows(folder.path()).await.0, 500);
}

#[tokio::test]
async fn a_commit_goes_on_where_bronze_stands() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    writer.commit_events(0, 0..10).await.unwrap();
    let mark = writer.ledger.position(&source(0)).unwrap().mark;
    for (from, next_offset, mark) in [(0, 20, mark), (11, 20, mark), (10, 9, mark), (10, 20, None)] {
        let advance = Advance { source: source(0), from, next_offset, mark };
        let error = writer.ledger.commit(&[], &[advance]).await.unwrap_err();
        // A file that begins elsewhere holds rows of an earlier holding of the partition: it is dropped.
        assert!(if from == 10 { matches!(error, BronzeError::Misuse { .. }) } else { error.reacquire() }, "{error}");
    }
    // The position may move without rows: to the end-of-partition event behind transaction markers.
    let advance = Advance { source: source(0), from: 10, next_offset: 12, mark };
    writer.ledger.commit(&[], &[advance]).await.unwrap();
    assert_eq!(writer.ledger.position(&source(0)).unwrap().next_offset, 12);
}

#[tokio::test]
async fn a_released_partition_cannot_be_committed() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0, 1]).await.unwrap();
    writer.ledger.release(&source(0));
    let error = writer.commit_events(0, 0..10).await.unwrap_err();
    assert!(error.reacquire() && !error.is_loud_stop(), "it left undrained, which nobody need resolve: {error}");
    writer.commit_events(1, 0..10).await.unwrap();
    assert_eq!(rows(folder.path()).await.0, 10);
}

#[tokio::test]
async fn a_zero_length_entry_is_refused_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    writer.commit_events(0, 0..10).await.unwrap();
    let entry = log_entry(folder.path(), 2);
    std::fs::write(&entry, b"").unwrap();
    let error = Writer::open(folder.path(), &pipeline(), &[0]).await.err().unwrap();
    assert!(error.is_loud_stop() && error.to_string().contains("repair-log user_events"), "{error}");
    assert!(error.to_string().contains("log entry 2 is empty"), "{error}");
}

#[tokio::test]
async fn a_zero_length_entry_of_another_is_refused_by_a_running_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    std::fs::write(log_entry(folder.path(), 2), b"").unwrap();
    let error = writer.commit_events(0, 0..10).await.unwrap_err();
    assert!(error.is_loud_stop() && error.to_string().contains("repair-log user_events"), "{error}");
}

#[tokio::test]
async fn a_gap_in_the_log_is_refused_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    for n in 0..4 {
        writer.commit_events(0, n * 10..n * 10 + 10).await.unwrap();
    }
    std::fs::remove_file(log_entry(folder.path(), 3)).unwrap();
    let error = Writer::open(folder.path(), &pipeline(), &[0]).await.err().unwrap();
    assert!(error.is_loud_stop() && error.to_string().contains("repair-log user_events"), "{error}");
}

#[tokio::test]
async fn a_damaged_tail_is_taken_off_and_its_records_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let lakehouse = folder.path().to_str().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    for n in 0..3 {
        writer.commit_events(0, n * 10..n * 10 + 10).await.unwrap();
    }
    assert_eq!(repair_log(lakehouse, "user_events").await.unwrap(), None);
    let always = Upkeep { checkpoint_every: 1, clean_log: false };
    run_once(&writer.table, &always).await.unwrap();
    // Versions 2, 3 and 4 hold rows; the power cut took 3.
    std::fs::write(log_entry(folder.path(), 3), b"").unwrap();
    let tail = damaged_tail(lakehouse, "user_events").await.unwrap().unwrap();
    assert_eq!((tail.from, tail.files.len()), (3, 4), "two entries, the checkpoint and its hint: {tail:?}");
    assert_eq!(repair_log(lakehouse, "user_events").await.unwrap(), Some(tail));
    assert_eq!(rows(folder.path()).await, (10, 2));
    let mut again = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    assert_eq!(again.ledger.position(&source(0)).unwrap().next_offset, 10);
    again.commit_events(0, 10..30).await.unwrap();
    assert_eq!(rows(folder.path()).await, (30, 3));
}

#[tokio::test]
async fn upkeep_makes_a_checkpoint_when_it_is_due_and_the_writer_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    let upkeep = Upkeep { checkpoint_every: 5, clean_log: true };
    for n in 0..12 {
        writer.commit_events(0, n * 10..n * 10 + 10).await.unwrap();
        let done = run_once(&writer.table, &upkeep).await.unwrap();
        // Versions 0 and 1 make the table and its genesis.
        let version = n as u64 + 2;
        let due = [4, 9].contains(&version).then_some(version);
        assert_eq!((done.version, done.checkpoint, done.cleaned), (version, due, 0));
    }
    let again = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    assert_eq!(again.ledger.position(&source(0)), writer.ledger.position(&source(0)));
    assert_eq!(rows(folder.path()).await.0, 120);
}

#[tokio::test]
async fn entries_older_than_the_retention_go_with_a_checkpoint_unless_they_are_to_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    for n in 0..5 {
        writer.commit_events(0, n * 10..n * 10 + 10).await.unwrap();
    }
    let checkpoint = |clean_log| Upkeep { checkpoint_every: 1, clean_log };
    let done = run_once(&writer.table, &checkpoint(true)).await.unwrap();
    assert_eq!((done.checkpoint, done.cleaned), (Some(6), 0), "nothing is old yet");
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(40 * 24 * 3600);
    for version in 0..=6 {
        std::fs::File::options()
            .append(true)
            .open(log_entry(folder.path(), version))
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    writer.commit_events(0, 50..60).await.unwrap();
    let left = || (0..=8).filter(|version| log_entry(folder.path(), *version).exists()).collect::<Vec<u64>>();
    let done = run_once(&writer.table, &checkpoint(false)).await.unwrap();
    assert_eq!((done.checkpoint, done.cleaned), (Some(7), 0));
    assert_eq!(left(), [0, 1, 2, 3, 4, 5, 6, 7]);

    writer.commit_events(0, 60..70).await.unwrap();
    let done = run_once(&writer.table, &checkpoint(true)).await.unwrap();
    assert_eq!((done.checkpoint, done.cleaned), (Some(8), 6));
    assert_eq!(left(), [6, 7, 8], "what the oldest checkpoint within the retention does not need");
    // The writer that was there and one that comes find all that was committed.
    writer.commit_events(0, 70..80).await.unwrap();
    let mut again = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    again.commit_events(0, 80..90).await.unwrap();
    assert_eq!(rows(folder.path()).await.0, 90);
}

#[tokio::test]
async fn rows_removed_by_hand_stop_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    writer.commit_events(0, 0..10).await.unwrap();
    let url = deltalake::ensure_table_uri(folder.path().join("bronze/user_events").to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    table.delete().with_predicate("user_id = 3").await.unwrap();
    let error = writer.commit_events(0, 10..20).await.unwrap_err();
    assert!(error.is_loud_stop() && error.to_string().contains("removed rows"), "{error}");

    // Who comes later, after a compaction too, must not pass it over, until somebody has accepted it.
    let url = deltalake::ensure_table_uri(folder.path().join("bronze/user_events").to_str().unwrap()).unwrap();
    deltalake::open_table(url).await.unwrap().optimize().await.unwrap();
    let error = Writer::open(folder.path(), &pipeline(), &[0]).await.err().unwrap();
    assert!(error.is_loud_stop() && error.to_string().contains("accept-settings user_events"), "{error}");
    let lakehouse = folder.path().to_str().unwrap();
    let accepted = boathouse::bronze::Table::accept_settings(lakehouse, &pipeline(), None).await.unwrap();
    let mut again = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    assert_eq!(again.table.epoch(), accepted.epoch());
    again.commit_events(0, 10..20).await.unwrap();
    assert_eq!(rows(folder.path()).await.0, 19);
}

#[tokio::test]
async fn compaction_does_not_stop_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), &pipeline(), &[0]).await.unwrap();
    for n in 0..3 {
        writer.commit_events(0, n * 10..n * 10 + 10).await.unwrap();
    }
    let url = deltalake::ensure_table_uri(folder.path().join("bronze/user_events").to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    table.optimize().await.unwrap();
    let committed = writer.commit_events(0, 30..40).await.unwrap();
    assert_eq!(committed.attempts, 2);
    assert_eq!(rows(folder.path()).await.0, 40);
}

#[tokio::test]
async fn a_table_of_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = deltalake::ensure_table_uri(folder.path().join("bronze/user_events").to_str().unwrap()).unwrap();
    let column = deltalake::kernel::StructField::new("a", deltalake::kernel::DataType::LONG, true);
    deltalake::DeltaTable::try_from_url(url).await.unwrap().create().with_columns([column]).await.unwrap();
    let error = Writer::open(folder.path(), &pipeline(), &[0]).await.err().unwrap();
    assert!(error.is_loud_stop() && error.to_string().contains("did not make"), "{error}");
}
