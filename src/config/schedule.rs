//! `[schedule]` of a pipeline, and the server's keys of the batch: when it runs, on what, and where its history is kept.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::duration;

/// When the batch of the pipeline runs, and what it does about trouble.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// Whether slots start runs by themselves; by hand it runs either way.
    pub enabled: bool,
    /// The slots: minute, hour, day of month, month, day of week. With a sixth field the first one is seconds.
    pub cron: String,
    /// The time zone that `cron` is meant in, as in `Europe/Berlin`.
    pub timezone: String,
    /// What becomes of slots that passed while nothing could run: `latest` runs the newest of them once, `all` runs
    /// each in order, `none` lets them go.
    pub catch_up: CatchUp,
    /// Further attempts of a task after one that failed for a reason that may pass.
    pub retries: u32,
    /// Wait before the first further attempt; doubled for each one after it, up to ten minutes.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub backoff: Duration,
    /// Longest time that a run may take before it is stopped and counts as failed; at most 6 days.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub time_limit: Duration,
    /// A run that has not succeeded this long after its slot is reported as late: a metric and a warning.
    #[serde(with = "duration")]
    #[schemars(schema_with = "duration::schema")]
    pub deadline: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            enabled: true,
            cron: "5 * * * *".into(),
            timezone: "UTC".into(),
            catch_up: CatchUp::Latest,
            retries: 3,
            backoff: Duration::from_secs(30),
            time_limit: Duration::from_secs(3 * 3600),
            deadline: Duration::from_secs(50 * 60),
        }
    }
}

/// What becomes of slots that passed while nothing could run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    #[default]
    Latest,
    All,
    None,
}

/// The history of batch runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// The database of runs, tasks and their logs: `sqlite://FILE`, where `{data_dir}` stands for the data folder, or
    /// `mysql://USER:PASSWORD@HOST/DATABASE` (MySQL or MariaDB) for several daemons.
    pub url: DatabaseUrl,
}

impl Default for History {
    fn default() -> Self {
        Self { url: DatabaseUrl("sqlite://{data_dir}/history.db".into()) }
    }
}

/// The address of a database. Its password never shows in a log, an error or a dump.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The address itself, for the one place that hands it to a client, with the data folder filled in.
    pub fn reveal(&self, data_dir: &Path) -> String {
        self.0.replace("{data_dir}", &data_dir.to_string_lossy())
    }

    /// The file of a SQLite database.
    pub fn sqlite_file(&self, data_dir: &Path) -> Option<String> {
        let url = self.reveal(data_dir);
        let file = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"))?;
        Some(file.to_owned())
    }

    /// Why this is no address of a history, if it is none.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if let Some(file) = self.sqlite_file(Path::new("")) {
            return match file.as_str() {
                "" | ":memory:" => Some("names no file"),
                file if file.contains('?') => Some("has parameters; a file is all it takes"),
                _ => None,
            };
        }
        match url::Url::parse(&self.0) {
            Ok(url) if !matches!(url.scheme(), "mysql" | "mariadb") => Some("is neither SQLite nor MySQL"),
            Ok(url) if !url.has_host() => Some("names no host"),
            Ok(url) if url.path().trim_matches('/').is_empty() => Some("names no database"),
            Ok(_) => None,
            Err(_) => Some("is no address"),
        }
    }
}

/// With the password masked.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match url::Url::parse(&self.0) {
            _ if self.0.starts_with("sqlite:") => f.write_str(&self.0),
            Ok(mut url) => {
                if url.password().is_some() {
                    // An address that cannot have a password has none to mask.
                    let _ = url.set_password(Some("***"));
                }
                // Options of the client may name keys and files.
                url.set_query(None);
                f.write_str(url.as_str())
            }
            Err(_) => f.write_str("***"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_shows() {
        let url = DatabaseUrl::new("mysql://boathouse:s3cret@db:3306/history?ssl-key=k");
        for shown in [url.to_string(), format!("{url:?}"), serde_json::to_string(&url).unwrap()] {
            assert!(shown.contains("boathouse:***@db") && !shown.contains("s3cret"), "{shown}");
        }
        assert!(!DatabaseUrl::new("mysql://s3cret s3cret").to_string().contains("s3cret"));
        assert_eq!(url.reveal(Path::new("d")), "mysql://boathouse:s3cret@db:3306/history?ssl-key=k");
    }

    #[test]
    fn addresses_are_checked() {
        let problem = |url: &str| DatabaseUrl::new(url).problem();
        assert_eq!(History::default().url.problem(), None);
        assert_eq!(problem("mysql://u:p@h/d"), None);
        assert_eq!(problem("mariadb://u@h:1/d"), None);
        for bad in ["", "history.db", "sqlite:", "sqlite::memory:", "postgres://h/d", "mysql://h", "mysql:///d"] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }
}
