//! Old dates leave a layer, and the layers made from it stay what they are.

use std::time::Duration;

use boathouse::batch::silver::{backfill_silver, gaps_of_silver};
use boathouse::batch::upkeep::apply_retention;
use boathouse::batch::verify::{Scope, Unwatched, Verdict, verify_refused, verify_silver};
use boathouse::batch::{Layer, TaskContext, run_gold};
use boathouse::config;
use boathouse::config::AllowedValue;
use boathouse::serving::Client;

use super::world::{World, record};
use crate::gold::lakehouse::{Lakehouse, seed};

/// Applies the pipeline's retention at a moment; what it says.
async fn apply(world: &World, now: &str) -> String {
    // No model is served: nobody is asked.
    let nobody = Client::new(&config::ClickHouse::default()).unwrap();
    let context = TaskContext::detached();
    apply_retention(&world.lake, &world.pipeline, &nobody, now.parse().unwrap(), &context).await.unwrap().summary
}

fn days(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n * 24 * 3600))
}

#[tokio::test]
async fn old_dates_leave_bronze_and_silver_keeps_what_was_made_of_them() {
    let mut world = World::new().await;
    world.pipeline.retention.bronze = days(3);
    world.fill(1, 800).await;
    // Silver has not read them: they stay, however old.
    assert_eq!(apply(&world, "2026-02-20T00:00:00Z").await, "0 files with 0 rows left for their age");
    world.run().await;
    world.days_pass(5);
    world.fill(2, 200).await;
    let before = world.rows("silver").await;
    let now = "2026-02-12T06:00:00Z";
    assert!(apply(&world, now).await.ends_with("with 800 rows left for their age"));
    assert_eq!(world.rows("bronze").await, 200);
    assert_eq!(apply(&world, now).await, "0 files with 0 rows left for their age", "once");
    // Silver takes what is new, and nothing for removed.
    let outcome = world.run().await;
    assert!(outcome.rows_in == 200 && outcome.reason.contains("only what entered"), "{outcome:?}");
    let held = world.rows("silver").await;
    assert_eq!(held, before + outcome.kept);
    // The stream goes on, after a restart, too.
    world.fill(3, 50).await;
    world.reopen().await.expect("no removed rows are reported");
    world.fill(4, 50).await;
    assert_eq!(world.run().await.rows_in, 100);

    // Made from scratch, silver keeps what Bronze can no longer give.
    let held = (world.rows("silver").await, world.rows("refused").await);
    if let Some(allowed) = &mut world.pipeline.fields[5].allowed {
        allowed.push(AllowedValue::Text("radio".into()));
    }
    let outcome = world.run().await;
    assert!(outcome.reason.contains("which Bronze no longer has whole, stay"), "{}", outcome.reason);
    assert_eq!((world.rows("silver").await, world.rows("refused").await), held);
    assert_eq!(gaps_of_silver(&world.lake, &world.pipeline, &[]).await.unwrap().hours, []);
    let day = "2026-02-06".parse().unwrap();
    let context = TaskContext::detached();
    let error = backfill_silver(&world.lake, &world.pipeline, &[], day, day, &context).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("retention.bronze has passed it"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silver_that_is_lost_begins_where_bronze_is_whole_and_gold_keeps_what_it_has() {
    let mut world = World::new().await;
    world.pipeline.retention.bronze = days(3);
    world.pipeline.models = seed().models.clone();
    let lakehouse = Lakehouse::at(&world.folder.path().to_string_lossy());
    let run = async |world: &World| {
        let outcome = world.run().await;
        run_gold(&world.lake, &world.pipeline, &TaskContext::detached()).await.unwrap_or_else(|e| panic!("{e}"));
        (outcome, lakehouse.gold("daily_active_users").await, lakehouse.gold("dim_users").await)
    };
    world.fill(1, 600).await;
    run(&world).await;
    world.days_pass(5);
    let mut later: Vec<_> =
        (0..50).map(|n| record(5 * 86_400 + n, &format!("later-{n}"), "click", "/later", "web")).collect();
    // What comes late for the date that is about to leave: an event, and one that is refused.
    later.extend([record(90, "late-1", "click", "/late", "web"), record(91, "late-2", "dance", "/late", "web")]);
    world.commit(0, &later).await;
    let (_, days_before, users_before) = run(&world).await;
    assert_eq!(days_before.len(), 2, "{days_before:?}");
    assert!(apply(&world, "2026-02-12T06:00:00Z").await.ends_with("with 600 rows left for their age"));

    world.delete_silver();
    let (outcome, days_after, users_after) = run(&world).await;
    assert!(outcome.reason.contains("it begins with 2026-02-10"), "{}", outcome.reason);
    assert_eq!((outcome.kept, world.rows("silver").await), (50, 50));
    assert_eq!(days_after, days_before, "what Bronze can no longer give is not taken from gold");
    assert_eq!(users_after, users_before);
    assert_eq!(gaps_of_silver(&world.lake, &world.pipeline, &[]).await.unwrap().hours, []);
    let silver = verify_silver(&world.lake, &world.pipeline, &Scope::default(), &Unwatched).await.unwrap();
    assert_eq!(silver.table.verdict, Verdict::Same, "{silver:#?}");
    let refused = verify_refused(&world.lake, &world.pipeline, &Unwatched).await.unwrap();
    assert_eq!(refused.verdict, Verdict::Same, "{refused:#?}");
    // One more run, and a late event of a date that silver does not have.
    world.commit(1, &[record(60, "late", "click", "/late", "web")]).await;
    let (outcome, days_after, _) = run(&world).await;
    assert_eq!((outcome.rows_in, days_after), (0, days_before));
}

#[tokio::test]
async fn rows_older_than_silver_is_kept_are_left_alone_when_they_come() {
    let mut world = World::new().await;
    world.pipeline.retention.silver = days(3);
    world.fill(1, 600).await;
    world.run().await;
    let now = "2026-02-12T06:00:00Z";
    assert!(!apply(&world, now).await.starts_with("0 files"));
    assert_eq!((world.rows("silver").await, world.rows("refused").await), (0, 0));
    assert_eq!(world.rows("bronze").await, 600);
    // Their events are of the dates that have gone: only what is no event is told.
    world.fill(2, 300).await;
    let outcome = world.run().await;
    assert!(outcome.rows_in < 300 && outcome.kept == 0 && outcome.rows_in == outcome.refused, "{outcome:?}");
    assert_eq!(world.rows("silver").await, 0);
    assert_eq!(gaps_of_silver(&world.lake, &world.pipeline, &[]).await.unwrap().hours, []);
    // The next version of the table still knows.
    let found = boathouse::batch::upkeep::summary(&world.lake, Layer::Silver, "user_events").await.unwrap();
    assert_eq!(found.map(|f| f.files), Some(0));
    assert_eq!(apply(&world, now).await.split(' ').next(), Some("1"), "refused rows of an old ingestion date");
}
