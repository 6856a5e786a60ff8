//! `boathouse reconcile`: is it right? Kafka = Bronze, record by record; realtime = Bronze, counted again; silver = Bronze
//! without what is refused and duplicates; gold = its models over silver; ClickHouse gold = Delta gold.

mod compare;
mod lake;
mod layers;
mod partition;
mod recount;
mod report;
mod served;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use chrono::NaiveDate;
use clap::ValueEnum;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use self::lake::Layers;
use self::partition::{Done, Judged, Work};
use self::recount::Cell;
use self::report::{RealtimeCheck, Report, Verdict};
use super::bronze::{EpochBegan, Position, Snapshot};
use super::clickhouse::Http;
use super::kafka;
use super::output::{self, Progress};
use super::{Context, Outcome, pipelines};
use crate::batch::verify::Scope;
use crate::bronze::{settings, settings_hash, table_key};
use crate::config::{Config, Pipeline};
use crate::kafka::Source;
use crate::window::AggregatePlan;

/// Compare every layer with the one that it is made from; exit code 1 on any difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Kafka = Bronze: every record of the topic, from its first offset to Bronze's position, is read with a plain consumer
and compared with its row: key, time, headers, value or fields, verdict. Realtime = Bronze: the `ok` rows of Bronze are
counted again and compared with what the views serve: everything when nothing is running, under load the windows that
are closed at both positions, always within retention.realtime.

Silver = Bronze - refused - duplicates, gold = its models run over silver, ClickHouse gold = Delta gold: row by row, each
as of the version that it says it was made from. What came later is not yet run, which is no difference. Rows are sorted
within batch.memory; what does not fit is spilled to disk.

Examples:
  boathouse reconcile                                     everything
  boathouse reconcile --only bronze                       Kafka against Bronze alone
  boathouse reconcile --only silver,gold,clickhouse-gold  what the batch makes
  boathouse reconcile --only silver --from 2026-02-01 --to 2026-02-06
  boathouse reconcile --json                              for programs")]
pub(crate) struct Args {
    /// These checks alone, separated by commas.
    #[arg(long, visible_alias = "layer", value_enum, value_name = "CHECK", value_delimiter = ',')]
    only: Vec<Check>,

    /// The first event date (UTC) of silver and gold that is looked at, as 2026-02-01.
    #[arg(long, value_name = "DATE")]
    from: Option<NaiveDate>,

    /// The last event date (UTC) of silver and gold that is looked at.
    #[arg(long, value_name = "DATE")]
    to: Option<NaiveDate>,

