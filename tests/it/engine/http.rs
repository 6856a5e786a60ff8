//! The HTTP interface, request by request.

use std::io::{Read, Write};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};

use crate::support::engine::Engine;

async fn text(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[actix_rt::test]
async fn statements_come_by_get_and_post_in_every_place() {
    let engine = Engine::start();
    let url = format!("{}/", engine.url);
    let http = Client::new();
    assert_eq!(text(http.get(format!("{url}ping"))).await, (200, "Ok.\n".into()));
    assert_eq!(text(http.get(format!("{url}replicas_status"))).await, (200, "Ok.\n".into()));
    assert_eq!(text(http.get(&url)).await, (200, "Ok.\n".into()));
    assert_eq!(text(http.get(format!("{url}nope"))).await.0, 404);
    assert_eq!(text(http.get(&url).query(&[("query", "SELECT 1")])).await, (200, "1\n".into()));
    assert_eq!(text(http.post(&url).body("SELECT 1 FORMAT CSV")).await, (200, "1\n".into()));
    // The parameter and the body are one text.
    assert_eq!(text(http.post(&url).query(&[("query", "SELECT 1 +")]).body("2")).await, (200, "3\n".into()));

    engine.sql("CREATE TABLE t (a Int32, b String) ENGINE = MergeTree ORDER BY a");
    // Data behind FORMAT in the parameter, in the body, and as a whole statement with data in the body.
    for (query, body) in [
        ("INSERT INTO t FORMAT JSONEachRow", "{\"a\":1,\"b\":\"x\"}\n"),
        ("INSERT INTO t VALUES", "(2, 'y'), (3, concat('z', 'z'))"),
        ("", "INSERT INTO t FORMAT CSV\n4,\"four\"\n5,five\n"),
        ("", "INSERT INTO t (b, a) VALUES ('six', 6)"),
        ("INSERT INTO t FORMAT TSV 7\tseven", ""),
        ("INSERT INTO t SELECT number + 8, 'n' FROM numbers(2)", ""),
    ] {
        let answer = text(http.post(&url).query(&[("query", query)]).body(body)).await;
        assert_eq!(answer, (200, String::new()), "{query} {body}");
    }
    assert_eq!(
        engine.sql("SELECT groupArray(b) FROM (SELECT b FROM t ORDER BY a)"),
        "['x','y','zz','four','five','six','seven','n','n']\n"
    );
}

#[actix_rt::test]
async fn parameters_settings_and_database_hold_for_one_request() {
    let engine = Engine::start();
    let url = format!("{}/", engine.url);
    let http = Client::new();
    engine.sql("CREATE DATABASE d");
    engine.sql("CREATE TABLE d.t (a Int32) ENGINE = MergeTree ORDER BY a");
    engine.sql("INSERT INTO d.t VALUES (1), (2), (3)");
    let bound = [
        ("query", "SELECT {t:String}, a FROM {n:Identifier} WHERE a > {x:Int32}"),
        ("param_t", "it's\\t\\\\"),
        ("param_n", "t"),
        ("param_x", "2"),
        ("database", "d"),
    ];
    assert_eq!(text(http.get(&url).query(&bound)).await, (200, "it\\'s\\t\\\\\t3\n".into()));
    let set =
        [("query", "SELECT getSetting('max_threads'), currentDatabase()"), ("max_threads", "1"), ("database", "d")];
    for _ in 0..8 {
        assert_eq!(text(http.get(&url).query(&set)).await, (200, "1\td\n".into()));
        let plain = text(http.get(&url).query(&set[..1])).await;
        assert!(plain.1.ends_with("\tdefault\n") && !plain.1.starts_with("1\t"), "{plain:?}");
    }
    assert_eq!(text(http.get(&url).query(&[("query", "SELECT 1"), ("no_such_setting", "1")])).await.0, 404);
    assert_eq!(text(http.get(&url).query(&[("query", "SELECT 1"), ("database", "nope")])).await.0, 404);
    let format = [("query", "SELECT 1 AS x"), ("default_format", "JSONEachRow")];
    assert_eq!(text(http.get(&url).query(&format)).await, (200, "{\"x\":1}\n".into()));
    // A parameterised view, a parameterised insert, FINAL.
    engine.sql("CREATE VIEW d.v AS SELECT a FROM d.t WHERE a = {which:Int32}");
    assert_eq!(engine.sql("SELECT * FROM d.v(which = 2)"), "2\n");
    engine.sql("CREATE TABLE d.r (k Int32, v Int32) ENGINE = ReplacingMergeTree(v) PARTITION BY k ORDER BY k SETTINGS fsync_after_insert = 1");
    engine.sql("INSERT INTO d.r SETTINGS async_insert = 0 VALUES (1, 1)");
    let insert = [("query", "INSERT INTO d.r SELECT 1, {v:Int32}"), ("param_v", "2")];
    assert_eq!(text(http.post(&url).query(&insert)).await, (200, String::new()));
    assert_eq!(engine.sql("SELECT * FROM d.r FINAL"), "1\t2\n");
    engine.sql("OPTIMIZE TABLE d.r FINAL");
    engine.sql("ALTER TABLE d.r DROP PARTITION 1");
    assert_eq!(engine.sql("SELECT count() FROM d.r"), "0\n");
}

#[actix_rt::test]
async fn answers_say_what_they_are() {
    let engine = Engine::start();
    let url = format!("{}/", engine.url);
    let http = Client::new();
    let answer = http
        .get(&url)
        .query(&[("query", "SELECT number FROM numbers(5) FORMAT JSON"), ("query_id", "mine")])
        .send()
        .await
        .unwrap();
    assert_eq!(header(&answer, "X-ClickHouse-Format"), "JSON");
    assert_eq!(header(&answer, "Content-Type"), "application/json; charset=UTF-8");
    assert_eq!(header(&answer, "X-ClickHouse-Query-Id"), "mine");
    assert_eq!(header(&answer, "X-ClickHouse-Server-Display-Name"), "boathouse");
    assert!(!header(&answer, "X-ClickHouse-Timezone").is_empty());
    assert!(header(&answer, "X-ClickHouse-Summary").contains("\"read_rows\":\"5\""), "{answer:?}");
    let json: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(json["rows"], 5);
    engine.sql("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a");
    let answer = http.post(&url).body("INSERT INTO t VALUES (1), (2)").send().await.unwrap();
    assert!(header(&answer, "X-ClickHouse-Summary").contains("\"written_rows\":\"2\""), "{answer:?}");
}

#[actix_rt::test]
async fn errors_have_clickhouses_code_text_and_status() {
    let engine = Engine::start();
    let http = Client::new();
    for (sql, status, code, name) in [
        ("SELECT * FROM nope", 404, "60", "UNKNOWN_TABLE"),
        ("SELEC 1", 400, "62", "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, "62", "SYNTAX_ERROR"),
        ("", 400, "62", "SYNTAX_ERROR"),
        ("SELECT nope(1)", 404, "46", "UNKNOWN_FUNCTION"),
        ("SELECT throwIf(1)", 500, "395", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT throwIf(1) FORMAT JSON", 500, "395", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("INSERT INTO nope VALUES (1)", 404, "60", "UNKNOWN_TABLE"),
        ("SELECT 1 INTO OUTFILE 'x'", 500, "358", "INTO_OUTFILE_NOT_ALLOWED"),
        ("INSERT INTO t FROM INFILE 'x' FORMAT CSV", 404, "78", "UNKNOWN_TYPE_OF_QUERY"),
    ] {
        let answer = http.post(format!("{}/", engine.url)).body(sql).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), header(&answer, "X-ClickHouse-Exception-Code").as_str()),
            (status, code),
            "{sql}"
        );
        let text = answer.text().await.unwrap();
        assert!(text.starts_with(&format!("Code: {code}. DB::Exception: ")) && text.contains(name), "{sql}: {text}");
    }
    let answer =
        text(http.post(format!("{}/?session_id=x", engine.url)).body("CREATE TEMPORARY TABLE t (a Int)")).await;
    assert!(answer.0 == 501 && answer.1.contains("session"), "{answer:?}");
}

