//! The run history and the driver of runs, on SQLite and on a real MariaDB: the same tests for both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use boathouse::batch::history::{
    AttemptState, Cause, Filter, History, HistoryError, Lease, LeaseWatch, NewAttempt, Run, RunState, TAKE_OVER_AFTER,
};
use boathouse::batch::run::graph::{Kind, Policy, Task};
use boathouse::batch::run::{Job, Runner, Work};
use boathouse::batch::{BatchError, LogLine, TaskReport};
use boathouse::config::{DatabaseUrl, Server};
use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt;
use tokio::sync::{Notify, watch};

use crate::support::mariadb::MariaDb;

/// Where a history of a test's own is.
struct Place {
    server: Server,
    _mariadb: Option<MariaDb>,
    _folder: tempfile::TempDir,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A name that an address cannot hold as it is.
        let data_dir = folder.path().join("a folder? #1 100%");
        Self { server: Server { data_dir, ..Server::default() }, _mariadb: None, _folder: folder }
    }

    fn mariadb() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mariadb = MariaDb::start();
        let mut server = Server { data_dir: folder.path().into(), ..Server::default() };
        server.history.url = DatabaseUrl::new(&mariadb.url);
        Self { server, _mariadb: Some(mariadb), _folder: folder }
    }

    /// A history as a process of its own would have it.
    async fn open(&self) -> History {
        History::open(&self.server).await.unwrap()
    }
}

/// Each test on both kinds of database.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() { super::$name(super::Place::sqlite()).await; })+
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let place = tokio::task::spawn_blocking(super::Place::mariadb).await.unwrap();
                super::$name(place).await;
            })+
        }
    };
}

on_both!(
    what_is_written_is_read,
    several_processes_may_migrate_at_once,
    a_slot_is_run_by_one_of_several,
    a_lease_has_one_holder,
    a_run_goes_through_its_graph,
    a_transient_failure_is_tried_again_and_a_refusal_is_not,
    a_run_whose_process_died_is_gone_on_with,
    a_run_is_cancelled_between_two_steps,
    a_process_that_leaves_leaves_the_run_to_others,
    a_run_that_takes_too_long_fails,
    a_failed_run_is_retried_from_the_failed_task,
    old_runs_go_and_what_is_looked_back_at_stays,
    it_is_known_what_waits_or_is_under_way,
    runs_are_found_by_what_they_are,
);

async fn what_is_written_is_read(place: Place) {
    let history = place.open().await;
    assert_eq!(history.runs(None, 10).await.unwrap(), []);
    let run_id = history.request("user_events").await.unwrap();
    let run = history.run(&run_id).await.unwrap().unwrap();
    assert_eq!((run.cause, run.state, run.tries, run.slot), (Cause::Manual, RunState::Waiting, 1, None));
    assert_eq!(run.graph, "lakehouse_batch_pipeline");
    assert!(history.run("no such run").await.unwrap().is_none());

    let new = NewAttempt { run_id: run_id.clone(), task: Task::RunBronzeToSilver, attempt: 1, try_number: 1 };
    history.begin_attempt(&new).await.unwrap();
    let report = TaskReport {
        rows_in: 10,
        rows_out: 7,
        rows_refused: 3,
        summary: "grün, 42 °C 😀 '\"; --".into(),
        ..TaskReport::default()
    };
    let error = "é".repeat(100_000);
    history.end_attempt(&new, AttemptState::FailedForNow, &report, Some(&error)).await.unwrap();
    let attempts = history.attempts(&run_id).await.unwrap();
    assert_eq!((attempts[0].rows_in, attempts[0].rows_out, attempts[0].rows_refused), (10, 7, 3));
    assert_eq!(attempts[0].summary.as_deref(), Some(report.summary.as_str()));
    assert!(attempts[0].error.as_ref().is_some_and(|e| e.len() > 50_000 && error.starts_with(e)));

    let lines: Vec<LogLine> = (0..600)
        .map(|i| LogLine { at: Utc::now(), level: tracing::Level::WARN, text: format!("line {i} 😀") })
        .collect();
    history.add_lines(&new, 1, &lines).await.unwrap();
    assert_eq!(history.last_line(&run_id).await.unwrap(), 600);
    let read = history.lines(&run_id, Some(Task::RunBronzeToSilver), 598).await.unwrap();
    assert_eq!(read.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(), ["line 598 😀", "line 599 😀"]);
    assert_eq!(history.lines(&run_id, Some(Task::RunSilverToGold), 0).await.unwrap(), []);
    let page = history.lines_at_most(&run_id, None, 100, 3).await.unwrap();
    assert_eq!(page.iter().map(|l| l.line).collect::<Vec<_>>(), [101, 102, 103]);

    assert!(history.schedule("user_events").await.unwrap().paused.is_none());
    assert!(history.pause("user_events", true).await.unwrap());
    assert!(!history.pause("user_events", true).await.unwrap(), "it is paused already");
    assert!(history.schedule("user_events").await.unwrap().paused.is_some());
    assert!(history.pause("user_events", false).await.unwrap());
    assert!(history.pause("a_new_one", true).await.unwrap());
    assert!(history.schedule("a_new_one").await.unwrap().paused.is_some());
}

