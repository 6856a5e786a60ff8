//! Several runs retried or cancelled at once, by the tick boxes of the list: a form that works without a script.

use std::time::Instant;

use boathouse::batch::history::{History, RunState};
use boathouse::config::Server;
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::alone;
use super::browser::{Browser, header};
use crate::support::daemon::{PATIENCE, Site};

/// Runs of a pipeline that this daemon does not have, so that nobody takes them up: one cancelled, one that waits, one
/// that is over.
async fn three(site: &Site) -> [String; 3] {
    let server = Server { data_dir: site.folder.join("data"), ..Server::default() };
    let history = History::open(&server).await.expect("the history");
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(history.request("elsewhere").await.expect("a run"));
    }
    assert!(history.cancel(&runs[0]).await.expect("an answer"));
    history.end_run(&runs[2], RunState::Succeeded, None).await.expect("its end");
    runs.try_into().expect("three of them")
}

async fn states(browser: &Browser, runs: &[String; 3]) -> Vec<String> {
    let mut states = Vec::new();
    for run in runs {
        let (_, run): (_, Value) = browser.api(Method::GET, &format!("/api/v1/runs/{run}"), None).await;
        states.push(run["state"].as_str().unwrap_or_default().to_owned());
    }
    states
}

/// Sends the form of the list; where it leads to.
async fn send(browser: &Browser, act: &str, view: &str, runs: &[&str]) -> String {
    let fields: Vec<(&str, &str)> = [("view", view)].into_iter().chain(runs.iter().map(|run| ("run", *run))).collect();
    let answer = browser.post(&format!("/batch/{act}"), &fields).await;
    assert_eq!(answer.status(), 303, "{act} {runs:?}");
    header(&answer, "location")
}

async fn page(browser: &Browser, path: &str) -> String {
    let answer = browser.get(path).await;
    assert_eq!(answer.status(), 200, "{path}");
    answer.text().await.expect("a page")
}

/// The row of a run in the table of what became of each.
fn became<'a>(page: &'a str, run: &str) -> &'a str {
    let (_, table) = page.split_once("aria-label=\"What became of each run\"").unwrap_or_else(|| panic!("{page}"));
    let table = table.split("</table>").next().unwrap_or_default();
    let row = table.split("<tr>").find(|row| row.contains(run));
    row.unwrap_or_else(|| panic!("{run} is not in {table}"))
}

#[tokio::test]
async fn ticked_runs_are_retried_and_cancelled_and_each_says_what_became_of_it() {
    let site = alone();
    let _daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let runs = three(&site).await;
    let [cancelled, waiting, over] = &runs;
    let view = "pipeline=elsewhere&from=2020-01-01";
    let list = page(&browser, &format!("/batch?{view}")).await;
    for run in &runs {
        assert_eq!(list.matches(&format!("type=\"checkbox\" name=\"run\" value=\"{run}\"")).count(), 1, "{list}");
        assert!(list.contains(&format!("Tick run {run}")), "a tick box has a name: {list}");
    }
    for part in [
        "action=\"/batch/retry\"",
        "formaction=\"/batch/cancel\"",
        "<fieldset",
        "<legend",
        "name=\"view\" value=\"pipeline=elsewhere&amp;from=2020-01-01\"",
    ] {
        assert!(list.contains(part), "{part} is missing in {list}");
    }

    // Twice the same is done once; a text that is no run is refused as one.
    let all = [cancelled, waiting, over, cancelled, "no<run>"];
    let to = send(&browser, "retry", view, &all.map(|run| run as &str)).await;
    assert!(to.starts_with("/batch?pipeline=elsewhere&from=2020-01-01&did="), "{to}");
    assert_eq!(states(&browser, &runs).await, ["waiting", "waiting", "succeeded"]);
    let answer = page(&browser, &to).await;
    assert!(answer.contains("1 run retried, 3 runs refused.") && !answer.contains("no<run>"), "{answer}");
    assert!(became(&answer, cancelled).contains("goes on at the task that failed"), "{answer}");
    assert!(became(&answer, waiting).contains("is waiting; only one that failed or was cancelled"), "{answer}");
    assert!(became(&answer, over).contains("is succeeded; only one that failed or was cancelled"), "{answer}");
    assert!(became(&answer, "no&lt;run&gt;").contains("there is no run"), "{answer}");
    // The live parts are of the same runs, and of no outcome; a reload shows it again and does nothing again.
    assert!(answer.contains("data-live=\"/live/batch?pipeline=elsewhere&amp;from=2020-01-01\""), "{answer}");
    assert!(page(&browser, &to).await.contains("1 run retried, 3 runs refused."));

    let to = send(&browser, "cancel", view, &[cancelled, waiting, over]).await;
    assert_eq!(states(&browser, &runs).await, ["cancelled", "cancelled", "succeeded"]);
    let answer = page(&browser, &to).await;
    assert!(answer.contains("2 runs cancelled, 1 run refused."), "{answer}");
    assert!(became(&answer, over).contains("is over: it is succeeded"), "{answer}");

    let to = send(&browser, "retry", view, &[]).await;
    assert!(page(&browser, &to).await.contains("No run was ticked"));
    let many: Vec<String> = (0..65).map(|n| format!("run-{n}")).collect();
    let fields: Vec<(&str, &str)> = many.iter().map(|run| ("run", run.as_str())).collect();
    assert_eq!(browser.post("/batch/cancel", &fields).await.status(), 422);
}

