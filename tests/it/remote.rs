//! Commands beside a daemon that runs ask it, and say the same as those that work directly.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::console::browser::Browser;
use crate::scheduler::filled;
use crate::support::daemon::Site;
use crate::support::engine::Engine;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_of(site: &Site, arguments: &[&str]) -> Value {
    let output = site.run(&[&["--json"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}\n{}", said(&output), site.log());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"))
}

/// The keys of the first of a list, and of its first task.
fn keys(list: &Value) -> Vec<String> {
    let of = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    [of(&list[0]), of(&list[0]["tasks"][0])].concat()
}

/// Runs a command with a token of somebody's own.
fn with_token(site: &Site, token: &str, arguments: &[&str]) -> Output {
    site.command(arguments).env("BOATHOUSE_TOKEN", token).output().expect("the program runs")
}

async fn actions(browser: &Browser) -> Vec<(String, String)> {
    let (_, entries) = browser.api(Method::GET, "/api/v1/audit?limit=1000", None).await;
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    entries.as_array().expect("entries").iter().map(|e| (text(&e["action"]), text(&e["who"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_ask_the_daemon_that_runs_and_work_directly_without_one() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "remote").await;
    let admin = Browser::signed_in(&site).await;
    let file = site.folder.join("data/console/local-token");
    assert_eq!(std::fs::metadata(&file).expect("the commands' token").permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).expect("a token");
    assert!(!site.log().contains(&token), "the log holds the token");

    // Runs, by the daemon and beside it: the same JSON.
    let asked = json_of(&site, &["batch", "run", "--wait"]);
    assert_eq!(asked[0]["state"], "succeeded", "{asked:#}");
    let direct = json_of(&site, &["batch", "run", "--wait", "--direct"]);
    assert_eq!((&direct[0]["state"], keys(&asked)), (&json!("succeeded"), keys(&direct)), "{direct:#}");
    let upkeep = json_of(&site, &["tables", "upkeep", "--wait"]);
    assert_eq!((&upkeep[0]["graph"], &upkeep[0]["state"]), (&json!("lakehouse_upkeep"), &json!("succeeded")));
    let today = chrono::Utc::now().date_naive().to_string();
    let again = json_of(&site, &["batch", "backfill", "--from", &today, "--to", &today, "--wait"]);
    assert_eq!((&again[0]["graph"], &again[0]["state"]), (&json!("lakehouse_backfill"), &json!("succeeded")));
    let run_id = asked[0]["run_id"].as_str().expect("an id");
    for verb in ["cancel", "retry"] {
        let (asked, direct) = (site.run(&["batch", verb, run_id]), site.run(&["batch", verb, run_id, "--direct"]));
        assert_eq!((asked.status.code(), direct.status.code()), (Some(2), Some(2)));
        assert_eq!(said(&asked), said(&direct), "what cannot be done is told in the same words");
    }
    assert!(said(&site.run(&["batch", "cancel", "../users"])).contains("no such run"));

    // A comparison by the daemon is kept.
    let compared = json_of(&site, &["reconcile", "--by-daemon"]);
    assert_eq!((&compared["verdict"], compared["layers"].as_array().map(Vec::len)), (&json!("same"), Some(5)));
    let (_, standing) = admin.api(Method::GET, "/api/v1/reconcile", None).await;
    assert!(standing["last"] == compared && compared["by"].as_str().is_some_and(|by| by.starts_with("command line")));

    // Schedules and the stream.
    assert_eq!(json_of(&site, &["batch", "pause"])[0]["changed"], true);
    assert_eq!(json_of(&site, &["batch", "pause", "--direct"])[0]["changed"], false);
    assert_eq!(json_of(&site, &["batch", "resume", "--direct"])[0]["changed"], true);
    let asked = json_of(&site, &["stream", "pause", "--partition", "1", "--for", "90m", "--reason", "a look"]);
    assert_eq!((&asked[0]["partition"], &asked[0]["reason"]), (&json!(1), &json!("a look")), "{asked}");
    assert!(asked[0]["by"].as_str().is_some_and(|by| by.starts_with("command line, uid")), "{asked}");
    assert_eq!(json_of(&site, &["stream", "pauses"]), asked);
    assert_eq!(json_of(&site, &["stream", "resume", "--direct"]), json!([]));

    // All of it is in the audit log, whoever did it.
    let actions = actions(&admin).await;
    for (action, by) in [
        ("POST /api/v1/runs", "command line, uid"),
        ("batch run", "command line, uid"),
        ("POST /api/v1/backfills", "command line, uid"),
        ("POST /api/v1/schedules/user_events/pause", "command line, uid"),
        ("batch resume", "command line, uid"),
        ("POST /api/v1/stream/pause", "command line, uid"),
        ("stream resume", "command line, uid"),
    ] {
        assert!(actions.iter().any(|(a, who)| a == action && who.starts_with(by)), "{action}: {actions:?}");
    }

    // Somebody's own token has its own role; one that is none is told.
    for (name, role) in [("look", "viewer"), ("act", "operator")] {
        let (status, made) = admin.api(Method::POST, "/api/v1/tokens", Some(json!({"name": name, "role": role}))).await;
        assert_eq!(status, 201, "{made}");
        let output = with_token(&site, made["token"].as_str().expect("a token"), &["batch", "pause"]);
        assert_eq!(output.status.success(), role == "operator", "{role}: {}", said(&output));
        assert!(role == "operator" || said(&output).contains("needs the role operator"), "{}", said(&output));
    }
    let output = with_token(&site, "bh_made-up", &["batch", "pause"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("does not take the token of BOATHOUSE_TOKEN"));

    // The commands' token is an operator's.
    let call = |path: &str, token: &str| admin.request(Method::GET, path).bearer_auth(token).send();
    assert_eq!(call("/api/v1/runs", &token).await.expect("an answer").status(), StatusCode::OK);
    assert_eq!(call("/api/v1/users", &token).await.expect("an answer").status(), StatusCode::FORBIDDEN);
    // Whoever may not read it is told what to do.
    std::fs::remove_file(&file).expect("taken away");
    let output = site.run(&["batch", "resume"]);
    assert!(output.status.code() == Some(2) && said(&output).contains("--direct"), "{}", said(&output));
    assert!(site.run(&["batch", "resume", "--direct"]).status.success());

    // What a dead daemon has left opens nothing; each start makes another one, and takes it away at its end.
    std::fs::write(&file, &token).expect("a token");
    daemon.kill();
    let output = site.run(&["batch", "pause"]);
    assert!(output.status.success() && said(&output).contains("working directly"), "{}", said(&output));
    assert_eq!(site.run(&["reconcile", "--by-daemon"]).status.code(), Some(2));
    let mut daemon = site.start();
    Browser::of(&site).await;
    assert_eq!(call("/api/v1/runs", &token).await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    assert!(site.run(&["batch", "resume"]).status.success());
    daemon.stop().await;
    assert!(!file.exists());
}
