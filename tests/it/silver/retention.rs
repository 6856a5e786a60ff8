//! Old dates leave a layer, and the layers made from it stay what they are.

use std::time::Duration;

use boathouse::batch::silver::{backfill_silver, gaps_of_silver};
use boathouse::batch::upkeep::apply_retention;
use boathouse::batch::{Layer, TaskContext};
use boathouse::config;
use boathouse::config::AllowedValue;
use boathouse::serving::Client;

use super::world::World;

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
