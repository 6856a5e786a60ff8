//! Models in Delta: what `validate` says of wrong ones, what a run computes, and that the way does not matter.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use boathouse::batch::{Graph, TaskContext, Work, check_models, run_gold, silver_columns};
use boathouse::config::{ConfigErrors, ModelFile, Pipeline};

use super::lakehouse::{Event, Lakehouse, MODELS, day, events, seed};

/// The seed's pipeline with one model's text changed.
fn changed(model: &str, from: &str, to: &str) -> Pipeline {
    let mut pipeline = Pipeline::clone(&seed());
    let file = pipeline.models.iter_mut().find(|m| m.name == model).expect("the model");
    assert!(file.text.contains(from), "{model} has {from}");
    file.text = file.text.replace(from, to);
    pipeline
}

fn mistakes(pipeline: Pipeline) -> Vec<String> {
    let ConfigErrors(found) = check_models(&[Arc::new(pipeline)]).expect_err("a mistake");
    let name = |origin: String| origin.rsplit('/').next().unwrap_or_default().to_owned();
    found.iter().map(|e| format!("{}: {}", name(e.origin.to_string()), e.message)).collect()
}

#[test]
fn the_shipped_models_fit_together() {
    let pipeline = seed();
    let graph = Graph::build(&pipeline, &silver_columns(&pipeline)).expect("right");
    let mut names: Vec<&str> = graph.nodes.iter().map(|n| n.model.name.as_str()).collect();
    let place = |name: &str| names.iter().position(|n| *n == name);
    assert!(place("user_days") < place("dim_users") && place("source_days") < place("dim_dates"), "{names:?}");
    names.sort_unstable();
    assert_eq!(names, MODELS);
    let columns = |name: &str| -> Vec<String> {
        graph.node_of(name).expect("a node").schema.fields().iter().map(|f| f.name().clone()).collect()
    };
    // Dashboards are written against these names.
    assert_eq!(columns("daily_active_users"), ["event_date", "dau_count"]);
    assert_eq!(columns("events_per_source_daily"), ["event_date", "source", "event_count"]);
    assert_eq!(columns("purchases_per_page_daily"), ["event_date", "page", "purchase_count"]);
    assert_eq!(columns("conversion_rate_daily"), ["event_date", "active_users", "purchasing_users", "conversion_rate"]);
}

#[test]
fn every_mistake_has_its_file_and_line() {
    let unknown_column = mistakes(changed("page_days", "max(event_time)", "max(event_tme)"));
    assert!(unknown_column[0].starts_with("page_days.sql:20: "), "{unknown_column:?}");
    assert!(unknown_column[0].contains("event_tme"), "{unknown_column:?}");
    assert_eq!(unknown_column.len(), 1, "models that read it are not blamed: {unknown_column:?}");

    let unknown_table = mistakes(changed("dim_pages", "gold.page_days", "gold.page_dayz"));
    assert_eq!(unknown_table, ["dim_pages.sql:17: there is no table `gold.page_dayz`"]);

    let cycle = mistakes(changed("user_days", "FROM silver.user_events", "FROM gold.daily_active_users"));
    assert_eq!(cycle.len(), 1, "{cycle:?}");
    assert_eq!(
        cycle[0],
        "user_days.sql:23: the models read each other: user_days reads daily_active_users reads user_days"
    );

    let syntax = mistakes(changed("daily_active_users", "GROUP BY", "GROUP BYE"));
    assert!(syntax[0].starts_with("daily_active_users.sql:13: "), "{syntax:?}");

    let undocumented = mistakes(changed("daily_active_users", "AS dau_count", "AS dau"));
    assert_eq!(
        undocumented,
        [
            "daily_active_users.sql:1: column `dau` has no description",
            "daily_active_users.sql:9: the SQL gives no column `dau_count`"
        ]
    );

    let rescans = mistakes(changed("dim_pages", "gold.page_days", "silver.user_events"));
    assert!(rescans[0].starts_with("dim_pages.sql:17: a snapshot cannot read silver"), "{rescans:?}");

    let clock = mistakes(changed("daily_active_users", "count(*) AS dau_count", "count(*) AS dau_count, now() AS at"));
    assert!(clock.iter().any(|m| m.contains("`now()` gives another value at each run")), "{clock:?}");
}

