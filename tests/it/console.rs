//! The console of a real daemon, spoken to as a browser or a program does.

mod acts;
pub mod browser;
mod pages;
mod password;
mod rates;
mod reconcile;
mod tap;
mod ticks;
mod views;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use self::browser::{Browser, Fields, header};
use crate::scheduler::filled;
use crate::support::daemon::{PATIENCE, Site};
use crate::support::engine::Engine;

/// A site whose servers are away: the console is there all the same.
fn alone() -> Site {
    let site = Site::new("127.0.0.1:1", "http://127.0.0.1:1", "console");
    site.assert_log_is_clean_but_for(&[
        "librdkafka",
        "ClickHouse does not take totals",
        "the layers could not be compared",
    ]);
    site
}

/// Everything that there is to read, and everything that changes something.
const READS: &[&str] = &[
    "/",
    "/stream",
    "/batch",
    "/batch/runs/x",
    "/batch/backfill",
    "/live/backfill",
    "/api/v1/backfills/plan",
    "/actors",
    "/account",
    "/data",
    "/data/silver.user_events",
    "/data/clickhouse/realtime.events_per_minute",
    "/sql",
    "/sql/running",
    "/sql/words",
    "/api/v1/sql/running",
    "/api/v1/sql/words",
    "/quality",
    "/dead-letters",
    "/dead-letters/all",
    "/records/a/0/0/1",
    "/search?q=2026-02-06",
    "/trace/x",
    "/reconcile",
    "/live/reconcile",
    "/api/v1/reconcile",
    "/live/trace/x",
    "/api/v1/trace/x",
    "/api",
    "/api/v1/openapi.json",
    "/api/v1/tables",
    "/api/v1/tables/silver.user_events",
    "/api/v1/clickhouse/tables",
    "/api/v1/clickhouse/tables/realtime.events_per_minute",
    "/api/v1/quality",
    "/api/v1/dead-letters",
    "/api/v1/records/a/0/0/1",
    "/users",
    "/audit",
    "/configuration",
    "/api/v1/users",
    "/api/v1/audit",
    "/api/v1/configuration",
    "/live/overview",
    "/live/stream?range=6h",
    "/live/batch?state=failed",
    "/live/run/x",
    "/nowhere",
    "/api/v1/stream/choices?pipeline=user_events",
    "/stream/choices?pipeline=user_events",
    "/api/v1/stream/pauses",
    "/api/v1/stream/tap",
    "/stream/tap",
    "/live/tap",
    "/api/v1/status",
    "/api/v1/hour",
    "/api/v1/rates",
    "/api/v1/lag",
    "/api/v1/session",
    "/api/v1/runs",
    "/api/v1/runs/x",
    "/api/v1/runs/x/log",
    "/api/v1/nowhere",
    "/assets",
    "/healthz/",
    "//",
    "/login/",
    "/assets%2f..%2fbatch",
];
const CHANGES: &[&str] = &[
    "/batch/run",
    "/batch/pause",
    "/batch/resume",
    "/batch/cancel",
    "/batch/retry",
    "/batch/runs/x/cancel",
    "/batch/backfill",
    "/api/v1/backfills",
    "/reconcile/run",
    "/reconcile/stop",
    "/api/v1/reconcile",
    "/api/v1/reconcile/stop",
    "/batch/runs/x/retry",
    "/logout",
    "/theme",
    "/password",
    "/sql",
    "/sql/cancel",
    "/api/v1/sql",
    "/api/v1/sql/cancel",
    "/users/put",
    "/users/remove",
    "/users/tokens",
    "/users/tokens/remove",
    "/api/v1/users",
    "/api/v1/users/admin",
    "/api/v1/tokens",
    "/api/v1/tokens/x",
    "/api/v1/runs",
    "/api/v1/runs/x/cancel",
    "/api/v1/runs/x/retry",
    "/api/v1/schedules/user_events/pause",
    "/api/v1/schedules/user_events/resume",
    "/stream/choices",
    "/api/v1/stream/choices",
    "/stream/pause",
    "/stream/resume",
    "/api/v1/stream/pause",
    "/api/v1/stream/resume",
    "/dead-letters/check",
    "/dead-letters/redrive",
    "/api/v1/dead-letters/check",
    "/api/v1/dead-letters/redrive",
    "/dead-letters/check-all",
    "/dead-letters/redrive-all",
    "/api/v1/dead-letters/check-all",
    "/api/v1/dead-letters/redrive-all",
    "/nowhere",
];

