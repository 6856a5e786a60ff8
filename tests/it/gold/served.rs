//! Gold in the real engine: the seed's names, dates that change at once, retries and stops that change nothing.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boathouse::batch::{
    BatchError, TaskContext, TaskReport, data_quality_checks, kept_results, publish_gold, quarantine, run_gold,
};
use boathouse::config::{self, Pipeline};
use boathouse::serving::{Client, ServedColumn, ServedModel, ServedType, SilverMark};

use super::lakehouse::{Lakehouse, events};
use crate::support::engine::Engine;
use crate::support::without_marks;

fn client(engine: &Engine) -> Client {
    Client::new(&config::ClickHouse { url: engine.url.clone(), ..config::ClickHouse::default() }).expect("a client")
}

async fn gold(lakehouse: &Lakehouse) {
    run_gold(&lakehouse.lake, &lakehouse.pipeline, &TaskContext::detached()).await.expect("gold");
}

async fn try_publish(lakehouse: &Lakehouse, engine: &Engine, run_id: &str) -> Result<TaskReport, BatchError> {
    publish_gold(&lakehouse.lake, &lakehouse.pipeline, &client(engine), run_id, &TaskContext::detached()).await
}

async fn publish(lakehouse: &Lakehouse, engine: &Engine, run_id: &str) -> TaskReport {
    try_publish(lakehouse, engine, run_id).await.expect("published")
}

