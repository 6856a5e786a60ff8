//! Runs that are cut off, two at once, and tables that were changed from outside.

use std::process::Command;

use boathouse::batch::plan::Course;
use boathouse::batch::silver::{plan_silver, run_silver};
use boathouse::batch::{Lake, TaskContext};
use boathouse::config::AllowedValue;
use boathouse::failpoint;

use super::world::World;
use crate::bronze::{event, pipeline};
use crate::support::without_marks;

/// Names a lakehouse: this process is then one that a test has started to be killed in it.
const CHILD: &str = "BOATHOUSE_TEST_SILVER_LAKEHOUSE";

/// A run in a process of its own, this program's; how it ended.
fn run_in_a_process(world: &World, fail_point: &str) -> Option<i32> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "silver::recovery::a_run_that_is_cut_off_anywhere_is_finished_by_the_next"])
        .env(CHILD, world.folder.path())
        .env(failpoint::VARIABLE, fail_point)
        .output()
        .unwrap();
    output.status.code()
}

#[tokio::test]
async fn a_run_that_is_cut_off_anywhere_is_finished_by_the_next() {
    if let Ok(lakehouse) = std::env::var(CHILD) {
        let lake = Lake::at(&lakehouse, 64 << 20, format!("{lakehouse}/spill").into()).unwrap();
        run_silver(&lake, &pipeline(), &TaskContext::detached()).await.unwrap();
        return;
    }
    let mut seed = 0;
    for point in ["silver.after_refused", "silver.before_commit", "silver.after_commit"] {
        let mut world = World::new().await;
        // Once where there are no tables yet, once where there are.
        for _ in 0..2 {
            seed += 1;
            world.fill(seed, 300).await;
            assert_eq!(run_in_a_process(&world, point), Some(failpoint::EXIT_CODE), "{point} is on the way");
            // More comes in before the next run.
            world.fill(seed + 100, 100).await;
            let outcome = world.run().await;
            let expected = if point == "silver.after_commit" { 100 } else { 400 };
            assert_eq!(outcome.rows_in, expected, "{point}");
            world.assert_recounted().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_at_once_land_everything_once() {
    let mut world = World::new().await;
    for seed in 0..4 {
        world.fill(seed, 400).await;
        let run = || {
            let (lake, pipeline) = (world.lake.clone(), world.pipeline.clone());
            tokio::spawn(async move { run_silver(&lake, &pipeline, &TaskContext::detached()).await })
        };
        let (one, other) = tokio::join!(run(), run());
        let (one, other) = (one.unwrap().unwrap().0, other.unwrap().unwrap().0);
        assert_eq!(one.rows_in + other.rows_in, 400, "one of the two reads them");
        world.assert_recounted().await;
    }
}

#[tokio::test]
async fn a_cleaned_up_log_widens_the_plan() {
    let mut world = World::new().await;
    world.fill(1, 300).await;
    world.run().await;
    world.fill(2, 300).await;
    world.fill(3, 300).await;
    let bronze = world.table("bronze");
    let url = deltalake::ensure_table_uri(bronze.to_str().unwrap()).unwrap();
    let table = deltalake::open_table(url).await.unwrap();
    deltalake::checkpoints::create_checkpoint(&table, None).await.unwrap();
    let newest = table.version().unwrap();
    for version in 0..newest {
        let _ = std::fs::remove_file(bronze.join(format!("_delta_log/{version:020}.json")));
    }
    let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    assert_eq!(plan.silver.course, Course::FromScratch);
    assert!(plan.silver.reason.contains("cleaned up"), "{}", plan.silver.reason);
    assert_eq!(world.run().await.rows_in, 900);
    world.assert_recounted().await;
}

#[tokio::test]
async fn a_bronze_that_was_put_back_is_seen_also_once_it_has_as_many_versions_again() {
    for further in [0, 1] {
        let mut world = World::new().await;
        world.fill(1, 300).await;
        let log = world.table("bronze").join("_delta_log");
        let newest = || {
            let entries = std::fs::read_dir(&log).unwrap().flatten().map(|entry| entry.path());
            entries.filter(|path| path.extension().is_some_and(|e| e == "json")).max().unwrap()
        };
        let restored_to = newest();
        world.commit(0, &[event(500), event(501)]).await;
        world.run().await;
        // The last commit is lost, and the writer goes on from the one before: other records, the same number.
        std::fs::remove_file(newest()).unwrap();
        assert_eq!(newest(), restored_to);
        world.reopen().await.unwrap();
        for n in 0..=further {
            world.commit(0, &[event(600 + n), event(700 + n), event(800 + n)]).await;
        }
        let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
        assert_eq!((plan.silver.course, plan.refused.course), (Course::FromScratch, Course::FromScratch));
        assert!(plan.silver.reason.contains("restored"), "{}", plan.silver.reason);
        world.run().await;
        world.assert_recounted().await;
        assert_eq!(world.run().await.rows_in, 0, "once");
    }
}

/// Tables that were made before marks of what was read were noted.
#[tokio::test]
async fn tables_without_marks_are_gone_on_with() {
    let mut world = World::new().await;
    world.fill(1, 300).await;
    world.run().await;
    assert!(without_marks(&world.folder.path().join("silver")) > 0);
    assert_eq!(world.run().await.rows_in, 0, "nothing is made anew");
    for seed in 2..4 {
        world.fill(seed, 100).await;
        assert_eq!(world.run().await.rows_in, 100, "only what is new");
        world.assert_recounted().await;
    }
}

#[tokio::test]
async fn changed_allowed_values_hold_for_all_rows() {
    let mut world = World::new().await;
    world.fill(1, 500).await;
    world.run().await;
    let kind = world.pipeline.field("event_type").unwrap();
    world.pipeline.fields[kind].allowed.as_mut().unwrap().push(AllowedValue::Text("dance".into()));
    let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    assert_eq!((plan.silver.course, plan.refused.course), (Course::FromScratch, Course::FromScratch));
    assert!(plan.silver.reason.contains("allowed values"), "{}", plan.silver.reason);
    let outcome = world.run().await;
    assert!(!outcome.refused_by_reason.contains_key("invalid:event_type"));
    let dances = world.query("select count(*) > 0 yes from silver where event_type = 'dance'").await;
    assert!(dances.contains("true"), "{dances}");
    assert_eq!(world.rows("refused").await, outcome.refused);
}

#[tokio::test]
async fn compaction_of_bronze_changes_nothing() {
    let mut world = World::new().await;
    world.fill(1, 500).await;
    world.run().await;
    world.fill(2, 500).await;
    let open = |world: &World| {
        let url = deltalake::ensure_table_uri(world.table("bronze").to_str().unwrap()).unwrap();
        async move { deltalake::open_table(url).await.unwrap() }
    };
    let (_, metrics) = open(&world).await.optimize().await.unwrap();
    assert!(metrics.num_files_removed > 2);
    // The new files are out of the table, but their rows are read from them: they are still there.
    let outcome = world.run().await;
    assert_eq!(outcome.rows_in, 500);
    world.assert_recounted().await;
    // Once they are gone the plan must widen.
    world.fill(3, 500).await;
    let (table, _) = open(&world).await.optimize().await.unwrap();
    let in_table: Vec<String> = table.get_file_uris().unwrap().collect();
    for date in std::fs::read_dir(world.table("bronze")).unwrap().flatten() {
        if !date.file_name().to_string_lossy().starts_with("ingestion_date") {
            continue;
        }
        for file in std::fs::read_dir(date.path()).unwrap().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if !in_table.iter().any(|uri| uri.ends_with(&name)) {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
    }
    let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    assert_eq!(plan.silver.course, Course::FromScratch);
    assert!(plan.silver.reason.contains("vacuumed"), "{}", plan.silver.reason);
    assert_eq!(world.run().await.rows_in, 1500);
    world.assert_recounted().await;
}

#[tokio::test]
async fn another_bronze_or_an_older_one_is_noticed() {
    let mut world = World::new().await;
    world.fill(1, 300).await;
    world.run().await;
    let newest = std::fs::read_dir(world.table("bronze").join("_delta_log"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .max()
        .unwrap();
    std::fs::remove_file(newest).unwrap();
    let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    assert_eq!(plan.silver.course, Course::FromScratch);
    assert!(plan.silver.reason.contains("lost"), "{}", plan.silver.reason);
    world.run().await;
    world.assert_recounted().await;

    std::fs::remove_dir_all(world.folder.path().join("bronze")).unwrap();
    let mut anew = World::new().await;
    anew.commit(0, &(0..50).map(event).collect::<Vec<_>>()).await;
    std::fs::create_dir(world.folder.path().join("bronze")).unwrap();
    std::fs::rename(anew.table("bronze"), world.table("bronze")).unwrap();
    let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    assert!(plan.silver.reason.contains("another Bronze"), "{}", plan.silver.reason);
    let outcome = world.run().await;
    assert_eq!((outcome.rows_in, world.rows("silver").await), (50, 50));
    world.assert_recounted().await;
}
