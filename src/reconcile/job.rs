//! The daemon's own comparison: one at a time, on a thread of its own of a lower priority, its outcome kept in the data
//! folder. Asked for by people or by a schedule; gives way as soon as it is told to stop.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::kept::Kept;
use super::{Means, Observer, Question, Stopped, reconcile};
use crate::batch::slots::{Slots, until};
use crate::batch::verify::{Scope, Watch};
use crate::batch::{BatchError, Lake};
use crate::config::{Config, Schedule};
use crate::priority;
use crate::telemetry::Board;

const FOLDER: &str = "reconcile";
const FILE: &str = "last.json";
/// Who asks where the schedule does.
pub const BY_SCHEDULE: &str = "schedule";

/// A comparison under way.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Running {
    #[schemars(with = "String")]
    pub since: DateTime<Utc>,
    pub by: String,
    /// What is being compared now, as `silver.user_events`.
    pub what: String,
    /// Rows of it that are done, and about how many there are.
    pub rows_done: u64,
    pub rows: u64,
    /// Somebody has asked for its end.
    pub stopping: bool,
}

/// Why the newest one came to no verdict.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Failed {
    #[schemars(with = "String")]
    pub at: DateTime<Utc>,
    pub by: String,
    pub error: String,
}

/// How it stands.
#[derive(Debug, Clone, Default, Serialize, schemars::JsonSchema)]
pub struct Standing {
    pub running: Option<Running>,
    /// The newest that came to a verdict.
    pub last: Option<Kept>,
    /// The newest, where it came to none.
    pub failed: Option<Failed>,
    /// When the schedule starts the next.
    #[schemars(with = "Option<String>")]
    pub next: Option<DateTime<Utc>>,
}

/// One is under way.
#[derive(Debug, thiserror::Error)]
#[error("a comparison has been under way since {since}, asked for by {by}; wait for its end or stop it")]
pub struct UnderWay {
    since: String,
    by: String,
}

/// The comparison of this daemon. Clones share it.
#[derive(Clone)]
pub struct Job(Arc<Inner>);

struct Inner {
    config: Config,
    folder: PathBuf,
    runtime: Handle,
    board: Board,
    state: Mutex<Standing>,
    progress: Progress,
}

/// How far it is, told by its own threads.
#[derive(Default)]
struct Progress {
    what: Mutex<String>,
    rows_done: AtomicU64,
    rows: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    fn what(&self) -> std::sync::MutexGuard<'_, String> {
        self.what.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Progress {
    fn begin(&self, table: &str, rows: u64) {
        *self.what() = table.to_owned();
        self.rows_done.store(0, Ordering::Relaxed);
        self.rows.store(rows, Ordering::Relaxed);
    }

    fn rows(&self, done: u64) {
        self.rows_done.fetch_add(done, Ordering::Relaxed);
    }
}

impl Observer for Progress {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Job {
    /// With what an earlier life of the daemon has kept. What it waits for, it waits for on `runtime`.
    pub fn new(config: Config, runtime: Handle, board: Board) -> Self {
        let folder = config.server.data_dir.join(FOLDER);
        let last = match fs::read(folder.join(FILE)) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .inspect_err(|error| tracing::warn!(%error, folder = %folder.display(), "the last comparison of the layers cannot be read; the next one takes its place"))
                .ok(),
            Err(_) => None,
        };
        board.reconcile(|state| state.last = last.as_ref().map(Kept::reconciled));
        let state = Mutex::new(Standing { last, ..Standing::default() });
        Self(Arc::new(Inner { config, folder, runtime, board, state, progress: Progress::default() }))
    }

