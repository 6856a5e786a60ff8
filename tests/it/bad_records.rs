//! A cluster of bad records stops its partition, where the pipeline asks for it, until somebody decides: `src/window/cluster.rs`.

use reqwest::Method;
use serde_json::{Value, json};

use super::choices::{PARTITION_STOPPED, Two, divided, outlook};
use super::console::browser::Browser;
use super::odd_state::{event, stopped_with};
use super::support::broker::{Kafka, Record, broker};
use super::support::daemon::Site;
use super::support::engine::Engine;

/// More than 10 of the last 20 records stop a partition.
const RULE: &str = "\n[bad_records]\nstop_share = 0.5\nof_last = 20\n";

fn ask_for_it(site: &Site) {
    let pipeline = std::fs::read_to_string(site.pipeline_file()).expect("the pipeline");
    std::fs::write(site.pipeline_file(), pipeline + RULE).expect("the pipeline");
}

/// Events and records that are none, in the order of the pattern: `+` and `-`.
async fn send(kafka: &Kafka, topic: &str, partition: i32, pattern: &str) {
    let values: Vec<String> = pattern.chars().enumerate().map(|(i, sign)| value(partition, i, sign)).collect();
    let records: Vec<Record> = values.iter().map(|value| Record::of(value.as_bytes())).collect();
    kafka.produce_all(topic, partition, &records).await;
}

fn value(partition: i32, i: usize, sign: char) -> String {
    match sign {
        '+' => event(&format!("{partition}-{i}-{}", uuid::Uuid::new_v4())),
        _ if i.is_multiple_of(3) => format!("{{\"event_id\":\"{i}\"}}"),
        _ => format!("no JSON {i}"),
    }
}

