//! Drives one run through the graph: starts its tasks, keeps its lease, writes what happens into the history, and stops
//! it when somebody asks, when time is up, when the process leaves, or when the lease has gone to another process.

pub mod graph;
pub mod threads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::graph::{Bronze, Ended, Graph, Kind, Policy, Step, Task};
use super::history::{
    Attempt, AttemptState, BEAT, History, HistoryError, Lease, NewAttempt, Run, RunState, TAKE_OVER_AFTER,
};
use super::{BatchError, LogLine, TaskContext, TaskReport};
use crate::config::Schedule;
use crate::failpoint;

/// One attempt at a task, for who does it.
#[derive(Debug)]
pub struct Job {
    pub task: Task,
    pub run_id: String,
    /// What the run was asked with, by name: the dates of a backfill.
    pub parameters: BTreeMap<String, String>,
    pub context: TaskContext,
}

/// What the tasks do. Of `check_bronze_exists` the rows out decide how the graph goes on: none, and Bronze is empty.
pub type Work = Arc<dyn Fn(Job) -> BoxFuture<'static, Result<TaskReport, BatchError>> + Send + Sync>;

/// Is told what happens, as it happens.
pub type Observer = Arc<dyn Fn(&Run, Event<'_>) + Send + Sync>;

/// What happens in a run.
#[derive(Debug)]
pub enum Event<'a> {
    Began,
    TaskBegan {
        task: Task,
        attempt: u32,
    },
    TaskEnded {
        task: Task,
        attempt: u32,
        state: AttemptState,
        took: Duration,
        report: &'a TaskReport,
        error: Option<&'a str>,
    },
    Ended {
        state: RunState,
        error: Option<&'a str>,
    },
}

/// How often a run looks whether it was cancelled.
const LOOK: Duration = Duration::from_secs(1);
/// How long a task may take to stop between two steps before it is dropped: progress lives in the tables.
const GRACE: Duration = Duration::from_secs(10);
/// Log lines are written this often.
const WRITE: Duration = Duration::from_millis(500);
/// Log lines that one attempt may write; what comes after is in the daemon's log alone.
const LINES_MAX: i64 = 10_000;
/// Log lines in one transaction.
const LINES_AT_ONCE: usize = 500;
/// How long the last lines of a task may take.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Wait between two tries at writing into a history that is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs tasks. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    pub history: History,
    /// Where the tasks run; the runner itself runs where it is awaited, so that its lease is kept whatever they do.
    pub batch: Handle,
    pub work: Work,
    pub observer: Observer,
    pub policy: Policy,
    pub time_limit: Duration,
}

/// Why a run stops before its graph ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    Cancelled,
    OutOfTime,
    /// The process leaves; somebody goes on later.
    Leaving,
    /// Another process goes on already.
    Lost,
}

/// A run that is under way.
struct Under<'a> {
    runner: &'a Runner,
    run: &'a Run,
    leaving: watch::Receiver<bool>,
    told: watch::Receiver<Option<Halt>>,
    deadline: Instant,
    next_line: i64,
    parameters: BTreeMap<String, String>,
}

impl Runner {
    /// The policy of a pipeline's schedule.
    pub fn policy(schedule: &Schedule) -> Policy {
        Policy { retries: schedule.retries, backoff: schedule.backoff }
    }

    /// Runs or goes on with a run under a lease, to its end or until `leaving` is true; then it waits for somebody to go
    /// on with it. The lease is given back.
    pub async fn execute(
        &self,
        run: &Run,
        lease: &Lease,
        leaving: watch::Receiver<bool>,
    ) -> Result<RunState, HistoryError> {
        let history = &self.history;
        insist(|| history.begin_run(&run.run_id, lease)).await?;
        insist(|| history.interrupt_attempts(&run.run_id)).await?;
        let attempts = insist(|| history.attempts(&run.run_id)).await?;
        let mut graph = resumed(run, self.policy, attempts);
        (self.observer)(run, Event::Began);
        let (tell, told) = watch::channel(None);
        let keeper = AbortOnDrop(tokio::spawn(keep(history.clone(), lease.clone(), run.run_id.clone(), tell)));
        let mut under = Under {
            runner: self,
            run,
            leaving,
            told,
            deadline: Instant::now() + self.time_limit,
            next_line: insist(|| history.last_line(&run.run_id)).await? + 1,
            parameters: insist(|| history.parameters(&run.run_id)).await?,
        };
        let (state, error) = under.drive(&mut graph).await?;
        drop(keeper);
        failpoint::hit("batch.before_end");
        if let Some(state) = state {
            insist(|| history.end_run(&run.run_id, state, error.as_deref())).await?;
            insist(|| history.release(lease)).await?;
        }
        let state = state.unwrap_or(RunState::Waiting);
        (self.observer)(run, Event::Ended { state, error: error.as_deref() });
        Ok(state)
    }
}

