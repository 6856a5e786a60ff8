//! Gaps, backfills, merging and vacuum.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use boathouse::batch::silver::{backfill_silver, backfill_silver_of, gaps_of_silver, run_silver};
use boathouse::batch::upkeep::tasks::clean_logs;
use boathouse::batch::upkeep::{Clock, Merged, Merging, TableSummary, Unneeded, history, merge, summary, vacuum};
use boathouse::batch::{Layer, TaskContext};
use boathouse::bronze::{Lookup, Wanted};
use chrono::{DateTime, NaiveDate};
use datafusion::prelude::SessionContext;

use super::world::World;
use crate::bronze::{NOW, event};

fn date(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

#[tokio::test]
async fn gaps_are_found_and_a_backfill_closes_them() {
    let mut world = World::new().await;
    world.fill(1, 2000).await;
    world.run().await;
    let rows = world.all_rows("silver").await;
    let gaps = gaps_of_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    assert_eq!(gaps.hours, []);
    let total: u64 = gaps.by_date.values().sum();
    assert_eq!(total, world.rows("silver").await);

    // Somebody deletes rows by hand.
    let url = deltalake::ensure_table_uri(world.table("silver").to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    let (_, deleted) = table.delete().with_predicate("user_id = 7").await.unwrap();
    let deleted = deleted.num_deleted_rows.unwrap() as u64;
    assert!(deleted > 0);
    let gaps = gaps_of_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    let missing: u64 = gaps.hours.iter().map(|h| h.expected - h.there).sum();
    assert_eq!(missing, deleted);

    // What comes in meanwhile is the next run's.
    world.fill(2, 100).await;
    let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
    let context = TaskContext::new(lines, tokio::sync::watch::channel(false).1);
    let (from, to) = (date("2026-02-06"), date("2026-02-07"));
    let (done, _) = backfill_silver(&world.lake, &world.pipeline, &[], from, to, &context).await.unwrap();
    assert_eq!(done.dates, [from, to]);
    let first = told.recv().await.unwrap().text;
    assert!(first.contains("1 of 2 dates, about ") && first.ends_with(" s left)"), "{first}");
    assert_eq!(done.rows_after - done.rows_before, missing);
    assert_eq!(world.all_rows("silver").await, rows);
    let outcome = world.run().await;
    assert_eq!((outcome.rows_in, outcome.kept + outcome.refused + outcome.duplicates), (100, 100));
    world.assert_recounted().await;
}

#[tokio::test]
async fn a_backfill_makes_the_refused_rows_of_its_dates_again() {
    let mut world = World::new().await;
    world.fill(1, 800).await;
    world.days_pass(1);
    world.fill(2, 400).await;
    world.run().await;
    let rows = world.all_rows("refused").await;

    // Somebody changes rows by hand: some go, some get another reason.
    let url = deltalake::ensure_table_uri(world.table("refused").to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    let (table, _) = table.delete().with_predicate("\"offset\" % 2 = 0").await.unwrap();
    let (_, changed) =
        table.update().with_predicate("true").with_update("reasons", "make_array('lost')").await.unwrap();
    assert!(changed.num_updated_rows > 20, "{changed:?}");
    // What comes in meanwhile is the next run's.
    world.fill(3, 100).await;
    let backfill = async |day: &str| {
        let context = TaskContext::detached();
        backfill_silver(&world.lake, &world.pipeline, &[], date(day), date(day), &context).await.unwrap().0
    };
    // Each date for itself: the day on which they were taken from Kafka.
    let first = backfill("2026-02-06").await;
    assert!(first.refused_before > 0 && first.refused_after > first.refused_before, "{first:?}");
    assert_ne!(world.all_rows("refused").await, rows);
    backfill("2026-02-07").await;
    assert_eq!(world.all_rows("refused").await, rows);
    assert_eq!(world.run().await.rows_in, 100);
    world.assert_recounted().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_and_a_run_at_once_leave_both_done() {
    let mut world = World::new().await;
    world.fill(1, 800).await;
    world.run().await;
    world.fill(2, 400).await;
    let (lake, pipeline) = (world.lake.clone(), world.pipeline.clone());
    let run = tokio::spawn(async move { run_silver(&lake, &pipeline, &TaskContext::detached()).await });
    let (lake, pipeline) = (world.lake.clone(), world.pipeline.clone());
    let backfill = tokio::spawn(async move {
        let (from, to) = (date("2026-02-06"), date("2026-02-07"));
        backfill_silver(&lake, &pipeline, &[], from, to, &TaskContext::detached()).await
    });
    run.await.unwrap().unwrap();
    backfill.await.unwrap().unwrap();
    world.assert_recounted().await;
}

#[tokio::test]
async fn a_backfill_that_was_cut_off_goes_on_where_it_stopped() {
    let mut world = World::new().await;
    world.fill(1, 2000).await;
    world.run().await;
    let rows = world.all_rows("silver").await;
    let (first, last) = (date("2026-02-06"), date("2026-02-07"));
    let run = async |run_id: &str, to: NaiveDate| {
        let context = TaskContext::detached();
        backfill_silver_of(&world.lake, &world.pipeline, run_id, (first, to), &context).await.unwrap();
        held(&world, Layer::Silver, "user_events").await.version
    };
    // As if the process had ended after the first date: silver knows how far the run has come.
    assert_eq!(run("one", first).await, 1);
    assert_eq!(run("one", last).await, 2, "the second date alone");
    assert_eq!(run("one", last).await, 2, "it is done");
    assert_eq!(run("another", last).await, 4, "both dates");
    assert_eq!(world.all_rows("silver").await, rows);
    assert_eq!(world.run().await.rows_in, 0);
}

#[tokio::test]
async fn a_backfill_before_the_first_run_says_what_to_do() {
    let mut world = World::new().await;
    world.commit(0, &[event(0)]).await;
    let context = TaskContext::detached();
    let day = date("2026-02-06");
    let error = backfill_silver(&world.lake, &world.pipeline, &[], day, day, &context).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("boathouse batch run"), "{error}");
}

/// Merges what is small at a moment.
async fn merged(world: &World, layer: Layer, name: &str, now: &str) -> Merged {
    let merging = Merging { target: 128 << 20, now: now.parse().unwrap(), time: Duration::from_secs(60) };
    merge(&world.lake, layer, name, Some(&world.pipeline), merging, &TaskContext::detached()).await.unwrap()
}

async fn held(world: &World, layer: Layer, name: &str) -> TableSummary {
    summary(&world.lake, layer, name).await.unwrap().unwrap()
}

async fn unneeded(world: &World, layer: Layer, name: &str, keep: Duration, dry_run: bool) -> Vec<Unneeded> {
    vacuum(&world.lake, layer, name, keep, dry_run, &TaskContext::detached()).await.unwrap()
}

/// Seven days, as `upkeep.vacuum_after` has it.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

#[tokio::test]
async fn small_files_of_closed_hours_are_merged_and_nothing_else_changes() {
    let mut world = World::new().await;
    world.fill(1, 1000).await;
    world.run().await;
    // The hour of the records is not over: nothing may be merged.
    let taken = DateTime::from_timestamp_micros(NOW).unwrap();
    let done = merged(&world, Layer::Bronze, "user_events", &taken.to_rfc3339()).await;
    assert_eq!(done, Merged::default());
    let before = held(&world, Layer::Bronze, "user_events").await;
    let rows = world.all_rows("bronze").await;
    let done = merged(&world, Layer::Bronze, "user_events", "2026-02-08T00:30:00Z").await;
    assert_eq!((done.files_before, done.files_after, done.left), (before.files as u64, 1, None));
    let after = held(&world, Layer::Bronze, "user_events").await;
    assert_eq!((after.files, after.rows), (1, before.rows));
    assert_eq!(world.all_rows("bronze").await, rows, "rows move and do not change");
    one_event_is_found_by_the_filter_of_its_id(&world).await;
    // Ingestion goes on, and silver with it, which takes nothing of the merge for new.
    assert_eq!(world.run().await.rows_in, 0);
    world.fill(2, 200).await;
    // Merged before silver has read them: the rows are the new ones of the files that they came in.
    merged(&world, Layer::Bronze, "user_events", "2026-02-08T00:30:00Z").await;
    assert_eq!(world.run().await.rows_in, 200);
    world.assert_recounted().await;
    let commits = history(&world.lake, Layer::Silver, "user_events", 10).await.unwrap();
    let last = &commits[0];
    assert!(last.operation == "WRITE" && last.files_removed > 0, "{commits:?}");
    // What has just left the table stays for its readers.
    assert_eq!(unneeded(&world, Layer::Bronze, "user_events", WEEK, false).await, []);
    world.assert_recounted().await;
}

/// Bronze is one merged file, in which events are found by their ids, copies and all.
async fn one_event_is_found_by_the_filter_of_its_id(world: &World) {
    let mut files = Vec::new();
    for date in std::fs::read_dir(world.table("bronze")).unwrap().flatten().filter(|f| f.path().is_dir()) {
        files.extend(std::fs::read_dir(date.path()).unwrap().flatten().map(|f| f.path()));
    }
    let merged = files.iter().find(|f| f.to_string_lossy().contains("merged-")).unwrap_or_else(|| panic!("{files:?}"));
    let reader = parquet::file::reader::SerializedFileReader::new(std::fs::File::open(merged).unwrap()).unwrap();
    let group = parquet::file::reader::FileReader::metadata(&reader).row_group(0).clone();
    let ids = group.columns().iter().find(|c| c.column_path().string() == "event_id").unwrap();
    assert!(ids.bloom_filter_length().is_some_and(|length| length < 64 << 10), "{:?}", ids.bloom_filter_length());
    let uri = world.folder.path().to_str().unwrap();
    let bronze = Lookup::open(uri, &world.pipeline).await.unwrap().unwrap();
    let copies = async |id: &str| bronze.find(None, &Wanted::EventId(id.into())).await.unwrap().len();
    let counted =
        world.query("select event_id || '=' || count(*) from bronze where event_id <> '' group by event_id").await;
    let counted: Vec<(&str, usize)> = counted
        .lines()
        .filter_map(|line| line.trim_matches(['|', ' ']).split_once('='))
        .filter_map(|(id, n)| Some((id, n.parse().ok()?)))
        .collect();
    assert!(counted.iter().any(|(_, n)| *n > 1), "{counted:?}");
    let many = counted.iter().filter(|(_, n)| *n > 1).take(10);
    for (id, n) in counted.iter().take(10).chain(many) {
        assert_eq!(copies(id).await, *n, "{id}");
    }
    assert_eq!(copies("nobody").await, 0);
}

#[tokio::test]
async fn refused_rows_and_silver_are_merged_and_recounted() {
    let mut world = World::new().await;
    for seed in 1..5 {
        world.fill(seed, 300).await;
        world.run().await;
    }
    let rows = (world.all_rows("silver").await, world.all_rows("refused").await);
    let before = held(&world, Layer::Silver, "user_events_refused").await;
    assert!(before.files > 1, "{before:?}");
    let done = merged(&world, Layer::Silver, "user_events_refused", "2026-02-08T00:30:00Z").await;
    assert_eq!((done.files_before, done.files_after), (before.files as u64, 1));
    // An hour of silver is one file, as a run writes it.
    assert_eq!(merged(&world, Layer::Silver, "user_events", "2026-02-08T00:30:00Z").await, Merged::default());
    assert_eq!((world.all_rows("silver").await, world.all_rows("refused").await), rows);
    world.fill(9, 100).await;
    assert_eq!(world.run().await.rows_in, 100);
    world.assert_recounted().await;
}

#[tokio::test]
async fn vacuum_keeps_what_a_reader_a_commit_or_the_table_needs() {
    let mut world = World::new().await;
    world.fill(1, 600).await;
    world.run().await;
    let url = deltalake::ensure_table_uri(world.table("bronze").to_str().unwrap()).unwrap();
    // A reader that has the table open at the version before the merge.
    let reader = deltalake::open_table(url).await.unwrap();
    let context = SessionContext::new();
    context.register_table("bronze", reader.table_provider().await.unwrap()).unwrap();
    let sum = async || {
        let found = context.sql("select sum(\"offset\") from bronze").await?.collect().await?;
        Ok::<_, datafusion::common::DataFusionError>(found[0].column(0).as_primitive::<Int64Type>().value(0))
    };
    let before = sum().await.unwrap();
    let done = merged(&world, Layer::Bronze, "user_events", "2026-02-08T00:30:00Z").await;
    // A file whose commit has not come yet, and one whose commit never came, eight days ago; and one that is no data.
    let table = world.table("bronze");
    let part =
        std::fs::read_dir(&table).unwrap().flatten().find(|e| e.file_name().to_string_lossy().contains('=')).unwrap();
    let (fresh, stale) = (part.path().join("partition-fresh.parquet"), part.path().join("partition-stale.parquet"));
    let aside = table.join("_damaged_log");
    std::fs::create_dir(&aside).unwrap();
    for file in [&fresh, &stale, &aside.join("x.parquet")] {
        std::fs::write(file, b"x").unwrap();
    }
    let days = |n: u64| std::time::SystemTime::now() - Duration::from_secs(n * 24 * 3600);
    for file in [&stale, &aside.join("x.parquet")] {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(days(8)).unwrap();
    }
    let named =
        |files: &[Unneeded]| files.iter().map(|f| f.path.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>();
    // All data files look old; those that have left the table today are needed still.
    for entry in std::fs::read_dir(part.path()).unwrap().flatten() {
        if entry.path() != fresh {
            std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(days(9)).unwrap();
        }
    }
    let dry = unneeded(&world, Layer::Bronze, "user_events", WEEK, true).await;
    assert_eq!(named(&dry), ["partition-stale.parquet"]);
    assert!(stale.exists(), "a dry run deletes nothing");
    assert_eq!(unneeded(&world, Layer::Bronze, "user_events", WEEK, false).await, dry);
    assert!(!stale.exists() && fresh.exists() && aside.join("x.parquet").exists());
    assert_eq!(sum().await.unwrap(), before, "the reader still has its files");
    // Once nobody needs them, they go: the merged ones, and no other.
    let gone = unneeded(&world, Layer::Bronze, "user_events", Duration::ZERO, false).await;
    assert_eq!(gone.len() as u64, done.files_before + 1, "{gone:?}");
    assert!(sum().await.is_err(), "that reader is too late");
    world.assert_recounted().await;
    world.fill(2, 100).await;
    assert_eq!(world.run().await.rows_in, 100);
    world.assert_recounted().await;
}

#[tokio::test]
async fn vacuum_knows_when_a_file_has_left_behind_a_checkpoint_too() {
    let mut world = World::new().await;
    world.pipeline.bronze.checkpoint_commits = 1;
    world.fill(1, 600).await;
    let done = merged(&world, Layer::Bronze, "user_events", "2026-02-08T00:30:00Z").await;
    assert!(done.files_before > 1, "{done:?}");
    // As it is ten days later: the files are old, left the table ten days ago, and a checkpoint no longer tells of them.
    let ago = |days: u64| std::time::SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    let set = |path: &std::path::Path, days| {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(ago(days)).unwrap();
    };
    let then = chrono::Utc::now().timestamp_millis() - 10 * 24 * 3_600_000;
    for entry in std::fs::read_dir(world.table("bronze")).unwrap().flatten() {
        for file in std::fs::read_dir(entry.path()).unwrap().flatten().map(|f| f.path()) {
            if file.extension().is_some_and(|e| e == "json") {
                let text = std::fs::read_to_string(&file).unwrap();
                let lines = text.lines().map(|line| {
                    let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
                    if line["remove"]["deletionTimestamp"].is_i64() {
                        line["remove"]["deletionTimestamp"] = then.into();
                    }
                    format!("{line}\n")
                });
                std::fs::write(&file, lines.collect::<String>()).unwrap();
                set(&file, 10);
            } else {
                set(&file, 60);
            }
        }
    }
    let context = TaskContext::detached();
    let fresh = world.lake_with(64 << 20);
    clean_logs(&fresh, &world.pipeline, &Clock::now(), &context).await.unwrap();
    let fresh = world.lake_with(64 << 20);
    let unneeded = async |days: u64| {
        let keep = Duration::from_secs(days * 24 * 3600);
        vacuum(&fresh, Layer::Bronze, "user_events", keep, true, &context).await.unwrap().len() as u64
    };
    assert_eq!(unneeded(7).await, done.files_before, "a week's readers are done");
    assert_eq!(unneeded(20).await, 0, "who reads for longer was promised that the files stay");
}

#[tokio::test]
async fn a_merge_yields_to_whoever_has_changed_its_files() {
    let mut world = World::new().await;
    world.fill(1, 400).await;
    world.run().await;
    let before = held(&world, Layer::Bronze, "user_events").await;
    // Both plan from the same version; the second finds its files gone, and leaves the table as it is.
    let (one, other) = tokio::join!(
        merged(&world, Layer::Bronze, "user_events", "2026-02-08T00:30:00Z"),
        merged(&world, Layer::Bronze, "user_events", "2026-02-08T00:30:00Z"),
    );
    assert_eq!(one.files_before + other.files_before, before.files as u64, "{one:?} {other:?}");
    let after = held(&world, Layer::Bronze, "user_events").await;
    assert_eq!((after.files, after.rows), (1, before.rows));
    world.fill(2, 100).await;
    assert_eq!(world.run().await.rows_in, 100);
    world.assert_recounted().await;
}
