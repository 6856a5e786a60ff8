//! What a task is given, and what it gives back.

use chrono::{DateTime, Utc};
use tokio::sync::{mpsc, watch};

use super::BatchError;

/// One line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub at: DateTime<Utc>,
    pub level: tracing::Level,
    pub text: String,
}

/// Where a task's log lines go, and whether it should stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// None: lines go to `tracing` alone.
    lines: Option<mpsc::UnboundedSender<LogLine>>,
    cancelled: watch::Receiver<bool>,
}

impl TaskContext {
    /// Lines go to `lines` beside `tracing`; the task stops soon after `cancelled` is true.
    pub fn new(lines: mpsc::UnboundedSender<LogLine>, cancelled: watch::Receiver<bool>) -> Self {
        Self { lines: Some(lines), cancelled }
    }

    /// For work outside a run: nobody keeps the lines, nobody cancels.
    pub fn detached() -> Self {
        // A receiver whose sender is gone keeps the last value, false.
        Self { lines: None, cancelled: watch::channel(false).1 }
    }

    pub fn info(&self, text: impl Into<String>) {
        self.line(tracing::Level::INFO, text.into());
    }

    pub fn warn(&self, text: impl Into<String>) {
        self.line(tracing::Level::WARN, text.into());
    }

    fn line(&self, level: tracing::Level, text: String) {
        match level {
            tracing::Level::WARN => tracing::warn!("{text}"),
            _ => tracing::info!("{text}"),
        }
        if let Some(lines) = &self.lines {
            // A run that is being torn down has no reader any more; the line is in the daemon's log.
            let _ = lines.send(LogLine { at: Utc::now(), level, text });
        }
    }

    /// An error once the run was cancelled: to be asked between steps that may take long.
    pub fn check(&self) -> Result<(), BatchError> {
        if *self.cancelled.borrow() { Err(BatchError::Cancelled) } else { Ok(()) }
    }

    /// Returns when the run is cancelled; never if nobody can.
    pub async fn cancelled(&self) {
        let mut cancelled = self.cancelled.clone();
        if cancelled.wait_for(|c| *c).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a task did, for the run history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskReport {
    pub rows_in: u64,
    pub rows_out: u64,
    /// Rows that were refused or left out as duplicates.
    pub rows_refused: u64,
    /// Those of them that were left out as duplicates.
    pub rows_duplicate: u64,
    /// What was done, in a sentence.
    pub summary: String,
}
