//! Starts the batch of each pipeline when its slot comes or somebody asks, one run per pipeline at a time among all
//! daemons that share a history. One scheduler a daemon.
//!
//! It looks into the history twice a second: for a slot that is due, for a run that waits. Runs go on by themselves,
//! their tasks on the batch threads, their leases on the I/O threads; what the scheduler forgets when it is made anew,
//! the history tells it. Where the history is away, no run starts and the stream does not notice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use chrono::{DateTime, Utc};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::supervise::{Backoff, Ended, launch};
use crate::batch::Lake;
use crate::batch::history::{AttemptState, History, HistoryError, LeaseWatch, Run, RunState};
use crate::batch::run::graph::{Kind, Task};
use crate::batch::run::{Event, Observer, Runner, Work};
use crate::batch::slots::Slots;
use crate::batch::upkeep;
use crate::config::{CatchUp, Pipeline, Schedule, Server};
use crate::failpoint;
use crate::telemetry::{ActorId, BatchEnded, BatchRunning, Board, TableState, names};

/// How often the history is looked at, and how often when it is away.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_AWAY: Duration = Duration::from_secs(5);
/// How often the daemon says that it runs.
const BEAT: Duration = Duration::from_secs(1);
/// Pauses before a scheduler that panicked is made anew; it never gives up.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// How often old runs are removed from the history.
const PRUNE: Duration = Duration::from_secs(3600);
/// How often the tables are looked at while no run changes them.
const MEASURE: Duration = Duration::from_secs(600);

/// What the scheduler is given.
pub struct Setup {
    pub server: Arc<Server>,
    /// The lakehouse that the tasks work on; none where it could not be set up, which each task says.
    pub lake: Option<Lake>,
    /// Each with what its tasks do.
    pub pipelines: Vec<(Arc<Pipeline>, Work)>,
    pub board: Board,
    /// Where the history is read and leases are kept.
    pub io: Handle,
    /// Where tasks run.
    pub batch: Handle,
    /// This daemon's lasting name.
    pub instance: String,
    /// True once the daemon stops: runs end between two steps.
    pub leaving: watch::Receiver<bool>,
}

/// Ends once no run is under way; runs see by themselves that the daemon stops.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopScheduler;

/// Keeps a scheduler alive until the daemon stops: one that panicked is made anew, after a pause. Returns when no run is
/// under way.
pub async fn keep(setup: Arc<Setup>) {
    let id = ActorId::new("scheduler", "batch");
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, None, HEALTHY_AFTER);
    let mut leaving = setup.leaving.clone();
    let mut restart = false;
    loop {
        let (made, started) = (setup.clone(), Instant::now());
        setup.board.actor_running(&id, restart);
        let (scheduler, ended) = launch(&Arbiter::current(), move || Scheduler::new(made));
        let how = tokio::select! {
            how = ended => how,
            _ = leaving.wait_for(|leaving| *leaving) => {
                // An error means that it has ended by itself meanwhile.
                let _ = scheduler.send(StopScheduler).await;
                return;
            }
        };
        let Ok(Ended::Panicked(text)) = how else { return };
        tracing::error!(panic = text, "the scheduler panicked; it is made anew");
        setup.board.actor_failed(&id, text, false);
        restart = true;
        tokio::select! {
            () = tokio::time::sleep(backoff.next(started.elapsed()).unwrap_or(LONGEST_PAUSE)) => {}
            _ = leaving.wait_for(|leaving| *leaving) => return,
        }
    }
}

/// See the file's head.
pub struct Scheduler {
    setup: Arc<Setup>,
    /// None while a look is under way.
    desk: Option<Desk>,
    stopping: Option<oneshot::Sender<()>>,
}

