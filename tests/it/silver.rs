//! Silver as its callers use it: a Bronze table of the real writer, runs, and a plain recount in SQL.

mod cut_off;
mod recovery;
mod retention;
mod upkeep;
pub mod world;

use std::collections::BTreeMap;

use boathouse::batch::plan::Course;
use boathouse::batch::silver::{Quarantine, plan_silver, run_silver_with};

use self::world::{World, hour_of, record};
use crate::bronze::{Record, event};

#[tokio::test]
async fn silver_is_what_a_plain_recount_gives() {
    let mut world = World::new().await;
    world.fill(1, 3000).await;
    let outcome = world.run().await;
    assert_eq!(outcome.rows_in, 3000);
    assert_eq!(outcome.kept, world.rows("silver").await);
    assert_eq!(outcome.rows_in, outcome.kept + outcome.refused + outcome.duplicates);
    for reason in ["unparsed", "future", "invalid:event_type", "invalid:page", "invalid:event_id", "invalid:source"] {
        assert!(outcome.refused_by_reason.contains_key(reason), "no {reason} in {:?}", outcome.refused_by_reason);
    }
    assert!(outcome.duplicates > 20, "{} duplicates", outcome.duplicates);
    world.assert_recounted().await;
}

#[tokio::test]
async fn refused_rows_are_kept_once_with_their_reasons() {
    let mut world = World::new().await;
    let bad = Record { value: Some(b"no event".to_vec()), ..event(0) };
    let wrong = record(5, "e5", "dance", "", "web");
    world.commit(0, &[event(0), bad, wrong, event(3)]).await;
    let outcome = world.run().await;
    assert_eq!((outcome.rows_in, outcome.kept, outcome.refused, outcome.duplicates), (4, 2, 2, 0));
    let rows = world
        .query("select \"offset\", array_to_string(reasons, ' ') r, payload is null p, page, parse_error from refused order by 1")
        .await;
    let rows = rows.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    assert!(rows.contains("1      | unparsed"), "{rows}");
    assert!(rows.contains("2      | invalid:event_type invalid:page"), "{rows}");
    // Nothing new: nothing is read or written.
    let again = world.run().await;
    assert_eq!((again.rows_in, again.silver_version), (0, outcome.silver_version));
    assert_eq!(world.rows("refused").await, 2);
}

#[tokio::test]
async fn the_copy_with_the_least_place_stays_whatever_came_first() {
    let mut world = World::new().await;
    let copy = |timestamp| Record { timestamp, ..event(0) };
    let first = event(0).timestamp;
    world.commit(1, &[copy(first + 9), copy(-1)]).await;
    world.run().await;
    assert_eq!(world.query("select partition, \"offset\" from silver").await, world.grid(1, 0));
    // A copy that was sent earlier arrives later.
    world.commit(0, &[copy(first)]).await;
    let outcome = world.run().await;
    assert_eq!((outcome.rows_in, outcome.kept, outcome.duplicates), (1, 0, 1));
    assert_eq!(world.query("select partition, \"offset\" from silver").await, world.grid(0, 0));
    // One that was sent later changes nothing, not even a file.
    world.commit(0, &[copy(first + 1)]).await;
    let files = world.silver_files();
    let outcome = world.run().await;
    assert_eq!((outcome.rows_in, outcome.kept, outcome.duplicates, outcome.dates.len()), (1, 0, 1, 0));
    assert_eq!(world.silver_files(), files);
    // The same id in another hour is no retry.
    let other_hour = record(3600, "e00000000", "click", "/page/1", "web");
    world.commit(0, &[other_hour]).await;
    let outcome = world.run().await;
    assert_eq!((outcome.kept, outcome.duplicates), (1, 0));
    world.assert_recounted().await;
}