#[tokio::test]
async fn whoever_may_only_look_is_shown_no_tick_boxes_and_nobody_anothers_outcome() {
    let site = alone();
    let _daemon = site.start();
    let admin = Browser::signed_in(&site).await;
    let runs = three(&site).await;
    let to = send(&admin, "cancel", "", &[&runs[1]]).await;
    let password = "several unrelated words";
    for (name, role) in [("viki", "viewer"), ("otto", "operator")] {
        let new = json!({"name": name, "role": role, "password": password});
        assert_eq!(admin.api(Method::POST, "/api/v1/users", Some(new)).await.0, 204);
        let mut browser = Browser::of(&site).await;
        browser.sign_in(name, password).await;
        let text = page(&browser, &to).await;
        assert!(!text.contains("What became of") && text.contains(&runs[1]), "{text}");
        assert_eq!(text.contains("type=\"checkbox\""), role == "operator", "{name}: {text}");
        // Nor in what is sent while it changes.
        let mut stream = browser.get("/live/batch").await.bytes_stream();
        let (mut sent, begin) = (String::new(), Instant::now());
        while !sent.contains(&runs[1]) {
            assert!(begin.elapsed() < PATIENCE, "{sent}");
            let chunk = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("goes on");
            sent.push_str(&String::from_utf8_lossy(&chunk.expect("a chunk")));
        }
        assert_eq!(sent.contains("checkbox"), role == "operator", "{name}: {sent}");
    }
}

/// The fields of a page's form for an action, as a browser would send them.
fn fields_of<'a>(page: &'a str, action: &str) -> Vec<(&'a str, String)> {
    let (_, form) = page.split_once(&format!("action=\"{action}\"")).unwrap_or_else(|| panic!("{action}: {page}"));
    let form = form.split("</form>").next().unwrap_or_default();
    let value = |input: &'a str, name: &str| {
        let (_, rest) = input.split_once(&format!("{name}=\""))?;
        rest.split('"').next()
    };
    let hidden = form.split("<input type=\"hidden\"").skip(1);
    let field = |input| Some((value(input, "name")?, value(input, "value")?.replace("&amp;", "&")));
    hidden.filter_map(field).filter(|(name, _)| *name != "csrf").collect()
}

#[tokio::test]
async fn an_action_leads_back_to_the_same_view_and_never_elsewhere() {
    let site = alone();
    let _daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let [cancelled, waiting, _] = three(&site).await;
    let run = format!("/batch/runs/{waiting}");
    for (path, query, action, more, told) in [
        ("/batch", "state=failed&cause=manual&to=2026-02-07", "/batch/pause", None, "&said=paused"),
        ("/batch", "state=failed&to=2026-02-07", "/batch/resume", None, "&said=resumed"),
        ("/stream", "range=24h", "/stream/pause", Some(("what", "user_events")), "&said=paused"),
        ("/stream", "range=6h", "/stream/resume", None, "&said=resumed"),
        (&run, "task=run_bronze_to_silver&attempt=1&find=", &format!("{run}/cancel"), None, ""),
        (&run, "task=run_silver_to_gold&attempt=&find=x+y", &format!("{run}/retry"), None, ""),
    ] {
        // What an earlier action has told is not told again.
        let text = page(&browser, &format!("{path}?{query}&said=paused&did=x")).await;
        let mut fields = fields_of(&text, action);
        fields.extend(more.map(|(name, value)| (name, value.to_owned())));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = browser.post(action, &fields).await;
        let to = (answer.status().as_u16(), header(&answer, "location"));
        assert_eq!(to, (303, format!("{path}?{query}{told}")), "{action} with {fields:?}");
        assert_eq!(browser.get(&to.1).await.status(), 200, "{}", to.1);
    }
    for view in ["//evil.example", "https://evil.example/", "@evil.example", "x\r\nset-cookie: a=b", "\\\\evil"] {
        let to = send(&browser, "retry", view, &[&cancelled]).await;
        assert!(to.starts_with("/batch?") && to.contains("&did="), "{view}: {to}");
        let answer = browser.post("/batch/pause", &[("pipeline", "user_events"), ("view", view)]).await;
        assert!(header(&answer, "location").starts_with("/batch?"), "{view}: {answer:?}");
        assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 0, "{view}: {answer:?}");
    }
}