impl Scheduler {
    pub fn new(setup: Arc<Setup>) -> Self {
        let desk = Desk::new(&setup);
        Self { setup, desk: Some(desk), stopping: None }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        failpoint::hit("actor.scheduler");
        let Some(mut desk) = self.desk.take() else { return };
        let work = self.setup.io.spawn(async move {
            desk.look().await;
            desk
        });
        ctx.spawn(work.into_actor(self).map(|looked, scheduler, ctx| match looked {
            Ok(desk) => {
                let pause = if desk.history.is_some() { LOOK } else { LOOK_AWAY };
                scheduler.desk = Some(desk);
                if scheduler.stopping.is_some() {
                    scheduler.leave(ctx);
                } else {
                    ctx.run_later(pause, |scheduler, ctx| scheduler.look(ctx));
                }
            }
            // As if it had happened here: the supervisor makes a scheduler anew.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => ctx.stop(),
            },
        }));
    }

    /// Waits for the runs that are under way, says that the daemon is gone, and ends.
    fn leave(&mut self, ctx: &mut Context<Self>) {
        let Some(desk) = self.desk.take() else { return };
        let work = self.setup.io.spawn(desk.leave());
        ctx.spawn(work.into_actor(self).map(|_, scheduler, ctx| {
            if let Some(tell) = scheduler.stopping.take() {
                // Nobody waits for it at the deadline.
                let _ = tell.send(());
            }
            ctx.stop();
        }));
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
    }
}

impl Handler<StopScheduler> for Scheduler {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopScheduler, ctx: &mut Context<Self>) -> Self::Result {
        let (tell, told) = oneshot::channel();
        self.stopping = Some(tell);
        // Else the look that is under way leaves when it is over.
        self.leave(ctx);
        Box::pin(async move {
            let _ = told.await;
        })
    }
}

/// What the scheduler knows between two looks.
struct Desk {
    setup: Arc<Setup>,
    /// None while it is away.
    history: Option<History>,
    pipelines: Vec<Line>,
    watch: LeaseWatch,
    next_beat: Instant,
    next_prune: Instant,
    /// A look at one pipeline's tables that is under way.
    measuring: Option<JoinHandle<()>>,
    away: bool,
}

/// One pipeline's line of runs.
struct Line {
    pipeline: Arc<Pipeline>,
    slots: Option<Slots>,
    /// Slots of the upkeep of its tables.
    upkeep: Option<Slots>,
    /// Since when upkeep's slots count where none was ever run.
    upkeep_since: DateTime<Utc>,
    /// The slot of upkeep after which the next one is looked for; none until the history was asked.
    upkeep_last: Option<DateTime<Utc>>,
    work: Work,
    run: Option<JoinHandle<Result<RunState, HistoryError>>>,
    /// Whether the board knows what the history tells of earlier times.
    remembered: bool,
    /// The slot whose deadline was found missed.
    late: Option<DateTime<Utc>>,
    /// When its tables are looked at next.
    next_measure: Instant,
}

impl Desk {
    fn new(setup: &Arc<Setup>) -> Self {
        let line = |(pipeline, work): &(Arc<Pipeline>, Work)| Line {
            slots: Slots::new(&pipeline.schedule)
                .inspect_err(
                    |error| tracing::error!(pipeline = pipeline.name, %error, "no slot of this pipeline comes"),
                )
                .ok(),
            upkeep: Some(&setup.server.upkeep).filter(|upkeep| upkeep.enabled).and_then(|upkeep| {
                let (cron, timezone) = (upkeep.cron.clone(), upkeep.timezone.clone());
                Slots::new(&Schedule { cron, timezone, catch_up: CatchUp::Latest, ..Schedule::default() }).ok()
            }),
            upkeep_since: Utc::now(),
            upkeep_last: None,
            pipeline: pipeline.clone(),
            work: work.clone(),
            run: None,
            remembered: false,
            late: None,
            next_measure: Instant::now(),
        };
        Self {
            history: None,
            pipelines: setup.pipelines.iter().map(line).collect(),
            watch: LeaseWatch::default(),
            next_beat: Instant::now(),
            next_prune: Instant::now(),
            measuring: None,
            away: false,
            setup: setup.clone(),
        }
    }

    async fn look(&mut self) {
        match self.look_at_all().await {
            Ok(()) if self.away => {
                self.away = false;
                self.tell(None);
                tracing::info!("the batch history is back");
            }
            Ok(()) => {}
            Err(error) => {
                if !self.away {
                    tracing::warn!(%error, "no batch run starts while the history is away");
                }
                self.away = true;
                // It may come back empty: its tables are looked at when it is opened.
                self.history = None;
                self.tell(Some(error.to_string()));
            }
        }
    }

