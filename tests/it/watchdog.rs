//! A consumer that is alive and does not consume.

use std::time::Duration;

use serde_json::Value;

use super::support::broker::broker;
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;

/// Longer than a busy machine holds up what is not stuck.
const STUCK_AFTER: &str = "10s";
const STUCK: &str = "has records to read and has not moved for 10s";

fn restarts(status: &Value) -> Option<u64> {
    status["actors"].as_array()?.iter().find(|a| a["kind"] == "pipeline")?["restarts"].as_u64()
}

/// One reader's thread hangs before its first record; the other partitions go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_hangs_is_made_anew_and_nothing_is_lost() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("stuck");
    produce(kafka.address(), &topic, &["--count", "3000", "--max-rate", "--seed", "1"]);
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE__KAFKA__STUCK_AFTER".into(), STUCK_AFTER.into()));
    let held = site.folder.join("held");
    std::fs::write(&held, "").expect("a file");
    site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "hang!reader.take".into()));
    site.environment.push(("BOATHOUSE_FAIL_POINT_WHILE".into(), held.display().to_string()));
    let mut daemon = site.start();
    daemon.wait("the reader to be missed", |_| site.log().contains(STUCK)).await;
    std::fs::remove_file(&held).expect("it was there");
    daemon.wait("the client to be made anew", |status| restarts(status) == Some(1)).await;
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    let status = daemon.status().await.expect("a status");
    assert_eq!(restarts(&status), Some(1), "made anew once: {status:#}");
    site.assert_reconciled();
    daemon.stop().await;
    assert_eq!(site.log().matches(STUCK).count(), 1, "{}", site.log());
    site.assert_log_is_clean_but_for(&[STUCK]);
}

/// One reader's thread never goes on: nothing can end it, and its client cannot be closed while it reads from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_never_comes_back_holds_up_neither_the_stream_nor_the_end() {
    const LEFT_BEHIND: &str = "their Kafka client is left behind";
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("stick");
    let more = |seed: &str| {
        produce(kafka.address(), &topic, &["--count", "3000", "--max-rate", "--seed", seed]);
        kafka.end_offsets(&topic)
    };
    more("1");
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "stick!reader.take".into()));

    // The daemon is to end before anybody has noticed.
    let mut daemon = site.start();
    daemon.wait("a reader to stick", |_| site.log().contains("its thread sticks there")).await;
    // Nor at its deadline, of which it would warn.
    daemon.stop().await;
    const DRAINED: &str = "stopped: both sinks hold everything that was read";
    assert!(site.log().contains(DRAINED), "what the other readers had read is drained: {}", site.log());

    // The watchdog notices: another client reads on in its place, the same reader of the old one still sticks.
    site.environment.push(("BOATHOUSE__KAFKA__STUCK_AFTER".into(), STUCK_AFTER.into()));
    let ends = more("2");
    let mut daemon = site.start();
    daemon.wait("the client to be made anew", |status| restarts(status) == Some(1)).await;
    daemon.wait_until_served(&ends).await;
    daemon.wait_until_served(&more("3")).await;
    assert_eq!(restarts(&daemon.status().await.expect("a status")), Some(1));
    site.assert_reconciled();
    daemon.stop().await;
    let log = site.log();
    assert_eq!((log.matches(LEFT_BEHIND).count(), log.matches(STUCK).count()), (2, 1), "{log}");
    assert_eq!(log.matches(DRAINED).count(), 2, "{log}");
    site.assert_log_is_clean_but_for(&[LEFT_BEHIND, STUCK]);
}

/// How long a daemon may take to leave that is to leave at once, on a machine with much to do.
const LEAVES: Duration = Duration::from_secs(60);

/// The thread of the windows and the consumers stands still: what is sent to them waits, and is seen to; and neither the
/// deadline nor a second signal waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_no_actor_takes_up_are_shown() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("mailboxes");
    produce(kafka.address(), &topic, &["--count", "300000", "--max-rate", "--seed", "1"]);
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let plain = site.environment.clone();
    site.environment.push(("BOATHOUSE__SHUTDOWN__DEADLINE".into(), "2s".into()));
    site.environment.push(("BOATHOUSE_FAIL_POINT".into(), "stick!actor.window_aggregator:3".into()));
    let mut daemon = site.start();
    let waiting = |status: &Value, kind: &str| {
        let actors = status["actors"].as_array().into_iter().flatten().filter(|a| a["kind"] == kind);
        actors.filter_map(|a| a["mailbox_messages"].as_u64()).sum::<u64>()
    };
    // Each reader runs one batch ahead; the realtime writer asks the windows one after another.
    daemon
        .wait("messages to wait", |status| {
            waiting(status, "partition_consumer") == 3 && waiting(status, "window_aggregator") > 0
        })
        .await;
    for command in [&["status"] as &[&str], &["top", "--once", "--interval", "100ms"]] {
        let output = site.run(command);
        let shown = String::from_utf8_lossy(&output.stdout).to_lowercase();
        let line = shown.lines().find(|line| line.starts_with("mailboxes: ")).unwrap_or_else(|| panic!("{shown}"));
        assert!(line.contains("3 for 3 partition_consumers"), "{line}");
        assert!(line.contains(" for window_aggregator user_events/") || line.contains(" window_aggregators"), "{line}");
    }
    // Nothing ends a thread that stands still: the deadline comes, and the process ends with the thread in it.
    daemon.signal(libc::SIGTERM);
    let status = daemon.wait_exit("the deadline", LEAVES).await;
    assert_eq!(status.code(), Some(0), "{}", site.log());

    // Nor does somebody who cannot wait for the deadline.
    site.environment.push(("BOATHOUSE__SHUTDOWN__DEADLINE".into(), "1h".into()));
    let sticks = || site.log().matches("its thread sticks there").count();
    let mut daemon = site.start();
    daemon.wait("the thread to stick again", |_| sticks() == 2).await;
    daemon.signal(libc::SIGTERM);
    daemon.wait("it to begin to stop", |_| site.log().matches("stopping: draining").count() == 2).await;
    daemon.signal(libc::SIGTERM);
    daemon.wait_exit("the second signal", LEAVES).await;

    site.environment = plain;
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    site.assert_reconciled();
    daemon.stop().await;
    let told = ["stopped at the deadline", "stopped at once", "a thread of the stream hangs"];
    site.assert_log_is_clean_but_for(&told);
    for (line, times) in told.into_iter().zip([1, 1, 2]) {
        assert_eq!(site.log().matches(line).count(), times, "{line}: {}", site.log());
    }
}