async fn runs_are_found_by_what_they_are(place: Place) {
    let history = place.open().await;
    let noon: DateTime<Utc> = "2026-02-06T12:00:00Z".parse().unwrap();
    let slot = history.claim_slot("user_events", noon).await.unwrap().unwrap();
    let later = history.claim_slot("another", noon + TimeDelta::hours(1)).await.unwrap().unwrap();
    let by_hand = history.request_of(Kind::Upkeep, "user_events", &BTreeMap::new()).await.unwrap();
    history.end_run(&slot, RunState::Failed, Some("a disk is full")).await.unwrap();
    let found = async |filter: Filter| {
        let mut ids: Vec<_> = history.runs_that(&filter, 9).await.unwrap().into_iter().map(|run| run.run_id).collect();
        ids.sort();
        ids
    };
    let of = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    let any = Filter::default();
    assert_eq!(found(any.clone()).await, of(&[&slot, &later, &by_hand]));
    let cases = [
        (Filter { pipeline: Some("another".into()), ..any.clone() }, of(&[&later])),
        (Filter { state: Some(RunState::Failed), ..any.clone() }, of(&[&slot])),
        (Filter { cause: Some(Cause::Manual), ..any.clone() }, of(&[&by_hand])),
        (Filter { kind: Some(Kind::Batch), ..any.clone() }, of(&[&slot, &later])),
        (Filter { from: Some(noon + TimeDelta::minutes(1)), ..any.clone() }, of(&[&later, &by_hand])),
        (Filter { before: Some(noon + TimeDelta::minutes(1)), ..any.clone() }, of(&[&slot])),
        (Filter { from: Some(noon), before: Some(noon), ..any.clone() }, of(&[])),
        (
            Filter { cause: Some(Cause::Schedule), state: Some(RunState::Waiting), from: Some(noon), ..any.clone() },
            of(&[&later]),
        ),
    ];
    for (filter, wanted) in cases {
        assert_eq!(found(filter.clone()).await, wanted, "{filter:?}");
    }
    assert_eq!(history.runs_that(&any, 1).await.unwrap().len(), 1);

    // The attempts of some runs and of no other.
    for run_id in [&slot, &later] {
        let new = NewAttempt { run_id: run_id.clone(), task: Task::RunBronzeToSilver, attempt: 1, try_number: 1 };
        history.begin_attempt(&new).await.unwrap();
    }
    let runs = history.runs_that(&Filter { pipeline: Some("another".into()), ..any }, 9).await.unwrap();
    let attempts = history.attempts_of(&runs).await.unwrap();
    assert_eq!(attempts.iter().map(|(run, _)| run).collect::<Vec<_>>(), [&later]);
    assert_eq!(history.attempts_of(&[]).await.unwrap(), []);
}

