//! The first password, shown once; and a lost one, set anew from the machine itself.

use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::alone;
use super::browser::Browser;
use crate::support::daemon::{PATIENCE, Site};
use crate::support::terminal::Terminal;

/// The command with a line on its standard input.
fn set(site: &Site, arguments: &[&str], line: &str) -> Output {
    let mut child = site
        .command(&[&["console", "set-password"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().expect("its input").write_all(line.as_bytes()).expect("taken");
    child.wait_with_output().expect("its end")
}

fn refused(output: &Output, part: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains(part), "`{part}` is missing in {said}");
}

#[tokio::test]
async fn a_lost_password_is_set_anew_on_the_machine() {
    let site = alone();
    refused(&set(&site, &["admin"], "three unrelated words\n"), "the daemon's first start makes it");
    let _daemon = site.start();
    let admin = Browser::signed_in(&site).await;
    let (old, new) = ("several unrelated words", "entirely different words");
    let user = json!({"name": "ada", "role": "operator", "password": old});
    assert_eq!(admin.api(Method::POST, "/api/v1/users", Some(user)).await.0, 204);
    let mut ada = Browser::of(&site).await;
    ada.sign_in("ada", old).await;
    assert_eq!(ada.get("/").await.status(), 200);

    refused(&set(&site, &["eve"], "entirely different words\n"), "no user `eve`; there is admin, ada");
    refused(&set(&site, &["ada"], "short\n"), "at least 12 characters");
    refused(&set(&site, &["ada"], ""), "no password came");
    assert_eq!(ada.get("/").await.status(), 200, "nothing has changed");

    let output = set(&site, &["ada"], &format!("{new}\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ada.get("/").await.status(), 303, "what she had open has ended");
    assert_eq!(admin.get("/").await.status(), 200, "others go on");
    let form = [("name", "ada"), ("password", old)];
    assert_eq!(ada.post_unsigned("/login", &form).await.status(), 401);
    ada.sign_in("ada", new).await;
    assert_eq!(ada.get("/users").await.status(), 403, "her role is the same");

    // With a role somebody new is made; the daemon's own changes and the command's do not undo each other.
    let output = set(&site, &["eve", "--role", "admin"], &format!("{new}\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let user = json!({"name": "otto", "role": "viewer", "password": old});
    assert_eq!(admin.api(Method::POST, "/api/v1/users", Some(user)).await.0, 204);
    let mut eve = Browser::of(&site).await;
    eve.sign_in("eve", new).await;
    let listed = String::from_utf8_lossy(&site.run(&["console", "users"]).stdout).into_owned();
    for (name, role) in [("admin", "admin"), ("ada", "operator"), ("eve", "admin"), ("otto", "viewer")] {
        let line = |line: &str| line.starts_with(name) && line.contains(role);
        assert!(listed.lines().any(line), "{name} in {listed}");
    }
    let (_, entries) = eve.api(Method::GET, "/api/v1/audit?limit=100", None).await;
    let entries = entries.to_string();
    assert!(entries.contains("set-password") && entries.contains("command line, uid"), "{entries}");
    assert!(!entries.contains(new) && !site.log().contains(new), "a password shows");
}

#[tokio::test]
async fn the_first_start_at_a_terminal_shows_the_password_once_and_keeps_only_its_hash() {
    let site = alone();
    let mut terminal = Terminal::open();
    let mut daemon = site.start_at(terminal.end(), terminal.end());
    let begin = Instant::now();
    while !terminal.look().contains("console set-password admin") {
        assert!(begin.elapsed() < PATIENCE, "{}\n{}", terminal.seen, site.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let said = terminal.look();
    let (_, rest) = said.split_once("with the password").expect("what it is");
    let password = rest.split_whitespace().next().expect("the password").to_owned();
    assert_eq!(said.matches(&password).count(), 1, "{said}");
    assert!(said.contains(&format!("127.0.0.1:{}", site.console_port)), "where to sign in: {said}");
    let mut admin = Browser::of(&site).await;
    admin.sign_in("admin", &password).await;
    assert_eq!(admin.get("/").await.status(), 200);

    // It is nowhere else: not in a file, not in the log.
    let folder = site.folder.join("data/console");
    for file in std::fs::read_dir(&folder).expect("the console's folder").flatten() {
        let text = std::fs::read(file.path()).expect("a file");
        assert!(!String::from_utf8_lossy(&text).contains(&password), "{} holds it", file.path().display());
    }
    assert!(!folder.join("first-password").exists());
    let users = std::fs::read_to_string(folder.join("users.json")).expect("the users");
    assert!(users.contains("$argon2id$"), "{users}");
    let log = site.log();
    assert!(!log.contains(&password) && log.contains("was shown on the terminal"), "{log}");

    // The second start shows nothing.
    daemon.stop().await;
    let before = terminal.look().len();
    let mut daemon = site.start_at(terminal.end(), terminal.end());
    admin = Browser::of(&site).await;
    admin.sign_in("admin", &password).await;
    daemon.stop().await;
    let said = &terminal.look()[before..];
    assert!(said.is_empty(), "{said}");
}
