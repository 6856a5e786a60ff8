//! Dates with more rows than fit into memory at once.

use std::time::Duration;

use boathouse::batch::Lake;
use boathouse::batch::verify::{Scope, Unwatched, Verdict, verify_gold, verify_refused, verify_silver};

use super::platform::{Platform, differing, record};
use super::table;
use crate::bronze::{Record, event};

/// As little as the configuration takes: 131,072 rows are compared at once, so that the date below is cut into parts.
const MEMORY: usize = 64 << 20;
const RECORDS: i64 = 150_000;

/// One date of events, among them copies, refused ones and such that come again much later.
async fn fill(platform: &mut Platform) {
    let mut records: Vec<Record> = Vec::new();
    for n in 0..RECORDS {
        let second = n / 5;
        records.push(match n % 50 {
            7 => record((n - 1) / 5, &format!("big{}", n - 1), "click", "/again", "web"),
            11 => record(second, &format!("big{n}"), "dance", "/", "web"),
            13 => Record { value: Some(b"no event".to_vec()), ..event(second) },
            _ => record(second, &format!("big{n}"), ["login", "click"][n as usize % 2], "/page", "web"),
        });
        if records.len() == 25_000 {
            // A tenth once more, from the other partition.
            let again: Vec<Record> = records.iter().step_by(10).cloned().collect();
            platform.commit(0, &std::mem::take(&mut records)).await;
            platform.commit(1, &again).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_does_not_fit_into_memory_is_compared_row_by_row() {
    let mut platform = Platform::new().await;
    platform.site.environment.push(("BOATHOUSE__BATCH__MEMORY".into(), "64MiB".into()));
    fill(&mut platform).await;
    platform.batch("a").await;
    let layers = "silver,gold";
    let (code, report) = platform.reconcile(layers);
    assert_eq!((code, &report["verdict"]), (Some(0), &"same".into()), "{report:#}");
    let silver = table(&report, "silver", "silver.user_events");
    let number = |name: &str| silver[name].as_u64().unwrap_or_else(|| panic!("no {name}: {silver:#}"));
    assert!(number("checked_rows") > 140_000 && number("duplicate_rows") > 15_000, "{silver:#}");
    assert_eq!(number("bronze_rows"), number("checked_rows") + number("refused_rows") + number("duplicate_rows"));
    assert_eq!(number("bronze_rows"), platform.records);

    // One row of so many: changed, gone, and changed in gold.
    platform.update("silver/user_events", "event_id = 'big77777'", "page", "'/hacked'").await;
    platform.delete("silver/user_events", "event_id = 'big88888'").await;
    platform.update("gold/fact_events", "event_id = 'big99999'", "user_id", "user_id + 1").await;
    let (code, report) = platform.reconcile(layers);
    assert_eq!(code, Some(1));
    assert_eq!(differing(&report), ["silver.user_events", "gold.fact_events"]);
    let silver = table(&report, "silver", "silver.user_events");
    let counts = ["differing_rows", "missing_rows", "unknown_rows"].map(|name| silver[name].as_u64());
    assert_eq!(counts, [Some(1), Some(1), Some(0)], "{silver:#}");
    let examples: Vec<&str> =
        silver["examples"].as_array().expect("examples").iter().filter_map(|e| e["row"].as_str()).collect();
    for id in ["big77777", "big88888"] {
        assert!(examples.iter().any(|row| row.contains(id)), "no {id}: {examples:?}");
    }
    let facts = table(&report, "gold", "gold.fact_events");
    assert_eq!((&facts["differing_rows"], &facts["missing_rows"]), (&1.into(), &0.into()), "{facts:#}");

    // Parts lie on the disk meanwhile, and no more of them than is allowed.
    let small = |spill_max| {
        let (uri, spill) = (platform.lakehouse(), platform.site.folder.join("small-spill"));
        Lake::within(&uri.to_string_lossy(), MEMORY, spill, spill_max).expect("a lake")
    };
    let (scope, watch) = (Scope::default(), Unwatched);
    let lake = small(64 << 10);
    let told = verify_silver(&lake, &platform.pipeline, &scope, &watch).await.map(|_| ()).expect_err("no room");
    assert!(told.to_string().contains("`batch.spill_max`"), "{told}");
    assert!(told.is_transient(), "{told}");
    let lake = small(1 << 30);
    let found = verify_silver(&lake, &platform.pipeline, &scope, &watch).await.expect("a verdict");
    assert_eq!((found.table.verdict, found.table.differing_rows), (Verdict::Different, 1));
    let refused = verify_refused(&lake, &platform.pipeline, &watch).await.expect("a verdict");
    assert_eq!(refused.verdict, Verdict::Same, "{refused:#?}");
    let gold = verify_gold(&lake, &platform.pipeline, &scope, &watch).await.expect("verdicts");
    assert!(gold.iter().any(|check| check.verdict == Verdict::Different), "{gold:#?}");
    tokio::time::timeout(Duration::from_secs(120), async {
        while spilled(&platform) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nothing is left on the disk");
}

/// Files below the folder that is spilled into.
fn spilled(platform: &Platform) -> usize {
    let folders = std::fs::read_dir(platform.site.folder.join("small-spill")).expect("a folder");
    folders.flatten().map(|folder| std::fs::read_dir(folder.path()).map_or(0, Iterator::count)).sum()
}