async fn several_processes_may_migrate_at_once(place: Place) {
    let opened = futures::future::join_all((0..6).map(|_| History::open(&place.server))).await;
    for history in opened {
        history.unwrap().request("user_events").await.unwrap();
    }
    let again = place.open().await;
    assert_eq!(again.runs(Some("user_events"), 99).await.unwrap().len(), 6);
    assert_eq!(again.runs(Some("another"), 99).await.unwrap(), []);
}

async fn a_slot_is_run_by_one_of_several(place: Place) {
    let processes = [place.open().await, place.open().await, place.open().await];
    let begin: DateTime<Utc> = "2026-02-06T10:00:00Z".parse().unwrap();
    let claims = processes.map(|history| async move {
        let mut claimed = Vec::new();
        for i in 0..200 {
            let slot = begin + TimeDelta::seconds(i);
            if let Some(run_id) = history.claim_slot("user_events", slot).await.unwrap() {
                claimed.push((slot, run_id));
            }
        }
        claimed
    });
    let mut all: Vec<_> =
        futures::future::join_all(claims.map(tokio::spawn)).await.into_iter().flat_map(Result::unwrap).collect();
    all.sort();
    let slots: Vec<_> = all.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, (0..200).map(|i| begin + TimeDelta::seconds(i)).collect::<Vec<_>>());
    let history = place.open().await;
    let mut runs = history.runs(None, 999).await.unwrap();
    runs.sort_by_key(|run| run.slot);
    let of_slots: Vec<_> = runs.iter().map(|run| (run.slot.unwrap(), run.run_id.clone())).collect();
    assert_eq!(of_slots, all, "each slot has its one run");
}

async fn a_lease_has_one_holder(place: Place) {
    let (a, b) = (place.open().await, place.open().await);
    let holders = [(&a, "a"), (&b, "b")].map(|(history, holder)| async move {
        let found = history.held("p").await.unwrap();
        history.take("p", holder, found.as_ref(), false).await.unwrap()
    });
    let mut taken: Vec<Lease> = futures::future::join_all(holders).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1, "one of two takes it");
    let lease = taken.remove(0);
    assert!(a.beat(&lease).await.unwrap());
    let found = b.held("p").await.unwrap().unwrap();
    assert!(b.take("p", "c", Some(&found), false).await.unwrap().is_none(), "it is held");
    assert!(a.beat(&lease).await.unwrap());
    assert!(b.take("p", "c", Some(&found), true).await.unwrap().is_none(), "it has moved since it was seen");
    let found = b.held("p").await.unwrap().unwrap();
    let theirs = b.take("p", "c", Some(&found), true).await.unwrap().expect("it stands still");
    assert!(!a.beat(&lease).await.unwrap(), "the old holder notices");
    a.release(&lease).await.unwrap();
    assert!(b.beat(&theirs).await.unwrap(), "and cannot give away what is another's");
    b.release(&theirs).await.unwrap();
    let free = a.held("p").await.unwrap().unwrap();
    assert_eq!(free.holder, "");
    assert!(a.take("p", "a", Some(&free), false).await.unwrap().is_some());
}

/// A runner of tasks that are given.
fn runner(history: &History, retries: u32, work: Work) -> Runner {
    Runner {
        history: history.clone(),
        batch: tokio::runtime::Handle::current(),
        work,
        observer: Arc::new(|_, _| {}),
        policy: Policy { retries, backoff: Duration::from_millis(10) },
        time_limit: Duration::from_secs(60),
    }
}

/// Tasks that say what they are and succeed.
fn good() -> Work {
    Arc::new(|job: Job| async move { done(&job) }.boxed())
}

fn done(job: &Job) -> Result<TaskReport, BatchError> {
    job.context.info(format!("{} of {}", job.task, job.run_id));
    Ok(TaskReport { rows_in: 2, rows_out: 1, rows_refused: 1, summary: "done".into(), ..TaskReport::default() })
}

/// Takes a run up as a process of this name does.
async fn take_up(history: &History, holder: &str) -> (Run, Lease) {
    history.take_up("user_events", holder, &mut LeaseWatch::default()).await.unwrap().expect("a run waits")
}