impl Under<'_> {
    /// Walks the graph. No state when the run is another's meanwhile.
    async fn drive(&mut self, graph: &mut Graph) -> Result<(Option<RunState>, Option<String>), HistoryError> {
        let mut error = None;
        loop {
            let (task, attempt, after) = match graph.next() {
                Step::Finish(outcome) => {
                    let state = RunState::from(outcome);
                    return Ok((Some(state), error.filter(|_| state != RunState::Succeeded)));
                }
                Step::Start { task, attempt, after } => (task, attempt, after),
            };
            let halt = tokio::select! {
                biased;
                halt = self.halted() => Some(halt),
                () = tokio::time::sleep(after) => None,
            };
            let halt = match halt {
                Some(halt) => Some(halt),
                None => {
                    let (how, halt, text) = self.attempt(task, attempt, graph).await?;
                    graph.ended(task, how, true);
                    if text.is_some() {
                        error = text.map(|text| format!("{task}: {text}"));
                    }
                    halt
                }
            };
            match halt {
                None => {}
                Some(Halt::Lost) => return Ok((None, None)),
                // A graph that has come to its end meanwhile is not stopped.
                Some(_) if matches!(graph.next(), Step::Finish(_)) => {}
                Some(Halt::Cancelled) => graph.cancel(),
                Some(Halt::OutOfTime) => {
                    let limit = humantime::format_duration(self.runner.time_limit);
                    error = Some(format!("the run took longer than schedule.time_limit, {limit}"));
                    graph.out_of_time();
                }
                Some(Halt::Leaving) => return Ok((Some(RunState::Waiting), None)),
            }
        }
    }

    /// One attempt at a task: how it ended, whether the run is to stop, and what went wrong.
    async fn attempt(
        &mut self,
        task: Task,
        attempt: u32,
        graph: &mut Graph,
    ) -> Result<(Ended, Option<Halt>, Option<String>), HistoryError> {
        let (runner, run) = (self.runner, self.run);
        let new = NewAttempt { run_id: run.run_id.clone(), task, attempt, try_number: run.tries };
        insist(|| runner.history.begin_attempt(&new)).await?;
        failpoint::hit("batch.task_begun");
        (runner.observer)(run, Event::TaskBegan { task, attempt });
        let begun = Instant::now();
        let (cancel, cancelled) = watch::channel(false);
        #[allow(clippy::disallowed_methods, reason = "a task must not wait for its log; lines are few, and counted")]
        let (lines, written) = mpsc::unbounded_channel();
        let context = TaskContext::new(lines, cancelled);
        let job = Job { task, run_id: run.run_id.clone(), parameters: self.parameters.clone(), context };
        let mut work = runner.batch.spawn((runner.work)(job));
        let done = Arc::new(Notify::new());
        let scribe = Scribe {
            history: runner.history.clone(),
            of: new.clone(),
            next: self.next_line,
            left: LINES_MAX,
            full: false,
        };
        let writing = tokio::spawn(scribe.write(written, done.clone()));
        let (result, halt) = tokio::select! {
            ended = &mut work => (Some(ended), None),
            why = self.halted() => {
                cancel.send_replace(true);
                let ended = tokio::time::timeout(GRACE, &mut work).await.ok();
                if ended.is_none() {
                    work.abort();
                }
                (ended, Some(why))
            }
        };
        done.notify_one();
        // A task that would not stop keeps its end of the lines, and is not waited for.
        if let Ok(Ok(next)) = tokio::time::timeout(LAST_LINES, writing).await {
            self.next_line = next;
        }
        let (how, report, error) = judge(result, halt);
        if task == Task::CheckBronzeExists && how == Ended::Succeeded {
            graph.found(found(i64::try_from(report.rows_out).unwrap_or(i64::MAX)));
        }
        failpoint::hit("batch.task_ended");
        if halt != Some(Halt::Lost) {
            insist(|| runner.history.end_attempt(&new, how.into(), &report, error.as_deref())).await?;
        }
        let took = begun.elapsed();
        let event =
            Event::TaskEnded { task, attempt, state: how.into(), took, report: &report, error: error.as_deref() };
        (runner.observer)(run, event);
        Ok((how, halt, error))
    }

    /// Returns when the run is to stop, and why.
    async fn halted(&mut self) -> Halt {
        let told = async {
            match self.told.wait_for(Option::is_some).await {
                Ok(halt) => halt.unwrap_or(Halt::Lost),
                // The keeper has panicked: the lease is not kept.
                Err(_) => Halt::Lost,
            }
        };
        let leaving = async {
            if self.leaving.wait_for(|leaving| *leaving).await.is_err() {
                // Nobody is left who could say so.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            halt = told => halt,
            () = leaving => Halt::Leaving,
            () = tokio::time::sleep_until(self.deadline) => Halt::OutOfTime,
        }
    }
}

