//! `boathouse topic` against the real broker.

use std::process::Stdio;
use std::time::Duration;

use boathouse::servers::BrokerKind;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::broker::{Kafka, Record, broker};

fn command(kafka: &Kafka, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse"));
    command
        .env_clear()
        .arg("topic")
        .args(arguments)
        .args(["--brokers", kafka.address()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn text(kafka: &Kafka, arguments: &[&str]) -> String {
    let output = command(kafka, arguments).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

async fn json(kafka: &Kafka, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(kafka, &[arguments, &["--json"]].concat()).await).unwrap()
}

#[tokio::test]
async fn topics_are_listed_described_and_counted() {
    let kafka = broker().await;
    if kafka.lacks("records taken away from the begin of a log") {
        return;
    }
    let topic = kafka.unique_name("looked-at");
    kafka.create_topic(&topic, 3, &[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "86400000")]).await;
    kafka.produce_all(&topic, 1, &vec![Record::of(b"{}"); 5]).await;
    kafka.delete_records(&topic, 1, 2).await;

    let listed = json(kafka, &["list"]).await;
    let wanted = serde_json::json!({"topic": topic, "partition_count": 3});
    assert!(listed.as_array().unwrap().contains(&wanted), "{listed}");
    assert!(text(kafka, &["list"]).await.contains(&format!("{topic}  PartitionCount: 3\n")));

    let described = text(kafka, &["describe", &topic]).await;
    let id = json(kafka, &["describe", &topic]).await["topic_id"].as_str().map_or("none".to_owned(), str::to_owned);
    let head = format!("Topic: {topic}  TopicId: {id}  PartitionCount: 3  ReplicationFactor: 1  Configs: ");
    assert!(described.starts_with(&head), "{described}");
    assert!(kafka.kind() != BrokerKind::Kafka || id.len() == 22, "Apache Kafka gives every topic an id, not {id}");
    assert!(described.contains("message.timestamp.type=LogAppendTime"), "{described}");
    assert!(
        described.contains(&format!("  Topic: {topic}  Partition: 2  Leader: 1  Replicas: 1  Isr: 1\n")),
        "{described}"
    );
    assert_eq!(json(kafka, &["describe", &topic]).await["configs"]["retention.ms"], "86400000");

    let counted = json(kafka, &["count", &topic]).await;
    let wanted = serde_json::json!({"partition": 1, "start_offset": 2, "end_offset": 5, "offset_count": 3});
    assert_eq!((&counted["total_offset_count"], &counted["partitions"][1]), (&3.into(), &wanted));
    assert!(text(kafka, &["count", &topic]).await.contains("        1             2             5             3\n"));

    let output = command(kafka, &["count", "no-such-topic"]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("there is no topic no-such-topic") && said.contains(&topic),
        "{said}"
    );
}

#[tokio::test]
async fn the_last_records_are_shown_whatever_their_bytes() {
    let kafka = broker().await;
    let topic = kafka.new_topic("tailed", 2).await;
    for i in 0..8 {
        let value = format!("{{\"n\":{i}}}");
        kafka.produce(&topic, i % 2, Record { key: Some(b"k"), ..Record::of(value.as_bytes()) }).await;
    }
    kafka.produce(&topic, 0, Record::default()).await;
    let header = [("origin", Some(&b"x\x07"[..]))];
    kafka.produce(&topic, 1, Record { headers: &header, ..Record::of(b"\x1b[2J\xff") }).await;

    let last = text(kafka, &["tail", &topic, "-n", "4"]).await;
    let lines: Vec<&str> = last.lines().collect();
    assert_eq!(lines.len(), 4, "{last}");
    assert!(lines[0].starts_with("0:3  20") && lines[0].ends_with("Z  k  {\"n\":6}"), "{last}");
    assert!(lines[2].starts_with("0:4  ") && lines[2].ends_with("  (null)  (null)"), "{last}");
    assert!(lines[3].ends_with("(null)  \\u{1b}[2J\\xff  [origin=x\\u{7}]"), "{last}");

    let all = text(kafka, &["tail", &topic, "--from-beginning", "--json"]).await;
    let records: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 10);
    let odd = records.iter().find(|r| r["headers"].is_array()).unwrap();
    assert_eq!(odd["value"], serde_json::json!({"hex": "1b5b324aff"}));
    assert!(records.iter().any(|r| r["value"].is_null() && r["partition"] == 0 && r["offset"] == 4));
    assert_eq!(text(kafka, &["tail", &topic, "--from-beginning", "--max-messages", "3"]).await.lines().count(), 3);
    assert_eq!(text(kafka, &["tail", &topic, "--partition", "1", "-n", "100"]).await.lines().count(), 5);
}

#[tokio::test]
async fn gaps_do_not_hide_records_and_following_goes_on() {
    let kafka = broker().await;
    if kafka.lacks("records in transactions") {
        return;
    }
    let topic = kafka.new_topic("followed", 1).await;
    kafka.produce_all(&topic, 0, &[Record::of(b"one"), Record::of(b"two")]).await;
    // Six markers and six records that were never committed: the last offsets hold nothing to see.
    for _ in 0..6 {
        kafka.produce_in_transaction(&topic, 0, &[b"dropped"], false).await;
    }
    let last = text(kafka, &["tail", &topic, "-n", "2"]).await;
    assert!(last.lines().map(|line| line.rsplit("  ").next().unwrap()).eq(["one", "two"]), "{last}");

    let mut child = command(kafka, &["tail", &topic, "-n", "1", "--follow"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await.unwrap().unwrap().unwrap();
        line.rsplit("  ").next().unwrap().to_owned()
    };
    assert_eq!(next().await, "two");
    kafka.produce(&topic, 0, Record::of(b"three")).await;
    assert_eq!(next().await, "three");
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    // SAFETY: kill takes two integers; the child is ours and not yet reaped.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    assert!(child.wait().await.unwrap().success());
}
