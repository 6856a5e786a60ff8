//! Every table of silver and gold, in Delta and in ClickHouse, against an independent recount: DuckDB over Bronze as its
//! own Delta reader gives it, with SQL of its own.

use std::path::Path;
use std::time::Duration;

use super::{Filler, begin, run};
use crate::gold::lakehouse::{Lakehouse, MODELS};
use crate::support::engine::Engine;
use crate::support::python::python;
use crate::support::soak::say;

/// Records of the test; more by `BOATHOUSE_RECOUNT_EVENTS`.
fn events() -> u64 {
    std::env::var("BOATHOUSE_RECOUNT_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(50_000)
}

/// Compares everything; what the script says.
pub fn assert_recounted(lakehouse: &Path, engine: &Engine) -> String {
    let said = python("recount_gold_duckdb.py", &[lakehouse, Path::new(&engine.url)]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), MODELS.len() + 2 + 4, "two tables of silver, all of gold, four views:\n{said}");
    for line in lines {
        assert!(line.ends_with(" 0 missing, 0 too many"), "{line} in\n{said}");
        assert!(!line.contains(" 0 rows"), "nothing was compared: {line} in\n{said}");
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_counts_what_gold_says() {
    let engine = Engine::start();
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("lakehouse");
    let lakehouse = Lakehouse::at(&root.to_string_lossy());
    let mut filler = Filler::new(&root, 5).await;
    let (count, day) = (events(), Duration::from_secs(86_400));
    // From nothing, then a day that touches the one before it, too.
    filler.fill(count / 2, begin(), day).await;
    run(&lakehouse, &engine, "first").await;
    filler.fill(count - count / 2, begin() + 86_400, day).await;
    run(&lakehouse, &engine, "second").await;
    let said = assert_recounted(&root, &engine);
    if count > 1_000_000 {
        say(&format!("{count} events, recounted by DuckDB:\n{said}"));
    }
    assert_eq!(super::served(&engine)[..3], filler.account.figures()[..3]);

    // What it compares is seen: one row that was served and should not be.
    let rows = "SELECT name FROM system.tables WHERE database = 'gold' AND name LIKE 'daily_active_users_rows%'";
    let table = engine.sql(rows);
    let table = table.trim();
    engine.sql(&format!("INSERT INTO gold.{table} SELECT * REPLACE (7 AS dau_count) FROM gold.{table} LIMIT 1"));
    let said = python("recount_gold_duckdb.py", &[&root, Path::new(&engine.url)]);
    let line = said.lines().find(|line| line.starts_with("clickhouse gold.daily_active_users: "));
    assert!(line.is_some_and(|line| line.ends_with(" 1 too many")), "{said}");
}
