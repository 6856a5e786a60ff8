//! What an operator has at hand in a terminal: doctor, top, tap, completions, man pages.

use std::process::{Command, Output};

use serde_json::Value;

use crate::scheduler::filled;
use crate::support::broker::{Record, broker};
use crate::support::daemon::produce;
use crate::support::engine::Engine;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {}\n{said}", text(output)))
}

/// The findings of a check, as `state: found`.
fn findings(report: &Value, check: &str) -> Vec<String> {
    let all = report["findings"].as_array().expect("findings");
    let ours = all.iter().filter(|f| f["check"] == check);
    ours.map(|f| format!("{}: {}", f["state"].as_str().unwrap_or_default(), f["found"].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_top_and_tap_tell_of_a_running_daemon() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "at-hand").await;
    let kafka = broker().await;

    let report = site.run(&["doctor", "--json"]);
    let found = json(&report);
    for check in ["configuration", "kafka", "clickhouse", "clocks", "history", "daemon", "log of bronze.user_events"] {
        let states = findings(&found, check);
        assert!(states.len() == 1 && states[0].starts_with("ok: "), "{check}: {states:?} in {found:#}");
    }
    assert!(findings(&found, "data_dir rights")[0].starts_with("ok"), "{found:#}");
    assert!(findings(&found, "table bronze.user_events")[0].contains("2000 rows"), "{found:#}");
    assert!(!findings(&found, &format!("topic {}", site.topic)).is_empty(), "{found:#}");

    let top = site.run(&["top", "--once", "--interval", "200ms"]);
    let page = text(&top);
    assert!(top.status.success(), "{page}");
    for part in ["running", "ready", "user_events/0", "user_events/2", "records/s", "Nothing is wrong."] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }

    // From the beginning, so that what there is to see does not depend on when it looks.
    let tap = site.run(&["tap", "--json", "--from-beginning", "-n", "5", "event_type=purchase", "user_id>0"]);
    let shown: Vec<Value> =
        text(&tap).lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(shown.len(), 5, "{}", String::from_utf8_lossy(&tap.stderr));
    for line in &shown {
        assert_eq!((&line["event"]["event_type"], &line["verdict"]), (&"purchase".into(), &"ok".into()), "{line}");
        assert!(line["event"]["user_id"].is_i64() && line["event"]["event_id"].is_string(), "{line}");
    }
    kafka.produce(&site.topic, 1, Record::of(b"{\"event_id\": 1}")).await;
    let tap = text(&site.run(&["tap", "--from-beginning", "--unparsed", "-n", "1"]));
    assert!(tap.contains("unparsed") && tap.contains("event_id"), "{tap}");
    let refused = site.run(&["tap", "colour=red"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("no field `colour`"), "{said}");

    // What comes shows within the flush of nobody: the topic itself is read.
    let following = site.command(&["tap", "--json", "-n", "1"]);
    let waiting = tokio::task::spawn_blocking(move || {
        let mut following = following;
        following.output().expect("it ends after one")
    });
    while !waiting.is_finished() {
        produce(kafka.address(), &site.topic, &["--count", "1", "--max-rate"]);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(text(&waiting.await.expect("the tap")).lines().count(), 1);

    daemon.stop().await;
    let top = site.run(&["top", "--once", "--interval", "100ms"]);
    assert!(top.status.code() == Some(1) && text(&top).contains("No daemon answers"), "{}", text(&top));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let engine = Engine::start();
    let kafka = broker().await;
    let mut site = crate::support::daemon::Site::new(kafka.address(), &engine.url, &kafka.unique_name("nobody-writes"));
    let calm = site.run(&["doctor"]);
    let said = text(&calm);
    assert!(said.contains("is not there") && said.contains("→ start the producer"), "{said}");
    assert!(said.contains("→ start it: boathouse run"), "{said}");

    site.environment.push(("BOATHOUSE__CLICKHOUSE__USER".into(), "nobody".into()));
    site.environment.push(("BOATHOUSE__CLICKHOUSE__PASSWORD".into(), "s3cret-wrong".into()));
    site.environment.push(("BOATHOUSE__KAFKA__BROKERS".into(), "127.0.0.1:1".into()));
    let report = site.run(&["doctor", "--json"]);
    assert_eq!(report.status.code(), Some(1));
    let found = json(&report);
    assert!(findings(&found, "kafka")[0].starts_with("fail: 127.0.0.1:1 does not answer"), "{found:#}");
    assert!(findings(&found, "clickhouse")[0].contains("refuses the user"), "{found:#}");
    assert!(!text(&report).contains("s3cret-wrong"), "a password shows");
    let advised = found["findings"].as_array().unwrap().iter().filter(|f| f["state"] != "ok");
    assert!(advised.clone().count() >= 2 && advised.clone().all(|f| f["advice"].is_string()), "{found:#}");
}

fn boathouse(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_boathouse")).args(arguments).output().expect("the program runs")
}

#[test]
fn completions_are_scripts_that_bash_reads_and_that_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&boathouse(&["completions", shell]));
        for word in ["reconcile", "dead-letters", "doctor"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    let complete = "source <(\"$1\" completions bash); COMP_WORDS=(boathouse doc); COMP_CWORD=1; \
                    _boathouse boathouse doc boathouse; echo \"${COMPREPLY[*]}\"";
    let output =
        Command::new("bash").args(["-c", complete, "bash", env!("CARGO_BIN_EXE_boathouse")]).output().expect("bash");
    assert_eq!(text(&output).trim(), "doctor", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn there_is_a_man_page_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let output = boathouse(&["man", "--out", &folder.path().join("man1").display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = |name: &str| {
        let path = folder.path().join("man1").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    assert!(page("boathouse.1").contains(".TH boathouse 1"), "{}", page("boathouse.1"));
    assert!(page("boathouse-doctor.1").contains("clocks"));
    assert!(page("boathouse-batch-run.1").contains("wait"));
    assert!(!folder.path().join("man1/boathouse-bench-consume.1").exists());
}