/// The four daily figures as the engine serves them.
fn served(engine: &Engine) -> [String; 4] {
    [
        engine.sql("SELECT event_date, dau_count FROM gold.daily_active_users ORDER BY 1"),
        engine.sql("SELECT event_date, source, event_count FROM gold.events_per_source_daily ORDER BY 1, 2"),
        engine
            .sql(
                "SELECT event_date, replaceAll(page, '\\'', '~'), purchase_count FROM gold.purchases_per_page_daily \
             ORDER BY event_date, page",
            )
            .replace('~', "'"),
        engine.sql(
            "SELECT event_date, active_users, purchasing_users, conversion_rate FROM gold.conversion_rate_daily \
             ORDER BY 1",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daily_figures_are_served_under_their_names() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(3, 1_000, 0..4)).await;
    let early = try_publish(&lakehouse, &engine, "run-0").await.expect_err("gold is not there");
    assert!(early.is_transient(), "{early}");
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "run-1").await;
    assert_eq!(served(&engine), lakehouse.recount());

    // Late data, a new page, and an hour that becomes empty.
    lakehouse.add(&[(2, 3, 77, "purchase", "/late", "web"), (5, 0, 78, "login", "/home", "mobile")]).await;
    for hour in 0..24 {
        lakehouse.replace_hour((1, hour), Vec::new()).await;
    }
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "run-2").await;
    assert_eq!(served(&engine), lakehouse.recount());
    // Only touched dates were written again.
    let runs =
        engine.sql("SELECT DISTINCT event_date FROM gold.published WHERE startsWith(run_id, 'run-2') ORDER BY 1");
    assert_eq!(runs, "2026-02-02\n2026-02-03\n2026-02-06\n");

    // The query of the users' guide, on today's ClickHouse.
    let growth = engine.sql(
        "SELECT event_date, dau_count, dau_count - lagInFrame(dau_count) OVER (ORDER BY event_date) AS growth \
         FROM gold.daily_active_users ORDER BY event_date",
    );
    assert_eq!(growth.lines().count(), 4, "{growth}");
    let freshness = engine.sql("SELECT layer, count() FROM gold.freshness GROUP BY layer ORDER BY layer");
    assert_eq!(freshness, "gold\t2\nsilver\t2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_changes_nothing_and_a_run_that_was_held_up_never_wins() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(4, 200, 0..2)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    let rows = "SELECT count() FROM gold.published";
    let before = (served(&engine), engine.sql(rows));
    let again = publish(&lakehouse, &engine, "a").await;
    assert!(again.summary.contains("is served already"), "{again:?}");
    publish(&lakehouse, &engine, "b").await;
    assert_eq!((served(&engine), engine.sql(rows)), before);

    // A run that read an earlier version of silver publishes late: its rows are there, and nobody sees them.
    let older = engine.sql(
        "SELECT concat('INSERT INTO gold.published (pipeline, event_date, run_id, version, silver_version) VALUES ', \
         arrayStringConcat(groupArray(format('(\\'user_events\\', \\'{}\\', \\'old\\', {}, 1)', toString(event_date), \
         toString(version - 1))), ', ')) FROM gold.published FINAL FORMAT TSVRaw",
    );
    engine.sql(older.trim());
    engine.sql("OPTIMIZE TABLE gold.published FINAL");
    assert_eq!(served(&engine), before.0);

    // Silver made again begins at version 0, and wins all the same.
    std::fs::remove_dir_all(lakehouse.path().join("silver")).expect("silver removed");
    lakehouse.write(&[(0, 1, 5, "purchase", "/again", "web")]).await;
    lakehouse.forget_but(&[(0, 1)]);
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "c").await;
    assert_eq!(served(&engine), lakehouse.recount());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_model_changes_its_view_without_an_empty_moment() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(5, 300, 0..3)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    let old =
        engine.sql("SELECT name FROM system.tables WHERE database = 'gold' AND name LIKE 'daily_active_users_rows%'");

    let mut wider = Pipeline::clone(&lakehouse.pipeline);
    let dau = wider.models.iter_mut().find(|m| m.name == "daily_active_users").expect("the model");
    dau.text = dau.text.replace("AS dau_count", "AS dau_count, sum(event_count) AS events");
    dau.text = dau.text.replacen("\n\nSELECT", "\n-- column events: It's \\ their events.\n\nSELECT", 1);
    wider.models.retain(|m| m.name != "conversion_rate_daily");
    lakehouse.pipeline = Arc::new(wider);
    let reader = Reader::start(&engine, "SELECT count() FROM gold.daily_active_users", "3");
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "b").await;
    assert!(reader.stop() > 0);
    assert_eq!(engine.sql("SELECT sum(events) FROM gold.daily_active_users"), "300\n");
    let new =
        engine.sql("SELECT name FROM system.tables WHERE database = 'gold' AND name LIKE 'daily_active_users_rows%'");
    assert!(old != new && new.lines().count() == 1, "{old} {new}");
    assert_eq!(engine.try_sql("SELECT 1 FROM gold.conversion_rate_daily").0, 404, "its model is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lakehouse_that_was_restored_is_served_as_it_is() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    let early =
        [(0, 1, 5, "login", "/a", "web"), (1, 1, 6, "purchase", "/b", "web"), (2, 1, 7, "login", "/c", "mobile")];
    lakehouse.write(&early).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    let copy = tempfile::tempdir().expect("a folder");
    for layer in ["silver", "gold"] {
        copy_folder(&lakehouse.path().join(layer), &copy.path().join(layer));
    }
    lakehouse.add(&[(1, 5, 8, "purchase", "/lost", "web"), (4, 5, 8, "login", "/lost", "web")]).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "b").await;
    assert_eq!(served(&engine), lakehouse.recount());

    for layer in ["silver", "gold"] {
        let there = lakehouse.path().join(layer);
        std::fs::remove_dir_all(&there).expect("removed");
        copy_folder(&copy.path().join(layer), &there);
    }
    lakehouse.forget_but(&[(0, 1), (1, 1), (2, 1)]);
    // Silver's version is below the one that was published: what is shown was made from rows that are gone.
    for (n, event) in [(0, 2, 9, "login", "/new", "web"), (2, 3, 9, "login", "/new", "web")].into_iter().enumerate() {
        lakehouse.add(&[event]).await;
        gold(&lakehouse).await;
        publish(&lakehouse, &engine, &format!("c{n}")).await;
        assert_eq!(served(&engine), lakehouse.recount(), "the {n}th run after");
    }
    let again = publish(&lakehouse, &engine, "d").await;
    assert!(again.summary.contains("is served already"), "{again:?}");
}

