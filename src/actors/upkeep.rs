//! Looks after a pipeline's tables while the stream runs: changes views over to a new definition once its totals are whole,
//! counts partitions that nobody reads, drops days beyond the retention, makes checkpoints. One instance does it: the one
//! that holds partition 0.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::mailbox::takes_mail;
use super::realtime::Served;
use super::recount;
use super::setup::Setup;
use super::supervise::End;
use crate::batch::upkeep::Clock;
use crate::bronze;
use crate::failpoint;
use crate::kafka::{self, Source, now_micros};
use crate::serving::{PartitionFlush, Reach};
use crate::window::AggregatePlan;

/// How often views are looked at while one waits to change over, and when all are settled.
const SOON: Duration = Duration::from_secs(2);
const SETTLED: Duration = Duration::from_secs(600);
/// How often the log is looked at for a checkpoint that is due.
const CHECK_SOONEST: Duration = Duration::from_secs(1);
const CHECK_LATEST: Duration = Duration::from_secs(60);
/// How often the freshness of realtime is kept.
const FRESHNESS: Duration = Duration::from_secs(60);
/// How long the broker may take to say how many partitions there are.
const ASK: Duration = Duration::from_secs(10);

/// See the file's head.
pub struct Upkeep {
    setup: Arc<Setup>,
    served: Arc<Served>,
    generation: i32,
    /// Whether it was told that the clock was set.
    told_of_clock: bool,
}

impl Upkeep {
    pub fn new(setup: Arc<Setup>, served: Arc<Served>, generation: i32) -> Self {
        Self { setup, served, generation, told_of_clock: false }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let (setup, served, generation) = (self.setup.clone(), self.served.clone(), self.generation);
        let work = self.setup.io.spawn(async move { look_after(&setup, &served, generation).await });
        ctx.spawn(work.into_actor(self).map(|outcome, _, ctx| {
            let settled = match outcome {
                Ok(Ok(settled)) => settled,
                Ok(Err(error)) => {
                    tracing::info!(error = format!("{error:#}"), "views are looked after later");
                    false
                }
                Err(panic) => {
                    tracing::error!(%panic, "looking after the views ended abnormally; tried again later");
                    false
                }
            };
            ctx.run_later(if settled { SETTLED } else { SOON }, |upkeep, ctx| upkeep.look(ctx));
        }));
    }

    /// Checkpoints and log cleanup, from a state of their own: never in the way of a commit.
    fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        failpoint::hit("actor.upkeep");
        let table = self.served.table.clone();
        let due = of_log(u64::from(self.setup.pipeline.bronze.checkpoint_commits), &self.setup.clock);
        if !due.clean_log && !std::mem::replace(&mut self.told_of_clock, true) {
            tracing::warn!("the clock was set: no log entry of Bronze is removed until the daemon is started again");
        }
        let work = self.setup.io.spawn(async move { bronze::upkeep::run_once(&table, &due).await });
        ctx.spawn(work.into_actor(self).map(|outcome, upkeep, ctx| {
            match outcome {
                Ok(Ok(done)) => {
                    if let Some(version) = done.checkpoint {
                        tracing::debug!(version, took_ms = done.elapsed.as_millis() as u64, "Bronze checkpoint");
                    }
                }
                Ok(Err(error)) => tracing::info!(%error, "no Bronze checkpoint this time"),
                Err(panic) => tracing::error!(%panic, "a Bronze checkpoint ended abnormally; tried again later"),
            }
            let pause = upkeep.setup.pipeline.bronze.flush_interval.clamp(CHECK_SOONEST, CHECK_LATEST);
            ctx.run_later(pause, |upkeep, ctx| upkeep.checkpoint(ctx));
        }));
    }

    /// Keeps how fresh realtime is. A minute that is missed, because ClickHouse is away, shows as a gap.
    fn freshness(&mut self, ctx: &mut Context<Self>) {
        let (served, pipeline) = (self.served.clone(), self.setup.pipeline.name.clone());
        let work = self
            .setup
            .io
            .spawn(async move { Ok::<_, anyhow::Error>(served.client().await?.note_freshness(&pipeline).await?) });
        ctx.spawn(work.into_actor(self).map(|outcome, _, ctx| {
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(error = format!("{error:#}"), "the freshness of realtime is not kept this time")
                }
                Err(panic) => tracing::error!(%panic, "keeping the freshness ended abnormally; tried again later"),
            }
            ctx.run_later(FRESHNESS, |upkeep, ctx| upkeep.freshness(ctx));
        }));
    }
}

takes_mail!(Upkeep: End);

impl Actor for Upkeep {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.look(ctx);
        self.checkpoint(ctx);
        self.freshness(ctx);
    }
}

impl Handler<End> for Upkeep {
    type Result = ();

