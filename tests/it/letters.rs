//! Dead letters on a real broker: found, corrected, sent again by the command and by the console, and resolved.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use crate::console::browser::{Browser, header};
use crate::support::broker::{Kafka, Record, broker};
use crate::support::daemon::{Daemon, Site, produce};
use crate::support::engine::Engine;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_of(site: &Site, arguments: &[&str]) -> Value {
    let output = site.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", text(&output)))
}

/// What a command refuses, it says.
fn refused(site: &Site, arguments: &[&str], part: &str) {
    let output = site.run(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
    assert!(said(&output).contains(part), "{arguments:?}: `{part}` is missing in {}", said(&output));
}

fn sources(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|l| l["source"].as_str().expect("a source").to_owned()).collect()
}

/// An event of now, but for what is given in place of its members.
fn event(id: &str, with: &[(&str, Value)]) -> String {
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S").to_string();
    let mut event = json!({
        "event_id": id, "user_id": 7, "event_type": "click", "page": "/", "timestamp": now, "source": "web"
    });
    for (field, value) in with {
        event[*field] = value.clone();
    }
    let object = event.as_object_mut().expect("an object");
    object.retain(|_, value| !value.is_null());
    event.to_string()
}

async fn served(daemon: &mut Daemon, kafka: &Kafka, topic: &str) -> BTreeMap<i32, i64> {
    let ends = kafka.end_offsets(topic);
    daemon.wait_until_served(&ends).await;
    ends
}