#[actix_rt::test]
async fn a_get_reads_only() {
    let engine = Engine::start();
    let http = Client::new();
    engine.sql("CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a");
    for sql in [
        "INSERT INTO t VALUES (1)",
        "DROP TABLE t",
        "CREATE TABLE u (a Int32) ENGINE = Memory",
        "ALTER TABLE t DELETE WHERE 1",
    ] {
        let answer = text(http.get(format!("{}/", engine.url)).query(&[("query", sql)])).await;
        assert!(answer.0 == 500 && answer.1.starts_with("Code: 164."), "{sql}: {answer:?}");
    }
    assert_eq!(engine.sql("SELECT count() FROM t"), "0\n");
}

#[actix_rt::test]
async fn bodies_and_answers_are_compressed_as_asked() {
    let engine = Engine::start();
    let url = format!("{}/", engine.url);
    let http = Client::new();
    engine.sql("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    let rows: String = (0..50_000).map(|n| format!("{n}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(rows.as_bytes()).unwrap();
    for (encoding, body) in [("gzip", gzip.finish().unwrap()), ("zstd", zstd::encode_all(rows.as_bytes(), 1).unwrap())]
    {
        let request = http
            .post(&url)
            .query(&[("query", "INSERT INTO t FORMAT TSV")])
            .header("Content-Encoding", encoding)
            .body(body);
        assert_eq!(text(request).await, (200, String::new()), "{encoding}");
    }
    assert_eq!(engine.sql("SELECT count(), sum(a) FROM t"), "100000\t2499950000\n");
    for encoding in ["gzip", "deflate", "zstd", "lz4"] {
        let query = [("query", "SELECT DISTINCT a FROM t ORDER BY a"), ("enable_http_compression", "1")];
        let answer = http.get(&url).query(&query).header("Accept-Encoding", encoding).send().await.unwrap();
        assert_eq!(header(&answer, "Content-Encoding"), encoding);
        let packed = answer.bytes().await.unwrap();
        let mut plain = String::new();
        let read = match encoding {
            "gzip" => flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut plain),
            "deflate" => flate2::read::ZlibDecoder::new(&packed[..]).read_to_string(&mut plain),
            "zstd" => zstd::Decoder::new(&packed[..]).unwrap().read_to_string(&mut plain),
            _ => lz4_flex::frame::FrameDecoder::new(&packed[..]).read_to_string(&mut plain),
        };
        assert!(read.is_ok() && plain == rows, "{encoding}");
    }
    let answer = http.get(&url).query(&[("query", "SELECT 1")]).header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(header(&answer, "Content-Encoding"), "", "only when enable_http_compression=1 asks for it");
}