    fn tell(&self, error: Option<String>) {
        for line in &self.pipelines {
            self.setup.board.batch(&line.pipeline.name, |batch| batch.history_error.clone_from(&error));
        }
    }

    async fn look_at_all(&mut self) -> Result<(), HistoryError> {
        if self.history.take_if(|history| !history.is_in_place()).is_some() {
            tracing::warn!("the history's file was removed or replaced; what the address leads to is opened");
        }
        let history = match &self.history {
            Some(history) => history.clone(),
            None => {
                let opened = History::open(&self.setup.server).await?;
                tracing::info!(history = opened.address(), "batch history");
                self.history.insert(opened).clone()
            }
        };
        if Instant::now() >= self.next_beat {
            self.next_beat = Instant::now() + BEAT;
            history.daemon_beat(&self.setup.instance).await?;
        }
        if let Some(lake) = &self.setup.lake {
            self.setup.board.memory_batch(lake.memory_used() as u64);
        }
        for line in &mut self.pipelines {
            line.look(&self.setup, &history, &mut self.watch).await?;
        }
        self.measure();
        self.prune(&history).await
    }

    /// Looks what the tables of a pipeline hold, for the board: after each run, and now and then; behind what is due, and
    /// one pipeline after the other.
    fn measure(&mut self) {
        if self.measuring.as_ref().is_some_and(|look| !look.is_finished()) {
            return;
        }
        let Some(lake) = self.setup.lake.clone() else { return };
        let now = Instant::now();
        let due =
            self.pipelines.iter_mut().filter(|line| line.next_measure <= now).min_by_key(|line| line.next_measure);
        let Some(line) = due else { return };
        line.next_measure = now + MEASURE;
        let (pipeline, board) = (line.pipeline.clone(), self.setup.board.clone());
        self.measuring = Some(self.setup.batch.spawn(async move {
            match upkeep::tables(&lake, &pipeline).await {
                Ok(tables) => board.batch(&pipeline.name, |batch| {
                    batch.upkeep.tables = tables.into_iter().map(|(table, summary)| state(table, &summary)).collect();
                }),
                Err(error) => tracing::debug!(pipeline = pipeline.name, %error, "the tables are looked at later"),
            }
        }));
    }

    /// Removes old runs, now and then.
    async fn prune(&mut self, history: &History) -> Result<(), HistoryError> {
        let Some(kept) = self.setup.server.batch.history_retention else { return Ok(()) };
        if Instant::now() < self.next_prune {
            return Ok(());
        }
        self.next_prune = Instant::now() + PRUNE;
        let Some(before) = chrono::TimeDelta::from_std(kept).ok().and_then(|kept| Utc::now().checked_sub_signed(kept))
        else {
            return Ok(());
        };
        let removed = history.prune(before).await?;
        if removed > 0 {
            tracing::info!(runs = removed, %before, "old runs are removed from the history");
        }
        Ok(())
    }

    async fn leave(self) {
        for line in self.pipelines {
            if let Some(run) = line.run {
                // How it ended, its observer has told.
                let _ = run.await;
            }
        }
        if let Some(look) = self.measuring {
            // The threads that it runs on are gone soon.
            let _ = look.await;
        }
        if let Some(history) = self.history
            && let Err(error) = history.daemon_gone(&self.setup.instance).await
        {
            tracing::info!(%error, "commands wait a moment before they see that this daemon is gone");
        }
    }
}

impl Line {
    async fn look(
        &mut self,
        setup: &Arc<Setup>,
        history: &History,
        watch: &mut LeaseWatch,
    ) -> Result<(), HistoryError> {
        let pipeline = self.pipeline.clone();
        let name = &pipeline.name;
        if !self.remembered {
            remember(&setup.board, history, &pipeline).await?;
            self.remembered = true;
        }
        if let Some(run) = self.run.take_if(|run| run.is_finished()) {
            self.next_measure = Instant::now();
            let ended = run.await;
            if !matches!(ended, Ok(Ok(_))) {
                setup.board.batch(name, |batch| batch.running = None);
            }
            match ended {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(pipeline = name, %error, "a batch run is gone on with later"),
                Err(panic) => tracing::error!(pipeline = name, %panic, "a batch run is gone on with later"),
            }
        }
        self.claim(setup, history).await?;
        self.claim_upkeep(setup, history).await?;
        if self.run.is_none()
            && !*setup.leaving.borrow()
            && let Some((run, lease)) = history.take_up(name, &setup.instance, watch).await?
        {
            let schedule = &self.pipeline.schedule;
            let runner = Runner {
                history: history.clone(),
                batch: setup.batch.clone(),
                work: self.work.clone(),
                observer: observer(setup.board.clone()),
                policy: Runner::policy(schedule),
                time_limit: schedule.time_limit,
            };
            let leaving = setup.leaving.clone();
            self.run = Some(tokio::spawn(async move { runner.execute(&run, &lease, leaving).await }));
        }
        Ok(())
    }