/// After as many commits as were lost the versions have the same numbers again: nothing but the entries tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_silver_that_was_put_back_by_one_version_is_seen() {
    for layers in [&["silver"][..], &["silver", "gold"]] {
        let engine = Engine::start();
        let mut lakehouse = Lakehouse::new();
        let early = [(0, 1, 5, "login", "/a", "web"), (1, 1, 6, "purchase", "/b", "web")];
        lakehouse.write(&early).await;
        gold(&lakehouse).await;
        publish(&lakehouse, &engine, "a").await;
        let copy = tempfile::tempdir().expect("a folder");
        for layer in layers {
            copy_folder(&lakehouse.path().join(layer), &copy.path().join(layer));
        }
        lakehouse.add(&[(1, 5, 8, "purchase", "/lost", "web")]).await;
        gold(&lakehouse).await;
        publish(&lakehouse, &engine, "b").await;
        assert_eq!(served(&engine), lakehouse.recount());

        for layer in layers {
            let there = lakehouse.path().join(layer);
            std::fs::remove_dir_all(&there).expect("removed");
            copy_folder(&copy.path().join(layer), &there);
        }
        lakehouse.forget_but(&[(0, 1), (1, 1)]);
        lakehouse.add(&[(2, 3, 9, "purchase", "/new", "web")]).await;
        gold(&lakehouse).await;
        publish(&lakehouse, &engine, "c").await;
        assert_eq!(served(&engine), lakehouse.recount(), "after {layers:?}");
        let pages = lakehouse.gold("dim_pages").await;
        let has = |page: &str| pages.iter().any(|row| row.contains(page));
        assert!(has("/new") && !has("/lost"), "after {layers:?}: {pages:?}");
        let again = publish(&lakehouse, &engine, "d").await;
        assert!(again.summary.contains("is served already"), "{again:?}");
    }
}

/// Tables in Delta and in ClickHouse that were made before marks of what was read were noted.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_has_made_is_gone_on_with() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(16, 200, 0..3)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    assert!(without_marks(&lakehouse.path().join("gold")) > 0);
    engine.sql("ALTER TABLE gold.progress DROP COLUMN silver_entry");
    let standing = client(&engine).gold_standing("user_events").await.expect("it can be read still");
    assert_eq!(standing.map(|s| (s.run_id, s.mark.entry)), Some(("a".into(), 0)));
    gold(&lakehouse).await;
    let again = publish(&lakehouse, &engine, "b").await;
    assert!(again.summary.contains("is served already"), "{again:?}");

    lakehouse.add(&[(2, 3, 77, "purchase", "/late", "web")]).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "c").await;
    assert_eq!(served(&engine), lakehouse.recount());
    let dates = engine.sql("SELECT DISTINCT event_date FROM gold.published WHERE startsWith(run_id, 'c') ORDER BY 1");
    assert_eq!(dates, "2026-02-03\n", "nothing else is published again");
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let (entry, to) = (entry.expect("an entry"), to.to_owned());
        match entry.file_type().expect("a type").is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_goes_on_with_other_models_says_that_a_new_one_is_needed() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(13, 100, 0..2)).await;
    gold(&lakehouse).await;
    // Between two tasks the daemon was started again with another model.
    let mut changed = Pipeline::clone(&lakehouse.pipeline);
    let model = changed.models.iter_mut().find(|m| m.name == "user_days").expect("the model");
    model.text = model.text.replace("GROUP BY event_date, user_id", "GROUP BY user_id, event_date");
    lakehouse.pipeline = Arc::new(changed);
    let refused = try_publish(&lakehouse, &engine, "a").await.expect_err("nobody has computed it");
    assert!(!refused.is_transient() && refused.to_string().contains("boathouse batch run"), "{refused}");
    assert_eq!(engine.sql("SELECT count() FROM gold.published"), "0\n");
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "b").await;
    assert_eq!(served(&engine), lakehouse.recount());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_overtaken_drops_no_table() {
    let engine = Engine::start();
    let client = client(&engine);
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(14, 100, 0..2)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    // A run of other columns has begun and is held up; another one goes on.
    let standing = client.gold_standing("user_events").await.expect("an answer").expect("a publication");
    let mark = SilverMark { version: standing.mark.version + 1, ..standing.mark };
    let held_up = client.begin_publication("user_events", "held-up", mark, false).await.expect("it begins");
    lakehouse.add(&events(15, 50, 0..3)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "b").await;
    client.complete_publication(&held_up, "held-up").await.expect("it ends");
    let column = |name: &str, kind| ServedColumn { name: name.into(), kind, nullable: false, doc: String::new() };
    let earlier = ServedModel {
        view: "daily_active_users".into(),
        description: String::new(),
        date: "event_date".into(),
        grain: vec!["event_date".into()],
        columns: vec![column("event_date", ServedType::Day), column("dau", ServedType::Int64)],
    };
    client.settle_gold(&held_up, &[earlier]).await.expect("nothing to do");
    assert_eq!(served(&engine), lakehouse.recount());
}

