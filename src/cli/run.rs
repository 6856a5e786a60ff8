//! `boathouse run`: the daemon.

use anyhow::bail;

use super::{Context, Outcome};
use crate::actors;
use crate::batch::check_models;
use crate::config::Loaded;
use crate::telemetry::logs;

/// Runs the daemon in the foreground until SIGTERM or Ctrl-C, which drain what is in hand.
///
/// Reads every pipeline's topic, lands each event once in Bronze, and serves windows from ClickHouse. Logs go to
/// standard error, `/metrics`, `/healthz` and `/readyz` are on `metrics.listen`, the console is on `console.listen`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        if context.json {
            bail!("`boathouse run` prints no results: for logs as JSON set log.format to \"json\"");
        }
        let Loaded { config, settings, .. } = context.loaded()?;
        check_models(&config.pipelines)?;
        logs::init(&config.server.log)?;
        actors::run(config, settings)?;
        Ok(Outcome::Right)
    }
}