    /// Asks for upkeep whose slot is due. It waits in the same line as the pipeline's batch, so that neither gets into
    /// the other's commits, and one of several daemons does it. Where one waits already or is under way, behind a long
    /// backfill for example, the slot is that one's: a line of them would do the same work again and again.
    async fn claim_upkeep(&mut self, setup: &Setup, history: &History) -> Result<(), HistoryError> {
        let Some(slots) = &self.upkeep else { return Ok(()) };
        let name = &self.pipeline.name;
        let now = Utc::now();
        // Slots only go forward: what was not due after an earlier one is not due after a later one.
        if self.upkeep_last.is_none_or(|last| slots.due(last, now).is_some()) {
            let last = history.newest_slot(Kind::Upkeep, name).await?.unwrap_or(self.upkeep_since);
            self.upkeep_last = Some(last);
            if let Some(slot) = slots.due(last, now)
                && !history.is_asked_for(Kind::Upkeep, name).await?
                && let Some(run_id) = history.claim_slot_of(Kind::Upkeep, name, slot).await?
            {
                tracing::debug!(pipeline = name, %slot, run_id, "upkeep of the tables is due");
            }
        }
        setup.board.batch(name, |batch| batch.upkeep.next_slot = slots.after(now));
        Ok(())
    }

    /// Asks for the run of a slot that is due, and looks whether the newest one is late.
    async fn claim(&mut self, setup: &Setup, history: &History) -> Result<(), HistoryError> {
        let (name, schedule) = (&self.pipeline.name, &self.pipeline.schedule);
        let state = history.schedule(name).await?;
        let now = Utc::now();
        let slots = self.slots.as_ref().filter(|_| schedule.enabled && state.paused.is_none());
        let due = slots.and_then(|slots| slots.due(state.last, now));
        if let Some(slot) = due
            && let Some(run_id) = history.claim_slot(name, slot).await?
        {
            tracing::info!(pipeline = name, %slot, run_id, "a batch run is due");
        }
        let newest = due.unwrap_or(state.last);
        let late =
            slots.is_some() && now > Slots::deadline(newest, schedule) && !history.slot_succeeded(name, newest).await?;
        if late && self.late != Some(newest) {
            self.late = Some(newest);
            names::BATCH_DEADLINES_MISSED.add(1, &[name]);
            tracing::warn!(pipeline = name, slot = %newest, "the batch run of this slot has not succeeded by its deadline; see `boathouse batch history`");
        }
        setup.board.batch(name, |batch| {
            batch.enabled = schedule.enabled;
            batch.paused = state.paused;
            batch.next_slot = slots.and_then(|slots| slots.after(newest.max(now)));
            batch.late = late;
        });
        Ok(())
    }
}

fn state(table: String, summary: &upkeep::TableSummary) -> TableState {
    TableState {
        table,
        version: summary.version,
        files: summary.files as u64,
        files_small: summary.files_small as u64,
        bytes: summary.bytes,
        rows: summary.rows,
        log_entries: summary.log_entries as u64,
    }
}