/// A publication is cut off once its dates are shown, and silver is put back to before what it was made from.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_publication_showed_that_was_cut_off_goes_with_the_commit_that_it_was_made_from() {
    let engine = Engine::start();
    let client = client(&engine);
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(17, 100, 0..3)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    let standing = client.gold_standing("user_events").await.expect("an answer").expect("a publication");
    // No commit that silver has now has this mark.
    let lost = SilverMark { version: standing.mark.version + 1, entry: 7, ..standing.mark };
    let cut_off = client.begin_publication("user_events", "lost", lost, false).await.expect("it begins");
    let days = client.published_days("user_events").await.expect("dates");
    client.publish_gold_dates(&cut_off, &days[..1]).await.expect("its dates are shown");
    assert_ne!(served(&engine), lakehouse.recount());
    // What comes next is of another date.
    lakehouse.add(&[(2, 3, 77, "purchase", "/late", "web")]).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "b").await;
    assert_eq!(served(&engine), lakehouse.recount());
}

#[tokio::test(flavor = "multi_thread")]
async fn that_nothing_comes_any_more_is_noticed() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    let shipped = lakehouse.pipeline.clone();
    lakehouse.write(&events(16, 100, 0..2)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    // The events are of a past year. Nothing new is to be served, by which a run could tell.
    let fresh = |severity: &str| {
        format!(
            "name = \"fresh\"\ncheck = \"freshness\"\ncolumns = [\"event_time\"]\nwithin = \"1h\"\nseverity = \"{severity}\""
        )
    };
    lakehouse.pipeline = expecting(&lakehouse, &fresh("warn"));
    let again = publish(&lakehouse, &engine, "b").await;
    assert!(again.summary.contains("is served already"), "{again:?}");
    let kept = kept_results(&lakehouse.lake, 1, None).await.expect("results");
    let (result, run) = (&kept[0].result, kept[0].run_id.as_str());
    assert_eq!((run, result.name.as_str(), result.holds, kept.len()), ("b", "fresh", false, 1));
    assert_eq!(engine.sql("SELECT count() FROM gold.freshness WHERE run_id = 'b' AND lag_seconds > 0"), "2\n");
    lakehouse.pipeline = shipped;
    lakehouse.pipeline = expecting(&lakehouse, &fresh("fail"));
    let stale = try_publish(&lakehouse, &engine, "c").await.expect_err("it is old");
    assert!(!stale.is_transient() && stale.to_string().contains("fresh"), "{stale}");

    // Where no model is served, silver and gold are held against what is expected of them all the same.
    let mut unserved = Pipeline::clone(&lakehouse.pipeline);
    unserved.models.retain(|m| m.text.contains("clickhouse: none"));
    lakehouse.pipeline = Arc::new(unserved);
    gold(&lakehouse).await;
    let stale = try_publish(&lakehouse, &engine, "d").await.expect_err("it is old");
    assert!(stale.to_string().contains("fresh"), "{stale}");
}