fn partition(status: &Value, id: i64) -> Value {
    let all = status["partitions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|p| p["partition"] == id).unwrap_or(Value::Null)
}

/// Whether partition 0 has stopped behind the bad record before this offset, and both sinks hold everything below.
fn stopped_at(status: &Value, next: i64, texts: &[&str]) -> bool {
    let p = partition(status, 0);
    stopped_with(status, 0, &[texts, &["boathouse bronze accept-bad-records user_events"]].concat())
        && ["position", "bronze_position", "realtime_position"].iter().all(|position| p[position] == next)
}

fn bronze(site: &Site, arguments: &[&str]) -> String {
    let output = site.run(&[&["bronze"], arguments].concat());
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// How many dead letters there are.
fn letters(site: &Site) -> usize {
    let (_, list) = site.json(&["dead-letters", "list", "--limit", "1000"]);
    list.as_array().expect("a list").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_stops_its_partition_alone_until_somebody_accepts_it() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("bad", 2).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    ask_for_it(&site);
    let rest = |partition: i32| [(partition, kafka.end_offsets(&topic)[&partition])].into();
    // All in one batch: 5 good, 15 bad of which the 11th is one too many, then good ones.
    send(kafka, &topic, 0, &["+".repeat(5), "-".repeat(15), "+".repeat(30)].concat()).await;
    send(kafka, &topic, 1, &"+-".repeat(25)).await;
    let mut daemon = site.start();
    let cluster = "11 of the last 16 records were refused, from offset 5 to 15";
    daemon
        .wait("partition 0 to stop", |status| stopped_at(status, 16, &[cluster, "such as the one at offset 14"]))
        .await;
    // Half of all is borne, and the others go on.
    daemon.wait_until_served(&rest(1)).await;
    let told = reqwest::get(format!("http://127.0.0.1:{}/readyz", site.metrics_port)).await.expect("an answer");
    assert_eq!(told.status().as_u16(), 503);
    assert!(told.text().await.expect("a text").contains(cluster));
    let output = site.run(&["status"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(cluster), "{output:?}");

    // It is found again by whoever takes the partition up: after a crash, and after an orderly end.
    daemon.kill();
    let mut daemon = site.start();
    daemon.wait("it to stop again", |status| stopped_at(status, 16, &[cluster])).await;
    daemon.stop().await;
    send(kafka, &topic, 1, "+").await;
    let mut daemon = site.start();
    daemon.wait("it to stop again", |status| stopped_at(status, 16, &[cluster])).await;
    daemon.wait_until_served(&rest(1)).await;

    // Cause and choices, before anything is done.
    let browser = Browser::signed_in(&site).await;
    let page = browser.get("/stream").await.text().await.expect("a page");
    assert!(page.contains(cluster) && page.contains("has stopped until somebody decides"), "{page}");
    let would = "partition 0 would be read on at offset 16; its 11 bad records from offset 5 to 15 would be dead letters; \
                 the count would begin anew at offset 16";
    let page = browser.get("/stream/choices?pipeline=user_events").await.text().await.expect("a page");
    assert!(page.contains(would) && page.contains("the error names it"), "{page}");
    let (_, choices) = browser.api(Method::GET, "/api/v1/stream/choices?pipeline=user_events", None).await;
    for (name, applies) in [("accept-bad-records", true), ("accept-bad-backlog", true), ("accept-gap", false)] {
        assert_eq!(outlook(&choices, name)["applies"], applies, "{choices:#}");
    }
    assert!(bronze(&site, &["accept-bad-records", "user_events", "--dry-run"]).contains(would));
    let more = "and so would be those among the 34 offsets behind them; the count would begin anew at offset 50";
    let said = bronze(&site, &["accept-bad-backlog", "user_events", "--dry-run"]);
    assert!(said.contains(more), "{said}");
    assert!(stopped_at(&daemon.status().await.expect("a status"), 16, &[cluster]), "nothing was done");
    let choice = json!({"pipeline": "user_events", "choice": "accept-bad-records"});
    let (status, answer) = browser.api(Method::POST, "/api/v1/stream/choices", Some(choice.clone())).await;
    assert_eq!(status, 200, "{answer}\n{}", site.log());
    assert!(answer["done"].to_string().contains("partition 0 is read on at offset 16"), "{answer}");
    // The 4 bad ones behind it are borne: the count began anew.
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let status = daemon.status().await.expect("a status");
    assert_eq!((&status["readiness"]["reasons"], &partition(&status, 0)["phase"]), (&json!([]), &json!("running")));
    let (status, answer) = browser.api(Method::POST, "/api/v1/stream/choices", Some(choice)).await;
    assert!(status == 422 && answer.to_string().contains("no partition has stopped for bad records"), "{answer}");
    assert!(bronze(&site, &["accept-bad-records", "user_events", "--direct"]).contains("nothing was done"));
    daemon.kill();
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    assert_eq!(letters(&site), 15 + 25, "all bad records are dead letters");

    // A second one stops it again, live; with a backlog behind it, which is accepted with it while no daemon runs.
    send(kafka, &topic, 0, &"-".repeat(60)).await;
    daemon.wait("the next cluster to stop it", |status| stopped_at(status, 61, &["from offset 50 to 60"])).await;
    daemon.stop().await;
    let said = bronze(&site, &["accept-bad-backlog", "user_events"]);
    assert!(said.contains("are dead letters, and so are those among the 49 offsets behind them"), "{said}");
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    send(kafka, &topic, 0, &"-".repeat(10)).await;
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    assert_eq!(partition(&daemon.status().await.expect("a status"), 0)["phase"], "running", "10 are borne");
    send(kafka, &topic, 0, "--").await;
    daemon
        .wait("the count behind the backlog to stop it", |status| stopped_at(status, 121, &["11 of the last 11"]))
        .await;
    daemon.stop().await;

    // Without the rule it is read on.
    let pipeline = std::fs::read_to_string(site.pipeline_file()).expect("the pipeline");
    std::fs::write(site.pipeline_file(), pipeline.replace(RULE, "")).expect("the pipeline");
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    assert_eq!(letters(&site), 15 + 25 + 60 + 12);
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[PARTITION_STOPPED]);
}

/// The stop goes with its partition from one instance to another, and a decision at either is one for both.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_moves_to_another_instance_and_is_resolved_from_the_one_that_has_not_stopped() {
    let kafka = broker().await;
    let engine = Engine::start();
    let two = Two::new(kafka, &engine, "bad-two").await;
    ask_for_it(&two.site);
    for partition in [0, 1] {
        send(kafka, &two.topic, partition, &["+".repeat(5), "-".repeat(11), "+".repeat(20)].concat()).await;
    }
    let mut one = two.site.start();
    let stopped = |status: &Value, id: i64| stopped_with(status, id, &["11 of the last 16 records were refused"]);
    one.wait("both to stop", |status| stopped(status, 0) && stopped(status, 1)).await;
    let other = two.sibling.start();
    divided([&one, &other], two.sites(), "both to have stopped", |_, phase, at| phase == "stopped" && at == 16).await;
    // Decided without a daemon's help: both meet it in the log.
    let said = bronze(&two.sibling, &["accept-bad-records", "user_events", "--direct"]);
    assert_eq!(said.matches("is read on at offset 16").count(), 2, "{said}");
    two.go_on([one, other], &kafka.end_offsets(&two.topic), &[PARTITION_STOPPED]).await;
}