/// Rows that depend on the order in which they are read, on chance or on the time would not come out again.
#[test]
fn what_gives_other_rows_each_time_is_refused_with_its_line() {
    let refused = |from: &str, to: &str| mistakes(changed("purchases_per_page_daily", from, to));
    let rows = "FROM gold.page_days\nWHERE purchase_count > 0";
    for (to, message) in [
        ("FROM gold.page_days\nLIMIT 10", "LIMIT without ORDER BY"),
        ("FROM gold.page_days\nOFFSET 10", "LIMIT without ORDER BY"),
        ("FROM (SELECT * FROM gold.page_days\nLIMIT 10) AS p", "LIMIT without ORDER BY"),
        ("FROM gold.page_days |> LIMIT\n10", "LIMIT without ORDER BY"),
        (
            "FROM gold.page_days UNION ALL SELECT DISTINCT ON (\npage) event_date, page, purchase_count FROM gold.page_days",
            "DISTINCT ON without ORDER BY",
        ),
        ("FROM gold.page_days WHERE\nrandom() < 0.5", "`random()` gives another value"),
        ("FROM gold.page_days WHERE\nevent_date < current_date", "`current_date()` gives another value"),
        ("FROM gold.page_days WHERE page <>\nuuid()", "`uuid()` gives another value"),
        (
            "FROM gold.page_days AS p WHERE page IN (SELECT\nfirst_value(page) FROM gold.page_days)",
            "`first_value()` without",
        ),
    ] {
        // What is wrong is in the second of the two lines.
        let line = line_of("purchases_per_page_daily", rows) + 1;
        let found = refused(rows, to);
        assert!(found.len() == 1 && found[0].contains(message), "{to}: {found:?}");
        assert!(found[0].starts_with(&format!("purchases_per_page_daily.sql:{line}: ")), "{to}: {found:?}");
    }
    for (count, message) in [
        ("row_number() OVER (PARTITION BY event_date)", "`row_number()` over a window without ORDER BY"),
        ("lag(purchase_count) OVER w", "`lag()` over a window without ORDER BY"),
        ("sum(purchase_count) OVER (ROWS 2 PRECEDING)", "`sum()` over a window without ORDER BY"),
        ("CAST(any_value(purchase_count) OVER () AS BIGINT)", "`any_value()` depends on the order"),
    ] {
        let mut pipeline =
            changed("purchases_per_page_daily", "page, purchase_count", &format!("page, {count} AS purchase_count"));
        let file = pipeline.models.iter_mut().find(|m| m.name == "purchases_per_page_daily").expect("the model");
        file.text = file.text.replace(rows, "FROM gold.page_days WINDOW w AS (PARTITION BY event_date)");
        let found = mistakes(pipeline);
        assert!(found.len() == 1 && found[0].contains(message), "{count}: {found:?}");
    }
}

/// Which rows it takes makes no difference to the model's.
#[test]
fn a_limit_that_leaves_no_choice_is_no_mistake() {
    for rows in [
        "FROM gold.page_days AS p WHERE EXISTS (SELECT 1 FROM gold.source_days AS s WHERE s.event_date = p.event_date LIMIT 1)",
        "FROM gold.page_days WHERE event_date < (SELECT max(event_date) AS newest FROM gold.page_days LIMIT 1)",
        "FROM gold.page_days |> ORDER BY event_date, page |> WHERE purchase_count > 0 |> LIMIT 10",
    ] {
        let rest = "FROM gold.page_days\nWHERE purchase_count > 0";
        let pipeline = changed("purchases_per_page_daily", rest, rows);
        check_models(&[Arc::new(pipeline)]).unwrap_or_else(|found| panic!("{rows}: {found}"));
    }
}

/// Names of windows that go round in circles are the text's mistake, like any other.
#[test]
fn windows_that_are_defined_by_each_other_are_refused() {
    for windows in ["w AS (w)", "w AS (v), v AS (w ORDER BY page)", "w AS v, v AS w"] {
        let select = "page, lag(purchase_count) OVER w AS purchase_count";
        let mut pipeline = changed("purchases_per_page_daily", "page, purchase_count", select);
        let file = pipeline.models.iter_mut().find(|m| m.name == "purchases_per_page_daily").expect("the model");
        let rows = "FROM gold.page_days\nWHERE purchase_count > 0";
        file.text = file.text.replace(rows, &format!("FROM gold.page_days WINDOW {windows}"));
        assert!(!mistakes(pipeline).is_empty(), "{windows}");
    }
}

/// The line of a model's file in which a text begins.
fn line_of(model: &str, text: &str) -> usize {
    let pipeline = seed();
    let file = pipeline.models.iter().find(|m| m.name == model).expect("the model");
    let at = file.text.find(text).unwrap_or_else(|| panic!("{model} has {text}"));
    file.text[..at].matches('\n').count() + 1
}