async fn execute(runner: &Runner, holder: &str) -> RunState {
    let (run, lease) = take_up(&runner.history, holder).await;
    runner.execute(&run, &lease, watch::channel(false).1).await.unwrap()
}

/// The tasks' attempts as `task/attempt state`.
async fn attempts(history: &History, run_id: &str) -> Vec<String> {
    let attempts = history.attempts(run_id).await.unwrap();
    attempts.iter().map(|a| format!("{}/{} {}", a.task, a.attempt, a.state.as_str())).collect()
}

async fn a_run_goes_through_its_graph(place: Place) {
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    assert_eq!(execute(&runner(&history, 0, good()), "a").await, RunState::Succeeded);
    let expected = [
        "check_bronze_exists/1 succeeded",
        "run_bronze_to_silver/1 succeeded",
        "run_silver_to_gold/1 succeeded",
        "gold_to_clickhouse/1 succeeded",
        "data_quality_checks/1 succeeded",
        "pipeline_done/1 succeeded",
    ];
    assert_eq!(attempts(&history, &run_id).await, expected);
    let run = history.run(&run_id).await.unwrap().unwrap();
    assert!(run.state == RunState::Succeeded && run.started.is_some() && run.ended >= run.started, "{run:?}");
    assert_eq!(run.runner.as_deref(), Some("a"));
    let lines = history.lines(&run_id, None, 0).await.unwrap();
    assert_eq!(lines.iter().map(|l| l.line).collect::<Vec<_>>(), (1..=6).collect::<Vec<_>>());
    assert_eq!(lines[1].message, format!("run_bronze_to_silver of {run_id}"));
    assert_eq!(history.held("user_events").await.unwrap().unwrap().holder, "", "the lease is given back");
    assert_eq!(history.last_success("user_events").await.unwrap().unwrap().run_id, run_id);
    assert!(history.fresh_since("user_events", Task::RunSilverToGold).await.unwrap().is_some());
    assert!(history.take_up("user_events", "b", &mut LeaseWatch::default()).await.unwrap().is_none());

    // Bronze is empty: no rows.
    let run_id = history.request("user_events").await.unwrap();
    let empty: Work = Arc::new(|_| async { Ok(TaskReport::default()) }.boxed());
    assert_eq!(execute(&runner(&history, 0, empty), "a").await, RunState::Skipped);
    assert_eq!(attempts(&history, &run_id).await, ["check_bronze_exists/1 succeeded", "skip_pipeline/1 succeeded"]);
}

/// Tasks of which one fails its first attempts, in this way.
fn failing(task: Task, times: u32, error: fn() -> BatchError) -> Work {
    let failed = Arc::new(AtomicU32::new(0));
    Arc::new(move |job: Job| {
        let fails = job.task == task && failed.fetch_add(1, Ordering::SeqCst) < times;
        async move { if fails { Err(error()) } else { done(&job) } }.boxed()
    })
}

fn transient() -> BatchError {
    BatchError::Unavailable { what: "storage".into(), cause: "it is away".into() }
}

fn refusal() -> BatchError {
    BatchError::Refused { what: "the model".into(), cause: "is wrong".into(), remedy: "mend it".into() }
}

async fn a_transient_failure_is_tried_again_and_a_refusal_is_not(place: Place) {
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    let state = execute(&runner(&history, 2, failing(Task::RunSilverToGold, 2, transient)), "a").await;
    assert_eq!(state, RunState::Succeeded);
    let expected = ["run_silver_to_gold/1 failed", "run_silver_to_gold/2 failed", "run_silver_to_gold/3 succeeded"];
    assert_eq!(attempts(&history, &run_id).await[2..5], expected);

    let run_id = history.request("user_events").await.unwrap();
    let state = execute(&runner(&history, 2, failing(Task::RunSilverToGold, 1, refusal)), "a").await;
    assert_eq!(state, RunState::Failed);
    assert_eq!(attempts(&history, &run_id).await.last().unwrap(), "run_silver_to_gold/1 refused");
    let run = history.run(&run_id).await.unwrap().unwrap();
    assert_eq!(run.error.as_deref(), Some("run_silver_to_gold: the model: is wrong; mend it"));

    // A panic is a failure like another.
    let run_id = history.request("user_events").await.unwrap();
    let panics: Work = Arc::new(|job: Job| {
        async move {
            assert_ne!(job.task, Task::GoldToClickhouse, "broken on purpose");
            done(&job)
        }
        .boxed()
    });
    assert_eq!(execute(&runner(&history, 1, panics), "a").await, RunState::Failed);
    let run = history.run(&run_id).await.unwrap().unwrap();
    assert!(run.error.as_ref().is_some_and(|e| e.contains("broken on purpose")), "{run:?}");
    assert_eq!(attempts(&history, &run_id).await.len(), 5);
}

