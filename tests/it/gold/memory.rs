//! Work that does not fit into memory, and work that would be too much at the same time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use boathouse::batch::history::{History, LeaseWatch, RunState};
use boathouse::batch::run::graph::{Policy, Task};
use boathouse::batch::run::{Job, Runner, Work, threads};
use boathouse::batch::tasks::work_on;
use boathouse::batch::{BatchError, Lake, Layer, TaskContext, TaskReport, run_gold};
use boathouse::config::{self, ModelFile, Pipeline, Server};
use boathouse::serving::Client;
use futures::FutureExt;
use tokio::sync::{mpsc, watch};

use super::lakehouse::{Lakehouse, events};

/// How long a run may take to begin and to end. No longer: the work that is cancelled below takes longer than that.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events of one date; each is a group of the model below.
const EVENTS: usize = 200_000;
/// What the groups of a date take is several times as much.
const MEMORY: usize = 24 << 20;

const TIMES: &str = "\
-- description: How often each event stands in silver.
-- kind: by_date
-- partition: event_date
-- grain: event_date, event_id
-- clickhouse: none
-- column event_date: The day.
-- column event_id: The event.
-- column place: Where it was, in words that take memory.
-- column times: How often.

SELECT event_date, event_id, concat(page, ' of the shop, seen by ', user_id, ' on ', source) AS place, count(*) AS times
FROM silver.user_events
GROUP BY event_date, event_id, concat(page, ' of the shop, seen by ', user_id, ' on ', source)
";

/// Rows of the model's table, and what its counts add up to.
async fn counted(lakehouse: &Lakehouse) -> (i64, i64) {
    let table = lakehouse.lake.open(Layer::Gold, "event_times").await.expect("gold").expect("a table");
    let session = lakehouse.lake.session();
    session.register_table("t", table.table_provider().await.expect("a provider")).expect("registered");
    let rows = session.sql("SELECT count(*), sum(times) FROM t").await.expect("a plan").collect().await.expect("rows");
    let number = |i: usize| rows[0].column(i).as_primitive::<Int64Type>().value(0);
    (number(0), number(1))
}

