//! Is it right? Kafka = Bronze, record by record; realtime = Bronze, counted again; silver = Bronze without what is
//! refused and duplicates; gold = its models over silver; ClickHouse gold = Delta gold. The command and the daemon's own
//! check share it.
//!
//! It blocks: the records of a partition are read and compared on threads, what waits for tables and servers on a
//! runtime that is given. It reads alone, and is told to stop by whom it tells how far it is.

mod compare;
pub mod job;
pub mod kept;
mod lake;
mod layers;
mod partition;
mod recount;
mod report;
mod served;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::Handle;

use self::lake::Layers;
use self::partition::{Done, Judged, Work};
use self::recount::Cell;
use self::report::RealtimeCheck;
pub(crate) use self::report::Report;
pub use self::report::Verdict;
use crate::batch::Lake;
use crate::batch::verify::{Scope, Watch};
use crate::bronze::{settings, settings_hash, table_key};
use crate::cli::bronze::{EpochBegan, Position, Snapshot};
use crate::cli::clickhouse::Http;
use crate::cli::kafka;
use crate::config::{Config, Pipeline};
use crate::kafka::Source;
use crate::window::AggregatePlan;

/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(200);

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// Kafka = Bronze.
    Bronze,
    /// Realtime = Bronze recounted.
    Realtime,
    /// Silver = Bronze - refused - duplicates.
    Silver,
    /// Gold = its models run over silver.
    Gold,
    /// ClickHouse gold = Delta gold.
    ClickhouseGold,
}

/// Whoever is told how far it is, and may have it stopped.
pub(crate) trait Observer: Watch {
    fn is_stopped(&self) -> bool;
}

/// Somebody asked for its end.
#[derive(Debug, thiserror::Error)]
#[error("it was stopped before its end")]
pub struct Stopped;

/// What is to be compared.
pub(crate) struct Question {
    pub pipelines: Vec<Arc<Pipeline>>,
    /// These checks alone; none: all of them.
    pub only: Vec<Check>,
    /// Event dates of silver and gold.
    pub scope: Scope,
    /// Threads that read partitions.
    pub threads: usize,
}

/// What it works with.
pub(crate) struct Means<'a> {
    pub config: &'a Config,
    pub lake: &'a Lake,
    pub runtime: &'a Handle,
    pub observer: &'a dyn Observer,
}

impl Means<'_> {
    /// Waits for work of the runtime, or until it is to stop.
    fn wait<T>(&self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        self.runtime.block_on(async {
            tokio::select! {
                done = work => done,
                () = async { while !self.observer.is_stopped() { tokio::time::sleep(LOOK).await } } => Err(Stopped.into()),
            }
        })
    }
}