fn counted(engine: &Engine) -> u64 {
    engine.sql("SELECT sum(event_count) FROM realtime.events_per_minute").trim().parse().expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_corrected_sent_again_and_resolved() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("letters", 3).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    produce(kafka.address(), &topic, &["--count", "50", "--max-rate", "--seed", "6"]);
    let headers: &[(&str, Option<&[u8]>)] = &[("trace", Some(b"7"))];
    let wrong = event("letter-a", &[("user_id", json!("seven")), ("extra", json!({"kept": [1, 2]}))]);
    kafka.produce(&topic, 1, Record { key: Some(b"k"), headers, ..Record::of(wrong.as_bytes()) }).await;
    kafka.produce(&topic, 0, Record::of(b"{\"event_id\": \"letter-b\", oops")).await;
    let mut daemon = site.start();
    let ends = served(&mut daemon, kafka, &topic).await;
    let (a, b) = (format!("{topic}/0/1/{}", ends[&1] - 1), format!("{topic}/0/0/{}", ends[&0] - 1));
    assert_eq!(counted(&engine), 50);

    let open = json_of(&site, &["dead-letters", "list", "--open", "--json"]);
    assert_eq!(open.as_array().map(Vec::len), Some(2), "{open:#}");
    assert!(sources(&open).contains(&a) && sources(&open).contains(&b), "{open:#}");
    assert_eq!(json_of(&site, &["dead-letters", "list", "--resolved", "--json"]), json!([]));

    // What it would be is told before anything is sent; what would be dead again is not sent at all.
    let short = format!("{topic}/1/{}", ends[&1] - 1);
    let dry = json_of(&site, &["dead-letters", "redrive", &short, "--set", "user_id=7", "--dry-run", "--json"]);
    assert_eq!((&dry["foreseen"]["verdict"], &dry["objections"]), (&json!("ok"), &json!([])), "{dry:#}");
    assert_eq!(dry["differences"], json!([{"field": "user_id", "before": "\"seven\"", "after": "7"}]));
    let redrive = ["dead-letters", "redrive", a.as_str()];
    refused(&site, &[&redrive[..], &["--set", "user_id=x"]].concat(), "user_id is an int");
    refused(&site, &[&redrive[..], &["--set", "pages=/"]].concat(), "it has event_id");
    refused(&site, &redrive, "user_id: expected int");
    let clack = ["--set", "user_id=7", "--set", "event_type=clack"];
    refused(&site, &[&redrive[..], &clack].concat(), "invalid:event_type");
    refused(&site, &["dead-letters", "redrive", &b, "--set", "user_id=7"], "give the whole value");
    assert_eq!(kafka.end_offsets(&topic), ends, "nothing was sent");

    // Commands send it at the same moment, two by themselves and one through the daemon: once, with its key and headers.
    let sent = json_of_one(&site, &[&redrive[..], &["--set", "user_id=7", "--json"]].concat());
    assert_eq!(kafka.end_offsets(&topic)[&1], ends[&1] + 1, "one was sent");
    assert_eq!((&sent["partition"], &sent["offset"]), (&json!(1), &json!(ends[&1])), "{sent}");
    assert_eq!(sent["origin"], a.as_str());
    // Whether Bronze has it already or not.
    refused(&site, &[&redrive[..], &["--set", "user_id=7"]].concat(), "already");
    served(&mut daemon, kafka, &topic).await;
    let by = format!("{topic}/0/1/{}", ends[&1]);
    let letter = json_of(&site, &["dead-letters", "show", &a, "--json"]);
    assert_eq!(letter["resolved_by"], json!([by]), "{letter:#}");
    let row = json_of(&site, &["dead-letters", "show", &by, "--json"]);
    let expected = json!([{"key": "trace", "value": "7"}, {"key": "boathouse-origin", "value": a}]);
    assert_eq!((&row["headers"], &row["key"], &row["time_status"]), (&expected, &json!("k"), &json!("ok")), "{row:#}");
    assert!(row["payload"].as_str().expect("a payload").contains("\"extra\":{\"kept\":[1,2]}"), "{row:#}");
    let twice = "select count(*) as n from bronze.user_events where event_id = 'letter-a'";
    assert_eq!(text(&site.run(&["sql", "--format", "csv", twice])).trim(), "n\n1");
    assert_eq!(counted(&engine), 51);
    refused(&site, &[&redrive[..], &["--set", "user_id=7"]].concat(), "is resolved already, by");
    assert_eq!(sources(&json_of(&site, &["dead-letters", "list", "--open", "--json"])), [b.as_str()]);
    assert_eq!(sources(&json_of(&site, &["dead-letters", "list", "--resolved", "--json"])), [a.as_str()]);

    in_the_console(&site, &mut daemon, kafka, &engine, &b).await;
    in_bulk(&site, &mut daemon, kafka).await;
    in_bulk_in_the_console(&site, &mut daemon, kafka).await;
    refused_by_silver(&site, &mut daemon, kafka).await;
    site.assert_reconciled();
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

/// What the one says that succeeds, of three of a command at the same moment; the others say that it was done.
fn json_of_one(site: &Site, arguments: &[&str]) -> Value {
    let direct = [arguments, &["--direct"]].concat();
    let begin = |arguments: &[&str]| {
        let mut command = site.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs")
    };
    let running = [begin(&direct), begin(arguments), begin(&direct)];
    let ended = running.map(|child| child.wait_with_output().expect("its end"));
    let (done, others): (Vec<_>, Vec<_>) = ended.into_iter().partition(|output| output.status.success());
    assert_eq!(done.len(), 1, "{}", others.iter().map(said).collect::<String>());
    for output in &others {
        assert!(said(output).contains("already"), "{}", said(output));
    }
    serde_json::from_slice(&done[0].stdout).expect("JSON")
}

async fn in_the_console(site: &Site, daemon: &mut Daemon, kafka: &Kafka, engine: &Engine, letter: &str) {
    let admin = Browser::signed_in(site).await;
    let password = "several unrelated words";
    for (name, role) in [("viki", "viewer"), ("otto", "operator")] {
        let new = json!({"name": name, "role": role, "password": password});
        assert_eq!(admin.api(Method::POST, "/api/v1/users", Some(new)).await.0, 204);
    }
    let mut viewer = Browser::of(site).await;
    viewer.sign_in("viki", password).await;
    let good = event("letter-b", &[]);
    let correction = json!({"source": letter, "value": good});
    for call in ["check", "redrive"] {
        let path = format!("/api/v1/dead-letters/{call}");
        assert_eq!(viewer.api(Method::POST, &path, Some(correction.clone())).await.0, 403, "{path}");
        let form = [("source", letter), ("value", good.as_str())];
        assert_eq!(viewer.post(&format!("/dead-letters/{call}"), &form).await.status(), 403);
    }
    let page = viewer.get(&format!("/records/{letter}")).await.text().await.expect("a page");
    assert!(page.contains("An operator can correct it") && !page.contains("<textarea"), "{page}");

    // An operator edits, sees what it would be, and sends it.
    let page = admin.get(&format!("/records/{letter}")).await.text().await.expect("a page");
    assert!(page.contains("oops") && page.contains("<textarea"), "{page}");
    let broken = [("source", letter), ("value", "{\"event_id\": 1}")];
    let page = admin.post("/dead-letters/check", &broken).await.text().await.expect("a page");
    assert!(page.contains("would be no event") && page.contains("Send it all the same"), "{page}");
    let answer = admin.post("/dead-letters/redrive", &broken).await;
    assert_eq!(answer.status(), 422);
    let form = [("source", letter), ("value", good.as_str())];
    let page = admin.post("/dead-letters/check", &form).await.text().await.expect("a page");
    assert!(page.contains("it would be taken and counted") && !page.contains("all the same"), "{page}");
    let before = kafka.end_offsets(&site.topic);
    let answer = admin.post("/dead-letters/redrive", &form).await;
    let to = format!("/records/{letter}?sent=0/{}", before[&0]);
    assert_eq!((answer.status().as_u16(), header(&answer, "location")), (303, to.clone()));
    let page = admin.get(&to).await.text().await.expect("a page");
    assert!(page.contains(&format!("Sent again as offset {}", before[&0])), "{page}");
    served(daemon, kafka, &site.topic).await;
    let page = admin.get(&format!("/records/{letter}")).await.text().await.expect("a page");
    assert!(page.contains("Resolved by") && page.contains(&format!("/0/0/{}", before[&0])), "{page}");
    assert_eq!(counted(engine), 52);
    let (_, list) = admin.api(Method::GET, "/api/v1/dead-letters?state=open", None).await;
    assert_eq!(list, json!([]));
    let page = admin.get("/dead-letters?state=resolved&status=unparsed").await.text().await.expect("a page");
    assert!(page.matches("resolved</span>").count() >= 2 || page.matches("resolved").count() >= 3, "{page}");

    // What is resolved is not sent a second time, unless somebody insists.
    let (status, answer) = admin.api(Method::POST, "/api/v1/dead-letters/redrive", Some(correction)).await;
    assert!(status == 422 && answer["error"].as_str().is_some_and(|e| e.contains("resolved already")), "{answer}");
    let typed = json!({"source": letter, "value": good, "force": true});
    let (status, sent) = admin.api(Method::POST, "/api/v1/dead-letters/redrive", Some(typed)).await;
    assert_eq!((status, &sent["partition"]), (200, &json!(0)), "{sent}");
    let (_, entries) = admin.api(Method::GET, "/api/v1/audit?limit=1000", None).await;
    let entries = entries.to_string();
    for action in ["POST /dead-letters/redrive", "POST /api/v1/dead-letters/redrive", "command line, uid"] {
        assert!(entries.contains(action), "{action} is missing in {entries}");
    }
}

async fn in_bulk(site: &Site, daemon: &mut Daemon, kafka: &Kafka) {
    for n in 0..3 {
        let wrong = event(&format!("bulk-{n}"), &[("source", Value::Null)]);
        kafka.produce(&site.topic, n, Record::of(wrong.as_bytes())).await;
    }
    // Setting the source does not mend it.
    let worse = event("bulk-3", &[("source", Value::Null), ("page", Value::Null)]);
    kafka.produce(&site.topic, 0, Record::of(worse.as_bytes())).await;
    let ends = served(daemon, kafka, &site.topic).await;
    refused(site, &["dead-letters", "redrive", "--set", "source=web"], "which letters?");
    let all = ["dead-letters", "redrive", "--reason", "missing", "--set", "source=web"];
    let output = site.run(&all);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        text(&output).contains("4 letters found: 3 would be sent again, 1 would be dead letters"),
        "{}",
        text(&output)
    );
    assert!(said(&output).contains("--yes sends these 3"), "{}", said(&output));
    assert_eq!(kafka.end_offsets(&site.topic), ends, "nothing was sent");
    let done = json_of(site, &[&all[..], &["--yes", "--json"]].concat());
    assert_eq!((done["sent"].as_array().map(Vec::len), done["left"].as_array().map(Vec::len)), (Some(3), Some(1)));
    served(daemon, kafka, &site.topic).await;
    let open = json_of(site, &["dead-letters", "list", "--open", "--json"]);
    assert_eq!(open.as_array().map(Vec::len), Some(1), "{open:#}");
    assert!(open[0]["payload"].as_str().expect("a payload").contains("bulk-3"), "{open:#}");
    let counts = json_of(site, &["dead-letters", "list", "--open", "--reasons", "--json"]);
    assert_eq!(counts[0]["record_count"], 1, "{counts:#}");
}

