//! What a full batch does to the latency of the stream beside it, in the same daemon.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::rate::{self, Plan};
use super::site::{Site, reached};
use super::{Run, say};
use crate::bench::{BesideBatch, ReconcileVerdict};

/// How long the backlog may take to be in both sinks.
const DRAIN: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);

/// Each fixed rate without and with batches, on one site.
pub(super) async fn measure(run: &Run<'_>, verdicts: &mut Vec<ReconcileVerdict>) -> anyhow::Result<Vec<BesideBatch>> {
    let mut found = Vec::new();
    for (number, (flush, rate)) in run.rate_runs().into_iter().enumerate() {
        run.go_on()?;
        let topic = format!("{}-beside-{number}", run.name);
        say(&format!("loading {} events for batches beside the stream", run.args.events));
        run.produce_backlog(&topic)?;
        let what = format!("{rate} events/s beside a batch, flush {}", humantime::format_duration(flush));
        let site = run.site(what, &topic, flush)?;
        drain(run, &site).await?;
        let plan = |batch| Plan {
            rate_per_second: rate,
            realtime_flush: flush,
            bronze_flush: run.args.bronze_flush,
            duration: run.args.rate_duration,
            kills: 0,
            batch,
        };
        let (without, _) = rate::run(&site, &plan(false), run.stop).await?;
        let (with, _) = rate::run(&site, &plan(true), run.stop).await?;
        // The last batch was cut off with the daemon; reconcile is to find what a batch leaves.
        complete(&site).await?;
        let beside = BesideBatch { event_count: run.args.events, without, with };
        say(&format!(
            "{} batches completed beside it: realtime p99 {:.0} → {:.0} ms; reconciling",
            beside.with.batch_run_count.unwrap_or_default(),
            beside.without.realtime_latency.p99_ms,
            beside.with.realtime_latency.p99_ms
        ));
        found.push(beside);
        verdicts.push(site.reconcile()?);
    }
    Ok(found)
}

/// Lets a daemon bring the backlog to both sinks.
async fn drain(run: &Run<'_>, site: &Site) -> anyhow::Result<()> {
    let ends = site.ends()?;
    let mut daemon = site.start_daemon()?;
    let begun = Instant::now();
    loop {
        daemon.check()?;
        run.go_on()?;
        let status = site.status().await;
        if status.is_some_and(|s| reached(&s, &ends, |p| p.bronze_position.min(p.realtime_position))) {
            return site.stop_daemon(daemon);
        }
        if begun.elapsed() > DRAIN {
            bail!("the backlog is not drained after {DRAIN:?}; the log ends with:\n{}", daemon.last_lines());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A batch to its end, without a daemon.
async fn complete(site: &Site) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::from(site.command(&["batch", "run"])?);
    let output = command.stdin(Stdio::null()).output().await.context("cannot run `boathouse batch run`")?;
    if !output.status.success() {
        bail!("the batch after the measurement failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