/// Asks one question all the time, until it is stopped; every answer must be the one expected.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Reader {
    fn start(engine: &Engine, question: &'static str, expected: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, stopped) = (engine.url.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (http, mut answers) = (reqwest::Client::new(), 0);
                while !stopped.load(Ordering::Relaxed) {
                    let answer = http.post(&url).body(question).send().await.expect("an answer");
                    let answer = answer.text().await.expect("a body");
                    assert_eq!(answer.trim(), expected, "after {answers} answers");
                    answers += 1;
                }
                answers
            })
        });
        Self { stop, thread }
    }

    /// The number of answers; panics where one was wrong.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every answer is right")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_never_see_a_half_published_or_an_empty_date() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(6, 300, 0..3)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "0").await;
    // In one question: as many users in one figure as in the other, on each of the three days, and all days there.
    let agree = Reader::start(
        &engine,
        "SELECT count(), countIf(d.dau_count != c.active_users) \
         FROM gold.daily_active_users AS d FULL JOIN gold.conversion_rate_daily AS c USING event_date \
         SETTINGS join_use_nulls = 1",
        "3\t0",
    );
    let there = Reader::start(&engine, "SELECT count() FROM gold.daily_active_users", "3");
    for run in 1..=5 {
        lakehouse.add(&events(100 + run, 30, 0..3)).await;
        gold(&lakehouse).await;
        publish(&lakehouse, &engine, &run.to_string()).await;
    }
    assert!(agree.stop() > 5 && there.stop() > 5);
    assert_eq!(served(&engine), lakehouse.recount());
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_away_delays_and_heals() {
    let mut engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(8, 100, 0..2)).await;
    gold(&lakehouse).await;
    engine.kill();
    let away = try_publish(&lakehouse, &engine, "a").await.expect_err("nobody answers");
    assert!(away.is_transient(), "{away}");
    engine.restart();
    publish(&lakehouse, &engine, "a").await;
    assert_eq!(served(&engine), lakehouse.recount());
    // A database that was dropped is filled again.
    engine.sql("DROP DATABASE gold");
    publish(&lakehouse, &engine, "b").await;
    assert_eq!(served(&engine), lakehouse.recount());
}

/// What a child of [`a_stop_at_any_point_changes_nothing`] does; it says where the lakehouse and the engine are.
const CHILD: &str = "BOATHOUSE_TEST_GOLD";

#[test]
#[ignore = "the child of another test: the process ends at a fail point"]
fn one_run_of_a_child() {
    let places = std::env::var(CHILD).expect("where to run");
    let (folder, url) = places.split_once('|').expect("two places");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let lake = Lakehouse::at(folder);
        let client =
            Client::new(&config::ClickHouse { url: url.into(), ..config::ClickHouse::default() }).expect("a client");
        run_gold(&lake.lake, &lake.pipeline, &TaskContext::detached()).await.expect("gold");
        publish_gold(&lake.lake, &lake.pipeline, &client, "child", &TaskContext::detached()).await.expect("served");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_point_changes_nothing() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(9, 300, 0..3)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "0").await;
    let points = [
        "gold.before_commit",
        "gold.before_commit:5",
        "gold.after_commit",
        "gold.after_commit:5",
        "gold.after_commit:12",
        "publish.after_rows",
        "publish.after_published",
    ];
    for (run, point) in points.into_iter().enumerate() {
        let before = served(&engine);
        lakehouse.add(&events(200 + run as u64, 20, 0..3)).await;
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["gold::served::one_run_of_a_child", "--exact", "--ignored"])
            .env(CHILD, format!("{}|{}", lakehouse.path().display(), engine.url))
            .env("BOATHOUSE_FAIL_POINT", point)
            .output()
            .expect("a child");
        assert_eq!(child.status.code(), Some(86), "{point}: {}", String::from_utf8_lossy(&child.stdout));
        let expected = if point == "publish.after_published" { lakehouse.recount() } else { before };
        assert_eq!(served(&engine), expected, "after a stop at {point}");
        gold(&lakehouse).await;
        publish(&lakehouse, &engine, "child").await;
        assert_eq!(served(&engine), lakehouse.recount(), "after {point} and another run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_of_the_gold_dashboard_finds_rows() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(10, 300, 0..3)).await;
    gold(&lakehouse).await;
    publish(&lakehouse, &engine, "a").await;
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards/gold.json");
    let text = std::fs::read_to_string(file).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() >= 5);
    let ask = |sql: &str, pipeline: &str| {
        let chosen = |v: &serde_json::Value| crate::grafana::chosen(&engine, &dashboard, pipeline, v);
        crate::grafana::with_variables(sql, &dashboard, chosen)
    };
    for panel in panels {
        assert!(panel["description"].as_str().is_some_and(|d| !d.is_empty()), "{}", panel["title"]);
        for target in panel["targets"].as_array().expect("targets") {
            let text = target["rawSql"].as_str().expect("SQL");
            let sql = ask(text, &lakehouse.pipeline.name);
            let rows = engine.sql(&format!("{sql} FORMAT TSV"));
            assert!(!rows.is_empty(), "{} finds nothing: {sql}", panel["title"]);
            if target["queryType"] == "timeseries" {
                let names =
                    engine.sql(&format!("{sql} LIMIT 1 FORMAT TSVWithNames").replace("LIMIT 90 LIMIT 1", "LIMIT 1"));
                assert!(names.starts_with("time\t"), "{}: {names}", panel["title"]);
            }
            // A pipeline that serves no such figures; there is none of its to choose either.
            if !text.contains("$figure") {
                let sql = ask(text, "another");
                assert_eq!(
                    engine.sql(&format!("{sql} FORMAT TSV")),
                    "",
                    "{} of another pipeline: {sql}",
                    panel["title"]
                );
            }
        }
    }
}