async fn in_bulk_in_the_console(site: &Site, daemon: &mut Daemon, kafka: &Kafka) {
    let mut admin = Browser::of(site).await;
    admin.sign_in("otto", "several unrelated words").await;
    for n in 0..3 {
        let wrong = event(&format!("console-{n}"), &[("source", Value::Null)]);
        kafka.produce(&site.topic, n, Record::of(wrong.as_bytes())).await;
    }
    let ends = served(daemon, kafka, &site.topic).await;
    let post = async |path: &str, body: Value| admin.api(Method::POST, path, Some(body)).await;
    let (status, answer) = post("/api/v1/dead-letters/redrive-all", json!({"set": {"source": "web"}})).await;
    assert!(status == 422 && answer["error"].as_str().is_some_and(|e| e.contains("which letters")), "{answer}");
    let all = json!({"which": {"reason": "missing"}, "set": {"source": "web"}});
    let (status, found) = post("/api/v1/dead-letters/check-all", all.clone()).await;
    assert_eq!((status, &found["would_send_count"], &found["left_count"]), (200, &json!(3), &json!(1)), "{found:#}");
    let page = admin.get("/dead-letters?reason=missing").await.text().await.expect("a page");
    assert!(page.contains("/dead-letters/all?reason=missing"), "{page}");
    let page = admin.get("/dead-letters/all?reason=missing").await.text().await.expect("a page");
    assert!(page.contains("field.source") && page.contains("Show what they would be"), "{page}");
    let form = [("reason", "missing"), ("field.source", "web"), ("field.page", "")];
    let page = admin.post("/dead-letters/check-all", &form).await.text().await.expect("a page");
    assert!(page.contains("Send 3 letters again") && page.contains("Would be left"), "{page}");
    assert_eq!(kafka.end_offsets(&site.topic), ends, "nothing was sent");
    let page = admin.post("/dead-letters/redrive-all", &form).await.text().await.expect("a page");
    assert!(page.contains("3 letters were sent again, 1 left"), "{page}");
    // Whether Bronze has them already or not, they are not sent a second time.
    let (_, again) = post("/api/v1/dead-letters/redrive-all", all.clone()).await;
    assert!(again["sent"] == json!([]) || again["error"].as_str().is_some_and(|e| e.contains("already")), "{again}");
    served(daemon, kafka, &site.topic).await;
    let (status, again) = post("/api/v1/dead-letters/redrive-all", all).await;
    assert_eq!((status, &again["sent"], again["left"].as_array().map(Vec::len)), (200, &json!([]), Some(1)), "{again}");
    let open = json_of(site, &["dead-letters", "list", "--open", "--json"]);
    assert_eq!(open.as_array().map(Vec::len), Some(1), "{open:#}");
}

