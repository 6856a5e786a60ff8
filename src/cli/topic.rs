//! `boathouse topic`: what one otherwise does with Kafka's shell tools. List topics, describe one, look at its
//! last records, count them.

mod client;
mod tail;
mod text;

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rdkafka::admin::{ConfigSource, ResourceSpecifier};
use rdkafka::consumer::Consumer;
use serde::Serialize;

use client::{LIMIT, Target};

use crate::kafka::topic_id;

/// Look at Kafka topics.
#[derive(Debug, Args)]
pub struct TopicCommand {
    #[command(subcommand)]
    action: Action,
    /// Addresses of the brokers, host:port[,host:port…]; by default those of the configuration.
    #[arg(long, global = true)]
    brokers: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The topics of the cluster, with their partitions.
    List {
        /// Kafka's own topics too.
        #[arg(long)]
        all: bool,
    },
    /// Partitions, leaders, copies and settings of a topic.
    Describe {
        /// The topic; by default that of the first pipeline.
        topic: Option<String>,
    },
    /// The last records of a topic.
    Tail(tail::Tail),
    /// The first and the next offset of each partition, and how many lie between.
    Count {
        /// The topic; by default that of the first pipeline.
        topic: Option<String>,
    },
}

impl TopicCommand {
    /// Runs the command; `config` is the configuration file, if one was named.
    pub fn run(self, config: Option<&Path>, json: bool) -> anyhow::Result<()> {
        let target = Target::new(self.brokers, config)?;
        let mut out = io::stdout().lock();
        match self.action {
            Action::List { all } => list(&target, all, json, &mut out),
            Action::Describe { topic } => describe(&target, topic, json, &mut out),
            Action::Count { topic } => count(&target, topic, json, &mut out),
            Action::Tail(tail) => tail.run(&target, json, &mut out),
        }?;
        Ok(out.flush()?)
    }
}

#[derive(Serialize)]
struct ListedTopic {
    topic: String,
    partition_count: usize,
}

fn list(target: &Target, all: bool, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let metadata = target.metadata()?;
    let mut topics: Vec<ListedTopic> = metadata
        .topics()
        .iter()
        .filter(|t| all || !t.name().starts_with("__"))
        .map(|t| ListedTopic { topic: t.name().to_owned(), partition_count: t.partitions().len() })
        .collect();
    topics.sort_by(|a, b| a.topic.cmp(&b.topic));
    if json {
        return print_json(&topics, out);
    }
    for topic in &topics {
        writeln!(out, "{}  PartitionCount: {}", topic.topic, topic.partition_count)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Description {
    topic: String,
    /// None where the broker has no ids.
    topic_id: Option<String>,
    partition_count: usize,
    replication_factor: usize,
    /// Those set for the topic, not the broker's defaults.
    configs: std::collections::BTreeMap<String, String>,
    partitions: Vec<PartitionDescription>,
}

#[derive(Serialize)]
struct PartitionDescription {
    partition: i32,
    /// None: the partition has no leader now.
    leader: Option<i32>,
    replicas: Vec<i32>,
    in_sync_replicas: Vec<i32>,
}

fn describe(target: &Target, topic: Option<String>, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let topic = target.topic(topic)?;
    let metadata = target.metadata()?;
    let found = client::find(&metadata, &topic)?;
    let mut partitions: Vec<PartitionDescription> = found
        .partitions()
        .iter()
        .map(|p| PartitionDescription {
            partition: p.id(),
            leader: Some(p.leader()).filter(|leader| *leader >= 0),
            replicas: p.replicas().to_vec(),
            in_sync_replicas: p.isr().to_vec(),
        })
        .collect();
    partitions.sort_by_key(|p| p.partition);
    let description = Description {
        partition_count: partitions.len(),
        replication_factor: partitions.first().map_or(0, |p| p.replicas.len()),
        configs: configs(target, &topic)?,
        topic_id: topic_id(target.consumer().client(), &topic, LIMIT),
        partitions,
        topic,
    };
    if json {
        return print_json(&description, out);
    }
    let d = &description;
    let configs: Vec<String> = d.configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    writeln!(
        out,
        "Topic: {}  TopicId: {}  PartitionCount: {}  ReplicationFactor: {}  Configs: {}",
        d.topic,
        d.topic_id.as_deref().unwrap_or("none"),
        d.partition_count,
        d.replication_factor,
        configs.join(",")
    )?;
    let ids = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    for p in &d.partitions {
        writeln!(
            out,
            "  Topic: {}  Partition: {}  Leader: {}  Replicas: {}  Isr: {}",
            d.topic,
            p.partition,
            p.leader.map_or("none".into(), |leader| leader.to_string()),
            ids(&p.replicas),
            ids(&p.in_sync_replicas)
        )?;
    }
    Ok(())
}

/// The settings that the topic has of its own.
fn configs(target: &Target, topic: &str) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    let admin = target.admin()?;
    let options = rdkafka::admin::AdminOptions::new().request_timeout(Some(LIMIT));
    let asked = ResourceSpecifier::Topic(topic);
    let answers = futures::executor::block_on(admin.describe_configs([&asked], &options))
        .with_context(|| format!("the broker did not describe the settings of {topic}"))?;
    let mut configs = std::collections::BTreeMap::new();
    for answer in answers {
        let resource = match answer {
            Ok(resource) => resource,
            Err(code) => bail!("the broker did not describe the settings of {topic}: {code}"),
        };
        for entry in resource.entries {
            if entry.source == ConfigSource::DynamicTopic {
                let value = if entry.is_sensitive { Some("***".into()) } else { entry.value };
                configs.insert(entry.name, value.unwrap_or_default());
            }
        }
    }
    Ok(configs)
}

#[derive(Serialize)]
struct Counted {
    topic: String,
    partitions: Vec<CountedPartition>,
    total_offset_count: i64,
}

#[derive(Serialize)]
struct CountedPartition {
    partition: i32,
    /// The first offset that is still there.
    start_offset: i64,
    /// The offset that the next record gets.
    end_offset: i64,
    /// Records between them; fewer where the topic is compacted or written in transactions.
    offset_count: i64,
}

fn count(target: &Target, topic: Option<String>, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let topic = target.topic(topic)?;
    let partitions: Vec<CountedPartition> = target
        .watermarks(&topic)?
        .into_iter()
        .map(|(partition, (start_offset, end_offset))| CountedPartition {
            partition,
            start_offset,
            end_offset,
            offset_count: end_offset - start_offset,
        })
        .collect();
    let total_offset_count = partitions.iter().map(|p| p.offset_count).sum();
    let counted = Counted { topic, partitions, total_offset_count };
    if json {
        return print_json(&counted, out);
    }
    writeln!(out, "Partition  Start offset    End offset         Count")?;
    for p in &counted.partitions {
        writeln!(out, "{:>9}  {:>12}  {:>12}  {:>12}", p.partition, p.start_offset, p.end_offset, p.offset_count)?;
    }
    writeln!(out, "    total                              {:>12}", counted.total_offset_count)?;
    Ok(())
}

fn print_json(value: &impl Serialize, out: &mut impl Write) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}
