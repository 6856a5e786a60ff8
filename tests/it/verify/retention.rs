//! Old dates leave every layer while it is compared.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boathouse::batch::TaskContext;
use boathouse::batch::upkeep::apply_retention;
use boathouse::config::{self, Pipeline};
use boathouse::serving::Client;
use chrono::{DateTime, TimeDelta, Utc};

use super::BATCH;
use super::platform::{Platform, differing};
use crate::bronze::NOW;

#[tokio::test(flavor = "multi_thread")]
async fn dates_that_leave_while_they_are_compared_are_no_difference() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let mut platform = Platform::new().await;
    // Ten minutes apart: five days of events.
    platform.fill(700).await;
    platform.batch("a").await;
    let mut pipeline = Pipeline::clone(&platform.pipeline);
    let retention = &mut pipeline.retention;
    (retention.bronze, retention.silver, retention.gold) = (Some(DAY), Some(2 * DAY), Some(3 * DAY));
    let pipeline = Arc::new(pipeline);
    let client = Client::new(&config::ClickHouse { url: platform.engine.url.clone(), ..Default::default() }).unwrap();
    let begin: DateTime<Utc> = DateTime::from_timestamp_micros(NOW).expect("a time");
    let over = AtomicBool::new(false);
    let mut compared = 0;
    std::thread::scope(|scope| {
        let (site, over) = (&platform.site, &over);
        let comparing = scope.spawn(move || {
            let mut compared = 0;
            while !over.load(Ordering::Acquire) {
                let output = site.run(&["reconcile", "--only", BATCH]);
                assert_ne!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
                compared += 1;
            }
            compared
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for day in 0..9 {
                    let now = begin + TimeDelta::days(day);
                    apply_retention(&platform.lake, &pipeline, &client, now, &TaskContext::detached()).await.unwrap();
                    let (code, report) = platform.reconcile(BATCH);
                    assert_eq!(code, Some(0), "day {day}: {:?} in {report:#}", differing(&report));
                }
            });
        });
        over.store(true, Ordering::Release);
        compared = comparing.join().expect("nothing differs");
    });
    assert!(compared > 2, "{compared} comparisons beside it");
}