#[tokio::test]
async fn without_a_session_nothing_is_told_and_nothing_done() {
    let site = alone();
    let _daemon = site.start();
    let nobody = Browser::of(&site).await;
    for path in ["/healthz", "/login"] {
        let answer = nobody.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let policy = header(&answer, "content-security-policy");
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
        assert_eq!(header(&answer, "x-frame-options"), "DENY");
        assert_eq!(header(&answer, "cache-control"), "no-store");
    }
    let strangers = [None, Some("boathouse_session=made-up"), Some("boathouse_session=")];
    for cookie in strangers {
        for path in READS {
            let mut request = nobody.request(Method::GET, path);
            if let Some(cookie) = cookie {
                request = request.header("cookie", cookie);
            }
            let answer = request.send().await.expect("an answer");
            let refused = answer.status() == 401
                || (answer.status() == 303 && header(&answer, "location").starts_with("/login?next="));
            assert!(refused, "{path}: {}", answer.status());
            assert!(!header(&answer, "content-security-policy").is_empty(), "{path}");
        }
        for path in CHANGES {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                let mut request = nobody.request(method.clone(), path).fields(&[("pipeline", "user_events")]);
                if let Some(cookie) = cookie {
                    request = request.header("cookie", cookie);
                }
                let status = request.send().await.expect("an answer").status();
                assert_eq!(status, 401, "{method} {path}");
            }
        }
    }
    let token = nobody.request(Method::GET, "/api/v1/status").bearer_auth("bh_made-up");
    assert_eq!(token.send().await.expect("an answer").status(), 401);
    // No page of elsewhere signs anybody in, whatever its password.
    let elsewhere = nobody.request(Method::POST, "/login").header("origin", "http://evil.example");
    let password = site.first_password();
    let form = [("name", "admin"), ("password", password.as_str())];
    assert_eq!(elsewhere.fields(&form).send().await.expect("an answer").status(), 403);
}

#[tokio::test]
async fn signing_in_makes_a_session_of_its_own() {
    let site = alone();
    let _daemon = site.start();
    let mut browser = Browser::of(&site).await;
    let file = site.folder.join("data/console/first-password");
    assert_eq!(std::fs::metadata(&file).expect("the first password").permissions().mode() & 0o777, 0o600);
    let password = site.first_password();
    assert!(!site.log().contains(&password), "the log holds the password");
    // Somebody has put an id of theirs into the browser before.
    let planted = "0123456789012345678901234567890123456789012";
    let form = [("name", "admin"), ("password", password.as_str()), ("next", "//evil.example/")];
    let request = browser.request(Method::POST, "/login").header("cookie", format!("boathouse_session={planted}"));
    let answer = request.fields(&form).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), header(&answer, "location")), (303, "/".into()));
    let cookie = header(&answer, "set-cookie");
    for part in ["boathouse_session=", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(planted), "{cookie}");
    browser.take_cookie(&answer);
    assert_eq!(browser.get("/").await.status(), 200);
    let planted = browser.request(Method::GET, "/").header("cookie", format!("boathouse_session={planted}"));
    assert_eq!(planted.send().await.expect("an answer").status(), 303);
    assert!(!file.exists(), "the first password waits no longer");

    // A second sign-in ends the session that the browser came with.
    let old = browser.cookie().to_owned();
    let form = [("name", "admin"), ("password", password.as_str())];
    let answer =
        browser.request(Method::POST, "/login").header("cookie", &old).fields(&form).send().await.expect("an answer");
    browser.take_cookie(&answer);
    assert_ne!(browser.cookie(), old);
    let request = browser.request(Method::GET, "/").header("cookie", &old);
    assert_eq!(request.send().await.expect("an answer").status(), 303);

    // What a page shows is there without a script, and no style or script is inside it.
    for path in [
        "/",
        "/stream",
        "/batch",
        "/batch/backfill",
        "/data",
        "/sql",
        "/quality",
        "/reconcile",
        "/dead-letters",
        "/dead-letters/all?status=unparsed",
        "/actors",
        "/api",
        "/account",
        "/users",
        "/audit",
        "/configuration",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await.expect("a page");
        for bad in ["style=\"", "onclick", "<script>", "=\"http", "=\"//"] {
            assert!(!text.contains(bad), "{path} holds {bad}");
        }
        assert!(text.contains("<h1"), "{path}");
    }
    let answer = browser.post("/logout", &[]).await;
    assert_eq!(header(&answer, "location"), "/login");
    assert_eq!(browser.get("/").await.status(), 303, "the session has ended on the server, too");
}