/// Where an order may leave rows equal, the author is told; what tells them apart is known from the tables' grains.
#[test]
fn an_order_that_may_leave_rows_equal_is_noted() {
    let notes = |select: &str, rows: &str| -> Vec<String> {
        let mut pipeline =
            changed("purchases_per_page_daily", "page, purchase_count", &format!("page, {select} AS purchase_count"));
        let file = pipeline.models.iter_mut().find(|m| m.name == "purchases_per_page_daily").expect("the model");
        file.text = file.text.replace("FROM gold.page_days\nWHERE purchase_count > 0", rows);
        let graph = Graph::build(&pipeline, &silver_columns(&pipeline)).unwrap_or_else(|e| panic!("{select}: {e:?}"));
        let of = |e: &boathouse::config::ConfigError| format!("{}: {}", e.origin, e.message);
        graph.nodes.iter().flat_map(|n| &n.remarks).map(of).collect()
    };
    let line = line_of("purchases_per_page_daily", "page, purchase_count");
    let pages = "FROM gold.page_days";
    for (select, rows) in [
        // By their grain: a page has one row a date.
        ("row_number() OVER (PARTITION BY event_date ORDER BY purchase_count DESC, page)", pages),
        ("rank() OVER (PARTITION BY event_date ORDER BY purchase_count DESC)", pages),
        ("purchase_count", "FROM gold.page_days ORDER BY purchase_count DESC, event_date, page LIMIT 10"),
        // An event is there once in its hour.
        ("row_number() OVER (PARTITION BY user_id ORDER BY event_time, event_id)", "FROM silver.user_events"),
        (
            "row_number() OVER (PARTITION BY event_date ORDER BY page, n)",
            "FROM (SELECT event_date, page, count(*) AS n FROM silver.user_events GROUP BY event_date, page) AS x",
        ),
        // The columns of both tell the rows of a join apart.
        (
            "row_number() OVER (ORDER BY event_date, page, source)",
            "FROM gold.page_days JOIN gold.source_days USING (event_date)",
        ),
    ] {
        assert_eq!(notes(select, rows), Vec::<String>::new(), "{select} {rows}");
    }
    for (select, rows, message) in [
        ("row_number() OVER (PARTITION BY event_date ORDER BY purchase_count DESC)", pages, "`row_number()`"),
        ("lead(purchase_count) OVER (ORDER BY page)", pages, "`lead()`"),
        ("sum(purchase_count) OVER (ORDER BY event_date ROWS 2 PRECEDING)", pages, "`sum()`"),
        ("row_number() OVER (PARTITION BY user_id ORDER BY event_time)", "FROM silver.user_events", "`row_number()`"),
        ("CAST(sum(CAST(purchase_count AS DOUBLE)) OVER (PARTITION BY page) AS BIGINT)", pages, "`sum()` rounds"),
    ] {
        let found = notes(select, rows);
        assert!(found.len() == 1 && found[0].contains(message), "{select}: {found:?}");
        assert!(found[0].contains(&format!("purchases_per_page_daily.sql:{line}: ")), "{select}: {found:?}");
    }
    // An event's id is the field of that role, whatever its name.
    let mut renamed = Pipeline::clone(&seed());
    renamed.fields.iter_mut().filter(|f| f.name == "event_id").for_each(|f| f.name = "id".into());
    renamed.models.retain(|m| m.name == "purchases_per_page_daily");
    let text = &mut renamed.models[0].text;
    let count = "row_number() OVER (PARTITION BY user_id ORDER BY event_time, id) AS purchase_count";
    *text = text.replace("page, purchase_count", &format!("page, {count}"));
    *text = text.replace("FROM gold.page_days\nWHERE purchase_count > 0", "FROM silver.user_events");
    let graph = Graph::build(&renamed, &silver_columns(&renamed)).expect("right");
    assert!(graph.nodes[0].remarks.is_empty(), "{:?}", graph.nodes[0].remarks);
    let limited = notes("purchase_count", "FROM gold.page_days\nORDER BY purchase_count LIMIT 10");
    assert!(limited.len() == 1 && limited[0].contains("LIMIT"), "{limited:?}");
}

#[test]
fn two_pipelines_cannot_have_one_model() {
    let pipeline = seed();
    let mut other = Pipeline::clone(&pipeline);
    other.name = "other".into();
    other.models.retain(|m| m.name == "source_days");
    other.models[0].text = other.models[0].text.replace("silver.user_events", "silver.other");
    let ConfigErrors(found) = check_models(&[pipeline, Arc::new(other)]).expect_err("a mistake");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.starts_with("the model source_days is there twice"), "{found:?}");
}