/// The graph where earlier attempts have left it.
fn resumed(run: &Run, policy: Policy, mut attempts: Vec<Attempt>) -> Graph {
    let mut graph = Graph::of(Kind::read(&run.graph).unwrap_or_default(), policy);
    // By their numbers: the clocks of two machines that have had the run may differ.
    attempts.sort_by_key(|attempt| attempt.attempt);
    for attempt in attempts {
        if attempt.task == Task::CheckBronzeExists && attempt.state == AttemptState::Succeeded {
            graph.found(found(attempt.rows_out));
        }
        graph.ended(attempt.task, attempt.state.ended(), attempt.try_number == run.tries);
    }
    graph
}

fn found(rows: i64) -> Bronze {
    if rows == 0 { Bronze::Empty } else { Bronze::Filled }
}

/// How an attempt ended; no result when it would not stop in time.
fn judge(
    result: Option<Result<Result<TaskReport, BatchError>, tokio::task::JoinError>>,
    halt: Option<Halt>,
) -> (Ended, TaskReport, Option<String>) {
    let stopped = || match halt {
        Some(Halt::Cancelled) => (Ended::Cancelled, None),
        Some(Halt::OutOfTime) => (Ended::FailedForGood, Some("stopped at schedule.time_limit".to_owned())),
        Some(Halt::Leaving) => (Ended::Stopped, Some("the process was asked to leave".to_owned())),
        Some(Halt::Lost) => (Ended::Interrupted, Some("another process has taken the run over".to_owned())),
        None => (Ended::FailedForNow, Some("it gave up although nobody had asked".to_owned())),
    };
    let (how, error) = match result {
        Some(Ok(Ok(report))) => return (Ended::Succeeded, report, None),
        Some(Ok(Err(BatchError::Cancelled))) | None => stopped(),
        Some(Ok(Err(error))) => {
            let how = if error.is_transient() { Ended::FailedForNow } else { Ended::FailedForGood };
            (how, Some(error.to_string()))
        }
        Some(Err(error)) if error.is_panic() => (Ended::FailedForNow, Some(panic_text(error))),
        Some(Err(_)) => stopped(),
    };
    (how, TaskReport::default(), error)
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let payload = error.into_panic();
    let text = payload.downcast_ref::<&str>().map(|t| (*t).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    format!("it panicked: {}", text.unwrap_or_else(|| "a panic without a message".into()))
}

/// Writes a task's lines into the history, some at a time.
struct Scribe {
    history: History,
    of: NewAttempt,
    next: i64,
    left: i64,
    /// Whether the last line says that there are more.
    full: bool,
}

impl Scribe {
    /// Writes until the task has ended; the number of the next line.
    async fn write(mut self, mut lines: mpsc::UnboundedReceiver<LogLine>, done: Arc<Notify>) -> i64 {
        let mut some = Vec::new();
        while lines.recv_many(&mut some, LINES_AT_ONCE).await > 0 {
            let room = self.left.max(0) as usize;
            if some.len() > room && !std::mem::replace(&mut self.full, true) {
                let text =
                    format!("further lines of this task are in the daemon's log alone: {LINES_MAX} are kept here");
                some[room] = LogLine { at: Utc::now(), level: tracing::Level::WARN, text };
                some.truncate(room + 1);
            } else {
                some.truncate(room);
            }
            let many = some.len() as i64;
            if many > 0 {
                match self.history.add_lines(&self.of, self.next, &some).await {
                    Ok(()) => (self.next, self.left) = (self.next + many, self.left - many),
                    // They are in the daemon's log; a task is not held up for them.
                    Err(error) => tracing::warn!(%error, lines = many, "log lines of a task are not in the history"),
                }
            }
            some.clear();
            tokio::select! {
                () = tokio::time::sleep(WRITE) => {}
                () = done.notified() => done.notify_one(),
            }
        }
        self.next
    }
}

/// Keeps a run's lease and looks whether somebody cancels it, until it is dropped.
async fn keep(history: History, lease: Lease, run_id: String, tell: watch::Sender<Option<Halt>>) {
    let mut kept = Instant::now();
    let mut next_beat = Instant::now();
    loop {
        if Instant::now() >= next_beat {
            next_beat += BEAT;
            match history.beat(&lease).await {
                Ok(true) => kept = Instant::now(),
                Ok(false) => {
                    tracing::warn!(run_id, "another process has taken the run over; it stops here");
                    tell.send_replace(Some(Halt::Lost));
                    return;
                }
                Err(error) if kept.elapsed() >= TAKE_OVER_AFTER => {
                    tracing::warn!(run_id, %error, "the run's lease could not be kept; it stops here and is gone on with later");
                    tell.send_replace(Some(Halt::Lost));
                    return;
                }
                Err(error) => tracing::info!(run_id, %error, "the run's lease is kept again soon"),
            }
        }
        if let Ok(Some(run)) = history.run(&run_id).await
            && run.cancel_asked
        {
            tell.send_if_modified(|halt| halt.is_none().then(|| *halt = Some(Halt::Cancelled)).is_some());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes into a history that may be away for a moment: as long as the lease lives without it.
async fn insist<T, F>(write: impl Fn() -> F) -> Result<T, HistoryError>
where
    F: Future<Output = Result<T, HistoryError>>,
{
    let begun = Instant::now();
    loop {
        match write().await {
            Err(error @ HistoryError::Unavailable { .. }) if begun.elapsed() < TAKE_OVER_AFTER => {
                tracing::info!(%error, "tried again");
                tokio::time::sleep(AGAIN).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Cause;
    use super::*;

    #[test]
    fn a_run_goes_on_where_its_last_attempt_left_it_whatever_the_clocks_say() {
        let now = Utc::now();
        let run = Run {
            run_id: "r".into(),
            pipeline: "p".into(),
            graph: Kind::Batch.as_str().into(),
            cause: Cause::Manual,
            state: RunState::Running,
            slot: None,
            requested: now,
            started: None,
            ended: None,
            runner: None,
            cancel_asked: false,
            tries: 1,
            error: None,
        };
        let attempt = |task, attempt, state, minutes| Attempt {
            task,
            attempt,
            try_number: 1,
            state,
            started: now + chrono::TimeDelta::minutes(minutes),
            ended: None,
            rows_in: 0,
            rows_out: 9,
            rows_refused: 0,
            summary: None,
            error: None,
        };
        // A machine whose clock is five minutes behind has taken the run over: the history tells its attempt first.
        let attempts = vec![
            attempt(Task::CheckBronzeExists, 2, AttemptState::Succeeded, -5),
            attempt(Task::CheckBronzeExists, 1, AttemptState::Interrupted, 0),
        ];
        let graph = resumed(&run, Policy { retries: 0, backoff: Duration::ZERO }, attempts);
        let next = Step::Start { task: Task::RunBronzeToSilver, attempt: 1, after: Duration::ZERO };
        assert_eq!(graph.next(), next);
    }
}
