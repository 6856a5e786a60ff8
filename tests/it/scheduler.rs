//! The scheduler in a real daemon: runs by hand and by slot, one of several daemons, pauses, kills.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::broker::broker;
use crate::support::daemon::{PATIENCE, Site, produce};
use crate::support::engine::Engine;
use crate::support::mariadb::MariaDb;

const EVENTS: u64 = 2_000;
/// How long a run of a few events may take on a machine that tests share.
const RUN: Duration = Duration::from_secs(300);

fn schedule(site: &mut Site, key: &str, value: &str) {
    site.environment.push((format!("BOATHOUSE__PIPELINE__USER_EVENTS__SCHEDULE__{key}"), value.into()));
}

fn history(site: &Site) -> Vec<Value> {
    site.json(&["batch", "history", "--limit", "1000"]).1.as_array().expect("a list").clone()
}

/// Waits until the history satisfies a condition.
async fn wait(site: &Site, what: &str, ready: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begin = Instant::now();
    loop {
        let runs = history(site);
        if ready(&runs) {
            return runs;
        }
        assert!(begin.elapsed() < RUN, "waited for {what}: {runs:#?}\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The tasks of a run as `task/attempt state`.
fn tasks(run: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    // None of a run that nobody has taken up yet.
    let tasks = run["tasks"].as_array();
    tasks
        .into_iter()
        .flatten()
        .map(|t| format!("{}/{} {}", text(&t["task"]), t["attempt"], text(&t["state"])))
        .collect()
}

const ALL_DONE: [&str; 6] = [
    "check_bronze_exists/1 succeeded",
    "run_bronze_to_silver/1 succeeded",
    "run_silver_to_gold/1 succeeded",
    "gold_to_clickhouse/1 succeeded",
    "data_quality_checks/1 succeeded",
    "pipeline_done/1 succeeded",
];

/// A daemon whose sinks hold some events, stopped or not.
pub(crate) async fn filled(engine: &Engine, prefix: &str) -> (Site, crate::support::daemon::Daemon) {
    let kafka = broker().await;
    let topic = kafka.new_topic(prefix, 3).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    site.add_shipped_models();
    produce(kafka.address(), &topic, &["--count", &EVENTS.to_string(), "--max-rate"]);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    (site, daemon)
}

fn served_events(engine: &Engine) -> u64 {
    engine.sql("SELECT sum(event_count) FROM gold.events_per_source_daily").trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_by_hand_leads_to_gold_with_and_without_a_daemon() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "by-hand").await;
    let (code, runs) = site.json(&["batch", "run", "lakehouse_batch_dag", "--wait"]);
    assert_eq!((code, &runs[0]["state"]), (Some(0), &Value::from("succeeded")), "{runs:#}");
    assert_eq!(tasks(&runs[0]), ALL_DONE);
    assert_eq!(served_events(&engine), EVENTS);
    daemon.wait("the run in the status", |s| s["batches"][0]["last"]["outcome"] == "succeeded").await;
    let metrics =
        reqwest::get(format!("http://127.0.0.1:{}/metrics", site.metrics_port)).await.unwrap().text().await.unwrap();
    for line in [
        "boathouse_batch_runs_total{pipeline=\"user_events\",outcome=\"succeeded\"} 1",
        "boathouse_batch_task_seconds_count{pipeline=\"user_events\",task=\"run_silver_to_gold\"} 1",
        "boathouse_layer_age_seconds{pipeline=\"user_events\",layer=\"gold\"}",
    ] {
        assert!(metrics.lines().any(|l| l.starts_with(line)), "{line} is missing in\n{metrics}");
    }
    let run_id = runs[0]["run_id"].as_str().unwrap();
    let (_, lines) = site.json(&["batch", "logs", run_id]);
    assert!(lines.as_array().is_some_and(|l| !l.is_empty()));
    // Without a daemon the command does the work; there is nothing new, and a run changes nothing.
    daemon.stop().await;
    let (code, runs) = site.json(&["batch", "run"]);
    assert_eq!((code, tasks(&runs[0])), (Some(0), ALL_DONE.map(String::from).to_vec()), "{runs:#}");
    assert_eq!(served_events(&engine), EVENTS);
    assert_eq!(history(&site).len(), 2);
    site.assert_log_is_clean_but_for(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_at_any_task_is_gone_on_with() {
    let engine = Engine::start();
    let (mut site, mut daemon) = filled(&engine, "killed-run").await;
    daemon.stop().await;
    let plain = site.environment.clone();
    let (code, _) = site.json(&["batch", "pause"]);
    assert_eq!(code, Some(0));
    // Asked for while nothing runs; the daemons do it.
    let run_id = {
        let mut daemon = site.start();
        daemon.wait("the daemon", |s| s["batches"][0]["paused"].is_string()).await;
        daemon.kill();
        site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "batch.task_begun:2".into()));
        let mut daemon = site.start();
        daemon.wait("the daemon", |s| s["batches"][0]["paused"].is_string()).await;
        // The daemon may be gone before it has told the run's id: the history has it.
        site.run(&["batch", "run"]);
        assert_eq!(daemon.wait_exit("batch.task_begun", PATIENCE).await.code(), Some(86));
        history(&site)[0]["run_id"].as_str().unwrap().to_owned()
    };
    let nothing = site.run(&["batch", "logs", &run_id, "pipeline_done"]);
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert_eq!(said.trim(), format!("pipeline_done of {run_id} (running) has logged nothing yet"));
    for point in ["batch.task_ended:1", "batch.task_begun:2", "batch.task_ended:2", "batch.before_end:1"] {
        site.environment = plain.clone();
        site.environment.push(("BOATHOUSE_FAIL_POINT".into(), point.into()));
        let mut daemon = site.start();
        assert_eq!(daemon.wait_exit(point, RUN).await.code(), Some(86), "{point}");
    }
    site.environment = plain;
    let mut daemon = site.start();
    let runs = wait(&site, "the run's end", |runs| runs.iter().all(|r| r["state"] == "succeeded")).await;
    assert_eq!(runs.len(), 1);
    let (_, run) = site.json(&["batch", "history", &run_id]);
    let tasks = tasks(&run);
    assert!(tasks.iter().filter(|t| t.ends_with("interrupted")).count() >= 3, "{tasks:?}");
    for done in ALL_DONE.map(|t| t.split_once('/').unwrap().0) {
        let times = tasks.iter().filter(|t| t.starts_with(done) && t.ends_with("succeeded")).count();
        assert_eq!(times, 1, "{done} in {tasks:?}");
    }
    assert_eq!(served_events(&engine), EVENTS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_away_delays_a_run_which_may_be_cancelled_and_retried() {
    let mut engine = Engine::start();
    let (mut site, mut daemon) = filled(&engine, "run-outage").await;
    daemon.stop().await;
    schedule(&mut site, "RETRIES", "100");
    schedule(&mut site, "BACKOFF", "1s");
    let mut daemon = site.start();
    engine.kill();
    daemon.wait("the daemon", |s| s["batches"].as_array().is_some_and(|b| !b.is_empty())).await;
    let (_, asked) = site.json(&["batch", "run"]);
    let run_id = asked[0]["run_id"].as_str().unwrap().to_owned();
    let of = |site: &Site| site.json(&["batch", "history", &run_id]).1;
    let begin = Instant::now();
    while !tasks(&of(&site)).iter().any(|t| t == "gold_to_clickhouse/2 failed") {
        assert!(begin.elapsed() < RUN, "{:#}", of(&site));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    site.json(&["batch", "cancel", &run_id]);
    wait(&site, "the cancelled run", |runs| runs[0]["state"] == "cancelled").await;
    engine.restart();
    let (code, retried) = site.json(&["batch", "retry", &run_id, "--wait"]);
    assert_eq!(code, Some(0), "{retried:#}");
    let seen = tasks(&retried[0]);
    assert_eq!(seen.iter().filter(|t| t.starts_with("run_silver_to_gold")).count(), 1, "{seen:?}");
    assert_eq!(served_events(&engine), EVENTS);
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[
        "ClickHouse does not take totals",
        "task=gold_to_clickhouse",
        "batch run ended",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_pauses_and_goes_on() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("pause", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    schedule(&mut site, "ENABLED", "true");
    schedule(&mut site, "CRON", "* * * * * *");
    schedule(&mut site, "CATCH_UP", "none");
    let mut daemon = site.start();
    let over = |runs: &[Value], n: usize| runs.iter().filter(|r| r["state"] == "skipped").count() >= n;
    wait(&site, "some slots", |runs| over(runs, 2)).await;
    let (_, paused) = site.json(&["batch", "pause"]);
    assert_eq!(paused[0]["changed"], true);
    daemon.wait("the pause", |s| s["batches"][0]["paused"].is_string()).await;
    // A look that was under way may have claimed one more.
    let before = wait(&site, "the last run's end", |runs| runs.iter().all(|r| r["state"] == "skipped")).await.len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(history(&site).len() <= before + 1, "slots go on in a pause");
    // By hand it runs nevertheless.
    let (code, by_hand) = site.json(&["batch", "run", "--wait"]);
    assert_eq!((code, &by_hand[0]["state"]), (Some(0), &Value::from("skipped")));
    site.json(&["batch", "resume"]);
    wait(&site, "slots after the pause", |runs| over(runs, before + 3)).await;
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

/// Slots of each second go on although the history was lost under the running daemon.
async fn slots_go_on_without(mut site: Site, lose: impl AsyncFnOnce(&Site)) {
    schedule(&mut site, "ENABLED", "true");
    schedule(&mut site, "CRON", "* * * * * *");
    schedule(&mut site, "CATCH_UP", "none");
    let mut daemon = site.start();
    let over = |runs: &[Value]| runs.iter().filter(|r| r["state"] == "skipped").count();
    let before = wait(&site, "some slots", |runs| over(runs) >= 2).await;
    lose(&site).await;
    let lost = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    // The daemon by itself; a command that looks would make what is missing.
    let goes_on = |status: &Value| {
        let batch = &status["batches"][0];
        let ended = batch["last"]["ended"].as_str().and_then(|at| at.parse::<chrono::DateTime<chrono::Utc>>().ok());
        batch["history_error"].is_null() && batch["last"]["outcome"] == "skipped" && ended > Some(lost)
    };
    daemon.wait("a slot after the loss", goes_on).await;
    let runs = wait(&site, "slots in the new history", |runs| over(runs) >= 2).await;
    assert!(runs.iter().all(|run| before.iter().all(|b| b["run_id"] != run["run_id"])), "nothing was lost: {runs:#?}");
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[
        "the history's file was removed or replaced",
        "no batch run starts while the history is away",
        "a batch run is gone on with later",
        "log lines of a task are not in the history",
        "another process has taken the run over",
        "task=",
        "batch run ended",
    ]);
}

/// What serves, and what keeps a history.
async fn servers() -> (Engine, MariaDb) {
    tokio::task::spawn_blocking(|| (Engine::start(), MariaDb::start())).await.expect("both start")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_is_lost_while_the_daemon_runs_is_begun_anew() {
    let kafka = broker().await;
    let (engine, mariadb) = servers().await;
    let topic = kafka.new_topic("lost-history", 1).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let removed = async |site: &Site| {
        let found = std::fs::read_dir(site.folder.join("data")).expect("the data folder").flatten();
        let files: Vec<_> = found.filter(|f| f.file_name().to_string_lossy().starts_with("history.db")).collect();
        assert!(!files.is_empty());
        files.iter().for_each(|file| std::fs::remove_file(file.path()).expect("removed"));
    };
    slots_go_on_without(site, removed).await;

    let topic = kafka.new_topic("lost-tables", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__HISTORY__URL".into(), mariadb.url.clone()));
    let dropped = async |_: &Site| mariadb.drop_tables().await;
    slots_go_on_without(site, dropped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_does_not_succeed_in_time_is_told() {
    let mut engine = Engine::start();
    let (mut site, mut daemon) = filled(&engine, "late-slot").await;
    daemon.stop().await;
    engine.kill();
    for (key, value) in
        [("ENABLED", "true"), ("CRON", "*/5 * * * * *"), ("DEADLINE", "2s"), ("RETRIES", "0"), ("CATCH_UP", "latest")]
    {
        schedule(&mut site, key, value);
    }
    let mut daemon = site.start();
    let address = format!("http://127.0.0.1:{}/metrics", site.metrics_port);
    let missed = async || {
        let metrics = reqwest::get(&address).await.ok()?.text().await.ok()?;
        let line = "boathouse_batch_deadlines_missed_total{pipeline=\"user_events\"} ";
        metrics.lines().find_map(|l| l.strip_prefix(line)?.parse::<u64>().ok())
    };
    daemon.wait_for(RUN, "a late slot", |s| s["batches"][0]["late"] == true).await;
    assert!(missed().await > Some(0));
    engine.restart();
    daemon.wait_for(RUN, "a run that succeeds", |s| s["batches"][0]["last"]["outcome"] == "succeeded").await;
    assert_eq!(served_events(&engine), EVENTS);
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[
        "ClickHouse does not take totals",
        "task=gold_to_clickhouse",
        "batch run ended",
        "has not succeeded by its deadline",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_daemons_on_one_mariadb_one_runs_each_slot() {
    let kafka = broker().await;
    let (engine, mariadb) = servers().await;
    let topic = kafka.new_topic("slots", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__HISTORY__URL".into(), mariadb.url.clone()));
    schedule(&mut site, "ENABLED", "true");
    schedule(&mut site, "CRON", "* * * * * *");
    schedule(&mut site, "CATCH_UP", "all");
    let sibling = site.sibling();
    let (mut one, mut other) = (site.start(), sibling.start());
    let slots = std::env::var("BOATHOUSE_SOAK_SLOTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let over = |runs: &[Value]| runs.iter().filter(|r| r["state"] == "skipped").count();
    let soon = RUN + Duration::from_secs(slots as u64 * 2);
    let begin = Instant::now();
    let mut killed = false;
    let mut runs = history(&site);
    while over(&runs) < slots {
        assert!(begin.elapsed() < soon, "{} of {slots} slots\n{}\n{}", over(&runs), site.log(), sibling.log());
        if !std::mem::replace(&mut killed, over(&runs) > slots / 2) && killed {
            // What it had in hand goes over to the other one.
            one.kill();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        runs = history(&site);
    }
    assert!(killed);
    other.stop().await;
    let mut seconds: Vec<i64> = history(&site)
        .iter()
        .map(|run| {
            let slot: chrono::DateTime<chrono::Utc> = run["slot"].as_str().expect("a slot").parse().expect("a time");
            slot.timestamp()
        })
        .collect();
    seconds.sort_unstable();
    let first = seconds[0];
    let expected: Vec<i64> = (first..first + seconds.len() as i64).collect();
    assert_eq!(seconds, expected, "each second's slot has one run");
    for secret in MariaDb::password() {
        assert!(!site.log().contains(secret) && !sibling.log().contains(secret), "a password in the log");
    }
}