async fn run(lakehouse: &Lakehouse) -> Vec<(String, Work)> {
    let task = TaskContext::detached();
    let (outcome, _) = run_gold(&lakehouse.lake, &lakehouse.pipeline, &task).await.expect("gold");
    outcome.models.into_iter().map(|m| (m.name, m.work)).collect()
}

async fn tables(lakehouse: &Lakehouse) -> BTreeMap<&'static str, Vec<String>> {
    let mut tables = BTreeMap::new();
    for model in MODELS {
        tables.insert(model, lakehouse.gold(model).await);
    }
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn only_touched_dates_are_computed_again_and_nothing_twice() {
    let mut lakehouse = Lakehouse::new();
    assert_eq!(run(&lakehouse).await, [], "no silver, no gold");
    lakehouse.write(&events(1, 300, 0..3)).await;
    for (name, work) in run(&lakehouse).await {
        assert_eq!(work, Work::Everything(format!("gold/{name} is not there yet")));
    }
    assert_eq!(lakehouse.gold("daily_active_users").await.len(), 3);
    assert!(run(&lakehouse).await.iter().all(|(_, work)| *work == Work::Nothing));

    lakehouse.add(&[(1, 5, 999, "purchase", "/new", "web")]).await;
    for (name, work) in run(&lakehouse).await {
        assert_eq!(work, Work::Dates([day(1)].into()), "{name}");
    }
    assert!(lakehouse.gold("dim_users").await.iter().any(|row| row.contains("999")), "a new user");

    // A date that becomes empty loses its rows.
    let hours: Vec<u32> = (0..24).collect();
    for hour in hours {
        lakehouse.replace_hour((1, hour), Vec::new()).await;
    }
    run(&lakehouse).await;
    assert_eq!(lakehouse.gold("daily_active_users").await.len(), 2);
    assert!(!lakehouse.gold("dim_users").await.iter().any(|row| row.contains("999")), "the user is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_model_is_computed_whole_with_all_that_read_it() {
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(2, 100, 0..2)).await;
    run(&lakehouse).await;
    let before = lakehouse.gold("daily_active_users").await;
    // Only users with two events and more: other rows, the same columns.
    let changed =
        changed("user_days", "GROUP BY event_date, user_id", "GROUP BY event_date, user_id HAVING count(*) > 1");
    lakehouse.pipeline = Arc::new(changed);
    for (name, work) in run(&lakehouse).await {
        let reads_it =
            ["user_days", "dim_users", "daily_active_users", "conversion_rate_daily"].contains(&name.as_str());
        match work {
            Work::Everything(why) => {
                assert!(reads_it, "{name}");
                assert_eq!(why, format!("the model {name}, or one that it reads, was changed"));
            }
            work => assert!(!reads_it && work == Work::Nothing, "{name}: {work:?}"),
        }
    }
    assert_ne!(lakehouse.gold("daily_active_users").await, before);

    // Comments and white space change nothing.
    let mut pipeline = Pipeline::clone(&lakehouse.pipeline);
    for model in &mut pipeline.models {
        model.text.push_str("\n-- a remark\n");
    }
    lakehouse.pipeline = Arc::new(pipeline);
    assert!(run(&lakehouse).await.iter().all(|(_, work)| *work == Work::Nothing));

    // Another column: the table takes it on.
    let mut wider = Pipeline::clone(&lakehouse.pipeline);
    let dau = wider.models.iter_mut().find(|m| m.name == "daily_active_users").expect("the model");
    dau.text = dau.text.replace("AS dau_count", "AS dau_count, sum(event_count) AS events");
    dau.text = dau.text.replacen("\n\nSELECT", "\n-- column events: Their events.\n\nSELECT", 1);
    lakehouse.pipeline = Arc::new(wider);
    run(&lakehouse).await;
    assert!(lakehouse.gold("daily_active_users").await[0].matches('|').count() == 2);
}

