//! Silver and gold as Apache Spark reads them: every value against what delta-rs reads.

use std::time::Duration;

use super::{Filler, begin, run};
use crate::bronze::spark_jars;
use crate::gold::lakehouse::{Lakehouse, MODELS};
use crate::support::engine::Engine;
use crate::support::python::{python, python_of};

#[tokio::test(flavor = "multi_thread")]
async fn spark_reads_silver_and_gold() {
    let Some(jars) = spark_jars("silver and gold") else { return };
    let engine = Engine::start();
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("lakehouse");
    let lakehouse = Lakehouse::at(&root.to_string_lossy());
    let mut filler = Filler::new(&root, 9).await;
    // Two runs: hours that were rewritten and dates that were replaced are among them.
    for number in 0..2 {
        filler.fill(1_500, begin() + number * 40_000, Duration::from_secs(50_000)).await;
        run(&lakehouse, &engine, &format!("run {number}")).await;
    }
    let by_delta_rs = python("read_lakehouse_deltalake.py", &[&root]);
    assert_eq!(by_delta_rs.lines().count(), MODELS.len() + 2, "{by_delta_rs}");
    assert!(by_delta_rs.contains(&format!("silver/user_events: {} rows", filler.account.kept)), "{by_delta_rs}");
    let by_spark = python_of("spark", "read_lakehouse_spark.py", &[&root, &jars]);
    assert_eq!(by_spark, by_delta_rs);
}