/// Tells the board what happened before this daemon started.
async fn remember(board: &Board, history: &History, pipeline: &Pipeline) -> Result<(), HistoryError> {
    let runs = history.runs(Some(&pipeline.name), 50).await?;
    let newest = |of: &dyn Fn(&Run) -> bool| runs.iter().find(|run| run.state.is_over() && of(run)).map(ended_run);
    let is_upkeep = |run: &Run| run.graph == Kind::Upkeep.as_str();
    let (batch_last, upkeep_last) = (newest(&|run| !is_upkeep(run)), newest(&is_upkeep));
    let success = history.last_success(&pipeline.name).await?;
    let upkeep_success = history.last_success_of(Kind::Upkeep, &pipeline.name).await?;
    for task in Task::ALL {
        if let Some(since) = history.fresh_since(&pipeline.name, task).await? {
            freshen(board, &pipeline.name, task, since);
        }
    }
    board.batch(&pipeline.name, |batch| {
        batch.last = batch_last;
        batch.last_success = success.and_then(|run| run.ended);
        batch.upkeep.last = upkeep_last;
        batch.upkeep.last_success = upkeep_success.and_then(|run| run.ended);
    });
    Ok(())
}

fn ended_run(run: &Run) -> BatchEnded {
    BatchEnded {
        ended: run.ended.unwrap_or(run.requested),
        outcome: run.state.as_str().into(),
        run_id: run.run_id.clone(),
        error: run.error.clone(),
    }
}

/// Notes that a layer holds what its source had at a moment, if the task is one that brings a layer up to date.
fn freshen(board: &Board, pipeline: &str, task: Task, since: DateTime<Utc>) {
    board.batch(pipeline, |batch| match task {
        Task::RunBronzeToSilver => batch.fresh.silver = Some(since),
        Task::RunSilverToGold => batch.fresh.gold = Some(since),
        Task::GoldToClickhouse => batch.fresh.clickhouse = Some(since),
        _ => {}
    });
}

/// Writes a run's progress to the board, the metrics and the log.
fn observer(board: Board) -> Observer {
    Arc::new(move |run: &Run, event: Event<'_>| {
        let (pipeline, run_id) = (&run.pipeline, &run.run_id);
        match event {
            Event::Began => {
                tracing::info!(pipeline, run_id, cause = run.cause.as_str(), "batch run");
                board.batch(pipeline, |batch| {
                    batch.running = Some(BatchRunning { run_id: run_id.clone(), task: None, since: Utc::now() });
                });
            }
            Event::TaskBegan { task, .. } => board.batch(pipeline, |batch| {
                if let Some(running) = &mut batch.running {
                    running.task = Some(task.to_string());
                }
            }),
            Event::TaskEnded { task, attempt, state, took, report, error } => {
                names::BATCH_TASK_SECONDS.observe(took, &[pipeline, task.as_str()]);
                if state == AttemptState::Succeeded {
                    freshen(&board, pipeline, task, Utc::now() - took);
                }
                let (state, took_ms) = (state.as_str(), took.as_millis() as u64);
                match error {
                    Some(error) => {
                        tracing::warn!(pipeline, run_id, %task, attempt, state, took_ms, error, "batch task")
                    }
                    None => {
                        tracing::info!(pipeline, run_id, %task, state, took_ms, summary = report.summary, "batch task")
                    }
                }
            }
            Event::Ended { state, error } => {
                let ended = Utc::now();
                let is_upkeep = run.graph == Kind::Upkeep.as_str();
                if state.is_over() {
                    let runs = if is_upkeep { &names::UPKEEP_RUNS } else { &names::BATCH_RUNS };
                    runs.add(1, &[pipeline, state.as_str()]);
                }
                match error {
                    Some(error) => tracing::warn!(pipeline, run_id, outcome = state.as_str(), error, "batch run ended"),
                    None => tracing::info!(pipeline, run_id, outcome = state.as_str(), "batch run ended"),
                }
                board.batch(pipeline, |batch| {
                    batch.running = None;
                    if !state.is_over() {
                        return;
                    }
                    let error = error.map(str::to_owned);
                    let outcome = state.as_str().to_owned();
                    let last = Some(BatchEnded { run_id: run_id.clone(), outcome, ended, error });
                    let success = (state == RunState::Succeeded).then_some(ended);
                    if is_upkeep {
                        batch.upkeep.last = last;
                        batch.upkeep.last_success = success.or(batch.upkeep.last_success);
                    } else {
                        batch.last = last;
                        batch.last_success = success.or(batch.last_success);
                    }
                });
            }
        }
    })
}
