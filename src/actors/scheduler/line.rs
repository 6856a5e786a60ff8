//! One pipeline's line of runs: asks for the run of a slot that is due, and carries out the one that waits.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;

use super::Setup;
use super::told::{observer, remember};
use crate::batch::history::{History, HistoryError, LeaseWatch, RunState};
use crate::batch::run::graph::Kind;
use crate::batch::run::{Runner, Work};
use crate::batch::slots::Slots;
use crate::config::{CatchUp, Pipeline, Schedule};
use crate::telemetry::names;

/// See the file's head.
pub(super) struct Line {
    pub(super) pipeline: Arc<Pipeline>,
    slots: Option<Slots>,
    /// Slots of the upkeep of its tables.
    upkeep: Option<Slots>,
    /// Since when upkeep's slots count where none was ever run.
    upkeep_since: DateTime<Utc>,
    /// The slot of upkeep after which the next one is looked for; none until the history was asked.
    upkeep_last: Option<DateTime<Utc>>,
    work: Work,
    pub(super) run: Option<JoinHandle<Result<RunState, HistoryError>>>,
    /// Whether the board knows what the history tells of earlier times.
    remembered: bool,
    /// The slot whose deadline was found missed.
    late: Option<DateTime<Utc>>,
    /// When its tables are looked at next.
    pub(super) next_measure: Instant,
}

impl Line {
    pub(super) fn new(setup: &Setup, (pipeline, work): &(Arc<Pipeline>, Work)) -> Self {
        Self {
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
        }
    }

    pub(super) async fn look(
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