#[actix_rt::test]
async fn large_results_stream_whole_in_every_kind_of_format() {
    let engine = Engine::start();
    let http = Client::new();
    let sql = "SELECT number AS a, toString(number) AS b FROM numbers(300000)";
    let lines = |n: usize| move |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count() == n;
    type Check = Box<dyn Fn(&[u8]) -> bool>;
    let checks: [(&str, Check); 6] = [
        ("TSV", Box::new(lines(300_000))),
        ("TSVWithNamesAndTypes", Box::new(lines(300_002))),
        ("CSVWithNames", Box::new(lines(300_001))),
        ("JSONEachRow", Box::new(lines(300_000))),
        ("JSON", Box::new(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).unwrap()["rows"] == 300_000)),
        ("Native", Box::new(|bytes| bytes.len() > 300_000 * 14)),
    ];
    for (format, right) in checks {
        let answer =
            http.post(format!("{}/", engine.url)).query(&[("default_format", format)]).body(sql).send().await.unwrap();
        assert_eq!(header(&answer, "X-ClickHouse-Format"), format);
        let bytes = answer.bytes().await.unwrap();
        assert!(right(&bytes), "{format}: {} bytes", bytes.len());
    }
}

#[actix_rt::test]
async fn a_failure_inside_a_streamed_result_is_marked_and_breaks_it_off() {
    let engine = Engine::start();
    let sql = "SELECT throwIf(number = 2000000), number FROM numbers(3000000)";
    let mut answer = Client::new().post(format!("{}/", engine.url)).body(sql).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let mut last = Vec::new();
    let end = loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => last = [&last[last.len().saturating_sub(1000)..], &chunk[..]].concat(),
            Ok(None) => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    assert!(end.is_err(), "the body must not look complete");
    let text = String::from_utf8_lossy(&last);
    assert!(text.contains("__exception__") && text.contains("Code: 395. DB::Exception"), "{text}");
    // With wait_end_of_query the status tells it.
    let waited = Client::new().post(format!("{}/?wait_end_of_query=1", engine.url)).body(sql);
    assert_eq!(text_status(waited).await, 500);
}

