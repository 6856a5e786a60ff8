//! Clients of ClickHouse, unchanged: the `clickhouse` crate and clickhouse-connect from PyPI.

use std::process::Command;

use clickhouse::{Client, Compression, Row};
use serde::{Deserialize, Serialize};

use crate::support::curl;
use crate::support::engine::Engine;

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Event {
    id: u64,
    name: String,
    score: f64,
    tags: Vec<String>,
    note: Option<String>,
}

fn events(n: u64) -> Vec<Event> {
    let event = |id: u64| Event {
        id,
        name: format!("event {id} 'quoted' \\ ütf"),
        score: id as f64 / 3.0,
        tags: (0..id % 4).map(|t| t.to_string()).collect(),
        note: id.is_multiple_of(3).then(|| "n".to_owned()),
    };
    (0..n).map(event).collect()
}

#[actix_rt::test]
async fn the_clickhouse_crate_works_unchanged() {
    let engine = Engine::start();
    for compression in [Compression::None, Compression::Lz4] {
        for validation in [true, false] {
            let client =
                Client::default().with_url(&engine.url).with_compression(compression).with_validation(validation);
            let ddl = "CREATE OR REPLACE TABLE e (id UInt64, name String, score Float64, tags Array(String), note Nullable(String)) ENGINE = MergeTree ORDER BY id";
            client.query(ddl).execute().await.unwrap();
            let rows = events(50_000);
            let mut insert = client.insert::<Event>("e").await.unwrap();
            for row in &rows {
                insert.write(row).await.unwrap();
            }
            insert.end().await.unwrap();
            let bound = client
                .query("SELECT ?fields FROM e WHERE id >= ? AND name != ? ORDER BY id")
                .bind(100_u64)
                .bind("it's");
            assert!(bound.fetch_all::<Event>().await.unwrap() == rows[100..]);
            let count =
                client.query("SELECT count() FROM {t:Identifier} WHERE id < {n:UInt64}").param("t", "e").param("n", 10);
            assert_eq!(count.fetch_one::<u64>().await.unwrap(), 10);
            assert_eq!(
                client.query("SELECT id FROM e WHERE id > 1000000").fetch_all::<u64>().await.unwrap(),
                Vec::<u64>::new()
            );
            let mut cursor = client.query("SELECT number FROM numbers(500000)").fetch::<u64>().unwrap();
            let mut sum = 0;
            while let Some(n) = cursor.next().await.unwrap() {
                sum += n;
            }
            assert_eq!(sum, 500_000 * 499_999 / 2);
            let error = client.query("SELECT * FROM nope").fetch_all::<u64>().await.unwrap_err().to_string();
            assert!(error.contains("Code: 60.") && error.contains("UNKNOWN_TABLE"), "{error}");
            let late =
                client.query("SELECT number + throwIf(number = 400000) FROM numbers(500000)").fetch_all::<u64>().await;
            assert!(late.unwrap_err().to_string().contains("Code: 395."));
            let setting = client.clone().with_setting("max_threads", "1");
            assert_eq!(
                setting.query("SELECT toUInt64(getSetting('max_threads'))").fetch_one::<u64>().await.unwrap(),
                1
            );
            let wrong = client.clone().with_user("nobody").with_password("x");
            assert!(wrong.query("SELECT 1").execute().await.unwrap_err().to_string().contains("Code: 516."));
        }
    }
}

#[actix_rt::test]
async fn many_at_once_get_their_own_answers() {
    let engine = Engine::start();
    let client = Client::default().with_url(&engine.url);
    client.query("CREATE TABLE t (a UInt64, b UInt64) ENGINE = MergeTree ORDER BY a").execute().await.unwrap();
    let tasks = (0..16_u64).map(|n| {
        let client = client.clone();
        async move {
            for round in 0..20_u64 {
                let sql = format!("INSERT INTO t VALUES ({n}, {round})");
                client.query(&sql).execute().await.unwrap();
                let threads = client.clone().with_setting("max_threads", (n + 1).to_string());
                assert_eq!(
                    threads.query("SELECT toUInt64(getSetting('max_threads'))").fetch_one::<u64>().await.unwrap(),
                    n + 1
                );
                let count = client.query("SELECT count() FROM t WHERE a = ?").bind(n).fetch_one::<u64>().await.unwrap();
                assert_eq!(count, round + 1);
            }
        }
    });
    futures::future::join_all(tasks).await;
    assert_eq!(client.query("SELECT count() FROM t").fetch_one::<u64>().await.unwrap(), 320);
}

const PYTHON: &str = r#"
import sys, datetime, clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError
host, port = sys.argv[1].split(":")
client = clickhouse_connect.get_client(host=host, port=int(port))
client.command("CREATE TABLE p (id UInt64, name String, at DateTime, low LowCardinality(String), xs Array(Float64), n Nullable(Int32)) ENGINE = MergeTree ORDER BY id")
at = datetime.datetime(2026, 2, 6, 14, 30)
rows = [[i, f"n{i}", at, "ab"[i % 2], [i / 2, 1.0], None if i % 3 else i] for i in range(20000)]
summary = client.insert("p", rows, column_names=["id", "name", "at", "low", "xs", "n"])
assert summary.written_rows == 20000, summary.summary
result = client.query("SELECT * FROM p ORDER BY id")
assert result.result_rows[7][:2] == (7, "n7") and len(result.result_rows) == 20000, result.result_rows[7]
assert result.result_rows[7][3:] == ("b", [3.5, 1.0], None), result.result_rows[7]
one = client.query("SELECT count() FROM p WHERE id < {n:UInt64} AND name != {s:String}", parameters={"n": 10, "s": "it's\ta"})
assert one.result_rows == [(10,)], one.result_rows
assert client.query("SELECT * FROM p WHERE id > 1000000").result_rows == []
assert client.query("SELECT getSetting('max_threads')", settings={"max_threads": 3}).result_rows == [(3,)]
with client.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
    assert sum(len(block) for block in stream) == 300000
