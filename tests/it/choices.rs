//! What has stopped until somebody decides, resolved in the console: by the same code as the command's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::console::browser::Browser;
use crate::support::broker::{Kafka, broker};
use crate::support::daemon::{Daemon, PATIENCE, Site, produce};
use crate::support::engine::Engine;

pub fn outlook<'a>(choices: &'a Value, name: &str) -> &'a Value {
    let all = choices.as_array().expect("choices");
    all.iter().find(|choice| choice["choice"] == name).unwrap_or_else(|| panic!("no {name} in {choices:#}"))
}

fn phases(status: &Value) -> Vec<String> {
    let all = status["partitions"].as_array().cloned().unwrap_or_default();
    all.iter().map(|p| p["phase"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_looked_at_and_resolved_in_the_console() {
    let kafka = broker().await;
    if kafka.lacks("records taken away from the begin of a log") {
        return;
    }
    let engine = Engine::start();
    let topic = kafka.new_topic("choices", 2).await;
    let seed = std::cell::Cell::new(0);
    let more = || {
        seed.set(seed.get() + 1);
        produce(kafka.address(), &topic, &["--count", "1000", "--max-rate", "--seed", &seed.get().to_string()]);
        kafka.end_offsets(&topic)
    };
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let before = more();
    let mut daemon = site.start();
    daemon.wait_until_served(&before).await;
    daemon.stop().await;
    // Retention passes Bronze while the daemon is down.
    let ends = more();
    kafka.delete_records(&topic, 1, before[&1] + 10).await;
    let mut daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    daemon.wait("partition 1 to stop", |status| phases(status).contains(&"stopped".to_owned())).await;
    let zero = [(0, ends[&0])].into();
    daemon.wait_until_served(&zero).await;

    // Cause and choices, each with what it would do, before anything is done.
    let page = browser.get("/stream").await.text().await.expect("a page");
    assert!(
        page.contains("has stopped until somebody decides") && page.contains("/stream/choices?pipeline="),
        "{page}"
    );
    let page = browser.get("/stream/choices?pipeline=user_events").await.text().await.expect("a page");
    let would = format!("partition 1 would go on at offset {}; 10 offsets were never read", before[&1] + 10);
    for part in ["retention removed 10 offsets", "the error names it", would.as_str(), "nothing to do"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let ask = "/api/v1/stream/choices?pipeline=user_events";
    let (status, choices) = browser.api(Method::GET, ask, None).await;
    assert_eq!(status, 200, "{choices}");
    for (name, applies) in [
        ("accept-gap", true),
        ("accept-bad-records", false),
        ("accept-bad-backlog", false),
        ("adopt-topic", false),
        ("accept-settings", false),
        ("lower-mark", false),
        ("repair-log", false),
    ] {
        assert_eq!(outlook(&choices, name)["applies"], applies, "{choices:#}");
    }
    let output = site.run(&["bronze", "accept-gap", "user_events", "--dry-run"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&would), "{output:?}");
    assert!(phases(&daemon.status().await.expect("a status")).contains(&"stopped".to_owned()), "nothing was done");

    // What nobody should do by mistake wants insistence.
    let decide = async |decision: Value| browser.api(Method::POST, "/api/v1/stream/choices", Some(decision)).await;
    let (status, answer) = decide(json!({"pipeline": "user_events", "choice": "adopt-topic"})).await;
    assert!(status == 422 && answer["error"].as_str().is_some_and(|e| e.contains("even-so")), "{answer}");
    assert_eq!(decide(json!({"pipeline": "user_events", "choice": "reboot"})).await.0, 422);
    assert_eq!(decide(json!({"pipeline": "user_events", "choice": "lower-mark"})).await.0, 422);
    let (status, answer) = decide(json!({"pipeline": "user_events", "choice": "accept-gap"})).await;
    let did = format!("partition 1 goes on at offset {}; 10 offsets were never read", before[&1] + 10);
    assert_eq!((status, &answer["done"]), (200, &json!([did])), "{answer}\n{}", site.log());
    daemon.wait_until_served(&ends).await;
    daemon.wait("both to run", |status| phases(status) == ["running", "running"]).await;
    let ends = more();
    daemon.wait_until_served(&ends).await;
    let status = daemon.status().await.expect("a status");
    assert_eq!(status["readiness"]["reasons"], json!([]), "{status:#}");

    // The whole pipeline stops: its topic was made anew.
    kafka.recreate_topic(&topic, 2, &[("message.timestamp.type", "LogAppendTime")]).await;
    let ends = more();
    daemon
        .wait("the pipeline to stop", |status| {
            let actors = status["actors"].as_array().cloned().unwrap_or_default();
            actors.iter().any(|a| a["kind"] == "pipeline" && a["phase"] == "gave_up")
                || phases(status).contains(&"stopped".to_owned())
        })
        .await;
    let form = [("pipeline", "user_events"), ("choice", "adopt-topic")];
    let page = browser.post("/stream/choices", &form).await.text().await.expect("a page");
    assert!(page.contains("is read from its beginning, as generation 1"), "{page}\n{}", site.log());
    daemon.wait_until_served(&ends).await;
    let status = daemon.status().await.expect("a status");
    assert!(status["partitions"].as_array().expect("partitions").iter().all(|p| p["generation"] == 1), "{status:#}");
    assert_eq!(status["readiness"]["reasons"], json!([]), "{status:#}");
    let (_, entries) = browser.api(Method::GET, "/api/v1/audit?limit=100", None).await;
    let entries = entries.to_string();
    assert!(entries.contains("POST /stream/choices") && entries.contains("accept-gap"), "{entries}");
    daemon.stop().await;
    let stops =
        ["partition stopped until somebody decides", "pipeline stays down until somebody acts", "ended by itself"];
    site.assert_log_is_clean_but_for(&stops);
}

/// Every partition of the instances, as `(id, phase, Bronze's position)`; none while one of them does not answer.
async fn of_both(instances: [&Daemon; 2]) -> Option<[Vec<(i64, String, i64)>; 2]> {
    let mut all = [Vec::new(), Vec::new()];
    for (found, instance) in all.iter_mut().zip(instances) {
        let status = instance.status().await?;
        for p in status["partitions"].as_array()? {
            let position = p["bronze_position"].as_i64()?;
            found.push((p["partition"].as_i64()?, p["phase"].as_str()?.to_owned(), position));
        }
    }
    Some(all)
}

/// Waits until each instance has one of the two partitions, and both are as they should be; the first one's partition.
pub async fn divided(
    instances: [&Daemon; 2],
    sites: [&Site; 2],
    what: &str,
    ready: impl Fn(i64, &str, i64) -> bool,
) -> i64 {
    let begin = Instant::now();
    loop {
        let all = of_both(instances).await;
        if let Some([one, other]) = &all
            && let ([one], [other]) = (&one[..], &other[..])
            && one.0 != other.0
            && [one, other].iter().all(|(id, phase, at)| ready(*id, phase, *at))
        {
            return one.0;
        }
        let logs = sites.map(Site::log);
        assert!(begin.elapsed() < PATIENCE * 2, "not {what}: {all:?}\n{}\n{}", logs[0], logs[1]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Two instances that share two partitions.
pub struct Two {
    pub topic: String,
    pub site: Site,
    pub sibling: Site,
}

impl Two {
    pub async fn new(kafka: &Kafka, engine: &Engine, topic: &str) -> Self {
        let topic = kafka.new_topic(topic, 2).await;
        let mut site = Site::new(kafka.address(), &engine.url, &topic);
        // A member with a lasting name does not leave its group when its round ends: the group gives it up after this time.
        site.environment.push(("BOATHOUSE__KAFKA__PROPERTIES__SESSION.TIMEOUT.MS".into(), "10000".into()));
        let sibling = site.sibling();
        Self { topic, site, sibling }
    }

    pub fn sites(&self) -> [&Site; 2] {
        [&self.site, &self.sibling]
    }

    fn produce(&self, kafka: &Kafka, seed: &str) -> BTreeMap<i32, i64> {
        produce(kafka.address(), &self.topic, &["--count", "1000", "--max-rate", "--seed", seed]);
        kafka.end_offsets(&self.topic)
    }

    /// Both go on by themselves: each has one partition, read to its end, and is ready; nothing is lost or counted twice.
    pub async fn go_on(&self, mut instances: [Daemon; 2], ends: &BTreeMap<i32, i64>, listed: &[&str]) {
        let [one, other] = &instances;
        let read = |id: i64, phase: &str, at: i64| phase == "running" && ends.get(&(id as i32)) == Some(&at);
        divided([one, other], self.sites(), "both to go on", read).await;
        for instance in &mut instances {
            instance.wait("it to be ready", |status| status["readiness"]["ready"] == true).await;
        }
        instances[0].wait("the windows to be counted again", |_| self.site.reconcile().0).await;
        for (mut instance, site) in instances.into_iter().zip(self.sites()) {
            instance.stop().await;
            site.assert_log_is_clean_but_for(listed);
        }
    }
}

pub const PARTITION_STOPPED: &str = "partition stopped until somebody decides";

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_one_of_two_instances_is_resolved_where_it_has_stopped() {
    let kafka = broker().await;
    if kafka.lacks("records taken away from the begin of a log") {
        return;
    }
    let engine = Engine::start();
    let two = Two::new(kafka, &engine, "choices-two").await;
    let before = two.produce(kafka, "1");
    let mut daemon = two.site.start();
    daemon.wait_until_served(&before).await;
    daemon.stop().await;
    let ends = two.produce(kafka, "2");
    kafka.delete_records(&two.topic, 1, before[&1] + 10).await;

    // Each of two instances has one partition; the one of partition 1 has stopped.
    let (one, other) = (two.site.start(), two.sibling.start());
    let stopped = |id: i64, phase: &str, at: i64| match id {
        0 => phase == "running" && at == ends[&0],
        _ => phase == "stopped",
    };
    let first = divided([&one, &other], two.sites(), "one to have stopped", stopped).await;
    // Decided where it has stopped. The other one was started before the decision, meets it in the log, and goes on, too.
    let at = if first == 1 { &two.site } else { &two.sibling };
    let output = at.run(&["--json", "bronze", "accept-gap", "user_events"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("10 offsets were never read"), "{output:?}");
    let ends = two.produce(kafka, "3");
    two.go_on([one, other], &ends, &[PARTITION_STOPPED]).await;
}

/// Both partitions have stopped at one instance; one of them moves to another, which then tells of it alone. Nothing is
/// committed by anybody when somebody decides, and both notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_has_stopped_moves_and_is_resolved_at_either_instance() {
    let kafka = broker().await;
    if kafka.lacks("records taken away from the begin of a log") {
        return;
    }
    let engine = Engine::start();
    let two = Two::new(kafka, &engine, "choices-moved").await;
    let before = two.produce(kafka, "1");
    let mut daemon = two.site.start();
    daemon.wait_until_served(&before).await;
    daemon.stop().await;
    let ends = two.produce(kafka, "2");
    for partition in [0, 1] {
        kafka.delete_records(&two.topic, partition, before[&partition] + 10).await;
    }
    let mut one = two.site.start();
    one.wait("both to stop", |status| phases(status) == ["stopped", "stopped"]).await;
    let other = two.sibling.start();
    divided([&one, &other], two.sites(), "both to have stopped", |_, phase, _| phase == "stopped").await;
    let output = two.sibling.run(&["--json", "bronze", "accept-gap", "user_events"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.matches("10 offsets were never read").count() == 2, "{output:?}");
    two.go_on([one, other], &ends, &[PARTITION_STOPPED]).await;
}

/// A pipeline that stays down as a whole, at both instances, goes on at both when somebody decides at one. What it takes
/// on is read from its beginning, also where a new pipeline would begin at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_down_at_two_instances_is_resolved_at_one() {
    let kafka = broker().await;
    let engine = Engine::start();
    let two = Two::new(kafka, &engine, "choices-down").await;
    let pipeline = std::fs::read_to_string(two.site.pipeline_file()).expect("the pipeline");
    std::fs::write(two.site.pipeline_file(), format!("start_at = \"latest\"\n{pipeline}")).expect("the pipeline");
    let (mut one, mut other) = (two.site.start(), two.sibling.start());
    let run = |_: i64, phase: &str, _: i64| phase == "running";
    divided([&one, &other], two.sites(), "both to run", run).await;
    let ends = two.produce(kafka, "1");
    let read = |id: i64, phase: &str, at: i64| run(id, phase, at) && ends.get(&(id as i32)) == Some(&at);
    divided([&one, &other], two.sites(), "both to have read", read).await;

    kafka.recreate_topic(&two.topic, 2, &[("message.timestamp.type", "LogAppendTime")]).await;
    let ends = two.produce(kafka, "2");
    for instance in [&mut one, &mut other] {
        let down = |status: &Value| status["readiness"]["reasons"].to_string().contains("boathouse bronze adopt-topic");
        instance.wait("it to say why it is down", down).await;
    }
    let output = two.site.run(&["--json", "bronze", "adopt-topic", "user_events"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("as generation 1"), "{output:?}");
    let stops = [PARTITION_STOPPED, "pipeline stays down until somebody acts", "ended by itself"];
    two.go_on([one, other], &ends, &stops).await;
    let count = "select count(*) as n from bronze.user_events where generation = 1";
    let output = two.site.run(&["sql", "--format", "csv", count]);
    let rows: i64 =
        String::from_utf8_lossy(&output.stdout).trim().lines().last().expect("a row").parse().expect("a count");
    assert_eq!(rows, ends.values().sum::<i64>(), "{output:?}");
}

/// The group waits for a member that does not come back; the stream stands still all the same, and begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_choice_does_not_wait_for_the_group() {
    let kafka = broker().await;
    if kafka.lacks("the state of a group") {
        return;
    }
    let engine = Engine::start();
    let topic = kafka.new_topic("choices-group", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    // Longer than this test: whatever waits for the group does not come to its end.
    site.environment.push(("BOATHOUSE__KAFKA__PROPERTIES__SESSION.TIMEOUT.MS".into(), "300000".into()));
    let (second, third) = (site.sibling(), site.sibling());
    produce(kafka.address(), &topic, &["--count", "1000", "--max-rate"]);
    let ends = kafka.end_offsets(&topic);
    let mut one = site.start();
    one.wait_until_served(&ends).await;
    let mut gone = second.start();
    gone.wait("its share", |status| phases(status).iter().any(|phase| phase == "running")).await;
    gone.kill();
    // Who comes makes the group begin anew, and wait for the one that is gone.
    let mut newcomer = third.start();
    let group = format!("group-{topic}.user_events");
    let begin = Instant::now();
    while kafka.group_state(&group) != "PreparingRebalance" {
        assert!(begin.elapsed() < PATIENCE, "{group} is in state {}", kafka.group_state(&group));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first one hears of it with its next heartbeat, three seconds later at most; from then on it is told nothing.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let output = site.run(&["bronze", "accept-settings", "user_events", "--even-so"]);
    assert!(output.status.success(), "{output:?}\n{}", site.log());
    one.kill();
    newcomer.kill();
    site.assert_log_is_clean_but_for(&[]);
}

/// What waits to try again is forgotten when somebody has decided: two rounds side by side would be in each other's way.
#[tokio::test(flavor = "multi_thread")]
async fn a_choice_while_the_pipeline_waits_to_try_again_begins_one_round() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("choices-waits", 1).await;
    let seed = std::cell::Cell::new(0);
    let more = || {
        seed.set(seed.get() + 1);
        produce(kafka.address(), &topic, &["--count", "100", "--max-rate", "--seed", &seed.get().to_string()]);
        kafka.end_offsets(&topic)
    };
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let ends = more();
    let mut daemon = site.start();
    daemon.wait_until_served(&ends).await;
    daemon.stop().await;
    let log = site.lakehouse().join("bronze/user_events/_delta_log");
    let entries = std::fs::read_dir(&log).expect("the log").flatten().map(|entry| entry.path());
    let newest = entries.filter(|path| path.extension().is_some_and(|e| e == "json")).max().expect("an entry");
    let entry = std::fs::read(&newest).expect("the entry");
    std::fs::write(&newest, "not an entry\n").expect("written");
    let mut daemon = site.start();
    // Each pause is twice the one before: the eighth is longer than a command takes, also on a busy machine.
    let tries = || site.log().matches("made anew after a pause").count();
    daemon.wait("it to wait long", |_| tries() == 8).await;
    let failed = Instant::now();
    std::fs::write(&newest, entry).expect("written");
    let output = site.run(&["bronze", "accept-settings", "user_events", "--even-so"]);
    assert!(output.status.success(), "{output:?}\n{}", site.log());
    // Beyond the pause that was under way.
    while failed.elapsed() < Duration::from_secs(30) {
        let ends = more();
        daemon.wait_until_served(&ends).await;
    }
    assert_eq!((tries(), site.log().matches("Raw landing streaming to").count()), (8, 2), "{}", site.log());
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&["made anew after a pause"]);
}
