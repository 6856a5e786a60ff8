//! The graphs of runs and what comes next in one: a pure state machine, without clock and I/O.
//!
//! ```text
//! lakehouse_batch_pipeline
//! check_bronze_exists ─┬─ empty ─▶ skip_pipeline
//!                      └─ else ──▶ run_bronze_to_silver ─▶ run_silver_to_gold ─▶ gold_to_clickhouse
//!                                  ─▶ data_quality_checks ─▶ pipeline_done
//! lakehouse_backfill
//! backfill_silver ─▶ run_silver_to_gold ─▶ gold_to_clickhouse ─▶ data_quality_checks ─▶ pipeline_done
//! lakehouse_upkeep
//! apply_retention ─▶ compact_tables ─▶ clean_logs ─▶ vacuum_tables
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The graph's name, which users know.
pub const GRAPH: &str = "lakehouse_batch_pipeline";
/// An older name of it, accepted wherever the name is.
pub const GRAPH_ALIAS: &str = "lakehouse_batch_dag";

/// Wait before a further attempt, at most.
const LONGEST_BACKOFF: Duration = Duration::from_secs(600);
/// A task that the end of its process interrupted this often is not taken up again: it may be what ends the process.
const INTERRUPTIONS_MAX: u32 = 5;

/// Which graph a run goes through. One run of a pipeline goes on at a time, whatever its graph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Bronze to what is served.
    #[default]
    #[serde(rename = "lakehouse_batch_pipeline")]
    Batch,
    /// Dates of silver anew from Bronze, and what depends on them.
    #[serde(rename = "lakehouse_backfill")]
    Backfill,
    /// Upkeep of the pipeline's tables.
    #[serde(rename = "lakehouse_upkeep")]
    Upkeep,
}

impl Kind {
    /// The graph's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Batch => GRAPH,
            Kind::Backfill => "lakehouse_backfill",
            Kind::Upkeep => "lakehouse_upkeep",
        }
    }

    /// The graph of a name, the older one included; none that this program knows.
    pub fn read(name: &str) -> Option<Self> {
        let name = if name == GRAPH_ALIAS { GRAPH } else { name };
        [Kind::Batch, Kind::Backfill, Kind::Upkeep].into_iter().find(|kind| kind.as_str() == name)
    }

    /// The tasks of the graph in their order, where each succeeds.
    pub fn path(self, bronze: Bronze) -> &'static [Task] {
        match (self, bronze) {
            (Kind::Batch, Bronze::Empty) => &Task::WHEN_EMPTY,
            (Kind::Batch, Bronze::Filled) => &Task::WHEN_FILLED,
            (Kind::Backfill, _) => &Task::BACKFILL,
            (Kind::Upkeep, _) => &Task::UPKEEP,
        }
    }
}

/// A task of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    CheckBronzeExists,
    SkipPipeline,
    RunBronzeToSilver,
    RunSilverToGold,
    GoldToClickhouse,
    DataQualityChecks,
    PipelineDone,
    BackfillSilver,
    ApplyRetention,
    CompactTables,
    CleanLogs,
    VacuumTables,
}

impl Task {
    pub const ALL: [Task; 12] = [
        Task::CheckBronzeExists,
        Task::SkipPipeline,
        Task::RunBronzeToSilver,
        Task::RunSilverToGold,
        Task::GoldToClickhouse,
        Task::DataQualityChecks,
        Task::PipelineDone,
        Task::BackfillSilver,
        Task::ApplyRetention,
        Task::CompactTables,
        Task::CleanLogs,
        Task::VacuumTables,
    ];
    const WHEN_EMPTY: [Task; 2] = [Task::CheckBronzeExists, Task::SkipPipeline];
    const WHEN_FILLED: [Task; 6] = [
        Task::CheckBronzeExists,
        Task::RunBronzeToSilver,
        Task::RunSilverToGold,
        Task::GoldToClickhouse,
        Task::DataQualityChecks,
        Task::PipelineDone,
    ];
    const BACKFILL: [Task; 5] = [
        Task::BackfillSilver,
        Task::RunSilverToGold,
        Task::GoldToClickhouse,
        Task::DataQualityChecks,
        Task::PipelineDone,
    ];
    const UPKEEP: [Task; 4] = [Task::ApplyRetention, Task::CompactTables, Task::CleanLogs, Task::VacuumTables];

