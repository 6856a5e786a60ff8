//! The command line as users type it: exit codes, tables, shells, what reconcile sees and what it must not overlook.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::support::broker::{Record, broker};
use super::support::daemon::{Site, produce};
use super::support::engine::Engine;

fn boathouse(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse"));
    command.args(arguments).env_remove("BOATHOUSE_CONFIG");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn fail(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn help_teaches_with_examples_and_exit_codes() {
    let help = succeed(&boathouse(&["--help"]).output().unwrap());
    for part in ["Examples:", "Exit codes:", "reconcile", "dead-letters", "validate", "sql", "status", "topic", "run"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
    for command in ["validate", "sql", "reconcile", "status", "dead-letters"] {
        let help = succeed(&boathouse(&[command, "--help"]).output().unwrap());
        assert!(help.contains("Examples:"), "{command}:\n{help}");
    }
    fail(&boathouse(&["no-such-command"]).output().unwrap(), 2);
    // What cannot be JSON says so, and where JSON is to be had.
    for (arguments, instead) in [(&["run"][..], "log.format"), (&["validate", "--reference"], "validate --show --json")]
    {
        let output = boathouse(&[arguments, &["--json"]].concat()).output().unwrap();
        let said = fail(&output, 2);
        assert!(said.contains(instead) && output.stdout.is_empty(), "{said}");
    }
}

#[test]
fn validate_tells_every_mistake_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("boathouse.toml");
    std::fs::write(&file, "[kafka]\nbroker = \"x\"\n").unwrap();
    let file = file.to_str().unwrap();
    let errors = fail(&boathouse(&["validate", "--config", file]).output().unwrap(), 2);
    assert!(errors.contains("boathouse.toml:2: unknown key `broker`"), "{errors}");
    assert!(errors.contains("did you mean `brokers`?"), "{errors}");
    assert!(errors.contains("the pipelines' folder"), "{errors}");
    let output = boathouse(&["validate", "--json", "--config", file]).output().unwrap();
    fail(&output, 2);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["right"], false);
    assert_eq!(report["errors"][1]["line"], 2);
}

#[test]
fn validate_shows_values_and_where_they_come_from() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/boathouse.toml");
    let mut command = boathouse(&["validate", "--show", "--config", file.to_str().unwrap()]);
    let shown = succeed(&command.env("BOATHOUSE__CLICKHOUSE__PASSWORD", "hunter2").output().unwrap());
    let line = |key: &str| shown.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key}\n{shown}"));
    assert!(line("kafka.brokers ").contains("config/boathouse.toml:"), "{shown}");
    assert!(line("clickhouse.password ").contains("***"), "{shown}");
    assert!(line("pipeline.user_events.time.window").ends_with("default"), "{shown}");
    assert!(!shown.contains("hunter2"));
}

/// A lakehouse with `bronze/things`: three rows, the last with a null, one committed later than the others.
fn lakehouse() -> (tempfile::TempDir, PathBuf) {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};

    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("bronze/things");
    std::fs::create_dir_all(&table).unwrap();
    let batch = |ids: Vec<i64>, names: Vec<Option<&str>>| {
        let raw = BinaryArray::from_iter_values(ids.iter().map(|_| b"\x1b[31m\xff"));
        RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(Int64Array::from(ids)) as ArrayRef, true),
            ("name", Arc::new(StringArray::from(names)) as ArrayRef, true),
            ("raw", Arc::new(raw) as ArrayRef, true),
        ])
        .unwrap()
    };
    let url = url::Url::from_directory_path(&table).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let table = deltalake::DeltaTable::try_from_url(url).await.unwrap();
        let table = table.write([batch(vec![1, 2], vec![Some("a,b"), Some("c")])]).await.unwrap();
        table.write([batch(vec![3], vec![None])]).await.unwrap();
    });
    (folder, table)
}

fn sql(folder: &Path, arguments: &[&str]) -> Output {
    boathouse(&["sql", "--lakehouse", folder.to_str().unwrap()]).args(arguments).output().unwrap()
}

