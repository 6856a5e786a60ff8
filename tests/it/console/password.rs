//! A lost password, set anew from the machine itself.

use std::io::Write;
use std::process::{Output, Stdio};

use reqwest::Method;
use serde_json::json;

use super::alone;
use super::browser::Browser;
use crate::support::daemon::Site;

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