#[tokio::test]
async fn a_late_record_makes_its_hour_stale_and_no_other() {
    let mut world = World::new().await;
    let hours: Vec<Record> = (0..6).flat_map(|h| (0..10).map(move |n| event(h * 3600 + n))).collect();
    world.commit(0, &hours).await;
    world.run().await;
    let before = world.silver_files();
    assert_eq!(before.len(), 6);
    // Its event time is hours behind the watermark.
    let late =
        Record { timestamp: event(6 * 3600).timestamp, ..record(2 * 3600 + 30, "late", "click", "/page/1", "web") };
    world.commit(0, &[late]).await;
    let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
    assert!(matches!(plan.silver.course, Course::Incremental { .. }), "{}", plan.silver.reason);
    let hours: Vec<_> = plan.hours.iter().map(|h| (h.hour.as_str(), h.rows_new, h.rows_held)).collect();
    let stale = hour_of(2 * 3600);
    assert_eq!(hours, [(stale.as_str(), 1, 10)]);
    let outcome = world.run().await;
    assert_eq!((outcome.rows_in, outcome.kept, outcome.dates.len()), (1, 1, 1));
    let after = world.silver_files();
    let kept: Vec<_> = after.iter().filter(|f| before.contains(f)).collect();
    assert_eq!((after.len(), kept.len()), (6, 5), "only the stale hour has a new file");
    assert!(world.query("select time_status from silver where event_id = 'late'").await.contains("late"));
    world.assert_recounted().await;
}

#[tokio::test]
async fn incremental_runs_and_one_from_scratch_give_the_same_rows() {
    for seed in 0..world::seeds(4) {
        let mut world = World::new().await;
        for step in 0..6 {
            world.fill(seed * 100 + step, 200).await;
            if (seed + step) % 3 != 0 {
                let outcome = world.run().await;
                assert_eq!(outcome.rows_in, outcome.kept + outcome.refused + outcome.duplicates);
            }
        }
        world.run().await;
        world.assert_recounted().await;
        let (silver, refused) = (world.all_rows("silver").await, world.all_rows("refused").await);
        world.delete_silver();
        let plan = plan_silver(&world.lake, &world.pipeline, &[]).await.unwrap();
        assert_eq!(plan.silver.course, Course::FromScratch);
        assert!(plan.silver.reason.contains("deleted"), "{}", plan.silver.reason);
        let outcome = world.run().await;
        assert_eq!(outcome.rows_in, 1200);
        assert_eq!(world.all_rows("silver").await, silver, "seed {seed}");
        assert_eq!(world.all_rows("refused").await, refused, "seed {seed}");
    }
}

#[tokio::test]
async fn an_hour_that_does_not_fit_is_looked_at_in_parts() {
    let mut world = World::new().await;
    world.fill(7, 3000).await;
    world.run().await;
    let rows = world.all_rows("silver").await;
    world.delete_silver();
    // A few hundred candidates at a time, a fraction of any hour.
    world.lake = world.lake_with(40_000);
    world.run().await;
    assert_eq!(world.all_rows("silver").await, rows);
}

#[tokio::test]
async fn quarantined_rows_are_refused_by_name() {
    let mut world = World::new().await;
    world.commit(0, &(0..100).map(event).collect::<Vec<_>>()).await;
    world.run().await;
    assert_eq!(world.rows("silver").await, 100);
    let quarantine = [Quarantine { name: "users_below_90".into(), holds: "user_id < 90".into() }];
    let plan = plan_silver(&world.lake, &world.pipeline, &quarantine).await.unwrap();
    assert_eq!(plan.silver.course, Course::FromScratch, "a new rule holds for all rows: {}", plan.silver.reason);
    let context = boathouse::batch::TaskContext::detached();
    let (outcome, report) = run_silver_with(&world.lake, &world.pipeline, &quarantine, &context).await.unwrap();
    assert_eq!((outcome.kept, outcome.refused), (90, 10));
    assert_eq!(outcome.refused_by_reason, BTreeMap::from([("expectation:users_below_90".to_string(), 10)]));
    assert!(report.summary.contains("expectation:users_below_90 10"), "{}", report.summary);
    assert_eq!((world.rows("silver").await, world.rows("refused").await), (90, 10));
}

#[tokio::test]
async fn nothing_happens_without_bronze() {
    let world = World::without_bronze();
    let outcome = world.run().await;
    assert_eq!((outcome.silver_version, outcome.bronze_version), (None, None));
    assert!(!world.folder.path().join("silver").exists());
}