#[tokio::test]
async fn a_change_needs_the_sessions_own_token() {
    let site = alone();
    let _daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let cookie = browser.cookie().to_owned();
    let send = async |csrf: Option<&str>, headers: &[(&'static str, &'static str)]| {
        let mut form = vec![("pipeline", "user_events")];
        form.extend(csrf.map(|csrf| ("csrf", csrf)));
        let mut request = browser.request(Method::POST, "/batch/pause").header("cookie", &cookie).fields(&form);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer").status().as_u16()
    };
    let csrf = browser.csrf().to_owned();
    assert_eq!(send(None, &[]).await, 403);
    assert_eq!(send(Some(""), &[]).await, 403);
    assert_eq!(send(Some("made-up"), &[]).await, 403);
    assert_eq!(send(None, &[("x-csrf-token", "made-up")]).await, 403);
    let other = Browser::again(&site, &browser).await;
    assert_eq!(send(Some(other.csrf()), &[]).await, 403, "another session's token");
    assert_eq!(send(Some(&csrf), &[("origin", "http://evil.example")]).await, 403);
    assert_eq!(send(Some(&csrf), &[("sec-fetch-site", "cross-site")]).await, 403);
    assert_eq!(send(Some(&csrf), &[]).await, 303);
    let text = browser.get("/batch").await.text().await.expect("a page");
    assert!(text.contains("Resume the schedule"), "the pause is seen");
}