/// What a run says.
async fn told(lakehouse: &Lakehouse) -> Vec<String> {
    let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (_cancel, cancelled) = tokio::sync::watch::channel(false);
    run_gold(&lakehouse.lake, &lakehouse.pipeline, &TaskContext::new(lines, cancelled)).await.expect("gold");
    std::iter::from_fn(|| told.try_recv().ok()).map(|line| line.text).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_merged_with_what_has_changed_where_that_tells_its_rows() {
    const DIMENSIONS: [&str; 3] = ["dim_pages", "dim_sources", "dim_users"];
    let dimensions = async |lakehouse: &Lakehouse| {
        let mut rows = Vec::new();
        for model in DIMENSIONS {
            rows.push(lakehouse.gold(model).await);
        }
        rows
    };
    let merged = |told: &[String]| -> Vec<String> {
        let names = DIMENSIONS.map(str::to_owned).into_iter();
        names.filter(|name| told.iter().any(|line| line.starts_with(&format!("{name}: merged with")))).collect()
    };
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(5, 500, 0..4)).await;
    assert_eq!(merged(&told(&lakehouse).await), Vec::<String>::new(), "from nothing");
    // More events of a date that is there, with a new user and a new page, and of one that is not.
    lakehouse.add(&[(2, 5, 999, "purchase", "/new", "web"), (2, 5, 1, "click", "/", "mobile")]).await;
    lakehouse.add(&events(6, 100, 4..5)).await;
    assert_eq!(merged(&told(&lakehouse).await), DIMENSIONS);
    let of_merging = dimensions(&lakehouse).await;
    // Events that go may take a least time with them.
    for hour in 0..24 {
        lakehouse.replace_hour((0, hour), Vec::new()).await;
    }
    assert_eq!(merged(&told(&lakehouse).await), Vec::<String>::new(), "a date is gone");
    lakehouse.add(&events(7, 50, 1..3)).await;
    assert_eq!(merged(&told(&lakehouse).await), DIMENSIONS, "it goes on");
    let again = dimensions(&lakehouse).await;
    assert_ne!(again, of_merging);
    std::fs::remove_dir_all(lakehouse.path().join("gold")).expect("gold removed");
    run(&lakehouse).await;
    assert_eq!(dimensions(&lakehouse).await, again, "as from nothing");
}

/// Whatever the order of additions, late data, emptied hours and runs in between: gold is what one run from nothing
/// gives. A model that looks back is among them.
#[tokio::test(flavor = "multi_thread")]
async fn the_incremental_way_gives_the_rows_of_a_run_from_nothing() {
    for seed in 0..1 {
        let mut lakehouse = Lakehouse::new();
        let mut pipeline = Pipeline::clone(&lakehouse.pipeline);
        pipeline.models.push(ModelFile {
            name: "weekly_actives".into(),
            path: Arc::new(PathBuf::from("weekly_actives.sql")),
            text: WEEKLY.into(),
        });
        lakehouse.pipeline = Arc::new(pipeline);
        for step in 0..5 {
            let from = (seed as u32 + step) % 4;
            lakehouse.add(&events(seed * 100 + u64::from(step), 40, from..from + 3)).await;
            if step == 3 {
                for hour in 0..24 {
                    lakehouse.replace_hour((from, hour), Vec::new()).await;
                }
            }
            run(&lakehouse).await;
        }
        let (incremental, weekly) = (tables(&lakehouse).await, lakehouse.gold("weekly_actives").await);
        assert!(weekly.len() > 3, "{weekly:?}");
        std::fs::remove_dir_all(lakehouse.path().join("gold")).expect("gold removed");
        run(&lakehouse).await;
        assert_eq!(tables(&lakehouse).await, incremental, "seed {seed}");
        assert_eq!(lakehouse.gold("weekly_actives").await, weekly, "seed {seed}");
    }
}

const WEEKLY: &str = "\
-- description: Distinct users of each day and the two before it.
-- kind: by_date
-- partition: event_date
-- grain: event_date
-- lookback_days: 2
-- clickhouse: none
-- column event_date: The last of the days.
-- column users: Their users.

SELECT d.event_date, count(DISTINCT u.user_id) AS users
FROM gold.dim_dates AS d
JOIN gold.user_days AS u
  ON u.event_date <= d.event_date AND u.event_date >= d.event_date - INTERVAL '2' DAY
GROUP BY d.event_date
";

#[tokio::test(flavor = "multi_thread")]
async fn gold_equals_a_plain_recount() {
    let mut lakehouse = Lakehouse::new();
    let all: Vec<Event> = events(7, 2_000, 0..5);
    lakehouse.write(&all).await;
    run(&lakehouse).await;
    assert_eq!(lakehouse.gold("fact_events").await.len(), 2_000);
    let [dau, ..] = lakehouse.recount();
    let found: String = lakehouse
        .gold("daily_active_users")
        .await
        .iter()
        .map(|row| {
            // Columns by name: dau_count, event_date.
            let (count, date) = row.split_once('|').expect("two columns");
            format!("{date}\t{count}\n")
        })
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(found, dau);
    // 1 February 2026 is a Sunday.
    let first = &lakehouse.gold("dim_dates").await;
    assert!(first.iter().any(|row| row == "1|7|2026-02-01|true|2|1|5|2026"), "{first:?}");
}
