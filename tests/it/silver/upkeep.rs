//! Gaps, backfills, merging and vacuum.

use boathouse::batch::silver::{backfill_silver, gaps_of_silver, run_silver};
use boathouse::batch::upkeep::{history, optimize, summary, vacuum};
use boathouse::batch::{Layer, TaskContext};
use chrono::NaiveDate;

use super::world::World;
use crate::bronze::event;

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
    let context = TaskContext::detached();
    let (from, to) = (date("2026-02-06"), date("2026-02-07"));
    let (done, _) = backfill_silver(&world.lake, &world.pipeline, &[], from, to, &context).await.unwrap();
    assert_eq!(done.dates, [from, to]);
    assert_eq!(done.rows_after - done.rows_before, missing);
    assert_eq!(world.all_rows("silver").await, rows);
    let outcome = world.run().await;
    assert_eq!((outcome.rows_in, outcome.kept + outcome.refused + outcome.duplicates), (100, 100));
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
async fn a_backfill_before_the_first_run_says_what_to_do() {
    let mut world = World::new().await;
    world.commit(0, &[event(0)]).await;
    let context = TaskContext::detached();
    let day = date("2026-02-06");
    let error = backfill_silver(&world.lake, &world.pipeline, &[], day, day, &context).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("boathouse batch run"), "{error}");
}

#[tokio::test]
async fn small_files_of_closed_dates_are_merged_and_nothing_else_changes() {
    let mut world = World::new().await;
    world.fill(1, 1000).await;
    world.run().await;
    let day = date("2026-02-06");
    // The day of the records is not over: nothing may be merged.
    let merged = optimize(&world.lake, Layer::Bronze, "user_events", day).await.unwrap();
    assert_eq!(merged.files_before, 0);
    let before = summary(&world.lake, Layer::Bronze, "user_events").await.unwrap().unwrap();
    let merged = optimize(&world.lake, Layer::Bronze, "user_events", date("2026-02-07")).await.unwrap();
    assert_eq!((merged.files_before, merged.files_after), (before.files as u64, 1));
    let after = summary(&world.lake, Layer::Bronze, "user_events").await.unwrap().unwrap();
    assert_eq!((after.files, after.rows), (1, before.rows));
    // Ingestion goes on, and silver with it.
    world.fill(2, 200).await;
    assert_eq!(world.run().await.rows_in, 200);
    world.assert_recounted().await;
    let commits = history(&world.lake, Layer::Silver, "user_events", 10).await.unwrap();
    assert_eq!(commits.len(), 2);
    assert!(commits[0].version == 1 && commits[0].files_removed > 0 && commits[1].files_removed == 0, "{commits:?}");
    // What has just left the table stays for its readers.
    let files = vacuum(&world.lake, Layer::Bronze, "user_events", false).await.unwrap();
    assert_eq!(files, Vec::<String>::new());
    world.assert_recounted().await;
}
