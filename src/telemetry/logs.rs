//! Log lines on standard error: for people on a terminal, JSON where the configuration says so.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log.filter: `{filter}` is not a filter ({reason}); write it like info or info,boathouse=debug")]
    Filter { filter: String, reason: String },
    #[error("logs are already set up in this process: {0}")]
    Twice(String),
}

/// Sets logs up for the whole process; once, first thing.
pub fn init(log: &Log) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&log.filter)
        .map_err(|e| LogError::Filter { filter: log.filter.clone(), reason: e.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|e| LogError::Twice(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_names_its_key() {
        let log = Log { filter: "boathouse=loud".to_owned(), ..Log::default() };
        let error = init(&log).expect_err("`loud` is no level").to_string();
        assert!(error.contains("log.filter") && error.contains("boathouse=loud"), "{error}");
    }
}
