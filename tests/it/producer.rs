//! `boathouse-producer` against the real broker.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::broker::{Kafka, OwnBroker, broker};

fn producer(kafka: &Kafka, topic: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse-producer"));
    command
        .env_clear()
        .args(["--brokers", kafka.address(), "--topic", topic])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs to the end and returns the summary; fails unless the exit code is what is expected.
async fn summary(mut command: Command, success: bool) -> serde_json::Value {
    let output = command.arg("--json").output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), success, "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

type Record = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Everything in the topic, by partition, as keys and values.
fn records(kafka: &Kafka, topic: &str) -> BTreeMap<i32, Vec<Record>> {
    let consumer: BaseConsumer = kafka.client().set("group.id", "reader").create().unwrap();
    let ends = kafka.end_offsets(topic);
    let mut list = TopicPartitionList::new();
    for partition in ends.keys() {
        list.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let total: i64 = ends.values().sum();
    let mut records: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
    let start = Instant::now();
    for _ in 0..total {
        let message = loop {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                break message.unwrap();
            }
            assert!(start.elapsed() < Duration::from_secs(180), "the records did not come");
        };
        let record = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
        records.entry(message.partition()).or_default().push(record);
    }
    records
}

#[tokio::test]
async fn a_missing_topic_is_created_and_gets_the_events_of_a_user_in_order() {
    let kafka = broker().await;
    let topic = kafka.unique_name("produced");
    let arguments = ["--max-rate", "--count", "2000", "--seed", "7", "--users", "20"];
    let told = summary(producer(kafka, &topic, &arguments), true).await;
    assert_eq!((&told["delivered_count"], &told["failed_count"]), (&2000.into(), &0.into()), "{told}");
    assert_eq!(told["kinds"]["normal_count"], 2000);

    let admin: AdminClient<DefaultClientContext> = kafka.client().create().unwrap();
    let asked = ResourceSpecifier::Topic(&topic);
    let configs = admin.describe_configs([&asked], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let value = |name: &str| configs.get(name).and_then(|entry| entry.value.clone());
    assert_eq!(value("retention.ms").as_deref(), Some("86400000"));
    assert_eq!(value("message.timestamp.type").as_deref(), Some("LogAppendTime"));

    let partitions = records(kafka, &topic);
    assert_eq!(partitions.len(), 3, "each of three partitions has some of 20 users");
    assert_eq!(partitions.values().map(Vec::len).sum::<usize>(), 2000);
    let mut last: BTreeMap<i64, (i32, String)> = BTreeMap::new();
    for (partition, records) in &partitions {
        for (key, value) in records {
            let value = value.as_deref().unwrap();
            let event: serde_json::Value = serde_json::from_slice(value).unwrap();
            let user = event["user_id"].as_i64().unwrap();
            assert_eq!(key.as_deref().unwrap(), user.to_string().as_bytes());
            let event_type = event["event_type"].as_str().unwrap().to_owned();
            let before = last.insert(user, (*partition, event_type.clone()));
            // In one partition, and a session begins after the end of the one before and only then.
            assert!(before.as_ref().is_none_or(|(p, _)| p == partition));
            let away = before.is_none_or(|(_, before)| before == "logout");
            assert_eq!(event_type == "login", away);
        }
    }
}

#[tokio::test]
async fn a_seed_and_a_start_time_give_the_same_bytes_in_the_same_partitions() {
    let kafka = broker().await;
    let mut runs = Vec::new();
    for _ in 0..2 {
        let topic = kafka.unique_name("seeded");
        let arguments = [
            ["--max-rate", "--count", "3000", "--seed", "3"].as_slice(),
            &["--start-time", "2026-02-06T14:30:00", "--span", "30m"],
            &["--late", "0.05", "--duplicate", "0.05", "--malformed", "0.05", "--future", "0.05"],
        ]
        .concat();
        let told = summary(producer(kafka, &topic, &arguments), true).await;
        let counts = ["normal", "late", "duplicate", "malformed", "future"]
            .map(|kind| told["kinds"][format!("{kind}_count")].as_u64().unwrap());
        assert_eq!(counts.iter().sum::<u64>(), 3000, "{told}");
        assert!(counts[1..].iter().all(|count| (90..210).contains(count)), "{told}");
        runs.push((counts, records(kafka, &topic)));
    }
    assert!(runs[0] == runs[1], "two runs of one seed differ");
    let all: Vec<&Record> = runs[0].1.values().flatten().collect();
    assert!(all.iter().any(|(_, value)| value.is_none()), "tombstones are among them");
    assert!(all.iter().any(|(_, value)| value.as_deref() == Some(b"")), "empty values are among them");
    let first = b"\"timestamp\":\"2026-02-06T14:30:00\"";
    assert!(all.iter().any(|(_, v)| v.as_deref().is_some_and(|v| v.windows(first.len()).any(|w| w == first))));
}

#[tokio::test]
async fn the_rate_is_kept_the_line_is_printed_and_a_signal_ends_it_with_everything_delivered() {
    let kafka = broker().await;
    let topic = kafka.unique_name("paced");
    let mut command = producer(kafka, &topic, &[]);
    command.env("EVENTS_PER_SECOND", "100").env("NUM_USERS", "5");
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut first = None;
    for _ in 0..2 {
        let line = lines.next_line().await.unwrap().unwrap();
        // Sent 50 events (latest: purchase user=42)
        let (count, rest) = line.strip_prefix("Sent ").unwrap().split_once(" events (latest: ").unwrap();
        let (event_type, user) = rest.strip_suffix(')').unwrap().split_once(" user=").unwrap();
        assert!(["login", "click", "purchase", "logout"].contains(&event_type), "{line}");
        assert!((1..=5).contains(&user.parse::<u32>().unwrap()), "{line}");
        let count: u64 = count.parse().unwrap();
        assert!(count.is_multiple_of(50), "{line}");
        first.get_or_insert(count);
    }
    assert_eq!(first, Some(50));
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    // SAFETY: kill takes two integers; the child is ours and not yet reaped.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let line = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if !line.starts_with("Sent ") {
            break line;
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    assert!(child.wait().await.unwrap().success());
    let delivered = kafka.end_offsets(&topic).values().sum::<i64>();
    assert!(line.starts_with(&format!("Delivered {delivered} of {delivered} events to {topic}")), "{line}");
    assert!((100..=(seconds * 100.0) as i64 + 2).contains(&delivered), "{delivered} in {seconds} s");
}

#[tokio::test]
async fn a_broker_that_is_gone_costs_nothing_when_it_comes_back_and_an_error_when_it_does_not() {
    let mut kafka = OwnBroker::start().await;
    let topic = kafka.unique_name("outage");
    let mut command = producer(&kafka, &topic, &["--rate", "2000", "--count", "12000", "--json"]);
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.next_line().await.unwrap().unwrap().starts_with("Sent 50 events"));
    kafka.kill();
    kafka.restart();
    let output = tokio::time::timeout(Duration::from_secs(180), child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(kafka.end_offsets(&topic).values().sum::<i64>(), 12_000, "each event once");

    // Down for good: what was sent before is told, the rest failed.
    let mut command = producer(&kafka, &topic, &["--rate", "100", "--delivery-timeout", "2s", "--json"]);
    let mut child = command.arg("--duration").arg("8s").spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(stderr.next_line().await.unwrap().unwrap().starts_with("Sent 50 events"));
    kafka.kill();
    let output = tokio::time::timeout(Duration::from_secs(180), child.wait_with_output()).await.unwrap().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told["failed_count"].as_u64().unwrap() > 0, "{told}");
    assert!(told["first_error"].as_str().unwrap().contains("timed out"), "{told}");
}

#[tokio::test]
async fn no_broker_and_impossible_arguments_say_what_to_do() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse-producer"));
        command.env_clear().args(arguments).output()
    };
    let port = boathouse::servers::ports::free();
    let output = run(&["--brokers", &format!("127.0.0.1:{port}"), "--wait", "1s"]).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("no Kafka broker answered") && said.contains("--brokers"),
        "{said}"
    );
    for (arguments, hint) in [
        (["--late", "0.9", "--future", "0.9"].as_slice(), "add up to 1.8"),
        (&["--rate", "0"], "greater than 0"),
        (&["--span", "1h"], "--count"),
        (&["--start-time", "noon"], "2026-02-06T14:30:00"),
    ] {
        let output = run(arguments).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(hint), "{arguments:?}: {said}");
    }
}
