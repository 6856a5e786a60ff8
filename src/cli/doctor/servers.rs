//! ClickHouse and the database of the run history: whether they answer, let us in, and know what time it is.

use std::time::Duration;

use chrono::Utc;

use super::Finding;
use crate::batch::history::History;
use crate::cli::clickhouse::Http;
use crate::config::Config;

/// The oldest ClickHouse whose functions the views use.
const VERSION_LEAST: (u32, u32) = (24, 3);
/// Clocks further apart than this make freshness and lateness wrong by as much.
const SKEW_MOST: Duration = Duration::from_secs(2);
/// What the daemon does there.
const RIGHTS: &str = "SELECT, INSERT, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, ALTER TABLE";

pub(super) async fn clickhouse(config: &Config) -> Vec<Finding> {
    let http = match Http::new(&config.server.clickhouse) {
        Ok(http) => http,
        Err(error) => return vec![Finding::fail("clickhouse", format!("{error:#}"), "correct the [clickhouse] keys")],
    };
    let begin = Utc::now();
    let rows = match http.rows("SELECT version(), toUnixTimestamp64Milli(now64(3))").await {
        Ok(rows) => rows,
        Err(error) => {
            let advice = "start it, or correct clickhouse.url, .user, .password_file; Bronze goes on meanwhile";
            return vec![Finding::fail("clickhouse", format!("{error:#}"), advice)];
        }
    };
    let end = Utc::now();
    let cell = |n: usize| rows.first().and_then(|row| row.get(n));
    let version = cell(0).and_then(|v| v.as_str()).unwrap_or_default();
    let mut findings = vec![judge_version(&http.server(), version)];
    if let Some(theirs) = cell(1).and_then(|v| v.as_i64()) {
        findings.push(judge_clock(begin.timestamp_millis(), end.timestamp_millis(), theirs));
    }
    findings.extend(rights(&http, &config.server.clickhouse.user).await);
    findings
}

fn judge_version(server: &str, version: &str) -> Finding {
    let mut parts = version.split('.').map(|p| p.parse::<u32>().ok());
    let found = format!("{server} answers, version {version}");
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < VERSION_LEAST => {
            let advice = format!("use {}.{} or newer: the views need its functions", VERSION_LEAST.0, VERSION_LEAST.1);
            Finding::fail("clickhouse", found, advice)
        }
        _ => Finding::ok("clickhouse", found),
    }
}

/// Their clock, read some time between our two readings (milliseconds).
fn judge_clock(begin: i64, end: i64, theirs: i64) -> Finding {
    let apart = if theirs < begin { theirs - begin } else { (theirs - end).max(0) };
    let found = format!("ClickHouse's clock is within {} ms of ours", apart.abs());
    if apart.unsigned_abs() <= SKEW_MOST.as_millis() as u64 {
        return Finding::ok("clocks", found);
    }
    let ahead = if apart > 0 { "ahead of" } else { "behind" };
    let found = format!("ClickHouse's clock is {:.1} s {ahead} ours", apart.unsigned_abs() as f64 / 1e3);
    Finding::warn("clocks", found, "let both machines follow a time server: now() in queries and dashboards is off")
}

/// Whether the user may do what the daemon does. Older servers cannot be asked.
async fn rights(http: &Http, user: &str) -> Option<Finding> {
    let mut missing = Vec::new();
    for database in ["realtime", "gold"] {
        let rows = http.rows(&format!("CHECK GRANT {RIGHTS} ON {database}.*")).await.ok()?;
        let granted = rows.first()?.first()?;
        if granted.as_i64() != Some(1) && granted.as_bool() != Some(true) {
            missing.push(database);
        }
    }
    if missing.is_empty() {
        return Some(Finding::ok("clickhouse rights", format!("`{user}` may do what the daemon does")));
    }
    let grants: Vec<String> = missing.iter().map(|d| format!("GRANT {RIGHTS} ON {d}.* TO {user}")).collect();
    let found = format!("`{user}` lacks rights on {}", missing.join(" and "));
    Some(Finding::fail("clickhouse rights", found, grants.join("; ")))
}

pub(super) async fn history(config: &Config) -> Option<Finding> {
    let file = config.server.history.url.sqlite_file(&config.server.data_dir);
    if let Some(file) = file.filter(|file| !std::path::Path::new(file).exists()) {
        return Some(Finding::ok("history", format!("{file} is made at the start")));
    }
    Some(match History::open(&config.server).await {
        Ok(history) => Finding::ok("history", format!("{} answers", history.address())),
        Err(error) => {
            Finding::fail("history", format!("{error}"), "correct history.url, or give its user all rights there")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn clocks_are_apart_by_what_the_request_cannot_explain() {
        assert_eq!(judge_clock(1_000, 1_400, 1_200).state, State::Ok);
        assert_eq!(judge_clock(1_000, 9_000, 8_900).state, State::Ok, "a slow answer is no skew");
        let behind = judge_clock(10_000, 10_010, 5_000);
        assert_eq!((behind.state, behind.found.contains("5.0 s behind")), (State::Warn, true), "{behind:?}");
        assert!(judge_clock(1_000, 1_010, 9_010).found.contains("8.0 s ahead of"));
    }

    #[test]
    fn old_versions_are_refused_and_odd_ones_are_not() {
        for (version, state) in
            [("23.8.1.1", State::Fail), ("24.3.1.1", State::Ok), ("26.5.1.2", State::Ok), ("of our own", State::Ok)]
        {
            assert_eq!(judge_version("http://x", version).state, state, "{version}");
        }
    }
}
