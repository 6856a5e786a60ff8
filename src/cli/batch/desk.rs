//! Who is asked for runs: the daemon by its API where one answers, else the history that daemons look into.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::Deserialize;
use serde_json::json;

use crate::batch::history::{Attempt, History, Line, Run};
use crate::batch::run::graph::Kind;
use crate::cli::console::note;
use crate::cli::remote::{Remote, Way};
use crate::config::Config;

/// Whoever takes runs up.
pub(super) enum Desk<'a> {
    Daemon(Remote),
    History { history: History, config: &'a Config },
}

/// A run as the API tells it.
#[derive(Deserialize)]
struct Whole {
    #[serde(flatten)]
    run: Run,
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
struct Asked {
    run_id: String,
}

#[derive(Deserialize)]
struct Schedule {
    changed: bool,
}

impl<'a> Desk<'a> {
    pub async fn open(config: &'a Config, way: Way) -> anyhow::Result<Self> {
        Ok(match Remote::find(config, way).await? {
            Some(daemon) => Desk::Daemon(daemon),
            None => Desk::History { history: History::open(&config.server).await?, config },
        })
    }

    /// Asks for a run; its id.
    pub async fn request(
        &self,
        kind: Kind,
        pipeline: &str,
        parameters: &BTreeMap<String, String>,
    ) -> anyhow::Result<String> {
        match (self, kind) {
            (Desk::Daemon(daemon), Kind::Backfill) => {
                let mut body = parameters.clone();
                body.insert("pipeline".to_owned(), pipeline.to_owned());
                Ok(daemon.post::<Asked>(&["backfills"], &body).await?.run_id)
            }
            (Desk::Daemon(daemon), _) => {
                let body = json!({ "pipeline": pipeline, "graph": kind.as_str() });
                Ok(daemon.post::<Asked>(&["runs"], &body).await?.run_id)
            }
            (Desk::History { history, config }, _) => {
                let run_id = history.request_of(kind, pipeline, parameters).await?;
                let with: String = parameters.iter().map(|(name, value)| format!(" {name}={value}")).collect();
                note(&config.server.data_dir, "batch run", format!("{run_id} {} of {pipeline}{with}", kind.as_str()));
                Ok(run_id)
            }
        }
    }

    /// Asks for a run that failed or was cancelled to go on.
    pub async fn retry(&self, run: &Run) -> anyhow::Result<()> {
        match self {
            Desk::Daemon(daemon) => daemon.post::<Asked>(&["runs", &run.run_id, "retry"], &json!({})).await.map(drop),
            Desk::History { history, config } => {
                if !history.retry(&run.run_id).await? {
                    bail!("{}", run.no_retry());
                }
                note(&config.server.data_dir, "batch retry", run.run_id.clone());
                Ok(())
            }
        }
    }

    /// Asks a run to stop.
    pub async fn cancel(&self, run: &Run) -> anyhow::Result<()> {
        match self {
            Desk::Daemon(daemon) => daemon.post::<Asked>(&["runs", &run.run_id, "cancel"], &json!({})).await.map(drop),
            Desk::History { history, config } => {
                if !history.cancel(&run.run_id).await? {
                    bail!("{}", run.no_cancel());
                }
                note(&config.server.data_dir, "batch cancel", run.run_id.clone());
                Ok(())
            }
        }
    }

    /// Pauses the schedule of a pipeline, or lets it go on; false where it was so already.
    pub async fn pause(&self, pipeline: &str, pause: bool) -> anyhow::Result<bool> {
        let verb = if pause { "pause" } else { "resume" };
        match self {
            Desk::Daemon(daemon) => {
                Ok(daemon.post::<Schedule>(&["schedules", pipeline, verb], &json!({})).await?.changed)
            }
            Desk::History { history, config } => {
                let changed = history.pause(pipeline, pause).await?;
                note(&config.server.data_dir, &format!("batch {verb}"), pipeline.to_owned());
                Ok(changed)
            }
        }
    }

    /// A run by its id with every attempt at its tasks, or an error that says how to find one.
    pub async fn run(&self, run_id: &str) -> anyhow::Result<(Run, Vec<Attempt>)> {
        match self {
            Desk::Daemon(daemon) => {
                let whole: Whole = daemon.get(&["runs", run_id], &[]).await?;
                Ok((whole.run, whole.attempts))
            }
            // The run first: what is read after it has ended is all of it.
            Desk::History { history, .. } => {
                Ok((super::known(history, run_id).await?, history.attempts(run_id).await?))
            }
        }
    }

    /// Lines of a run's log behind a line.
    pub async fn lines(&self, run_id: &str, after: i64) -> anyhow::Result<Vec<Line>> {
        let daemon = match self {
            Desk::Daemon(daemon) => daemon,
            Desk::History { history, .. } => return Ok(history.lines(run_id, None, after).await?),
        };
        let mut lines: Vec<Line> = Vec::new();
        // It sends some thousands at a time.
        loop {
            let behind = lines.last().map_or(after, |line| line.line);
            let more: Vec<Line> = daemon.get(&["runs", run_id, "log"], &[("after", behind.to_string())]).await?;
            if more.is_empty() {
                return Ok(lines);
            }
            lines.extend(more);
        }
    }
}