#[test]
fn sql_reads_delta_tables_by_name_and_by_path() {
    let (folder, table) = lakehouse();
    let out = succeed(&sql(folder.path(), &["select id, name from bronze.things order by id"]));
    assert_eq!(out, "id  name\n──  ────\n 1  a,b\n 2  c\n 3  NULL\n");
    let by_path = format!("select count(*) as n from delta.`{}`", table.display());
    assert_eq!(succeed(&sql(folder.path(), &[&by_path, "--format", "csv"])), "n\n3\n");
    let earlier = format!("select count(*) as n from delta.`{}@v0`", table.display());
    assert_eq!(succeed(&sql(folder.path(), &[&earlier, "--format", "csv"])), "n\n2\n");
    // A layer's own tables need no layer, and column names no exact case.
    let out = succeed(&sql(folder.path(), &["select max(ID) as m from things", "--format", "csv"]));
    assert_eq!(out, "m\n3\n");
    let tables = succeed(&sql(folder.path(), &["show tables", "--format", "csv"]));
    assert!(tables.contains("bronze,things"), "{tables}");
}

#[test]
fn sql_writes_every_format() {
    let (folder, _) = lakehouse();
    let all = "select * from bronze.things order by id";
    let csv = succeed(&sql(folder.path(), &[all, "--format", "csv"]));
    assert_eq!(csv.lines().nth(1), Some("1,\"a,b\",\\u{1b}[31m\\xff"));
    let json = succeed(&sql(folder.path(), &["select id, name from things order by id", "--json"]));
    let rows: Vec<Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows[2], serde_json::json!({"id": 3, "name": null}));
    let file = folder.path().join("out.parquet");
    succeed(&sql(folder.path(), &[all, "--output", file.to_str().unwrap()]));
    let reader = std::fs::File::open(&file).unwrap();
    let rows: usize = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(reader, 100)
        .unwrap()
        .map(|b| b.unwrap().num_rows())
        .sum();
    assert_eq!(rows, 3);
    assert!(fail(&sql(folder.path(), &[all, "--format", "parquet"]), 2).contains("--output FILE.parquet"));
    let output = sql(folder.path(), &["select id from things order by id", "--max-rows", "2"]);
    assert_eq!(succeed(&output), "id\n──\n 1\n 2\n");
    assert!(text(&output.stderr).contains("only the first 2 rows are shown"), "{}", text(&output.stderr));
}