/// The pipeline with one further expectation.
fn expecting(lakehouse: &Lakehouse, text: &str) -> Arc<Pipeline> {
    let mut pipeline = Pipeline::clone(&lakehouse.pipeline);
    pipeline.expectations.push(toml_edit::de::from_str(text).expect("an expectation"));
    Arc::new(pipeline)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_an_expectation_that_must_hold_is_not_served() {
    let engine = Engine::start();
    let mut lakehouse = Lakehouse::new();
    let shipped = lakehouse.pipeline.clone();
    lakehouse.write(&[(0, 1, 5, "purchase", "/a", "web"), (0, 1, 6, "login", "/b", "mobile")]).await;
    gold(&lakehouse).await;
    lakehouse.pipeline = expecting(
        &lakehouse,
        "name = \"high_ids\"\ncheck = \"range\"\ncolumns = [\"user_id\"]\nmin = 6\nseverity = \"fail\"",
    );
    let stopped = try_publish(&lakehouse, &engine, "a").await.expect_err("user 5 is too low");
    assert!(!stopped.is_transient() && stopped.to_string().contains("high_ids"), "{stopped}");
    assert_eq!(engine.sql("SELECT count() FROM gold.published"), "0\n");
    let kept = kept_results(&lakehouse.lake, 1, None).await.expect("results");
    let broken: Vec<_> = kept.iter().filter(|k| !k.result.holds).collect();
    assert_eq!(broken.len(), 1, "{kept:?}");
    assert_eq!((broken[0].run_id.as_str(), broken[0].result.rows_checked, broken[0].result.rows_failed), ("a", 2, 1));

    // Only a warning: served.
    lakehouse.pipeline = shipped;
    publish(&lakehouse, &engine, "b").await;
    let check = || async {
        data_quality_checks(&lakehouse.lake, &lakehouse.pipeline, &client(&engine), "b", &TaskContext::detached()).await
    };
    assert_eq!(check().await.expect("the same").rows_out, 5);
    // Somebody changes what is served.
    let rows =
        engine.sql("SELECT name FROM system.tables WHERE database = 'gold' AND name LIKE 'daily_active_users_rows%'");
    let table = rows.trim();
    engine.sql(&format!(
        "INSERT INTO gold.{table} (run_id, event_date, dau_count) SELECT run_id, event_date, 9 FROM gold.{table}"
    ));
    let differs = check().await.expect_err("another number");
    assert!(differs.to_string().contains("gold.daily_active_users is not what Delta holds"), "{differs}");

    let refusing = "name = \"web_only\"\ncheck = \"accepted_values\"\ncolumns = [\"source\"]\nvalues = [\"web\"]\nseverity = \"quarantine\"";
    let predicates = quarantine(&expecting(&lakehouse, refusing)).expect("predicates");
    assert_eq!(predicates, [("web_only".to_owned(), "\"source\" IN ('web')".to_owned())]);
}
