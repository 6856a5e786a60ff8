//! `boathouse doctor`: looks at everything the daemon stands on, and says what to do.

mod disk;
mod kafka;
mod models;
mod servers;
mod storage;
mod tables;

use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::output::{self, safe_text};
use super::{Context, Outcome, status};
use crate::config::Config;

/// Check Kafka, ClickHouse, the lakehouse, disks, clocks and settings, and say what to do; exit code 1 if something must be done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Changes nothing but for a file that it writes and removes where the daemon must be able to write. Works with and without
a running daemon.

Examples:
  boathouse doctor
  boathouse doctor --json | jq '.findings[] | select(.state != \"ok\")'")]
pub(crate) struct Args {}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Ok,
    /// It works, and will or may not for long.
    Warn,
    /// It does not work: exit code 1.
    Fail,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at, as `kafka` or `topic user-events`.
    pub check: String,
    pub state: State,
    /// What was found, with its numbers.
    pub found: String,
    /// What to do; none where nothing is to be done.
    pub advice: Option<String>,
}

impl Finding {
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Ok, found: found.into(), advice: None }
    }

    pub fn warn(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    pub fn fail(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check: check.into(), state: State::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// How long something is kept, as people set it.
pub(super) fn days(kept: Duration) -> String {
    format!("{} days", kept.as_secs() / 86_400)
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    /// Whether nothing failed.
    healthy: bool,
    findings: Vec<Finding>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let mut findings =
            vec![Finding::ok("configuration", format!("{} pipelines, no mistakes", config.pipelines.len()))];
        findings.extend(disk::check(&config));
        findings.extend(kafka::check(&config));
        findings.extend(context.block_on(async {
            let mut found = servers::clickhouse(&config).await;
            found.extend(servers::history(&config).await);
            found.extend(storage::check(&config).await);
            found.extend(tables::check(&config).await);
            found.extend(models::check(&config).await);
            found.push(daemon(&config).await);
            Ok(found)
        })?);
        let healthy = findings.iter().all(|f| f.state != State::Fail);
        let report = Report { version: env!("CARGO_PKG_VERSION"), healthy, findings };
        if context.json {
            output::json(&report)?;
        } else {
            print(&report)?;
        }
        Ok(if healthy { Outcome::Right } else { Outcome::Wrong })
    }
}

/// What the daemon says of itself. That none runs is no fault: somebody may be about to start it.
async fn daemon(config: &Config) -> Finding {
    let listen = &config.server.metrics.listen;
    match status::ask(listen).await {
        Ok(None) => Finding::warn("daemon", format!("none answers at {listen}"), "start it: boathouse run"),
        Err(error) => Finding::fail("daemon", format!("{error:#}"), "set metrics.listen to the daemon's own address"),
        Ok(Some(status)) if status.version != env!("CARGO_PKG_VERSION") => Finding::warn(
            "daemon",
            format!("version {}, this program is {}", status.version, env!("CARGO_PKG_VERSION")),
            "restart the daemon with this program",
        ),
        Ok(Some(status)) if !status.readiness.ready => {
            let reasons = status.readiness.reasons.join("; ");
            Finding::fail("daemon", format!("not ready: {reasons}"), "boathouse status has each reason and its command")
        }
        Ok(Some(status)) => Finding::ok(
            "daemon",
            format!(
                "{}, ready, version {}, {} partitions",
                status.phase.as_str(),
                status.version,
                status.partitions.len()
            ),
        ),
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = output::stdout();
    let width = report.findings.iter().map(|f| f.check.chars().count()).max().unwrap_or(0);
    for f in &report.findings {
        writeln!(out, "{:4}  {:width$}  {}", f.state.as_str(), f.check, safe_text(&f.found))?;
        if let Some(advice) = &f.advice {
            writeln!(out, "      {:width$}  → {}", "", safe_text(advice))?;
        }
    }
    let of = |state| report.findings.iter().filter(|f| f.state == state).count();
    writeln!(out, "\n{} checks: {} failed, {} to look at", report.findings.len(), of(State::Fail), of(State::Warn))?;
    Ok(out.flush()?)
}