    pub fn as_str(self) -> &'static str {
        match self {
            Task::CheckBronzeExists => "check_bronze_exists",
            Task::SkipPipeline => "skip_pipeline",
            Task::RunBronzeToSilver => "run_bronze_to_silver",
            Task::RunSilverToGold => "run_silver_to_gold",
            Task::GoldToClickhouse => "gold_to_clickhouse",
            Task::DataQualityChecks => "data_quality_checks",
            Task::PipelineDone => "pipeline_done",
            Task::BackfillSilver => "backfill_silver",
            Task::ApplyRetention => "apply_retention",
            Task::CompactTables => "compact_tables",
            Task::CleanLogs => "clean_logs",
            Task::VacuumTables => "vacuum_tables",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no task; the tasks are check_bronze_exists, skip_pipeline, run_bronze_to_silver, run_silver_to_gold, gold_to_clickhouse, data_quality_checks, pipeline_done, backfill_silver, apply_retention, compact_tables, clean_logs, vacuum_tables"
)]
pub struct NoTask(String);

impl FromStr for Task {
    type Err = NoTask;

    fn from_str(text: &str) -> Result<Self, NoTask> {
        Task::ALL.into_iter().find(|t| t.as_str() == text).ok_or_else(|| NoTask(text.into()))
    }
}

/// What `check_bronze_exists` found: the one place where the graph branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bronze {
    Empty,
    Filled,
}

/// How an attempt at a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Succeeded,
    /// Worth another attempt.
    FailedForNow,
    /// Another attempt would fail alike.
    FailedForGood,
    /// The run was asked to stop.
    Cancelled,
    /// The process was asked to leave, and left the run to be gone on with: nothing against the task.
    Stopped,
    /// The process ended, or has lost the run to another one: somebody goes on with the run.
    Interrupted,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    /// Bronze is empty: there was nothing to do.
    Skipped,
    Failed,
    Cancelled,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Start an attempt, counted from 1, after a wait that is zero but for further attempts.
    Start { task: Task, attempt: u32, after: Duration },
    /// Nothing is left to do.
    Finish(Outcome),
}

/// How often, and after which waits, a task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub retries: u32,
    pub backoff: Duration,
}

impl Policy {
    /// The wait after so many failures in a row, from 1.
    fn wait(self, failures: u32) -> Duration {
        self.backoff.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LONGEST_BACKOFF)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// Attempts so far, whatever became of them: they number the next one.
    attempts: u32,
    /// Failures that count against the retries.
    failures: u32,
    interruptions: u32,
    last: Option<Ended>,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    kind: Kind,
    policy: Policy,
    bronze: Bronze,
    tasks: [Progress; Task::ALL.len()],
    stop: Option<Outcome>,
}

impl Graph {
    /// A run of the batch that has done nothing yet.
    pub fn new(policy: Policy) -> Self {
        Self::of(Kind::Batch, policy)
    }

    /// A run through a graph that has done nothing yet.
    pub fn of(kind: Kind, policy: Policy) -> Self {
        Self { kind, policy, bronze: Bronze::Filled, tasks: Default::default(), stop: None }
    }

    /// Notes an attempt: as it ends, or, for a run that is taken up again, as it ended earlier. `counts` is false for
    /// attempts before somebody asked for the failed task to be tried anew.
    pub fn ended(&mut self, task: Task, how: Ended, counts: bool) {
        let progress = &mut self.tasks[task.index()];
        progress.attempts += 1;
        progress.last = if counts || how == Ended::Succeeded { Some(how) } else { None };
        match how {
            Ended::FailedForNow | Ended::FailedForGood if counts => progress.failures += 1,
            Ended::Interrupted if counts => progress.interruptions += 1,
            _ => {}
        }
    }

    /// What `check_bronze_exists` found.
    pub fn found(&mut self, bronze: Bronze) {
        self.bronze = bronze;
    }

