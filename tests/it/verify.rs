//! `boathouse reconcile` over what the batch makes: silver, gold, gold in ClickHouse.

mod parts;
mod platform;
mod retention;
mod trace;

use serde_json::Value;

use self::platform::{Platform, differing};

const BATCH: &str = "silver,gold,clickhouse-gold";

/// The check of a table.
fn table<'a>(report: &'a Value, layer: &str, name: &str) -> &'a Value {
    let tables = report[layer].as_array().unwrap_or_else(|| panic!("no {layer}: {report:#}"));
    tables.iter().find(|t| t["table"] == name).unwrap_or_else(|| panic!("no {name} in {layer}: {report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_platform_reconciles_and_later_bronze_is_not_yet_run() {
    let mut platform = Platform::new().await;
    // Nothing has run: nothing is wrong either.
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!((code, &report["verdict"]), (Some(0), &Value::from("not_yet_run")), "{report:#}");

    platform.fill(300).await;
    platform.batch("a").await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!((code, &report["verdict"]), (Some(0), &Value::from("same")), "{report:#}");
    let silver = table(&report, "silver", "silver.user_events");
    let number = |name: &str| silver[name].as_u64().unwrap_or_else(|| panic!("no {name}: {silver:#}"));
    assert!(number("refused_rows") > 10 && number("duplicate_rows") > 10 && number("checked_rows") > 200, "{silver:#}");
    assert_eq!(number("bronze_rows"), number("checked_rows") + number("refused_rows") + number("duplicate_rows"));
    assert_eq!(number("bronze_rows"), platform.records);
    let refused = table(&report, "refused", "silver.user_events_refused");
    assert_eq!(refused["checked_rows"], silver["refused_rows"]);
    assert_eq!(report["gold"].as_array().map(Vec::len), Some(12));
    assert_eq!(report["clickhouse_gold"].as_array().map(Vec::len), Some(4));
    for layer in ["gold", "clickhouse_gold"] {
        for check in report[layer].as_array().expect("tables") {
            assert!(check["verdict"] == "same" && check["checked_rows"].as_u64() > Some(0), "{check:#}");
        }
    }

    // More in Bronze, and silver ahead of gold.
    platform.fill(50).await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!((code, &report["verdict"]), (Some(0), &Value::from("same")), "{report:#}");
    assert!(
        table(&report, "silver", "silver.user_events")["notes"][0].as_str().expect("a note").contains("not yet run")
    );
    platform.silver().await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(0), "{report:#}");
    assert!(table(&report, "gold", "gold.user_days")["notes"][0].as_str().expect("a note").contains("not yet run"));
    platform.gold().await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(0), "{report:#}");
    let served = table(&report, "clickhouse_gold", "gold.daily_active_users");
    assert!(served["notes"][0].as_str().expect("a note").contains("not yet published"), "{served:#}");
    platform.batch("b").await;

    let text = platform.reconcile_text(BATCH);
    for part in
        ["Silver = Bronze − refused − duplicates", "Gold = its models over silver", "Everything compared is the same."]
    {
        assert!(text.contains(part), "no `{part}`: {text}");
    }
    // Some dates alone: snapshots are of all of them.
    let (code, report) =
        platform.command(&["reconcile", "--only", BATCH, "--from", "2026-02-07", "--to", "2026-02-07"]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(table(&report, "gold", "gold.dim_users")["verdict"], "left_out");
    let one = table(&report, "gold", "gold.daily_active_users");
    assert_eq!((&one["verdict"], &one["checked_rows"]), (&Value::from("same"), &Value::from(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_of_silver_is_found_and_mended_as_told() {
    let mut platform = Platform::new().await;
    platform.fill(200).await;
    platform.batch("a").await;
    let place = "event_id = 'e00000003'";
    platform.update("silver/user_events", place, "page", "'/hacked'").await;
    platform.delete("silver/user_events", "event_id = 'e00000004'").await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(1));
    let silver = table(&report, "silver", "silver.user_events");
    assert_eq!(
        (&silver["differing_rows"], &silver["missing_rows"], &silver["unknown_rows"]),
        (&1.into(), &1.into(), &0.into()),
        "{silver:#}"
    );
    let examples = silver["examples"].as_array().expect("examples");
    let changed = examples.iter().find(|e| e["kind"] == "differing").expect("an example");
    assert_eq!((&changed["column"], &changed["found"]), (&"page".into(), &"/hacked".into()), "{changed:#}");
    assert!(changed["row"].as_str().expect("a row").contains("event_id=e00000003"), "{changed:#}");
    assert_eq!(silver["dates"][0]["date"], "2026-02-06");
    // Gold was made from the version before.
    assert_eq!(differing(&report), ["silver.user_events"]);
    let text = platform.reconcile_text("silver");
    assert!(text.contains("page should be /page/3 and is /hacked"), "{text}");
    assert!(text.contains("boathouse batch backfill --from 2026-02-06 --to 2026-02-06"), "{text}");

    let (code, done) = platform.command(&["batch", "backfill", "--from", "2026-02-06", "--to", "2026-02-06"]);
    assert_eq!(code, Some(0), "{done:#}");
    platform.batch("b").await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(0), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_and_their_reasons_are_compared() {
    let mut platform = Platform::new().await;
    platform.fill(200).await;
    platform.batch("a").await;
    platform
        .update(
            "silver/user_events_refused",
            "array_to_string(reasons, ' ') = 'invalid:page'",
            "reasons",
            "make_array('lost')",
        )
        .await;
    let (code, report) = platform.reconcile("silver");
    assert_eq!(code, Some(1));
    assert_eq!(differing(&report), ["silver.user_events_refused"]);
    let refused = table(&report, "refused", "silver.user_events_refused");
    let example = &refused["examples"][0];
    assert_eq!((&example["expected"], &example["found"]), (&"invalid:page".into(), &"lost".into()), "{refused:#}");
    let remedy = refused["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("batch backfill --from 2026-02-06 --to 2026-02-06"), "{remedy}");
    let (code, done) = platform.command(&["batch", "backfill", "--from", "2026-02-06", "--to", "2026-02-06"]);
    assert_eq!(code, Some(0), "{done:#}");
    let (code, report) = platform.reconcile("silver");
    assert_eq!(code, Some(0), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_value_and_a_missing_date_of_gold_are_told_where_they_are() {
    let mut platform = Platform::new().await;
    platform.fill(300).await;
    platform.batch("a").await;
    platform.update("gold/daily_active_users", "event_date = DATE '2026-02-07'", "dau_count", "dau_count + 1").await;
    platform.delete("gold/events_per_source_daily", "event_date = DATE '2026-02-07'").await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(1));
    // What ClickHouse serves was published before, and is not what Delta holds now.
    let wrong = ["gold.daily_active_users", "gold.events_per_source_daily"];
    assert_eq!(differing(&report), [wrong, wrong].concat());
    let dau = table(&report, "gold", "gold.daily_active_users");
    assert_eq!((&dau["differing_rows"], &dau["dates"][0]["date"]), (&1.into(), &"2026-02-07".into()), "{dau:#}");
    let example = &dau["examples"][0];
    assert_eq!((&example["row"], &example["column"]), (&"event_date=2026-02-07".into(), &"dau_count".into()));
    let sources = table(&report, "gold", "gold.events_per_source_daily");
    assert_eq!((&sources["missing_rows"], &sources["dates"][0]["date"]), (&2.into(), &"2026-02-07".into()));
    assert!(sources["remedy"].as_str().expect("a remedy").contains("gold/events_per_source_daily"), "{sources:#}");
    for model in ["daily_active_users", "events_per_source_daily"] {
        std::fs::remove_dir_all(platform.lakehouse().join("gold").join(model)).expect("as the remedy says");
    }
    platform.batch("b").await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(0), "{report:#}");

    // Others read this one: what is wrong is told once, where it is.
    platform.update("gold/user_days", "event_date = DATE '2026-02-07'", "user_id", "user_id + 1000").await;
    let (code, report) = platform.reconcile("gold");
    assert_eq!(code, Some(1));
    assert_eq!(differing(&report), ["gold.user_days"]);
    let users = table(&report, "gold", "gold.dim_users");
    assert_eq!(users["verdict"], "not_checked", "{users:#}");
    assert!(users["notes"][0].as_str().expect("why").contains("gold.user_days"), "{users:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_and_a_missing_date_of_clickhouse_are_told_and_mended_as_told() {
    let mut platform = Platform::new().await;
    platform.fill(300).await;
    platform.batch("a").await;
    let engine = &platform.engine;
    let rows =
        engine.sql("SELECT name FROM system.tables WHERE database = 'gold' AND name LIKE 'daily_active_users_rows%'");
    let rows = rows.trim();
    engine.sql(&format!(
        "INSERT INTO gold.{rows} (run_id, event_date, dau_count) SELECT run_id, event_date, 9999 FROM gold.{rows} \
         WHERE event_date = '2026-02-06'"
    ));
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(1));
    assert_eq!(differing(&report), ["gold.daily_active_users"]);
    let dau = table(&report, "clickhouse_gold", "gold.daily_active_users");
    let example = &dau["examples"][0];
    assert_eq!((&example["row"], &example["found"]), (&"event_date=2026-02-06".into(), &"9999".into()), "{dau:#}");

    platform.engine.sql("DELETE FROM gold.published WHERE event_date = '2026-02-07'");
    let (_, report) = platform.reconcile("clickhouse-gold");
    assert_eq!(differing(&report).len(), 4, "{report:#}");
    for check in report["clickhouse_gold"].as_array().expect("views") {
        let missing = check["dates"].as_array().expect("dates").iter().find(|d| d["date"] == "2026-02-07");
        assert!(missing.is_some_and(|d| d["missing_rows"].as_u64() > Some(0)), "{check:#}");
    }
    let remedy = report["clickhouse_gold"][0]["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("DROP TABLE gold.progress"), "{remedy}");
    platform.engine.sql("DROP TABLE gold.progress");
    platform.batch("b").await;
    let (code, report) = platform.reconcile(BATCH);
    assert_eq!(code, Some(0), "{report:#}");

    // A view that is gone serves nothing; a server that is away cannot be compared.
    platform.engine.sql("DROP VIEW gold.purchases_per_page_daily");
    let (code, report) = platform.reconcile("clickhouse-gold");
    assert_eq!((code, differing(&report)), (Some(1), vec!["gold.purchases_per_page_daily".to_owned()]));
    platform.engine.kill();
    let (code, report) = platform.reconcile("clickhouse-gold");
    assert_eq!((code, &report["verdict"]), (Some(2), &"not_checked".into()), "{report:#}");
}