    fn state<T>(&self, work: impl FnOnce(&mut Standing) -> T) -> T {
        work(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn standing(&self) -> Standing {
        let mut standing = self.state(|state| state.clone());
        let progress = &self.0.progress;
        if let Some(running) = &mut standing.running {
            running.what = progress.what().clone();
            running.rows_done = progress.rows_done.load(Ordering::Relaxed);
            running.rows = progress.rows.load(Ordering::Relaxed);
            running.stopping = progress.is_stopped();
        }
        standing
    }

    /// Begins one, unless one is under way.
    pub fn start(&self, by: &str) -> Result<(), UnderWay> {
        self.state(|state| {
            if let Some(running) = &state.running {
                let since = running.since.format("%H:%M:%S UTC").to_string();
                return Err(UnderWay { since, by: running.by.clone() });
            }
            let since = Utc::now();
            let progress = &self.0.progress;
            progress.begin("", 0);
            progress.stop.store(false, Ordering::Relaxed);
            state.running =
                Some(Running { since, by: by.to_owned(), what: String::new(), rows_done: 0, rows: 0, stopping: false });
            let (job, by) = (self.clone(), by.to_owned());
            let thread = std::thread::Builder::new().name("reconcile".to_owned()).spawn({
                let by = by.clone();
                move || {
                    priority::lower();
                    job.run(since, &by);
                }
            });
            match thread {
                Ok(_) => self.0.board.reconcile(|state| state.running = true),
                Err(error) => {
                    state.running = None;
                    state.failed = Some(Failed { at: since, by, error: format!("no thread for it: {error}") });
                }
            }
            Ok(())
        })
    }

    /// Asks the one under way to end; false where there is none.
    pub fn stop(&self) -> bool {
        let running = self.state(|state| state.running.is_some());
        if running {
            self.0.progress.stop.store(true, Ordering::Relaxed);
        }
        running
    }

    /// To its end, on the thread that it is called on.
    fn run(&self, begun: DateTime<Utc>, by: &str) {
        // A panic would leave it under way for ever.
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.compare(begun, by)));
        let kept = compared.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked; the daemon's log says why")));
        match kept.and_then(|kept| self.keep(&kept).map(|()| kept)) {
            Ok(kept) => {
                tracing::info!(
                    verdict = kept.verdict.as_str(),
                    by,
                    "every layer was compared with the one that it is made from"
                );
                self.0.board.reconcile(|state| state.last = Some(kept.reconciled()));
                self.state(|state| (state.last, state.failed, state.running) = (Some(kept), None, None));
            }
            Err(error) => {
                let stopped = error.is::<Stopped>();
                let error = format!("{error:#}");
                if !stopped {
                    tracing::warn!(error, by, "the layers could not be compared");
                }
                let failed = Failed { at: Utc::now(), by: by.to_owned(), error };
                self.state(|state| (state.failed, state.running) = (Some(failed), None));
            }
        }
        self.0.board.reconcile(|state| state.running = false);
    }

    fn compare(&self, begun: DateTime<Utc>, by: &str) -> anyhow::Result<Kept> {
        let Inner { config, runtime, progress, .. } = &*self.0;
        let lake = half_of_the_memory(config)?;
        let question = Question {
            pipelines: config.pipelines.clone(),
            only: Vec::new(),
            scope: Scope::default(),
            // Beside the stream and the batch: one thing after the other.
            threads: 1,
        };
        let report = reconcile(&Means { config, lake: &lake, runtime, observer: progress }, &question)?;
        Ok(Kept::of(&report, begun, Utc::now(), by))
    }

    fn keep(&self, kept: &Kept) -> anyhow::Result<()> {
        let folder = &self.0.folder;
        let (fresh, path) = (folder.join(format!("{FILE}.new")), folder.join(FILE));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&fresh, serde_json::to_vec(kept)?))
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("the outcome cannot be kept in {}", path.display()))
    }

    /// Starts one whenever its slot comes, until the daemon stops.
    pub async fn keep_schedule(self, mut stopping: watch::Receiver<bool>) {
        let reconcile = &self.0.config.server.reconcile;
        if !reconcile.enabled {
            return;
        }
        let schedule =
            Schedule { cron: reconcile.cron.clone(), timezone: reconcile.timezone.clone(), ..Schedule::default() };
        // Checked when the configuration was read.
        let Ok(slots) = Slots::new(&schedule) else { return };
        while let Some(next) = slots.after(Utc::now()) {
            self.state(|state| state.next = Some(next));
            tokio::select! {
                () = tokio::time::sleep(until(next, Utc::now())) => {}
                _ = stopping.wait_for(|stop| *stop) => break,
            }
            if let Err(error) = self.start(BY_SCHEDULE) {
                tracing::info!(%error, "the slot of a comparison passes");
            }
        }
        self.state(|state| state.next = None);
    }
}

/// Beside a batch run, which may hold the whole of `batch.memory`.
fn half_of_the_memory(config: &Config) -> Result<Lake, BatchError> {
    let server = &config.server;
    let memory = (server.batch.memory.0 / 2) as usize;
    Lake::within(&server.lakehouse.uri, memory, server.spill_dir(), server.batch.spill_max.0)
}
