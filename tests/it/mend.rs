//! `boathouse bronze …`: the commands that loud stops name do resolve them.

use boathouse::bronze::Table;
use boathouse::config::Pipeline;

use crate::support::broker::{Record, broker};
use crate::support::daemon::Site;

/// A site whose pipeline has read nothing yet. No command here asks ClickHouse.
async fn site(prefix: &str) -> (Site, String) {
    let kafka = broker().await;
    let topic = kafka.new_topic(prefix, 1).await;
    (Site::new(kafka.address(), "http://127.0.0.1:9", &topic), topic)
}

fn pipeline(site: &Site, topic: &str) -> Pipeline {
    let text = std::fs::read_to_string(site.pipeline_file()).expect("the pipeline");
    let mut pipeline: Pipeline = toml_edit::de::from_str(&text).expect("the pipeline");
    pipeline.name = "user_events".into();
    assert_eq!(pipeline.topic, topic);
    pipeline
}

fn bronze(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let output = site.run(&[&["bronze"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

async fn open(site: &Site, pipeline: &Pipeline) -> Table {
    Table::open_or_create(site.lakehouse().to_str().expect("a path"), pipeline, None).await.expect("the table")
}

fn source(topic: &str, generation: i32) -> std::sync::Arc<boathouse::kafka::Source> {
    boathouse::kafka::Source { pipeline: "user_events".into(), topic: topic.into(), generation, partition: 0 }.into()
}

/// Lets the table stand at `position` of partition 0.
async fn stand_at(table: &Table, topic: &str, position: i64) {
    let mut ledger = table.ledger();
    let source = source(topic, table.generation());
    ledger.acquire(std::slice::from_ref(&source)).await.expect("acquired");
    ledger.genesis(&[(source, position)]).await.expect("a genesis");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_accepted_where_there_is_one() {
    let kafka = broker().await;
    if kafka.lacks("records taken away from the begin of a log") {
        return;
    }
    let (site, topic) = site("gap").await;
    let pipeline = pipeline(&site, &topic);
    let table = open(&site, &pipeline).await;
    stand_at(&table, &topic, 0).await;
    assert!(bronze(&site, &["accept-gap", "user_events"]).1.contains("nothing was done"));

    for _ in 0..10 {
        kafka.produce(&topic, 0, Record::of(b"{}")).await;
    }
    kafka.delete_records(&topic, 0, 7).await;
    assert!(bronze(&site, &["accept-gap", "user_events", "--partition", "1"]).1.contains("nothing was done"));
    let (code, text) = bronze(&site, &["accept-gap", "user_events"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("partition 0 goes on at offset 7; 7 offsets were never read"), "{text}");
    let before = table.epoch().to_owned();
    let table = open(&site, &pipeline).await;
    assert_ne!(table.epoch(), before, "realtime may have counted some of them: its totals begin anew");
    let at = table.ledger().acquire(&[source(&topic, 0)]).await.expect("acquired").positions;
    assert_eq!(at[0].map(|p| p.next_offset), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_adopted_only_where_it_looks_like_one_made_anew() {
    let (site, topic) = site("adopt").await;
    let pipeline = pipeline(&site, &topic);
    let table = open(&site, &pipeline).await;
    stand_at(&table, &topic, 0).await;
    let (code, text) = bronze(&site, &["adopt-topic", "user_events"]);
    assert!(code == Some(2) && text.contains("--even-so"), "{text}");
    assert_eq!(open(&site, &pipeline).await.generation(), 0);

    let mut ledger = table.ledger();
    ledger.acquire(&[source(&topic, 0)]).await.expect("acquired");
    let beyond = boathouse::bronze::Advance { source: source(&topic, 0), from: 0, next_offset: 100, mark: None };
    ledger.commit(&[], &[beyond]).await.expect("a position that the topic does not reach");
    let (code, text) = bronze(&site, &["adopt-topic", "user_events"]);
    assert!(code == Some(0) && text.contains("generation 1"), "{text}");
    assert_eq!(open(&site, &pipeline).await.generation(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_left_behind_are_put_in_force_again() {
    let (site, topic) = site("settings").await;
    let mut newer = pipeline(&site, &topic);
    open(&site, &newer).await;
    newer.time.bound += std::time::Duration::from_secs(10);
    let left_behind = open(&site, &newer).await;
    let (code, text) = bronze(&site, &["accept-settings", "user_events"]);
    assert!(code == Some(0) && text.contains("are in force"), "{text}");
    assert_ne!(open(&site, &pipeline(&site, &topic)).await.epoch(), left_behind.epoch());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_entry_is_taken_off() {
    let (site, topic) = site("repair").await;
    let pipeline = pipeline(&site, &topic);
    open(&site, &pipeline).await;
    let entry = site.lakehouse().join("bronze/user_events/_delta_log/00000000000000000001.json");
    std::fs::write(&entry, "").expect("written");
    let lakehouse = site.lakehouse();
    let refused = Table::open_or_create(lakehouse.to_str().expect("a path"), &pipeline, None).await.map(drop);
    let command = refused.expect_err("an empty entry").to_string();
    assert!(command.contains("boathouse bronze repair-log user_events"), "{command}");
    let (code, text) = bronze(&site, &["repair-log", "user_events"]);
    assert!(code == Some(0) && text.contains("the log ends before version 1 now"), "{text}");
    open(&site, &pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_clock_is_set_back() {
    let (site, topic) = site("clock").await;
    let pipeline = pipeline(&site, &topic);
    let table = open(&site, &pipeline).await;
    stand_at(&table, &topic, 0).await;
    let mut ledger = table.ledger();
    ledger.acquire(&[source(&topic, 0)]).await.expect("acquired");
    let far = 4_000_000_000_000_000;
    let moved = boathouse::bronze::Advance { source: source(&topic, 0), from: 0, next_offset: 1, mark: Some(far) };
    ledger.commit(&[], &[moved]).await.expect("a mark far ahead");
    let command = ["lower-mark", "user_events", "--to", "2026-02-06T14:30:00Z"];
    let (code, text) = bronze(&site, &command);
    assert!(code == Some(0) && text.contains("partition 0"), "{text}");
    let at = open(&site, &pipeline).await.ledger().acquire(&[source(&topic, 0)]).await.expect("acquired").positions;
    let wanted = chrono::DateTime::parse_from_rfc3339("2026-02-06T14:30:00Z").expect("a time").timestamp_micros();
    assert_eq!(at[0].map(|p| (p.next_offset, p.mark)), Some((1, Some(wanted))));
    assert!(bronze(&site, &command).1.contains("nothing was done"));
}
