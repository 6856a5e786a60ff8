//! The history of batch runs in SQLite, MySQL or MariaDB: runs, attempts at tasks, their log lines, which slots were
//! run, and which process runs what now.
//!
//! It is for people and for dividing work, never for the data: what is to be recomputed is read from the tables' own
//! logs, so that a history that is lost costs nothing but the memory of earlier runs.
//!
//! One statement set serves both kinds of database: whole numbers and texts, moments as microseconds since 1970 in UTC,
//! `?` for each value. What must happen once rests on unique keys and on updates that say what they expect to find.

mod error;
mod filter;
mod lease;
mod prune;
mod record;
mod runs;
mod schema;
mod slots;
mod tasks;

pub use error::HistoryError;
pub use filter::Filter;
pub use lease::{BEAT, Held, Lease, LeaseWatch, TAKE_OVER_AFTER};
pub use record::{Attempt, AttemptState, Cause, Line, Run, RunState, micros, moment};
pub use slots::ScheduleState;
pub use tasks::NewAttempt;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::{AnyPool, ConnectOptions};

use crate::config::Server;

/// Connections of one process: the scheduler's looks, a run's beats and its log lines come at the same time.
const CONNECTIONS: u32 = 4;
/// How long a connection may take before the database counts as away.
const ACQUIRE: Duration = Duration::from_secs(10);

/// The history. Clones share their connections.
#[derive(Debug, Clone)]
pub struct History {
    pool: AnyPool,
    /// The address, for errors: without its password.
    shown: String,
    /// Of a SQLite file: where it is, and which file it was when it was opened.
    file: Option<(Arc<Path>, FileId)>,
}

/// Device and number of a file.
type FileId = (u64, u64);

impl History {
    /// Connects to `history.url` and brings its tables to this program's version. Must be called on the runtime that
    /// is to serve its connections.
    pub async fn open(server: &Server) -> Result<Self, HistoryError> {
        let (url, data_dir) = (&server.history.url, &server.data_dir);
        let shown = url.to_string().replace("{data_dir}", &data_dir.to_string_lossy());
        match url.sqlite_file(data_dir) {
            Some(file) => Self::open_at(&sqlite_url(Path::new(&file), &shown)?, shown, Some(Path::new(&file))).await,
            None => Self::open_at(&url.reveal(data_dir), shown, None).await,
        }
    }

    async fn open_at(url: &str, shown: String, file: Option<&Path>) -> Result<Self, HistoryError> {
        install_default_drivers();
        let failed = |e| HistoryError::new(&shown, "connecting", e);
        // A statement that takes long is no news: the lease and the caller have limits of their own.
        let options = url.parse::<AnyConnectOptions>().map_err(failed)?.disable_statement_logging();
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .connect_with(options)
            .await
            .map_err(failed)?;
        let sqlite = file.is_some();
        let file = file.and_then(|file| Some((Arc::from(file), file_id(file)?)));
        let history = Self { pool, shown, file };
        if sqlite {
            history.write_ahead().await;
        }
        schema::migrate(&history, sqlite).await?;
        Ok(history)
    }

    /// Whether this is still what the address leads to: a SQLite file that was removed or replaced is written on by those
    /// who have it open, and nobody else sees it.
    pub fn is_in_place(&self) -> bool {
        self.file.as_ref().is_none_or(|(file, id)| file_id(file) == Some(*id))
    }

    /// Lets readers and a writer of a SQLite file go on side by side. The mode stays with the file; without it
    /// everything works, with more waits.
    async fn write_ahead(&self) {
        if let Err(error) = sqlx::query("PRAGMA journal_mode = WAL").execute(&self.pool).await {
            tracing::debug!(%error, "the history's journal mode could not be set now; another process is using the file");
        }
    }

    /// The database's address, without its password.
    pub fn address(&self) -> &str {
        &self.shown
    }

    fn error(&self, what: &'static str) -> impl Fn(sqlx::Error) -> HistoryError + '_ {
        move |e| HistoryError::new(&self.shown, what, e)
    }
}

fn file_id(file: &Path) -> Option<FileId> {
    let found = std::fs::metadata(file).ok()?;
    Some((found.dev(), found.ino()))
}

/// The address of a SQLite file, made if missing. Its folder is made, too.
fn sqlite_url(file: &Path, shown: &str) -> Result<String, HistoryError> {
    let absolute = std::path::absolute(file).map_err(|e| HistoryError::new(shown, "finding its file", e.into()))?;
    if let Some(folder) = absolute.parent() {
        std::fs::create_dir_all(folder).map_err(|e| HistoryError::new(shown, "making its folder", e.into()))?;
    }
    let mut url = String::from("sqlite://");
    for byte in absolute.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => url.push(byte.into()),
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(url + "?mode=rwc")
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| e.is_unique_violation())
}
