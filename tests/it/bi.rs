//! BI tools' drivers, unchanged, on the engine and the tables that are served; the example queries of docs/connections.md.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::scheduler::filled;
use crate::support::engine::Engine;
use crate::support::node::node;

/// The statements of a page's blocks in a language.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect(page);
    let opening = format!("\n```{language}\n");
    let parts = text.split(&opening).skip(1);
    parts.map(|part| part.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// The example queries, as they are: each runs, and finds rows.
fn examples(engine: &Engine) {
    let mut asked = 0;
    for block in blocks("docs/connections.md", "sql") {
        for statement in block.split(";\n").map(|s| s.trim().trim_end_matches(';')).filter(|s| !s.is_empty()) {
            let answer = engine.sql(&format!("{statement}\nFORMAT JSON"));
            let answer: Value = serde_json::from_str(&answer).expect("JSON");
            assert!(answer["rows"].as_u64() > Some(0), "finds nothing: {statement}");
            asked += 1;
        }
    }
    assert!(asked >= 8, "only {asked} queries");
    let (code, text) = engine.try_sql("SELECT neighbor(dau_count, -7) FROM gold.daily_active_users");
    assert!(
        code != 200 && text.contains("DEPRECATED_FUNCTION"),
        "the page says why the seed's query was changed: {text}"
    );
}

fn jdbc(engine: &Engine) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let java = Command::new("java").arg("-version").output();
    if !java.is_ok_and(|found| found.status.success()) {
        eprintln!("NOT CHECKED: clickhouse-jdbc, as there is no Java");
        return;
    }
    let fetched = Command::new(root.join("tools/jdbc.sh")).output().expect("tools/jdbc.sh runs");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let output = Command::new("java")
        .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(format!("{}/*", String::from_utf8_lossy(&fetched.stdout).trim()))
        .arg(root.join("tests/java/Jdbc.java"))
        .arg(format!("jdbc:clickhouse:{}/default", engine.url))
        .output()
        .expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_and_example_queries_work_on_what_is_served() {
    let engine = Engine::start();
    let (site, _daemon) = filled(&engine, "bi").await;
    let run = site.run(&["batch", "run", "--wait"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    examples(&engine);
    assert_eq!(node("clickhouse_client.mjs", &[&engine.url]), "@clickhouse/client works\n");
    jdbc(&engine);
}