    /// Somebody asked the run to stop.
    pub fn cancel(&mut self) {
        self.stop.get_or_insert(Outcome::Cancelled);
    }

    /// The run has taken longer than it may.
    pub fn out_of_time(&mut self) {
        self.stop.get_or_insert(Outcome::Failed);
    }

    /// What comes next, while no task runs.
    pub fn next(&self) -> Step {
        if let Some(outcome) = self.stop {
            return Step::Finish(outcome);
        }
        for task in self.kind.path(self.bronze) {
            let progress = &self.tasks[task.index()];
            let start = |after| Step::Start { task: *task, attempt: progress.attempts + 1, after };
            match progress.last {
                Some(Ended::Succeeded) => {}
                None | Some(Ended::Stopped) => return start(Duration::ZERO),
                Some(Ended::Interrupted) if progress.interruptions < INTERRUPTIONS_MAX => return start(Duration::ZERO),
                Some(Ended::FailedForNow) if progress.failures <= self.policy.retries => {
                    return start(self.policy.wait(progress.failures));
                }
                Some(Ended::Cancelled) => return Step::Finish(Outcome::Cancelled),
                Some(Ended::Interrupted | Ended::FailedForNow | Ended::FailedForGood) => {
                    return Step::Finish(Outcome::Failed);
                }
            }
        }
        let skipped = self.kind == Kind::Batch && self.bronze == Bronze::Empty;
        Step::Finish(if skipped { Outcome::Skipped } else { Outcome::Succeeded })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy { retries: 2, backoff: Duration::from_secs(30) };

    fn started(step: Step) -> Option<Task> {
        match step {
            Step::Start { task, .. } => Some(task),
            Step::Finish(_) => None,
        }
    }

    /// The tasks that start when each succeeds.
    fn straight(bronze: Bronze) -> (Vec<&'static str>, Outcome) {
        let mut graph = Graph::new(POLICY);
        let mut order = Vec::new();
        loop {
            match graph.next() {
                Step::Start { task, attempt, after } => {
                    assert_eq!((attempt, after), (1, Duration::ZERO));
                    order.push(task.as_str());
                    if task == Task::CheckBronzeExists {
                        graph.found(bronze);
                    }
                    graph.ended(task, Ended::Succeeded, true);
                }
                Step::Finish(outcome) => return (order, outcome),
            }
        }
    }

    #[test]
    fn the_graph_is_what_users_know() {
        assert_eq!(straight(Bronze::Empty), (vec!["check_bronze_exists", "skip_pipeline"], Outcome::Skipped));
        let all = vec![
            "check_bronze_exists",
            "run_bronze_to_silver",
            "run_silver_to_gold",
            "gold_to_clickhouse",
            "data_quality_checks",
            "pipeline_done",
        ];
        assert_eq!(straight(Bronze::Filled), (all, Outcome::Succeeded));
        for task in Task::ALL {
            assert_eq!(task.as_str().parse(), Ok(task));
        }
    }

    #[test]
    fn waits_double_and_end() {
        let mut graph = Graph::new(POLICY);
        let mut waits = Vec::new();
        while let Step::Start { task, after, .. } = graph.next() {
            waits.push(after.as_secs());
            graph.ended(task, Ended::FailedForNow, true);
        }
        assert_eq!(waits, [0, 30, 60]);
        assert_eq!(graph.next(), Step::Finish(Outcome::Failed));
        assert_eq!(Policy { retries: 99, ..POLICY }.wait(90), LONGEST_BACKOFF);
    }

    #[test]
    fn a_task_that_ends_its_process_is_given_up() {
        let mut graph = Graph::new(POLICY);
        for _ in 0..INTERRUPTIONS_MAX {
            assert!(started(graph.next()).is_some());
            graph.ended(Task::CheckBronzeExists, Ended::Interrupted, true);
        }
        assert_eq!(graph.next(), Step::Finish(Outcome::Failed));
    }

    #[test]
    fn what_was_asked_anew_starts_at_the_failed_task() {
        let mut graph = Graph::new(POLICY);
        graph.found(Bronze::Filled);
        graph.ended(Task::CheckBronzeExists, Ended::Succeeded, false);
        graph.ended(Task::RunBronzeToSilver, Ended::Succeeded, false);
        graph.ended(Task::RunSilverToGold, Ended::FailedForGood, false);
        let step = Step::Start { task: Task::RunSilverToGold, attempt: 2, after: Duration::ZERO };
        assert_eq!(graph.next(), step);
    }

    fn any_end() -> impl Strategy<Value = Ended> {
        prop_oneof![
            6 => Just(Ended::Succeeded),
            2 => Just(Ended::FailedForNow),
            1 => Just(Ended::FailedForGood),
            1 => Just(Ended::Cancelled),
            2 => Just(Ended::Interrupted),
        ]
    }

    proptest! {
        /// Whatever happens: a run ends; no task starts before the ones it needs have succeeded, none succeeds twice,
        /// attempts are numbered without gaps; and a run that is taken up from its recorded attempts at any moment
        /// goes on exactly where it stood.
        #[test]
        fn every_run_ends_in_order_and_resumes_where_it_stood(
            ends in prop::collection::vec(any_end(), 0..200),
            empty: bool,
            retries in 0u32..4,
        ) {
            let policy = Policy { retries, backoff: Duration::from_secs(1) };
            let bronze = if empty { Bronze::Empty } else { Bronze::Filled };
            let mut graph = Graph::new(policy);
            let mut record: Vec<(Task, Ended)> = Vec::new();
            let mut ends = ends.into_iter().chain(std::iter::repeat(Ended::Succeeded));
            let outcome = loop {
                let mut again = Graph::new(policy);
                for (task, how) in &record {
                    if (*task, *how) == (Task::CheckBronzeExists, Ended::Succeeded) {
                        again.found(bronze);
                    }
                    again.ended(*task, *how, true);
                }
                prop_assert_eq!(&again, &graph);
                let Step::Start { task, attempt, .. } = graph.next() else {
                    let Step::Finish(outcome) = graph.next() else { unreachable!() };
                    break outcome;
                };
                prop_assert!(record.len() < 60, "no end in sight");
                let done = |t: Task| record.contains(&(t, Ended::Succeeded));
                prop_assert!(!done(task));
                prop_assert_eq!(attempt as usize, record.iter().filter(|(t, _)| *t == task).count() + 1);
                let path: &[Task] = if task == Task::CheckBronzeExists || !empty { &Task::WHEN_FILLED } else { &Task::WHEN_EMPTY };
                prop_assert!(path.iter().take_while(|t| **t != task).all(|t| done(*t)));
                let how = ends.next().unwrap_or(Ended::Succeeded);
                if (task, how) == (Task::CheckBronzeExists, Ended::Succeeded) {
                    graph.found(bronze);
                }
                graph.ended(task, how, true);
                record.push((task, how));
            };
            let last = record.last().map(|(_, how)| *how);
            match outcome {
                Outcome::Succeeded => prop_assert!(!empty && record.contains(&(Task::PipelineDone, Ended::Succeeded))),
                Outcome::Skipped => prop_assert!(empty && record.contains(&(Task::SkipPipeline, Ended::Succeeded))),
                Outcome::Cancelled => prop_assert_eq!(last, Some(Ended::Cancelled)),
                Outcome::Failed => {
                    prop_assert!(matches!(last, Some(Ended::FailedForNow | Ended::FailedForGood | Ended::Interrupted)));
                }
            }
        }

        /// A run that was told to stop starts nothing more, and keeps its first reason.
        #[test]
        fn nothing_starts_after_a_stop(ends in prop::collection::vec(any_end(), 0..10), time_first: bool) {
            let mut graph = Graph::new(POLICY);
            for how in ends {
                let Some(task) = started(graph.next()) else { break };
                graph.ended(task, how, true);
            }
            if time_first {
                graph.out_of_time();
                graph.cancel();
                prop_assert_eq!(graph.next(), Step::Finish(Outcome::Failed));
            } else {
                graph.cancel();
                graph.out_of_time();
                prop_assert_eq!(graph.next(), Step::Finish(Outcome::Cancelled));
            }
        }
    }
}