    /// One pipeline alone.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
}

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Check {
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

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let config = context.config()?;
        let pipelines = pipelines::chosen(&config, self.pipeline.as_deref())?;
        let scope = Scope { from: self.from, to: self.to };
        let stream = [Check::Bronze, Check::Realtime].iter().any(|c| self.wants(*c));
        if !scope.is_everything() && stream {
            bail!("--from and --to are for silver and gold: add --only silver,gold,clickhouse-gold");
        }
        let started = Instant::now();
        let mut report = Report {
            verdict: Verdict::Same,
            layers: Vec::new(),
            bronze: Vec::new(),
            realtime: Vec::new(),
            batch: Layers::default(),
            elapsed_seconds: 0.0,
        };
        for pipeline in pipelines {
            if stream {
                self.check(context, &config, pipeline, &mut report)?;
            }
            lake::check(context, &config, pipeline, &scope, |c| self.wants(c), &mut report.batch)?;
        }
        report.conclude();
        report.elapsed_seconds = started.elapsed().as_secs_f64();
        if context.json {
            output::json(&report)?;
        } else {
            let mut out = output::stdout();
            report.write(&mut out)?;
            std::io::Write::flush(&mut out)?;
        }
        match report.verdict {
            Verdict::Same | Verdict::NotYetRun => Ok(Outcome::Right),
            Verdict::Different => Ok(Outcome::Wrong),
            Verdict::NotChecked => bail!("not everything could be checked, see above"),
        }
    }

    fn wants(&self, check: Check) -> bool {
        self.only.is_empty() || self.only.contains(&check)
    }

    fn check(
        &self,
        context: &Context,
        config: &Config,
        pipeline: &Arc<Pipeline>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let uri = &config.server.lakehouse.uri;
        let snapshot = context.block_on(Snapshot::newest(uri, pipeline))?;
        let snapshot = snapshot.with_context(|| {
            format!("there is no table bronze/{} in {uri}; has the daemon run with this configuration?", pipeline.name)
        })?;
        let epoch = snapshot.configuration.get(table_key::EPOCH).map(String::as_str).unwrap_or_default();
        let plans = match self.wants(Check::Realtime) {
            true => AggregatePlan::all(pipeline, epoch)?,
            false => Vec::new(),
        };
        let plans = Arc::new(plans);
        let works = self.works(context, config, pipeline, &snapshot, &plans)?;
        let bronze: BTreeMap<Arc<Source>, Position> =
            works.iter().filter_map(|w| Some((w.source.clone(), w.position?))).collect();

        let mut totals: Vec<HashMap<Cell, u64>> = plans.iter().map(|_| HashMap::new()).collect();
        let mut checks = Vec::new();
        for done in run_all(&works, &pipeline.name)? {
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
            let http = Http::new(&config.server.clickhouse)?;
            for (plan, counts) in plans.iter().zip(totals) {
                let found = context.block_on(served::compare(&http, plan, &bronze, counts));
                report.realtime.push(
                    found.unwrap_or_else(|e| {
                        RealtimeCheck::new(&plan.pipeline, &plan.name).not_checked(format!("{e:#}"))
                    }),
                );
            }
        }
        Ok(())
    }

    /// One piece of work for each partition that Bronze or Kafka knows.
    fn works(
        &self,
        context: &Context,
        config: &Config,
        pipeline: &Arc<Pipeline>,
        snapshot: &Snapshot,
        plans: &Arc<Vec<Arc<AggregatePlan>>>,
    ) -> anyhow::Result<Vec<Work>> {
        let mut runs = snapshot.runs(&pipeline.name)?;
        let with_kafka = self.wants(Check::Bronze);
        if with_kafka {
            let partitions = kafka::partitions(&config.server.kafka, &snapshot.topic)?.with_context(|| {
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
        let compacted = with_kafka && context.block_on(is_compacted(config, &snapshot.topic))?;
        let epoch_began = context.block_on(snapshot.epoch_began())?;
        let mut works = Vec::new();
        for (source, runs) in runs {
            let position = context.block_on(snapshot.position(&source))?;
            let current = source.generation == snapshot.generation;
            works.push(Work {
                pipeline: pipeline.clone(),
                runs,
                position,
                bronze_version: snapshot.version,
                earlier_generation: with_kafka && !current,
                kafka: (with_kafka && current).then(|| config.server.kafka.clone()),
                judged: judged(pipeline, snapshot, epoch_began.as_ref(), &source, context)?,
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
    context: &Context,
) -> anyhow::Result<Option<Judged>> {
    let from_the_start = Judged { from: i64::MIN, mark: None };
    if snapshot.configuration.get(table_key::SETTINGS_HASH) != Some(&settings_hash(&settings(pipeline))) {
        return Ok(None);
    }
    Ok(match epoch_began {
        None => None,
        Some(EpochBegan::WithTheTable) => Some(from_the_start),
        Some(EpochBegan::At(earlier)) => match context.block_on(earlier.position(source))? {
            None => Some(from_the_start),
            Some(position) => Some(Judged { from: position.next_offset, mark: position.mark }),
        },
    })
}

/// Runs the work on as many threads as there are processors.
fn run_all(works: &[Work], pipeline: &str) -> anyhow::Result<Vec<Done>> {
    let rows: u64 = works.iter().flat_map(|w| &w.runs).map(|r| r.count).sum();
    let progress = Progress::new(pipeline, rows);
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(works.len().max(1));
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    while let Some(work) = works.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let context = || format!("{}", work.source);
                        done.push(partition::check(work, &progress).with_context(context)?);
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
    progress.finish();
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