fn small(lakehouse: &Path, spill: &str, spill_max: u64) -> Lake {
    let spill = lakehouse.with_file_name(spill);
    Lake::within(&lakehouse.to_string_lossy(), MEMORY, spill, spill_max).expect("a lake")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_spilled_within_its_limit_and_stays_right() {
    let mut lakehouse = Lakehouse::new();
    let mut pipeline = Pipeline::clone(&lakehouse.pipeline);
    pipeline.models = vec![ModelFile {
        name: "event_times".into(),
        path: Arc::new(PathBuf::from("event_times.sql")),
        text: TIMES.into(),
    }];
    lakehouse.pipeline = Arc::new(pipeline);
    lakehouse.write(&events(11, EVENTS, 0..1)).await;
    let task = TaskContext::detached();

    // Nearly nothing may lie on the disk: the work needs it, and says what to raise.
    let lake = small(lakehouse.path(), "spill-small", 64 << 10);
    let error = run_gold(&lake, &lakehouse.pipeline, &task).await.expect_err("it does not fit");
    let text = error.to_string();
    assert!(text.contains("event_times") && text.contains("`batch.spill_max`"), "{text}");
    assert!(error.is_transient(), "{text}");
    assert!(lakehouse.lake.open(Layer::Gold, "event_times").await.expect("gold").is_none(), "nothing is committed");

    let lake = small(lakehouse.path(), "spill-large", 4 << 30);
    let (outcome, _) = run_gold(&lake, &lakehouse.pipeline, &task).await.expect("spilled");
    assert_eq!(outcome.models[0].rows, EVENTS as u64);
    assert_eq!(counted(&lakehouse).await, (EVENTS as i64, EVENTS as i64));
    assert_eq!(lake.memory_used(), 0, "all of it is given back");
    for spill in ["spill-small", "spill-large"] {
        let folder = std::fs::read_dir(lakehouse.path().with_file_name(spill)).expect("a folder").flatten();
        let left: usize = folder.map(|f| std::fs::read_dir(f.path()).map_or(0, Iterator::count)).sum();
        assert_eq!(left, 0, "{spill}");
    }
}

/// A job, and what cancels it.
fn job(task: Task) -> (watch::Sender<bool>, Job) {
    let (cancel, cancelled) = watch::channel(false);
    let context = TaskContext::new(mpsc::unbounded_channel().0, cancelled);
    (cancel, Job { task, run_id: "a run".into(), parameters: BTreeMap::new(), context })
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_may_use_all_the_memory_takes_turns_and_can_be_cancelled_while_it_waits() {
    let mut lakehouse = Lakehouse::new();
    lakehouse.write(&events(1, 50, 0..2)).await;
    let client = Client::new(&config::ClickHouse::default()).expect("a client");
    let server = Arc::new(Server::default());
    let work = work_on(Ok(lakehouse.lake.clone()), &server, &lakehouse.pipeline, &client);

    let turn = lakehouse.lake.turn().await;
    let (_keep, first) = job(Task::RunSilverToGold);
    let first = tokio::spawn(work(first));
    let (cancel, second) = job(Task::RunSilverToGold);
    let second = tokio::spawn(work(second));
    // What reads logs alone waits for nobody.
    let (_keep_too, look) = job(Task::CheckBronzeExists);
    assert_eq!(work(look).await.expect("a look").rows_out, 0);
    cancel.send_replace(true);
    assert_eq!(second.await.expect("no panic"), Err(BatchError::Cancelled));
    // Whoever has the turn goes on meanwhile: the other one sees what it has done.
    lakehouse.add(&events(2, 50, 0..2)).await;
    assert!(!lakehouse.path().join("gold").exists(), "the other one waits");
    drop(turn);
    first.await.expect("no panic").expect("gold");
    assert_eq!(lakehouse.gold("fact_events").await.len(), 100);
}

const ENDLESS: &str = "\
-- description: Every two events of a date.
-- kind: by_date
-- partition: event_date
-- grain: event_date
-- clickhouse: none
-- column event_date: The day.
-- column pairs: How many there are, which takes as good as for ever.

SELECT a.event_date, count(*) FILTER (WHERE concat(a.event_id, b.event_id) < concat(b.event_id, a.event_id)) AS pairs
FROM silver.user_events AS a
JOIN silver.user_events AS b ON a.event_date = b.event_date
GROUP BY a.event_date
";

/// Waits for a condition.
async fn patience(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A model as [`ENDLESS`] whose join takes none of the pairs: it looks at all of them and has nothing to give.
fn barren(equal_dates: &str) -> String {
    let condition = format!("{equal_dates} AND concat(a.event_id, b.event_id) = 'no such pair'");
    ENDLESS.replace("a.event_date = b.event_date", &condition)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_uses_no_time_and_no_memory_any_more() {
    ends_when_cancelled(ENDLESS, 60_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_ends_a_join_that_gives_nothing() {
    // By the hash of the date, and by looking at every pair.
    for equal_dates in ["a.event_date = b.event_date", "a.event_date <= b.event_date"] {
        // So many that to look at all the pairs takes longer than [`PATIENCE`].
        ends_when_cancelled(&barren(equal_dates), 200_000).await;
    }
}

async fn ends_when_cancelled(model: &str, count: usize) {
    let mut lakehouse = Lakehouse::new();
    let mut pipeline = Pipeline::clone(&lakehouse.pipeline);
    pipeline.models =
        vec![ModelFile { name: "pairs".into(), path: Arc::new(PathBuf::from("pairs.sql")), text: model.into() }];
    lakehouse.pipeline = Arc::new(pipeline);
    lakehouse.write(&events(12, count, 0..1)).await;
    let client = Client::new(&config::ClickHouse::default()).expect("a client");
    let folder = tempfile::tempdir().expect("a folder");
    let server = Arc::new(Server { data_dir: folder.path().into(), ..Server::default() });
    let real = work_on(Ok(lakehouse.lake.clone()), &server, &lakehouse.pipeline, &client);
    let work: Work = Arc::new(move |job: Job| match job.task {
        Task::RunSilverToGold => real(job),
        _ => async { Ok(TaskReport { rows_out: 1, ..TaskReport::default() }) }.boxed(),
    });
    let threads = threads::runtime(2).expect("threads");
    let history = History::open(&server).await.expect("a history");
    let runner = Runner {
        history: history.clone(),
        batch: threads.handle().clone(),
        work,
        observer: Arc::new(|_, _| {}),
        policy: Policy { retries: 0, backoff: Duration::ZERO },
        time_limit: Duration::from_secs(3600),
    };
    let run_id = history.request("user_events").await.expect("asked");
    let (run, lease) =
        history.take_up("user_events", "a", &mut LeaseWatch::default()).await.expect("an answer").expect("a run");
    let going = tokio::spawn(async move { runner.execute(&run, &lease, watch::channel(false).1).await });
    let lake = lakehouse.lake.clone();
    patience("the join begins", || lake.memory_used() > 0).await;
    assert!(history.cancel(&run_id).await.expect("cancelled"));
    let ended = going.await.expect("no panic").expect("an end");
    let run = history.run(&run_id).await.expect("an answer").expect("the run");
    assert_eq!(ended, RunState::Cancelled, "{run:?}");
    let tasks = threads.metrics();
    patience("no task is left", || tasks.num_alive_tasks() == 0).await;
    assert_eq!(lake.memory_used(), 0, "what it held is given back");
    drop(lake.turn().await);
    assert!(lake.open(Layer::Gold, "pairs").await.expect("gold").is_none(), "nothing is committed");
    threads.shutdown_background();
}
