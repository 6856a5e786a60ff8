//! A table that the daemon wrote, read by Apache Spark: every value against what delta-rs reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::broker::{Record, broker};
use crate::support::daemon::{Site, produce};
use crate::support::engine::Engine;
use crate::support::not_checked;
use crate::support::python::{python, python_of};

/// The folder of the jars that let Spark read Delta; none where no Java is, which is said past the test's capture, with
/// what is not checked then.
pub fn jars(what: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/delta-spark.sh");
    let check = Command::new(&script).arg("--check").output().unwrap();
    if !check.status.success() {
        let why = String::from_utf8_lossy(&check.stderr);
        not_checked(&format!("that Spark reads {what} ({})", why.trim()));
        return None;
    }
    let made = Command::new(&script).output().unwrap();
    assert!(made.status.success(), "tools/delta-spark.sh: {}", String::from_utf8_lossy(&made.stderr));
    Some(PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()))
}

#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_what_the_daemon_wrote() {
    let Some(jars) = jars("Bronze") else { return };
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.new_topic("spark", 3).await;
    let mut site = Site::new(kafka.address(), &engine.url, &topic);
    let checkpoints = "BOATHOUSE__PIPELINE__USER_EVENTS__BRONZE__CHECKPOINT_COMMITS";
    site.environment.push((checkpoints.into(), "2".into()));
    let table = site.lakehouse().join("bronze/user_events");
    let odd = ["--late", "0.02", "--duplicate", "0.02", "--malformed", "0.02", "--future", "0.02", "--max-rate"];
    let produce = |more: [&str; 4]| produce(kafka.address(), &topic, &[&odd[..], &more[..]].concat());

    produce(["--count", "3000", "--seed", "21"]);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;
    produce(["--count", "1000", "--seed", "22"]);
    daemon.wait("a checkpoint", |_| table.join("_delta_log/_last_checkpoint").exists()).await;
    // Behind the checkpoint: what no event has.
    let headers = [("trace", Some(&b"abc"[..])), ("none", None)];
    let record = Record { value: Some(b"\xff{broken"), headers: &headers, ..Record::default() };
    let at = kafka.produce(&topic, 1, record).await;
    kafka.produce(&topic, 2, Record { key: Some(b"tombstone"), ..Record::default() }).await;
    let ends = kafka.end_offsets(&topic);
    daemon.wait_until_served(&ends).await;
    daemon.stop().await;
    site.assert_reconciled();

    let by_delta_rs = python("read_bronze_rows_deltalake.py", &[&table]);
    let rows: i64 = ends.values().sum();
    let offsets: i64 = ends.values().map(|end| end * (end - 1) / 2).sum();
    for line in [
        format!("rows {rows}"),
        format!("sum of offsets {offsets}"),
        format!("headers of 1:{at}: trace=616263 none=null"),
    ] {
        assert!(by_delta_rs.lines().any(|l| l == line), "{line} is not in:\n{by_delta_rs}");
    }
    for verdict in ["future=", "late=", "ok=", "unparsed="] {
        assert!(by_delta_rs.contains(verdict), "{verdict} is not in:\n{by_delta_rs}");
    }
    let by_spark = python_of("spark", "read_bronze_rows_spark.py", &[&table, &jars]);
    assert_eq!(by_spark, by_delta_rs);
}