#[test]
fn sql_takes_statements_from_standard_input() {
    let (folder, _) = lakehouse();
    let mut child = boathouse(&["sql", "--format", "csv", "--lakehouse", folder.path().to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"select 1 as a; -- not; two\nselect ';' as b;\n").unwrap();
    assert_eq!(succeed(&child.wait_with_output().unwrap()), "a\n1\nb\n;\n");
}

#[test]
fn sql_only_reads_and_its_errors_help() {
    let (folder, table) = lakehouse();
    let version = || std::fs::read_dir(table.join("_delta_log")).unwrap().count();
    let before = version();
    for statement in [
        "insert into bronze.things values (4, 'x', null)",
        "create table t as select 1",
        "drop table bronze.things",
        "copy bronze.things to '/tmp/never.parquet'",
        "delete from bronze.things",
        "create external table e stored as csv location '/etc/passwd'",
    ] {
        let error = fail(&sql(folder.path(), &[statement]), 2);
        assert!(error.contains("this only reads"), "{statement}: {error}");
    }
    assert_eq!(version(), before);
    let error = fail(&sql(folder.path(), &["select nam from bronze.things"]), 2);
    assert!(error.contains("nam") && error.contains("name"), "{error}");
    let error = fail(&sql(folder.path(), &["select 1 from bronze.nothing"]), 2);
    assert!(error.contains("bronze.things"), "the tables there are: {error}");
    let error = fail(&sql(folder.path(), &["select 1 from delta.`/no/such/table`"]), 2);
    assert!(error.contains("/no/such/table"), "{error}");
    assert!(fail(&sql(folder.path(), &["selekt"]), 2).contains("selekt"));
    assert!(fail(&sql(folder.path(), &[" ; "]), 2).contains("no statement"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_runs_on_clickhouse() {
    let engine = Engine::start();
    let site = Site::new("127.0.0.1:1", &engine.url, "none");
    let on = |arguments: &[&str]| site.run(&[&["sql", "--on", "clickhouse"], arguments].concat());
    let out = succeed(&on(&["select number as n, toString(number) as s from numbers(2)"]));
    assert_eq!(out, "n  s\n─  ─\n0  0\n1  1\n");
    assert_eq!(succeed(&on(&["select 1 as a", "--json"])), "{\"a\":1}\n");
    assert_eq!(succeed(&on(&["select 1 as a format CSV"])), "1\n");
    let error = fail(&on(&["select nonsense"]), 2);
    assert!(error.contains("DB::Exception") && error.contains("nonsense"), "{error}");
    let mut command = site.command(&["sql", "--on", "clickhouse", "select 1"]);
    let error = fail(&command.env("BOATHOUSE__CLICKHOUSE__URL", "http://127.0.0.1:1").output().unwrap(), 2);
    assert!(error.contains("does not answer") && error.contains("clickhouse.url"), "{error}");
}

/// A stream that was served and stopped: what the commands say of it.
#[tokio::test(flavor = "multi_thread")]
async fn reconcile_dead_letters_and_status_of_a_stream() {
    let kafka = broker().await;
    let engine = Engine::start();
    let topic = kafka.unique_name("cli");
    produce(kafka.address(), &topic, &["--count", "3000", "--max-rate", "--seed", "4", "--future", "0.01"]);
    let headers: &[(&str, Option<&[u8]>)] = &[("trace", Some(b"7"))];
    let odd = Record { key: Some(b"k"), headers, ..Record::of(b"\xff\x1b[2J not json") };
    kafka.produce(&topic, 0, odd).await;
    let site = Site::new(kafka.address(), &engine.url, &topic);
    let mut daemon = site.start();
    daemon.wait_until_served(&kafka.end_offsets(&topic)).await;

    let status = site.run(&["status"]);
    assert!(succeed(&status).contains("ready; up"), "{}", text(&status.stdout));
    daemon.stop().await;
    let output = site.run(&["status", "--json"]);
    fail(&output, 1);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["running"], false);
    assert_eq!(status["partitions"].as_array().unwrap().len(), 3);
    for partition in status["partitions"].as_array().unwrap() {
        assert_eq!(partition["lag_records"], 0, "{status:#}");
        assert_eq!(partition["bronze_position"], partition["realtime_position"], "{status:#}");
    }

    let output = site.run(&["reconcile", "--json"]);
    let report: Value = serde_json::from_str(&succeed(&output)).unwrap();
    let checked: u64 =
        report["bronze"].as_array().unwrap().iter().map(|c| c["checked_records"].as_u64().unwrap()).sum();
    assert_eq!(checked, 3001, "{report:#}");
    assert_eq!(report["realtime"].as_array().unwrap().len(), 3);
    for check in report["realtime"].as_array().unwrap() {
        assert!(check["checked_rows"].as_u64().unwrap() > 0 && check["through"].is_null(), "{check:#}");
    }
    assert!(succeed(&site.run(&["reconcile"])).contains("Everything compared is the same."));

    let listed = succeed(&site.run(&["dead-letters", "list", "--status", "unparsed"]));
    assert!(listed.contains("\\xff\\u{1b}[2J not json") && !listed.contains('\x1b'), "{listed}");
    let letters: Value =
        serde_json::from_str(&succeed(&site.run(&["dead-letters", "list", "--json", "--status", "unparsed"]))).unwrap();
    assert_eq!(letters.as_array().unwrap().len(), 1);
    let source = letters[0]["source"].as_str().unwrap().to_string();
    let whole: Value = serde_json::from_str(&succeed(&site.run(&["dead-letters", "show", &source, "--json"]))).unwrap();
    assert_eq!(whole["headers"], serde_json::json!([{"key": "trace", "value": "7"}]));
    assert_eq!(whole["key"], "k");
    assert_eq!(whole["time_status"], "unparsed");
    assert!(succeed(&site.run(&["dead-letters", "show", &source])).contains("trace: 7"));
    let future = succeed(&site.run(&["dead-letters", "list", "--status", "future", "--json"]));
    let future: Vec<Value> = serde_json::from_str(&future).unwrap();
    assert!(!future.is_empty());
    // Its columns say everything, so that Bronze keeps no bytes: the event is written from them.
    let event: Value = serde_json::from_str(future[0]["payload"].as_str().unwrap()).unwrap();
    for field in ["event_id", "user_id", "event_type", "page", "timestamp", "source"] {
        assert!(!event[field].is_null(), "{event}");
    }
    assert!(succeed(&site.run(&["dead-letters", "list", "--reasons"])).contains("future"));
    assert!(fail(&site.run(&["dead-letters", "show", "17"]), 2).contains("topic/generation/partition/offset"));

    must_be_seen(&site, &engine, &topic);
}

/// Damage done by hand: each must be found by reconcile.
fn must_be_seen(site: &Site, engine: &Engine, topic: &str) {
    let differing = |only: &str| {
        let output = site.run(&["reconcile", "--json", "--only", only]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    // A total too high, under a version above the right one.
    let partials = engine.sql(
        "SELECT name FROM system.tables WHERE database = 'realtime' AND name LIKE 'purchases\\_per\\_minute\\_partials\\_%'",
    );
    let partials = format!("realtime.{}", partials.trim());
    engine.sql(&format!(
        "INSERT INTO {partials} SELECT * REPLACE (partial_count + 1 AS partial_count, partial_version + 1 AS partial_version) \
         FROM {partials} FINAL LIMIT 1"
    ));
    let report = differing("realtime");
    let check = report["realtime"].as_array().unwrap().iter().find(|c| c["verdict"] == "different").unwrap();
    assert_eq!(check["aggregate"], "purchases_per_minute");
    assert_eq!(check["differing_rows"], 1, "{check:#}");

    // One row of Bronze gone, one there twice, one changed.
    let folder = site.lakehouse().join("bronze/user_events");
    let url = url::Url::from_directory_path(folder.canonicalize().unwrap()).unwrap();
    let (lost, twice, changed) = (3i64, 5i64, 7i64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                use deltalake::datafusion::prelude::{col, lit};

                let place = |offset: i64| col("partition").eq(lit(1)).and(col("offset").eq(lit(offset)));
                let table = deltalake::open_table(url).await.unwrap();
                let provider = table.table_provider().await.unwrap();
                let session = deltalake::delta_datafusion::create_session().into_inner();
                session.register_table("bronze", provider).unwrap();
                let sql = format!("select * from bronze where \"partition\" = 1 and \"offset\" = {twice}");
                let row = session.sql(&sql).await.unwrap().collect().await.unwrap();
                let (table, _) = table.delete().with_predicate(place(lost)).await.unwrap();
                let (table, _) =
                    table.update().with_predicate(place(changed)).with_update("page", lit("/forged")).await.unwrap();
                table.write(row).await.unwrap();
            });
        });
    });
    let report = differing("bronze");
    let checks = report["bronze"].as_array().unwrap();
    let check = checks.iter().find(|c| c["partition"] == 1).unwrap();
    assert_eq!(check["topic"], topic);
    assert_eq!(
        (&check["lost_records"], &check["duplicated_rows"], &check["differing_rows"]),
        (&Value::from(1), &Value::from(1), &Value::from(1)),
        "{check:#}"
    );
    let samples: Vec<(i64, &str)> = check["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| (s["offset"].as_i64().unwrap(), s["what"].as_str().unwrap()))
        .collect();
    assert_eq!(samples, [(lost, "lost"), (twice, "duplicated"), (changed, "page")]);
    assert!(checks.iter().filter(|c| c["partition"] != 1).all(|c| c["verdict"] == "same"), "{report:#}");
}