#[tokio::test]
async fn guessing_becomes_slow_and_says_so() {
    let site = alone();
    let _daemon = site.start();
    let nobody = Browser::of(&site).await;
    let right = site.first_password();
    let attempt = async |password: &str| {
        let form = [("name", "admin"), ("password", password)];
        nobody.request(Method::POST, "/login").fields(&form).send().await.expect("an answer")
    };
    for _ in 0..5 {
        assert_eq!(attempt("guess").await.status(), 401);
    }
    let mut longest = 0;
    let begin = Instant::now();
    while longest < 8 {
        assert!(begin.elapsed() < PATIENCE, "the waits do not grow: {longest} s");
        let answer = attempt("guess").await;
        if answer.status() == 429 {
            let wait: u64 = header(&answer, "retry-after").parse().expect("seconds");
            longest = longest.max(wait);
            // Not even the right password is looked at: asked where a slow machine does not outlast the wait.
            if wait >= 8 {
                assert_eq!(attempt(&right).await.status(), 429);
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // What is asked at the same time is counted one by one.
    let answers = futures::future::join_all((0..20).map(|_| attempt("guess"))).await;
    assert!(answers.iter().filter(|answer| answer.status() == 401).count() <= 1);
}

#[tokio::test]
async fn bodies_are_bounded_and_paths_lead_nowhere_else() {
    let site = alone();
    let _daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let large = "x".repeat(2 << 20);
    for path in ["/batch/run", "/api/v1/runs", "/login"] {
        let request = browser.request(Method::POST, path).header("cookie", browser.cookie());
        let answer = request.header("x-csrf-token", browser.csrf()).fields(&[("name", large.as_str())]).send().await;
        // Refused by its length, or cut off while it is sent.
        if let Ok(answer) = answer {
            assert_eq!(answer.status(), 413, "{path}");
        }
    }
    for path in [
        "/assets/../Cargo.toml",
        "/assets/..%2f..%2f..%2fCargo.toml",
        "/assets/%2e%2e%2fconsole.css",
        "/assets//etc/passwd",
        "/assets/..%5cx",
        "/batch/runs/..%2f..%2fetc%2fpasswd",
        "/batch/runs/%00",
        "/batch/runs/'%20or%201=1",
        "/data/..%2fbronze.user_events",
        "/data/silver...%2f..%2fconfig",
        "/records/..%2f..%2fetc/0/0/1",
        "/api/v1/tables/bronze..%2f..%2fx",
    ] {
        // As it stands: a client would take the dots out.
        let status = browser.raw(path).await;
        assert!([400, 404].contains(&status), "{path}: {status}");
    }
    assert_eq!(browser.get("/assets/console.css").await.status(), 200);
}

#[tokio::test]
async fn parts_of_a_page_are_sent_while_they_change() {
    let site = alone();
    let _daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let answer = browser.get("/live/overview").await;
    assert_eq!(header(&answer, "content-type"), "text/event-stream");
    let mut stream = answer.bytes_stream();
    let mut text = String::new();
    let begin = Instant::now();
    let parts = |text: &str| text.matches("event: part\ndata: {").count();
    // All four at once, then those that change.
    while parts(&text) < 8 {
        assert!(begin.elapsed() < PATIENCE, "{text}");
        let chunk = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time").expect("goes on");
        text.push_str(&String::from_utf8_lossy(&chunk.expect("a chunk")));
    }
    for id in ["now", "flows", "figures", "charts"] {
        assert!(text.contains(&format!("\"id\":\"{id}\"")), "{id}: {text}");
    }
    // Who signs out is told nothing more.
    browser.post("/logout", &[]).await;
    let mut rest = String::new();
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(PATIENCE, stream.next()).await {
        rest.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(rest.ends_with("event: ended\ndata: {}\n\n"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_for_succeeds_and_shows_its_log() {
    let engine = Engine::start();
    let (site, mut daemon) = filled(&engine, "console-run").await;
    let browser = Browser::signed_in(&site).await;
    let new = json!({"pipeline": "user_events", "graph": "lakehouse_batch_dag"});
    let (status, asked) = browser.api(Method::POST, "/api/v1/runs", Some(new)).await;
    assert_eq!(status, 202, "{asked}");
    let run = asked["run_id"].as_str().expect("its id").to_owned();
    let begin = Instant::now();
    let over = loop {
        let (_, run) = browser.api(Method::GET, &format!("/api/v1/runs/{run}"), None).await;
        if ["succeeded", "failed", "skipped"].contains(&run["state"].as_str().unwrap_or_default()) {
            break run;
        }
        assert!(begin.elapsed() < PATIENCE * 2, "{run:#}\n{}", site.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(over["state"], "succeeded", "{over:#}");
    assert_eq!(over["attempts"].as_array().map(Vec::len), Some(6));
    let (_, lines) = browser.api(Method::GET, &format!("/api/v1/runs/{run}/log"), None).await;
    assert!(lines.as_array().is_some_and(|lines| !lines.is_empty()), "{lines}");
    let page = browser.get(&format!("/batch/runs/{run}")).await.text().await.expect("a page");
    assert!(page.contains("gold to clickhouse") && page.contains("succeeded"), "{page}");
    let grid = browser.get("/batch").await.text().await.expect("a page");
    assert!(grid.contains(&run) && grid.matches("dot good").count() >= 6, "{grid}");
    // What is over cannot be cancelled, and it says why.
    let (status, answer) = browser.api(Method::POST, &format!("/api/v1/runs/{run}/cancel"), None).await;
    assert_eq!(status, 422, "{answer}");
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("is over")), "{answer}");
    let (status, answer) = browser.api(Method::POST, "/api/v1/runs", Some(json!({"pipeline": "none"}))).await;
    assert_eq!((status, answer["error"].as_str().is_some_and(|e| e.contains("user_events"))), (404, true), "{answer}");
    let (_, status): (_, Value) = browser.api(Method::GET, "/api/v1/status", None).await;
    assert_eq!(status["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(status["notices"], json!([]));
    // The tables that it made are shown, asked and downloaded.
    let (_, tables) = browser.api(Method::GET, "/api/v1/tables", None).await;
    assert!(tables.as_array().is_some_and(|all| all.iter().any(|t| t["table"] == "silver.user_events")), "{tables}");
    let page = browser.get("/data/silver.user_events").await;
    assert_eq!(page.status(), 200);
    assert!(page.text().await.expect("a page").contains("event_id"));
    let count = "select count(*) as n from silver.user_events";
    for (on, sql) in
        [("delta", count), ("clickhouse", "select sum(event_count) as n from gold.events_per_source_daily")]
    {
        let (status, answer) = browser.api(Method::POST, "/api/v1/sql", Some(json!({"sql": sql, "on": on}))).await;
        assert_eq!((status, &answer["rows"][0][0]), (200, &json!("2000")), "{on}: {answer}");
    }
    let answer = browser.post("/sql", &[("sql", count), ("on", "delta"), ("as", "csv")]).await;
    assert!(header(&answer, "content-disposition").starts_with("attachment"));
    assert_eq!(answer.text().await.expect("rows"), "n\r\n2000\r\n");
    let limited = json!({"sql": "select user_id from silver.user_events", "limit": 3});
    let (_, answer) = browser.api(Method::POST, "/api/v1/sql", Some(limited)).await;
    assert_eq!((answer["rows"].as_array().map(Vec::len), &answer["more"]), (Some(3), &json!(true)), "{answer}");
    for path in ["/quality", "/dead-letters", "/data", "/sql"] {
        assert_eq!(browser.get(path).await.status(), 200, "{path}");
    }
    let (_, quality) = browser.api(Method::GET, "/api/v1/quality", None).await;
    assert!(quality.to_string().contains("event_ids_are_unique"), "{quality}");
    // The engine refuses what the console's own screening let through.
    let write = json!({"sql": "with 1 as a select a from numbers(1) settings readonly = 0, max_threads = 1", "on": "clickhouse"});
    let (status, answer) = browser.api(Method::POST, "/api/v1/sql", Some(write)).await;
    assert_eq!(status, 422, "{answer}");
    daemon.stop().await;
    site.assert_log_is_clean_but_for(&[]);
}

/// What a viewer and an operator may not do.
#[tokio::test]
async fn roles_bound_what_a_caller_may() {
    let site = alone();
    let _daemon = site.start();
    let admin = Browser::signed_in(&site).await;
    let password = "several unrelated words";
    for (name, role) in [("viki", "viewer"), ("otto", "operator")] {
        let new = json!({"name": name, "role": role, "password": password});
        assert_eq!(admin.api(Method::POST, "/api/v1/users", Some(new)).await.0, 204);
    }
    let mut viewer = Browser::of(&site).await;
    viewer.sign_in("viki", password).await;
    let mut operator = Browser::of(&site).await;
    operator.sign_in("otto", password).await;
    let admins = ["/users", "/audit", "/configuration", "/api/v1/users", "/api/v1/audit", "/api/v1/configuration"];
    for (browser, name) in [(&viewer, "viewer"), (&operator, "operator")] {
        assert_eq!(browser.get("/").await.status(), 200);
        for path in admins {
            assert_eq!(browser.get(path).await.status(), 403, "{name}: {path}");
        }
    }
    for path in CHANGES {
        // One's own session, and queries that only read.
        if ["/logout", "/theme", "/password"].contains(path) || path.contains("/sql") {
            continue;
        }
        assert_eq!(viewer.post(path, &[("pipeline", "user_events")]).await.status(), 403, "{path}");
        let (status, answer) = viewer.api(Method::POST, path, Some(json!({"pipeline": "user_events"}))).await;
        assert_eq!(status, 403, "{path}: {answer}");
    }
    let page = viewer.get("/batch").await.text().await.expect("a page");
    assert!(!page.contains("Pause the schedule") && !page.contains("Configuration"), "a viewer is offered nothing");
    assert_eq!(operator.post("/batch/pause", &[("pipeline", "user_events")]).await.status(), 303);
    assert_eq!(operator.post("/users/put", &[("name", "x")]).await.status(), 403);

    // A token has its own role, needs no CSRF token, and ends when it is removed.
    let (status, made) =
        admin.api(Method::POST, "/api/v1/tokens", Some(json!({"name": "ci", "role": "operator"}))).await;
    assert_eq!(status, 201, "{made}");
    let token = made["token"].as_str().expect("a token").to_owned();
    let call = async |path: &str| {
        let request = admin.request(Method::POST, path).bearer_auth(&token).json(&json!({}));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(call("/api/v1/schedules/user_events/resume").await, 200);
    assert_eq!(call("/api/v1/users").await, 403);
    assert_eq!(admin.api(Method::DELETE, "/api/v1/tokens/ci", None).await.0, 204);
    assert_eq!(call("/api/v1/schedules/user_events/resume").await, 401);

    // Who is removed is out at once, and a role counts from now on.
    let changed = json!({"name": "otto", "role": "viewer"});
    assert_eq!(admin.api(Method::POST, "/api/v1/users", Some(changed)).await.0, 204);
    assert_eq!(operator.post("/batch/pause", &[("pipeline", "user_events")]).await.status(), 403);
    assert_eq!(admin.api(Method::DELETE, "/api/v1/users/viki", None).await.0, 204);
    assert_eq!(viewer.get("/").await.status(), 303);
    let (status, answer) = admin.api(Method::DELETE, "/api/v1/users/admin", None).await;
    assert_eq!(status, 422, "the last admin stays: {answer}");

    // All of it is in the audit log, without a password or token.
    let (_, entries) = admin.api(Method::GET, "/api/v1/audit?limit=1000", None).await;
    let text = entries.to_string();
    for part in ["\"otto\"", "POST /batch/pause", "sign in", "token:ci", "DELETE /api/v1/users/viki"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    for secret in [password, &token, admin.csrf()] {
        assert!(!text.contains(secret), "the audit log holds a secret");
    }
    let kept = std::fs::read_to_string(site.folder.join("data/console/users.json")).expect("the users");
    assert!(kept.contains("$argon2id$") && !kept.contains(password) && !kept.contains(&token), "{kept}");
    let (_, values) = admin.api(Method::GET, "/api/v1/configuration", None).await;
    assert!(values.to_string().contains("kafka.brokers"), "{values}");
}

#[tokio::test]
async fn the_editor_reads_tables_and_nothing_else() {
    let site = alone();
    let _daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let ask =
        async |on: &str, sql: &str| browser.api(Method::POST, "/api/v1/sql", Some(json!({"sql": sql, "on": on}))).await;
    let (status, answer) = ask("delta", "select 1 + 1 as two").await;
    assert_eq!((status, &answer["rows"]), (200, &json!([["2"]])), "{answer}");
    let secret = site.folder.join("secret.csv");
    std::fs::write(&secret, "hush\n").expect("a file");
    let path = secret.display().to_string();
    let folder = site.folder.display().to_string();
    for sql in [
        format!("select * from '{path}'"),
        format!("select * from \"{path}\""),
        format!("select * from delta.`{folder}`"),
        format!("select * from delta.`{path}`"),
        format!("create external table t stored as csv location '{path}'"),
        format!("copy (select 1) to '{folder}/written.csv'"),
        "create table t as select 1".into(),
        "insert into bronze.user_events select 1".into(),
        "drop table bronze.user_events".into(),
        "set datafusion.execution.batch_size = 1".into(),
        "select 1; select 2".into(),
        "explain copy (select 1) to '/tmp/x'".into(),
    ] {
        let (status, answer) = ask("delta", &sql).await;
        assert_eq!(status, 422, "{sql}: {answer}");
        assert!(!answer.to_string().contains("hush"), "{answer}");
    }
    assert!(!site.folder.join("written.csv").exists());
    for sql in [
        format!("select * from file('{path}')"),
        format!("select * from `file`('{path}', CSV)"),
        format!("select * from FiLe /* x */ ('{path}')"),
        "select * from url('http://127.0.0.1:1/', CSV)".into(),
        "select * from s3('http://127.0.0.1:1/x', CSV)".into(),
        "select * from remote('127.0.0.1', system.one)".into(),
        "insert into realtime.totals values (1)".into(),
        "system shutdown".into(),
        "set readonly = 0".into(),
        "select 1 into outfile '/tmp/x'".into(),
    ] {
        let (status, answer) = ask("clickhouse", &sql).await;
        assert_eq!(status, 422, "{sql}: {answer}");
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(text.contains("reads") && !text.contains("does not answer"), "refused before it is sent: {text}");
    }
}

#[tokio::test]
async fn the_description_of_the_api_is_what_there_is() {
    let site = alone();
    let _daemon = site.start();
    let browser = Browser::signed_in(&site).await;
    let (status, document) = browser.api(Method::GET, "/api/v1/openapi.json", None).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let described = document["paths"].as_object().expect("paths");
    for (path, methods) in described {
        for method in methods.as_object().expect("methods").keys() {
            let real = path
                .replace("{id}", "x")
                .replace("{name}", "x")
                .replace("{table}", "x")
                .replace("{source}", "x")
                .replace("{event}", "x");
            let method: Method = method.to_uppercase().parse().expect("a method");
            let answer = browser.request(method.clone(), &real).send().await.expect("an answer");
            assert_eq!(answer.status(), 401, "{method} {path} without a session");
            // There is such a call: what is not there is told in other words.
            let (_, answer) = browser.api(method.clone(), &real, Some(json!({}))).await;
            assert!(!answer.to_string().contains("there is nothing at this address"), "{method} {path}: {answer}");
        }
    }
    for path in READS.iter().chain(CHANGES).filter(|path| path.starts_with("/api/v1/") && !path.contains("nowhere")) {
        let path = path.split('?').next().unwrap_or_default();
        let known = described.keys().any(|pattern| {
            let parts: Vec<&str> = pattern.split('/').collect();
            let own: Vec<&str> = path.split('/').collect();
            let fits = |(p, o): (&&str, &&str)| p.starts_with('{') || p == o;
            parts.iter().zip(&own).all(fits) && (parts.len() == own.len() || pattern.ends_with("{source}"))
        });
        assert!(known, "{path} is not described");
    }
    // What is pasted leads where it belongs.
    for (pasted, to) in [
        ("20260206T140500Z-3f9a1c", "/batch/runs/20260206T140500Z-3f9a1c"),
        ("user-events/0/2/1041", "/records/user-events/0/2/1041"),
        ("user-events/2/1041", "/records/user-events/2/1041"),
        ("silver.user_events", "/data/silver.user_events"),
        ("realtime.events_per_minute", "/data/clickhouse/realtime.events_per_minute"),
        ("2f1c6d8e-8d3f-4c8a-9b1e-0a5f2c3d4e5f", "/trace/2f1c6d8e-8d3f-4c8a-9b1e-0a5f2c3d4e5f"),
        ("dead-letters", "/dead-letters"),
    ] {
        let answer = browser.get(&format!("/search?q={pasted}")).await;
        assert_eq!(header(&answer, "location"), to);
    }
    let answer = browser.get("/search?q=%3Cscript%3Ealert(1)%3C/script%3E").await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.text().await.expect("a page").contains("<script>alert"));
}