    fn handle(&mut self, _: End, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// What is due at Bronze's log: how old an entry is cannot be told once the clock was set.
fn of_log(checkpoint_every: u64, clock: &Clock) -> bronze::upkeep::Upkeep {
    bronze::upkeep::Upkeep { checkpoint_every, clean_log: clock.jump().is_none() }
}

/// Answers whether every view shows its definition.
async fn look_after(setup: &Setup, served: &Served, generation: i32) -> anyhow::Result<bool> {
    let (client, refused) = served.look_again().await?;
    // Positions of Bronze first: what realtime has reached later is compared with what Bronze had before.
    let bronze = known_to_bronze(served, generation, partitions(setup).await?).await?;
    let mut settled = true;
    for (aggregate, plan) in served.plans().iter().enumerate() {
        if refused.iter().any(|(a, _)| *a == aggregate) {
            settled = false;
            continue;
        }
        let reach = Reach::of(client, plan).await?;
        for source in reach.uncounted(&bronze, generation) {
            count_old(served, source, aggregate, plan).await?;
        }
        let stopped = |source: &Source| {
            use crate::telemetry::PartitionPhase;
            let stopped =
                setup.board.partition(source).is_some_and(|p| matches!(p.phase, PartitionPhase::Stopped { .. }));
            // One that stopped for bad records still counts what it has read.
            stopped && !setup.board.counts_windows(source)
        };
        if !reach.is_whole(&bronze, generation, stopped) {
            settled = false;
            continue;
        }
        if client.point_view(plan).await? {
            tracing::info!(aggregate = plan.name, definition = plan.definition, "the view shows the new definition");
        }
        for table in client.drop_superseded(plan).await? {
            tracing::info!(aggregate = plan.name, table, "totals of an earlier definition dropped");
        }
        for day in client.drop_expired(plan, now_micros()).await? {
            tracing::info!(aggregate = plan.name, day, "windows beyond the retention dropped");
        }
    }
    Ok(settled)
}

/// How many partitions the topic has.
async fn partitions(setup: &Setup) -> anyhow::Result<i32> {
    let config = kafka::settings::client(&setup.server.kafka);
    let topic = setup.pipeline.topic.clone();
    let partitions = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create()?;
        let metadata = consumer.fetch_metadata(Some(&topic), ASK)?;
        Ok::<_, rdkafka::error::KafkaError>(metadata.topics().first().map_or(0, |t| t.partitions().len()))
    })
    .await
    .context("asking for the topic's partitions")?
    .context("asking for the topic's partitions")?;
    Ok(partitions as i32)
}

/// Every partition of every generation of the topic that Bronze knows, with its position. An earlier generation may have
/// had more partitions than the topic has now: where Bronze knows some of the last ones asked for, more are asked for.
async fn known_to_bronze(served: &Served, generation: i32, partitions: i32) -> anyhow::Result<Vec<(Arc<Source>, i64)>> {
    let pipeline = served.table.pipeline();
    let (name, topic): (Arc<str>, Arc<str>) = (pipeline.name.as_str().into(), pipeline.topic.as_str().into());
    let of = |generation: i32, partitions: i32| {
        let (pipeline, topic) = (name.clone(), topic.clone());
        (0..partitions).map(move |partition| {
            Arc::new(Source { pipeline: pipeline.clone(), topic: topic.clone(), generation, partition })
        })
    };
    let mut asked = partitions.max(1);
    loop {
        asked = asked.saturating_mul(2);
        let earlier = (0..generation).flat_map(|generation| of(generation, asked));
        let sources: Vec<Arc<Source>> = earlier.chain(of(generation, partitions)).collect();
        let acquired = served.table.ledger().acquire(&sources).await?;
        let found = sources.into_iter().zip(acquired.positions);
        let known: Vec<_> = found.filter_map(|(source, position)| Some((source, position?.next_offset))).collect();
        if known.iter().all(|(source, _)| source.partition < asked / 2) {
            return Ok(known);
        }
    }
}

/// Counts a partition of an earlier generation, which nobody reads any more, under a new definition.
async fn count_old(
    served: &Served,
    source: &Arc<Source>,
    aggregate: usize,
    plan: &Arc<AggregatePlan>,
) -> anyhow::Result<()> {
    let states = recount::rebuild(served, source, &[(aggregate, plan.clone())]).await?;
    let flushes: Vec<PartitionFlush> = states
        .into_iter()
        .filter_map(|(_, back)| {
            Some(PartitionFlush { source: source.clone(), plan: plan.clone(), cells: back.state.snapshot(true)? })
        })
        .collect();
    for answer in served.client().await?.flush(&flushes).await {
        answer?;
    }
    tracing::info!(%source, aggregate = plan.name, "windows of an earlier generation counted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_cleaned_by_a_steady_clock_alone() {
        let clock = Clock::now();
        let steady = of_log(7, &clock);
        assert_eq!((steady.checkpoint_every, steady.clean_log), (7, true));
        let set = of_log(7, &clock.set_ahead(Duration::from_secs(40 * 24 * 3600)));
        assert_eq!((set.checkpoint_every, set.clean_log), (7, false), "checkpoints go on");
    }
}
