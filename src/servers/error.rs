//! Why a server could not be started or kept, in words that say what to do.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// What can go wrong with a server of our own.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program or its files are not on this machine.
    #[error("{what} is not there: {hint}")]
    Missing {
        /// What was looked for, with its path.
        what: String,
        /// How to get it.
        hint: String,
    },
    /// Another program listens on the port.
    #[error("port {port} on 127.0.0.1 is in use, so {server} cannot start: {hint}")]
    PortInUse {
        /// The server that wanted the port.
        server: &'static str,
        /// The port.
        port: u16,
        /// What to set to use another one.
        hint: String,
    },
    /// The process ended when it should not have.
    #[error("{server} ended by itself ({status}); its log {log} ends with:\n{last_lines}", log = log.display())]
    Died {
        /// The server.
        server: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        last_lines: String,
    },
    /// The process runs, but it did not answer in time.
    #[error("{server} did not answer within {waited:?}; its log {log} ends with:\n{last_lines}", log = log.display())]
    NotReady {
        /// The server.
        server: &'static str,
        /// How long we waited.
        waited: Duration,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        last_lines: String,
    },
    /// The setting or the data folder does not fit.
    #[error("{0}")]
    Refused(String),
    /// A file or process operation failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl ServerError {
    /// For `map_err`: an I/O error with what was being done.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