/// An event that silver alone refuses is a letter once the batch has run, and can be sent again before.
async fn refused_by_silver(site: &Site, daemon: &mut Daemon, kafka: &Kafka) {
    let early = event("letter-d", &[("event_type", json!("clack"))]);
    kafka.produce(&site.topic, 1, Record::of(early.as_bytes())).await;
    let ends = served(daemon, kafka, &site.topic).await;
    let early = format!("{}/1/{}", site.topic, ends[&1] - 1);
    let change = ["dead-letters", "redrive", early.as_str(), "--set", "event_type=click"];
    let would = json_of(site, &[&change[..], &["--dry-run", "--json"]].concat());
    assert_eq!((&would["letter"]["time_status"], &would["objections"]), (&json!("refused"), &json!([])), "{would:#}");
    json_of(site, &[&change[..], &["--json"]].concat());
    served(daemon, kafka, &site.topic).await;
    let wrong = event("letter-c", &[("event_type", json!("clack"))]);
    kafka.produce(&site.topic, 2, Record::of(wrong.as_bytes())).await;
    served(daemon, kafka, &site.topic).await;
    let output = site.run(&["batch", "run", "--wait"]);
    assert!(output.status.success(), "{}{}", text(&output), said(&output));
    let list = json_of(site, &["dead-letters", "list", "--status", "refused", "--resolved", "--json"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "the one that was sent again before: {list:#}");
    let list = json_of(site, &["dead-letters", "list", "--status", "refused", "--open", "--json"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list:#}");
    assert_eq!((&list[0]["reason"], &list[0]["state"]), (&json!("invalid:event_type"), &json!("open")), "{list:#}");
    let letter = list[0]["source"].as_str().expect("a source").to_owned();
    // A forced correction that is wrong again resolves nothing.
    let again = ["dead-letters", "redrive", letter.as_str(), "--set", "event_type=clock"];
    refused(site, &again, "invalid:event_type");
    json_of(site, &[&again[..], &["--force", "--json"]].concat());
    served(daemon, kafka, &site.topic).await;
    let list = json_of(site, &["dead-letters", "list", "--status", "refused", "--open", "--json"]);
    assert_eq!(sources(&list), [letter.as_str()], "{list:#}");
    json_of(site, &["dead-letters", "redrive", &letter, "--set", "event_type=click", "--json"]);
    served(daemon, kafka, &site.topic).await;
    let letter = json_of(site, &["dead-letters", "list", "--status", "refused", "--resolved", "--json"]);
    assert_eq!(letter.as_array().map(Vec::len), Some(2), "{letter:#}");
}
