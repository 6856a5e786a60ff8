//! A backfill, a merge and retention that are cut off at their commits: the next one does what was left, and no row is lost.

use std::process::Command;
use std::time::Duration;

use boathouse::batch::silver::backfill_silver;
use boathouse::batch::upkeep::{Merging, apply_retention, merge};
use boathouse::batch::{Lake, Layer, TaskContext};
use boathouse::config;
use boathouse::failpoint;
use boathouse::serving::Client;

use super::world::World;
use crate::bronze::pipeline;

/// Names what is to be done and a lakehouse: this process is then one that a test has started to be ended in it.
const CHILD: &str = "BOATHOUSE_TEST_CUT_OFF";
/// A day on which everything before the records' own is over, and beyond its retention.
const LATER: &str = "2026-02-20T00:00:00Z";

async fn act(what: &str, lake: &Lake) {
    let (mut pipeline, context) = (pipeline(), TaskContext::detached());
    let now = LATER.parse().unwrap();
    match what {
        "backfill" => {
            let (from, to) = ("2026-02-06".parse().unwrap(), "2026-02-07".parse().unwrap());
            backfill_silver(lake, &pipeline, &[], from, to, &context).await.unwrap();
        }
        "merge" => {
            let merging = Merging { target: 128 << 20, now, time: Duration::from_secs(60) };
            merge(lake, Layer::Bronze, "user_events", Some(&pipeline), merging, &context).await.unwrap();
        }
        _ => {
            pipeline.retention.bronze = Some(Duration::from_secs(3 * 24 * 3600));
            // No model is served: nobody is asked.
            let nobody = Client::new(&config::ClickHouse::default()).unwrap();
            apply_retention(lake, &pipeline, &nobody, now, &context).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_cut_off_at_its_commit_is_done_by_the_next() {
    if let Ok(told) = std::env::var(CHILD) {
        let (what, lakehouse) = told.split_once('|').unwrap();
        let lake = Lake::at(lakehouse, 64 << 20, format!("{lakehouse}/spill").into()).unwrap();
        return act(what, &lake).await;
    }
    for (what, point) in [
        ("backfill", "silver.before_backfill_commit"),
        ("backfill", "silver.before_backfill_refused"),
        ("merge", "upkeep.before_merge_commit"),
        ("merge", "upkeep.after_merge_commit"),
        ("retention", "upkeep.before_retention_commit"),
    ] {
        let mut world = World::new().await;
        world.fill(1, 800).await;
        world.run().await;
        let held = async |world: &World| {
            [world.all_rows("silver").await, world.all_rows("refused").await, world.all_rows("bronze").await]
        };
        let before = held(&world).await;
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "silver::cut_off::what_is_cut_off_at_its_commit_is_done_by_the_next"])
            .env(CHILD, format!("{what}|{}", world.folder.path().display()))
            .env(failpoint::VARIABLE, point)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(failpoint::EXIT_CODE), "{point} is on the way: {said}");
        assert!(held(&world).await == before, "{point}: a row has changed");
        // More comes in before the next.
        world.fill(2, 100).await;
        world.run().await;
        let before = held(&world).await;
        act(what, &world.lake).await;
        if what == "retention" {
            assert_eq!(world.rows("bronze").await, 0, "all were old and read");
            assert!(held(&world).await[..2] == before[..2], "{point}: silver has changed");
            continue;
        }
        assert!(held(&world).await == before, "{point}: a row has changed");
        world.assert_recounted().await;
    }
}
