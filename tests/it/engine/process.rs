//! Start, stop, death and what the program refuses.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::engine::{Engine, PATIENCE, fetch_library, run, signal};

#[test]
fn it_says_that_it_is_ready_in_one_line_and_stays_small() {
    // The first start reads half a gigabyte of library from disk; this is about the second.
    drop(Engine::start());
    let begin = Instant::now();
    let engine = Engine::start();
    let took = begin.elapsed();
    // The log is read on a thread of its own; the line may still be on its way.
    while !engine.log().contains("ClickHouse engine 26.") && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = engine.log();
    let ready: Vec<&str> = log.lines().filter(|l| l.contains("ClickHouse engine 26.")).collect();
    assert!(ready.len() == 1 && ready[0].contains("(data in "), "{log}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
    let rss: u64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap();
    println!("start {took:?}, idle RSS {} MiB", rss / 1024);
    assert!(rss < 600 * 1024, "idle RSS {rss} kB");
}

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let mut engine = Engine::start();
    engine.sql("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1");
    for round in 0..3 {
        for n in 0..20 {
            engine.sql(&format!("INSERT INTO t VALUES ({n})"));
        }
        engine.kill();
        engine.restart();
        assert_eq!(engine.sql("SELECT count() FROM t"), format!("{}\n", (round + 1) * 20));
    }
}

#[test]
fn sigterm_lets_running_statements_finish() {
    let mut engine = Engine::start_with(&["--stop-deadline", "60s"]);
    engine.sql("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a");
    let url = engine.url.clone();
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // Six seconds, in blocks of two: the engine lets none sleep for more than three.
            let sql = "INSERT INTO t SELECT number FROM numbers(300) WHERE sleepEachRow(0.02) = 0 \
                       SETTINGS max_block_size = 100";
            reqwest::Client::new().post(url).body(sql).send().await.unwrap().status().as_u16()
        })
    });
    let limit = Instant::now() + PATIENCE;
    while engine.sql("SELECT count() FROM system.processes WHERE query LIKE 'INSERT%'") != "1\n" {
        assert!(Instant::now() < limit && !running.is_finished(), "the statement was never seen running");
    }
    assert_eq!(engine.stop(), Some(0), "{}", engine.log());
    assert_eq!(running.join().unwrap(), 200);
    engine.restart();
    assert_eq!(engine.sql("SELECT count() FROM t"), "300\n");
}

#[test]
fn sigint_stops_an_idle_engine_at_once() {
    // One that waited for its deadline would not end here.
    let mut engine = Engine::start_with(&["--stop-deadline", "1h"]);
    engine.sql("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a");
    engine.sql("INSERT INTO t VALUES (1)");
    signal(engine.pid(), "INT");
    assert_eq!(engine.stop(), Some(0), "{}", engine.log());
}

#[test]
fn a_folder_belongs_to_one_engine() {
    let engine = Engine::start();
    let second = run(&["--path", engine.path.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        !second.status.success() && said.contains("another engine is running") && said.contains("--path"),
        "{said}"
    );
    assert_eq!(engine.sql("SELECT 1"), "1\n");
}

#[test]
fn a_port_in_use_is_told_with_what_to_change() {
    fetch_library();
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = run(&["--path", folder.path().to_str().unwrap(), "--listen", &address]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains(&address) && said.contains("--listen"), "{said}");
}

#[test]
fn a_missing_library_names_the_command_that_fetches_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let refused = run(&["--path", path, "--listen", "127.0.0.1:0", "--library", "/nonexistent/libchdb.so"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("make tools"), "{said}");
}