async fn text_status(request: RequestBuilder) -> u16 {
    text(request).await.0
}

#[actix_rt::test]
async fn too_much_at_once_is_refused_and_nothing_is_kept() {
    let engine = Engine::start_with(&["--max-concurrent-requests", "2", "--max-body", "1MiB"]);
    let url = format!("{}/", engine.url);
    engine.sql("CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a");
    let http = Client::new();
    let big = text(http.post(&url).query(&[("query", "INSERT INTO t FORMAT TSV")]).body("x\n".repeat(1 << 20))).await;
    assert!(big.0 == 413 && big.1.contains("--max-body"), "{big:?}");
    assert_eq!(engine.sql("SELECT count() FROM t"), "0\n");

    // Bodies that do not end hold the places, one after the other.
    let mut held = Vec::new();
    let limit = std::time::Instant::now() + Duration::from_secs(180);
    let refused = loop {
        let mut socket = std::net::TcpStream::connect(engine.address()).unwrap();
        let head = "POST /?query=INSERT%20INTO%20t%20FORMAT%20TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000";
        write!(socket, "{head}\r\n\r\nhalf").unwrap();
        held.push(socket);
        let answer = text(http.post(&url).body("SELECT 1")).await;
        if answer.0 != 200 || std::time::Instant::now() > limit {
            break answer;
        }
    };
    assert!(refused.0 == 503 && refused.1.starts_with("Code: 202."), "{refused:?}");
    assert_eq!(text(http.get(format!("{url}ping"))).await.0, 200, "health checks need no place");
    // The clients go away: their halves are dropped and the places free again.
    drop(held);
    let limit = std::time::Instant::now() + Duration::from_secs(180);
    while text(http.post(&url).body("SELECT 1")).await.0 != 200 {
        assert!(std::time::Instant::now() < limit, "the places were not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(engine.sql("SELECT count() FROM t"), "0\n");
}

#[actix_rt::test]
async fn a_truncated_body_inserts_nothing() {
    let engine = Engine::start();
    engine.sql("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a");
    let row = [&7_u64.to_le_bytes()[..], &[3], b"abc"].concat();
    let whole: Vec<u8> = row.repeat(100);
    let url = format!("{}/?query=INSERT%20INTO%20t%20FORMAT%20RowBinary", engine.url);
    let cut = text(Client::new().post(&url).body(whole[..whole.len() - 2].to_vec())).await;
    assert!(cut.0 != 200, "{cut:?}");
    assert_eq!(engine.sql("SELECT count() FROM t"), "0\n");
    assert_eq!(text(Client::new().post(&url).body(whole)).await, (200, String::new()));
    assert_eq!(engine.sql("SELECT count() FROM t"), "100\n");
}

#[actix_rt::test]
async fn a_statement_beyond_the_memory_limit_fails_alone() {
    let engine = Engine::start_with(&["--memory-limit", "600MiB"]);
    let (status, said) = engine.try_sql("SELECT length(groupArray(toString(number))) FROM numbers(100000000)");
    assert!(status == 500 && said.starts_with("Code: 241."), "{status} {said}");
    assert_eq!(engine.sql("SELECT 1"), "1\n");
}

#[actix_rt::test]
async fn a_client_that_leaves_ends_its_query() {
    let engine = Engine::start_with(&["--max-concurrent-requests", "1"]);
    let mut socket = std::net::TcpStream::connect(engine.address()).unwrap();
    let sql = "SELECT number FROM numbers(1000000000000)";
    write!(socket, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{sql}", sql.len()).unwrap();
    socket.read_exact(&mut [0; 100_000]).unwrap();
    assert_eq!(engine.try_sql("SELECT 1").0, 503, "the query holds the only place");
    drop(socket);
    let limit = std::time::Instant::now() + Duration::from_secs(180);
    while engine.try_sql("SELECT 1").0 != 200 {
        assert!(std::time::Instant::now() < limit, "the query of a client that left goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
