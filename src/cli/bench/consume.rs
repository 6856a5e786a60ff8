//! `boathouse bench-consume`: the floor that the daemon is measured against. A program of its own, so that its CPU time is
//! that of a process, as the daemon's is.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::actors::budget::Budget;
use crate::actors::keep_freed_memory;
use crate::bench::{ConsumeSample, peak_rss_bytes};
use crate::cli::{Context, Outcome, kafka, output};
use crate::event::RawBatch;
use crate::kafka::PartitionQueue;
use crate::kafka::settings;
use crate::telemetry::cpu_seconds;

const TAKE: Duration = Duration::from_millis(20);
/// How long a partition may bring nothing before the loop gives up.
const SILENCE: Duration = Duration::from_secs(30);

/// Read every topic partition of the configured pipeline from its start to its end, and do nothing with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What one partition brought.
#[derive(Default)]
struct Read {
    records: u64,
    bytes: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Args {
    pub fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        // The daemon's allocator, buffers and client settings: the difference is what the daemon does, nothing else.
        keep_freed_memory();
        let config = context.config()?;
        let pipeline = config.pipelines.first().context("the configuration has no pipeline")?;
        let topic = pipeline.topic.as_str();
        let server = &config.server;
        let partitions = kafka::partitions(&server.kafka, topic)?
            .with_context(|| format!("there is no topic `{topic}`; `boathouse bench` makes one"))?;
        let budget = Budget::divide(server.memory.budget.bytes(), config.pipelines.len(), partitions.len());
        let group = format!("{}.consume-only", server.kafka.group);
        let consumer: BaseConsumer =
            settings::consumer(&server.kafka, &group, "consume-only", budget.kafka_queue).create()?;
        let mut assignment = TopicPartitionList::new();
        let mut works = Vec::new();
        for partition in partitions {
            let (low, high) = kafka::watermarks(&consumer, topic, partition)?;
            if low < high {
                let queue = PartitionQueue::split(&consumer, topic, partition, budget.batch)
                    .with_context(|| format!("the client does not know partition {partition} of {topic}"))?;
                assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
                works.push((queue, high));
            }
        }
        consumer.assign(&assignment)?;
        let reads = thread::scope(|scope| {
            let threads: Vec<_> = works.into_iter().map(|(queue, end)| scope.spawn(move || read(queue, end))).collect();
            let joined = threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
            joined.collect::<anyhow::Result<Vec<Read>>>()
        })?;
        output::json(&sum_up(&reads)?)?;
        Ok(Outcome::Right)
    }
}

fn read(mut queue: PartitionQueue, end: i64) -> anyhow::Result<Read> {
    let mut read = Read::default();
    let mut raw = RawBatch::default();
    let mut heard = Instant::now();
    loop {
        raw.clear();
        let taken = queue.take(&mut raw, TAKE);
        if let Some(last) = raw.offsets.last() {
            heard = Instant::now();
            read.first.get_or_insert(heard);
            read.last = Some(heard);
            read.records += raw.len() as u64;
            read.bytes += (raw.values.len() + raw.keys.len()) as u64;
            if last + 1 >= end {
                return Ok(read);
            }
        }
        if raw.is_empty() && queue.position() >= Some(end) {
            return Ok(read);
        }
        if heard.elapsed() > SILENCE {
            let said: Vec<String> = taken.errors.into_iter().map(|e| e.text).collect();
            bail!("a partition brought nothing for {SILENCE:?} before its end; {}", said.join("; "));
        }
    }
}

fn sum_up(reads: &[Read]) -> anyhow::Result<ConsumeSample> {
    let first = reads.iter().filter_map(|r| r.first).min();
    let last = reads.iter().filter_map(|r| r.last).max();
    let (Some(first), Some(last)) = (first, last) else { bail!("the topic is empty; there is nothing to measure") };
    let record_count: u64 = reads.iter().map(|r| r.records).sum();
    let wall_seconds = (last - first).as_secs_f64().max(1e-3);
    let cpu_seconds = cpu_seconds().context("the system does not tell this process's CPU time")?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Ok(ConsumeSample {
        record_count,
        byte_count: reads.iter().map(|r| r.bytes).sum(),
        wall_seconds,
        cpu_seconds,
        cpu_seconds_per_million: cpu_seconds / record_count as f64 * 1e6,
        events_per_second: record_count as f64 / wall_seconds,
        peak_rss_bytes: peak_rss_bytes(&status),
    })
}