/// Compares every layer with the one that it is made from. Not on a thread of a runtime: it blocks.
pub(crate) fn reconcile(means: &Means<'_>, question: &Question) -> anyhow::Result<Report> {
    let started = Instant::now();
    let mut report = Report {
        verdict: Verdict::Same,
        layers: Vec::new(),
        bronze: Vec::new(),
        realtime: Vec::new(),
        batch: Layers::default(),
        elapsed_seconds: 0.0,
    };
    for pipeline in &question.pipelines {
        if question.wants(Check::Bronze) || question.wants(Check::Realtime) {
            question.stream(means, pipeline, &mut report)?;
        }
        lake::check(means, pipeline, &question.scope, |check| question.wants(check), &mut report.batch)?;
    }
    report.conclude();
    report.elapsed_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

impl Question {
    fn wants(&self, check: Check) -> bool {
        self.only.is_empty() || self.only.contains(&check)
    }

    /// Kafka = Bronze and realtime = Bronze recounted.
    fn stream(&self, means: &Means<'_>, pipeline: &Arc<Pipeline>, report: &mut Report) -> anyhow::Result<()> {
        let server = &means.config.server;
        let uri = &server.lakehouse.uri;
        let snapshot = means.wait(Snapshot::newest(uri, pipeline))?;
        let snapshot = snapshot.with_context(|| {
            format!("there is no table bronze/{} in {uri}; has the daemon run with this configuration?", pipeline.name)
        })?;
        let epoch = snapshot.configuration.get(table_key::EPOCH).map(String::as_str).unwrap_or_default();
        let plans = match self.wants(Check::Realtime) {
            true => AggregatePlan::all(pipeline, epoch)?,
            false => Vec::new(),
        };
        let plans = Arc::new(plans);
        let works = self.works(means, pipeline, &snapshot, &plans)?;
        let bronze: BTreeMap<Arc<Source>, Position> =
            works.iter().filter_map(|w| Some((w.source.clone(), w.position?))).collect();

        let mut totals: Vec<HashMap<Cell, u64>> = plans.iter().map(|_| HashMap::new()).collect();
        let mut checks = Vec::new();
        for done in run_all(&works, &pipeline.name, self.threads, means.observer)? {
            checks.extend(done.check);
            for (total, counts) in totals.iter_mut().zip(done.counts) {
                for (cell, n) in counts {
                    *total.entry(cell).or_default() += n;
                }
            }
        }
        checks.sort_by_key(|c| (c.generation, c.partition));
        report.bronze.append(&mut checks);

        if !plans.is_empty() {
            let http = Http::new(&server.clickhouse)?;
            for (plan, counts) in plans.iter().zip(totals) {
                let found = means.wait(served::compare(&http, plan, &bronze, counts));
                report.realtime.push(match found {
                    Ok(check) => check,
                    Err(e) if e.is::<Stopped>() => return Err(e),
                    Err(e) => RealtimeCheck::new(&plan.pipeline, &plan.name).not_checked(format!("{e:#}")),
                });
            }
        }
        Ok(())
    }

    /// One piece of work for each partition that Bronze or Kafka knows.
    fn works(
        &self,
        means: &Means<'_>,
        pipeline: &Arc<Pipeline>,
        snapshot: &Snapshot,
        plans: &Arc<Vec<Arc<AggregatePlan>>>,
    ) -> anyhow::Result<Vec<Work>> {
        let server = &means.config.server;
        let mut runs = snapshot.runs(&pipeline.name)?;
        let with_kafka = self.wants(Check::Bronze);
        if with_kafka {
            let partitions = kafka::partitions(&server.kafka, &snapshot.topic)?.with_context(|| {
                format!("Kafka has no topic `{}`; `boathouse topic list` shows what it has", snapshot.topic)
            })?;
            for partition in partitions {
                let topic = snapshot.topic.as_str().into();
                let source = Source {
                    pipeline: pipeline.name.as_str().into(),
                    topic,
                    generation: snapshot.generation,
                    partition,
                };
                runs.entry(Arc::new(source)).or_default();
            }
        }
        let compacted = with_kafka && means.wait(is_compacted(means.config, &snapshot.topic))?;
        let epoch_began = means.wait(snapshot.epoch_began())?;
        let mut works = Vec::new();
        for (source, runs) in runs {
            let position = means.wait(snapshot.position(&source))?;
            let current = source.generation == snapshot.generation;
            works.push(Work {
                pipeline: pipeline.clone(),
                runs,
                position,
                bronze_version: snapshot.version,
                earlier_generation: with_kafka && !current,
                kafka: (with_kafka && current).then(|| server.kafka.clone()),
                judged: judged(pipeline, snapshot, epoch_began.as_ref(), &source, means)?,
                compacted,
                plans: plans.clone(),
                source,
            });
        }
        // The largest first, so that no long one comes last.
        works.sort_by_key(|w| std::cmp::Reverse(w.runs.iter().map(|r| r.count).sum::<u64>()));
        Ok(works)
    }
}

/// From where on a partition's fields and verdicts follow from the configuration; none where the table was written with
/// another, or where the change to this one is no longer in its log.
fn judged(
    pipeline: &Pipeline,
    snapshot: &Snapshot,
    epoch_began: Option<&EpochBegan>,
    source: &Source,
    means: &Means<'_>,
) -> anyhow::Result<Option<Judged>> {
    let from_the_start = Judged { from: i64::MIN, mark: None };
    if snapshot.configuration.get(table_key::SETTINGS_HASH) != Some(&settings_hash(&settings(pipeline))) {
        return Ok(None);
    }
    Ok(match epoch_began {
        None => None,
        Some(EpochBegan::WithTheTable) => Some(from_the_start),
        Some(EpochBegan::At(earlier)) => match means.wait(earlier.position(source))? {
            None => Some(from_the_start),
            Some(position) => Some(Judged { from: position.next_offset, mark: position.mark }),
        },
    })
}

/// Runs the work on so many threads.
fn run_all(works: &[Work], pipeline: &str, threads: usize, observer: &dyn Observer) -> anyhow::Result<Vec<Done>> {
    let rows: u64 = works.iter().flat_map(|w| &w.runs).map(|r| r.count).sum();
    observer.begin(&format!("bronze.{pipeline}"), rows);
    let next = AtomicUsize::new(0);
    let threads = threads.min(works.len()).max(1);
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    while let Some(work) = works.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let context = || format!("{}", work.source);
                        done.push(partition::check(work, observer).with_context(context)?);
                    }
                    Ok::<_, anyhow::Error>(done)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| bail!("a comparing thread panicked; its message is above")))
            .collect::<anyhow::Result<Vec<_>>>()
    });
    Ok(results?.into_iter().flatten().collect())
}

/// Whether the topic drops records whose key came again. A broker that does not say is taken not to.
async fn is_compacted(config: &Config, topic: &str) -> anyhow::Result<bool> {
    let kafka = &config.server.kafka;
    let mut client = ClientConfig::new();
    for (name, value) in &kafka.properties {
        client.set(name, value);
    }
    client.set("bootstrap.servers", &kafka.brokers);
    let admin: AdminClient<DefaultClientContext> = client.create()?;
    let asked = [ResourceSpecifier::Topic(topic)];
    let options = AdminOptions::new().request_timeout(Some(std::time::Duration::from_secs(10)));
    let Ok(found) = admin.describe_configs(&asked, &options).await else { return Ok(false) };
    Ok(found.into_iter().flatten().any(|resource| {
        resource.get("cleanup.policy").and_then(|e| e.value.as_deref()).is_some_and(|v| v.contains("compact"))
    }))
}
