//! The console over HTTPS, with a certificate of the test's own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::support::broker::broker;
use super::support::curl;
use super::support::daemon::{PATIENCE, Site};
use super::support::engine::Engine;

/// A certificate for 127.0.0.1, signed by itself, and its key.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=boathouse", "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs (Debian, Ubuntu: apt install openssl)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}

fn with(site: &mut Site, certificate: &Path, key: &Path) {
    site.environment.extend([
        ("BOATHOUSE__CONSOLE__TLS_CERTIFICATE".into(), certificate.display().to_string()),
        ("BOATHOUSE__CONSOLE__TLS_KEY".into(), key.display().to_string()),
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_console_speaks_https_alone() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("tls", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let (certificate, key) = certificate(&site.folder, "console");
    with(&mut site, &certificate, &key);
    let mut daemon = site.start();
    daemon.wait("the daemon to be ready", |status| status["readiness"]["ready"] == true).await;

    let (port, trusted) = (site.console_port, certificate.display().to_string());
    let https = format!("https://127.0.0.1:{port}/login");
    let page = curl(&["--cacert", &trusted, "--include", &https]);
    let text = String::from_utf8_lossy(&page.stdout).to_ascii_lowercase();
    assert!(text.starts_with("http/"), "{text}{}", String::from_utf8_lossy(&page.stderr));
    assert!(text.contains(" 200") && text.contains("strict-transport-security:"), "{text}");
    let cookies: Vec<&str> = text.lines().filter(|l| l.starts_with("set-cookie:")).collect();
    assert!(cookies.iter().all(|c| c.contains("secure") && c.contains("httponly")), "{cookies:?}");

    assert!(!curl(&[&https]).status.success(), "nobody else vouches for the certificate");
    let old = curl(&["--cacert", &trusted, "--tls-max", "1.1", &https]);
    assert!(!old.status.success(), "TLS 1.1 is refused");
    let plain = curl(&[&format!("http://127.0.0.1:{port}/login")]);
    assert!(!String::from_utf8_lossy(&plain.stdout).contains("<form"), "plain HTTP shows nothing");

    // Commands trust the certificate that the configuration names, and no other.
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let paused = site.run(&["batch", "pause"]);
    assert!(paused.status.success() && !said(&paused).contains("directly"), "{}", said(&paused));
    let (another, _) = self::certificate(&site.folder, "another");
    let mut command = site.command(&["batch", "resume"]);
    let resumed = command.env("BOATHOUSE__CONSOLE__TLS_CERTIFICATE", another).output().expect("the program runs");
    assert!(resumed.status.code() == Some(2) && said(&resumed).contains("does not answer"), "{}", said(&resumed));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_the_certificates_is_named_at_the_start() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("tls", 1).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let (certificate, _) = certificate(&site.folder, "one");
    let (_, other_key) = self::certificate(&site.folder, "other");
    with(&mut site, &certificate, &other_key);
    let mut daemon = site.start();
    let status = daemon.wait_exit("the wrong key", PATIENCE).await;
    assert!(!status.success());
    assert!(site.log().contains("console.tls_key"), "{}", site.log());
}