for sql, code in [("SELECT * FROM nope", "60"), ("SELEC 1", "62"), ("SELECT throwIf(1)", "395")]:
    try:
        client.query(sql)
    except DatabaseError as e:
        assert code in str(e), e
    else:
        raise AssertionError(sql)
assert client.raw_query("SELECT 1 AS x", fmt="JSONEachRow") == b'{"x":1}\n'
client.raw_insert("p", ["id", "name"], b"99999,raw\n", fmt="CSV")
assert client.command("SELECT name FROM p WHERE id = 99999") == "raw"
assert client.ping()
client.command("DROP TABLE p")
for compress in ["lz4", "zstd", "gzip", False]:
    c = clickhouse_connect.get_client(host=host, port=int(port), compress=compress, autogenerate_session_id=False)
    c.command("CREATE TABLE q (a UInt64) ENGINE = MergeTree ORDER BY a")
    c.insert("q", [[i] for i in range(100000)], column_names=["a"])
    assert c.query("SELECT sum(a) FROM q").result_rows == [(4999950000,)], compress
    assert len(c.query("SELECT a FROM q").result_rows) == 100000, compress
    c.command("DROP TABLE q")
print("fine")
"#;

#[test]
fn clickhouse_connect_works_unchanged() {
    let engine = Engine::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/python.sh");
    let made = Command::new(script).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let python = String::from_utf8(made.stdout).unwrap();
    let ran = Command::new(python.trim()).args(["-c", PYTHON, engine.address()]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).contains("fine"), "{said}");
}

#[test]
fn curl_works_unchanged() {
    let engine = Engine::start();
    let url = format!("{}/", engine.url);
    let said = |arguments: &[&str]| {
        let output = curl(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let to = |sql: &str| format!("{url}?query={}", sql.replace(' ', "+"));
    assert_eq!(said(&[&url, "--data-binary", "CREATE TABLE c (a UInt64, b String) ENGINE = MergeTree ORDER BY a"]), "");
    // Above one MiB curl asks first whether it may send the body.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.tsv");
    let rows: String = (0..60_000).map(|n| format!("{n}\tthe row of {n}\n")).collect();
    assert!(rows.len() > 1 << 20);
    std::fs::write(&file, &rows).unwrap();
    let insert = to("INSERT INTO c FORMAT TSV");
    let asked = curl(&["--verbose", &insert, "--data-binary", &format!("@{}", file.display())]);
    let verbose = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success() && verbose.contains("> Expect: 100-continue"), "{verbose}");
    assert!(verbose.contains("< HTTP/1.1 100 Continue") && verbose.contains("< HTTP/1.1 200 OK"), "{verbose}");
    // In chunks, of a length that nobody knows before.
    let piped = Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--max-time", "120", "--verbose"])
        .args(["-X", "POST", "-T", "-", &insert])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let verbose = String::from_utf8_lossy(&piped.stderr);
    assert!(piped.status.success() && verbose.contains("> Transfer-Encoding: chunked"), "{verbose}");
    assert_eq!(engine.sql("SELECT count(), uniqExact(a, b) FROM c"), "120000\t60000\n");
    let sql = "query=SELECT count() FROM c WHERE a < {n:UInt64} AND b = {s:String}";
    assert_eq!(
        said(&["-G", &url, "--data-urlencode", sql, "-d", "param_n=8", "--data-urlencode", "param_s=the row of 7"]),
        "2\n"
    );
    // Packed on the way, and whole again.
    let all = "query=SELECT a, b FROM c LIMIT 1 BY a FORMAT TSV";
    let packed = ["-G", "--compressed", "--dump-header", "/dev/stderr", "-d", "enable_http_compression=1"];
    let output = curl(&[&packed[..], &[&url, "--data-urlencode", all]].concat());
    let head = String::from_utf8_lossy(&output.stderr).to_ascii_lowercase();
    assert!(head.contains("content-encoding:"), "{head}");
    let mut lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    lines.sort_by_key(|l| l.split('\t').next().unwrap().parse::<u64>().unwrap());
    assert!(lines.join("\n") + "\n" == rows, "the rows that went in");
    // What is wrong is an exit code for a script that asks for one.
    let wrong = curl(&["--fail-with-body", &url, "--data-binary", "SELECT * FROM nope"]);
    let text = String::from_utf8_lossy(&wrong.stdout);
    assert_eq!(wrong.status.code(), Some(22), "{text}");
    assert!(text.starts_with("Code: 60.") && text.contains("UNKNOWN_TABLE"), "{text}");
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}", &url, "--data-binary", "SELECT * FROM nope"];
    assert_eq!(said(&status), "404");
}
