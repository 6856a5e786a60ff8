//! What the scheduler knows between two looks, and one look: at the history, at each pipeline's line, at the tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::task::JoinHandle;

use super::Setup;
use super::line::Line;
use super::told::state;
use crate::batch::history::{History, HistoryError, LeaseWatch};
use crate::batch::upkeep;

/// How often the daemon says that it runs.
const BEAT: Duration = Duration::from_secs(1);
/// How often old runs are removed from the history.
const PRUNE: Duration = Duration::from_secs(3600);
/// How often the tables are looked at while no run changes them.
const MEASURE: Duration = Duration::from_secs(600);

/// See the file's head.
pub(super) struct Desk {
    setup: Arc<Setup>,
    /// None while it is away.
    pub(super) history: Option<History>,
    pipelines: Vec<Line>,
    watch: LeaseWatch,
    next_beat: Instant,
    next_prune: Instant,
    /// A look at one pipeline's tables that is under way.
    measuring: Option<JoinHandle<()>>,
    away: bool,
}

impl Desk {
    pub(super) fn new(setup: &Arc<Setup>) -> Self {
        Self {
            history: None,
            pipelines: setup.pipelines.iter().map(|given| Line::new(setup, given)).collect(),
            watch: LeaseWatch::default(),
            next_beat: Instant::now(),
            next_prune: Instant::now(),
            measuring: None,
            away: false,
            setup: setup.clone(),
        }
    }

    pub(super) async fn look(&mut self) {
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

    pub(super) async fn leave(self) {
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