/// Tasks of which one does not end before it is told to stop.
fn hanging(task: Task, reached: Arc<Notify>) -> Work {
    Arc::new(move |job: Job| {
        let reached = reached.clone();
        async move {
            if job.task != task {
                return done(&job);
            }
            reached.notify_one();
            job.context.cancelled().await;
            job.context.check()?;
            done(&job)
        }
        .boxed()
    })
}

async fn a_run_whose_process_died_is_gone_on_with(place: Place) {
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    let reached = Arc::new(Notify::new());
    let dying = runner(&history, 0, hanging(Task::RunSilverToGold, reached.clone()));
    let (run, lease) = take_up(&history, "a").await;
    let process = tokio::spawn(async move { dying.execute(&run, &lease, watch::channel(false).1).await });
    reached.notified().await;
    process.abort();
    assert!(process.await.unwrap_err().is_cancelled());

    // Another process waits until the beat has stood still.
    let (mut watch, begin) = (LeaseWatch::default(), Instant::now());
    let (run, lease) = loop {
        if let Some(taken) = history.take_up("user_events", "b", &mut watch).await.unwrap() {
            break taken;
        }
        assert!(begin.elapsed() < TAKE_OVER_AFTER * 8, "nobody takes it over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(begin.elapsed() >= TAKE_OVER_AFTER, "it was taken from a living holder");
    assert_eq!(run.run_id, run_id);
    let state = runner(&history, 0, good()).execute(&run, &lease, tokio::sync::watch::channel(false).1).await.unwrap();
    assert_eq!(state, RunState::Succeeded);
    let expected = [
        "check_bronze_exists/1 succeeded",
        "run_bronze_to_silver/1 succeeded",
        "run_silver_to_gold/1 interrupted",
        "run_silver_to_gold/2 succeeded",
        "gold_to_clickhouse/1 succeeded",
        "data_quality_checks/1 succeeded",
        "pipeline_done/1 succeeded",
    ];
    assert_eq!(attempts(&history, &run_id).await, expected);
}

async fn a_run_is_cancelled_between_two_steps(place: Place) {
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    let reached = Arc::new(Notify::new());
    let runner_ = runner(&history, 3, hanging(Task::RunBronzeToSilver, reached.clone()));
    let (run, lease) = take_up(&history, "a").await;
    let process = tokio::spawn(async move { runner_.execute(&run, &lease, watch::channel(false).1).await });
    reached.notified().await;
    assert!(history.cancel(&run_id).await.unwrap());
    assert_eq!(process.await.unwrap().unwrap(), RunState::Cancelled);
    assert_eq!(attempts(&history, &run_id).await.last().unwrap(), "run_bronze_to_silver/1 cancelled");
    assert!(!history.cancel(&run_id).await.unwrap(), "it is over");

    // One that nobody has taken up is cancelled at once.
    let waiting = history.request("user_events").await.unwrap();
    assert!(history.cancel(&waiting).await.unwrap());
    assert_eq!(history.run(&waiting).await.unwrap().unwrap().state, RunState::Cancelled);
    assert!(history.next_run("user_events").await.unwrap().is_none());
}

async fn a_process_that_leaves_leaves_the_run_to_others(place: Place) {
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    // However often: a clean stop says nothing against the task.
    for time in 1..=6 {
        let reached = Arc::new(Notify::new());
        let leaver = runner(&history, 0, hanging(Task::RunBronzeToSilver, reached.clone()));
        let (run, lease) = take_up(&history, "a").await;
        let (leave, leaving) = watch::channel(false);
        let process = tokio::spawn(async move { leaver.execute(&run, &lease, leaving).await });
        reached.notified().await;
        leave.send_replace(true);
        assert_eq!(process.await.unwrap().unwrap(), RunState::Waiting);
        let last = attempts(&history, &run_id).await.pop().unwrap();
        assert_eq!(last, format!("run_bronze_to_silver/{time} stopped"));
    }
    // At once: the lease was given back.
    assert_eq!(execute(&runner(&history, 0, good()), "b").await, RunState::Succeeded);
    let seen = attempts(&history, &run_id).await;
    assert_eq!(seen[6..8], ["run_bronze_to_silver/6 stopped", "run_bronze_to_silver/7 succeeded"]);
    let json = serde_json::to_value(history.attempts(&run_id).await.unwrap()).unwrap();
    assert_eq!(json[1]["state"], "stopped", "JSON has the names that texts have");
}

async fn old_runs_go_and_what_is_looked_back_at_stays(place: Place) {
    let history = place.open().await;
    // Slots count from when the schedule was first seen.
    let slot = history.schedule("user_events").await.unwrap().last;
    let mut ids = Vec::new();
    for hour in 1..5 {
        ids.push(history.claim_slot("user_events", slot + TimeDelta::hours(hour)).await.unwrap().unwrap());
        let last = execute(&runner(&history, 0, good()), "a").await;
        assert_eq!(last, RunState::Succeeded);
    }
    let upkeep = history.claim_slot_of(Kind::Upkeep, "user_events", slot).await.unwrap().unwrap();
    assert_eq!(execute(&runner(&history, 0, good()), "a").await, RunState::Succeeded);
    let waiting = history.request("user_events").await.unwrap();
    let tasks: Vec<String> = attempts(&history, &upkeep).await;
    assert_eq!(tasks[0], "apply_retention/1 succeeded");

    assert_eq!(history.prune(Utc::now() - TimeDelta::days(90)).await.unwrap(), 0, "nothing is that old");
    let before = history.schedule("user_events").await.unwrap();
    let removed = history.prune(Utc::now() + TimeDelta::hours(1)).await.unwrap();
    // The newest slots and successes, and what waits, however old. Ids of one second do not sort: the newest success may be
    // another run than the newest slot's.
    let success = history.last_success("user_events").await.unwrap().unwrap().run_id;
    let gone: Vec<&String> = ids[..3].iter().filter(|id| **id != success).collect();
    assert_eq!(removed, gone.len() as u64);
    for gone in gone {
        assert!(history.run(gone).await.unwrap().is_none());
        assert_eq!(attempts(&history, gone).await, Vec::<String>::new());
        assert_eq!(history.lines(gone, None, 0).await.unwrap(), []);
    }
    for kept in [&ids[3], &upkeep, &waiting] {
        assert!(history.run(kept).await.unwrap().is_some(), "{kept}");
    }
    assert_eq!(history.schedule("user_events").await.unwrap(), before, "no slot is run a second time");
    assert!(history.slot_succeeded("user_events", before.last).await.unwrap());
    assert_eq!(history.prune(Utc::now() + TimeDelta::hours(1)).await.unwrap(), 0);
}

async fn it_is_known_what_waits_or_is_under_way(place: Place) {
    let history = place.open().await;
    let asked = async |pipeline: &str| history.is_asked_for(Kind::Upkeep, pipeline).await.unwrap();
    history.request("user_events").await.unwrap();
    assert!(!asked("user_events").await, "a batch run is no upkeep");
    let slot = Utc::now();
    let upkeep = history.claim_slot_of(Kind::Upkeep, "user_events", slot).await.unwrap().unwrap();
    assert!(asked("user_events").await && !asked("another").await, "it waits");
    // The batch run or the upkeep: what was asked for in one second is not sorted.
    execute(&runner(&history, 0, good()), "a").await;
    if asked("user_events").await {
        let (run, lease) = take_up(&history, "a").await;
        assert_eq!(run.run_id, upkeep);
        history.begin_run(&run.run_id, &lease).await.unwrap();
        assert!(asked("user_events").await, "it is under way");
        history.end_run(&run.run_id, RunState::Failed, None).await.unwrap();
    }
    assert!(!asked("user_events").await, "it is over");
}

async fn a_run_that_takes_too_long_fails(place: Place) {
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    let slow = runner(&history, 3, hanging(Task::RunBronzeToSilver, Arc::new(Notify::new())));
    let slow = Runner { time_limit: Duration::from_secs(1), ..slow };
    assert_eq!(execute(&slow, "a").await, RunState::Failed);
    let run = history.run(&run_id).await.unwrap().unwrap();
    assert!(run.error.as_ref().is_some_and(|e| e.contains("schedule.time_limit")), "{run:?}");
}

async fn a_failed_run_is_retried_from_the_failed_task(place: Place) {
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    assert_eq!(
        execute(&runner(&history, 0, failing(Task::RunSilverToGold, 1, transient)), "a").await,
        RunState::Failed
    );
    assert!(history.retry(&run_id).await.unwrap());
    assert_eq!(execute(&runner(&history, 0, good()), "a").await, RunState::Succeeded);
    let seen = attempts(&history, &run_id).await;
    assert_eq!(seen.iter().filter(|a| a.starts_with("run_bronze_to_silver")).count(), 1, "{seen:?}");
    assert_eq!(seen[2..4], ["run_silver_to_gold/1 failed", "run_silver_to_gold/2 succeeded"]);
    let run = history.run(&run_id).await.unwrap().unwrap();
    assert_eq!((run.tries, run.error), (2, None));
    assert!(!history.retry(&run_id).await.unwrap(), "it has succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_logs_without_end_fills_its_part_of_the_history_and_no_more() {
    let place = Place::sqlite();
    let history = place.open().await;
    let run_id = history.request("user_events").await.unwrap();
    let talks: Work = Arc::new(|job: Job| {
        async move {
            if job.task == Task::RunBronzeToSilver {
                (0..12_345).for_each(|n| job.context.info(format!("line {n}")));
            }
            done(&job)
        }
        .boxed()
    });
    assert_eq!(execute(&runner(&history, 0, talks), "a").await, RunState::Succeeded);
    let lines = history.lines(&run_id, Some(Task::RunBronzeToSilver), 0).await.unwrap();
    assert_eq!(lines.len(), 10_001);
    assert_eq!(lines[9_999].message, "line 9999");
    assert!(lines[10_000].message.contains("in the daemon's log alone"), "{:?}", lines[10_000]);
    let next = history.lines(&run_id, Some(Task::RunSilverToGold), 0).await.unwrap();
    assert_eq!(next.len(), 1, "the next task has room of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_or_replaced_is_noticed() {
    let place = Place::sqlite();
    let history = place.open().await;
    assert!(history.is_in_place());
    history.request("user_events").await.unwrap();
    let file = place.server.data_dir.join("history.db");
    std::fs::rename(&file, file.with_extension("aside")).unwrap();
    assert!(!history.is_in_place(), "it is gone");
    let other = place.open().await;
    assert!(!history.is_in_place() && other.is_in_place(), "another is in its place");
    assert_eq!(other.runs(None, 9).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_shows_in_no_error() {
    let (place, mut server) = tokio::task::spawn_blocking(|| {
        let place = Place::mariadb();
        let server = place.server.clone();
        (place, server)
    })
    .await
    .unwrap();
    let url = server.history.url.reveal(&server.data_dir);
    server.history.url = DatabaseUrl::new(url.replace("/history", "/no_such_database"));
    let error = History::open(&server).await.unwrap_err();
    assert!(matches!(error, HistoryError::Unavailable { .. }));
    let text = format!("{error} {error:?} {:?} {}", server.history, place.open().await.address());
    for secret in MariaDb::password() {
        assert!(!text.contains(secret), "{text}");
    }
}
