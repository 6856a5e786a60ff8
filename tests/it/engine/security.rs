//! What nobody reaches through the engine, and who may do what.

use boathouse::engine::boot::FROZEN_SETTINGS;
use boathouse::engine::guard::OUTSIDE_FUNCTIONS;
use reqwest::Client;

use crate::support::engine::{Engine, run};

const USERS: &str = r#"
[[user]]
name = "root"
access = "admin"
password = "root secret"
[[user]]
name = "writer"
password_file = "writer.secret"
[[user]]
name = "reader"
access = "read"
password_sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
"#;

fn with_users() -> (Engine, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("writer.secret"), "writer secret\n").unwrap();
    let file = folder.path().join("users.toml");
    std::fs::write(&file, USERS).unwrap();
    (Engine::start_with(&["--users", file.to_str().unwrap()]), folder)
}

async fn ask(engine: &Engine, user: &str, password: &str, sql: &str) -> (u16, String) {
    let request = Client::new().post(format!("{}/", engine.url)).header("X-ClickHouse-User", user);
    let answer = request.header("X-ClickHouse-Key", password).body(sql.to_owned()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[actix_rt::test]
async fn users_prove_who_they_are_in_each_way() {
    let (engine, _folder) = with_users();
    let url = format!("{}/", engine.url);
    let http = Client::new();
    for (user, password) in [("root", "root secret"), ("writer", "writer secret"), ("reader", "secret")] {
        assert_eq!(ask(&engine, user, password, "SELECT 1").await, (200, "1\n".into()), "{user}");
        let basic = http.post(&url).basic_auth(user, Some(password)).body("SELECT 1").send().await.unwrap();
        assert_eq!(basic.status().as_u16(), 200, "{user}");
        let params = [("query", "SELECT 1"), ("user", user), ("password", password)];
        assert_eq!(http.get(&url).query(&params).send().await.unwrap().status().as_u16(), 200, "{user}");
    }
    for (user, password) in
        [("root", "writer secret"), ("root", ""), ("default", ""), ("nobody", "x"), ("reader", "Secret")]
    {
        let (status, text) = ask(&engine, user, password, "SELECT 1").await;
        assert!(status == 403 && text.starts_with("Code: 516."), "{user}: {status} {text}");
    }
    assert_eq!(
        http.get(format!("{url}ping")).send().await.unwrap().status().as_u16(),
        200,
        "a health check needs no user"
    );
    let log = engine.log();
    for secret in ["root secret", "writer secret", "2bb80d537b1d"] {
        assert!(!log.contains(secret), "a password in the log");
    }
}

#[actix_rt::test]
async fn each_kind_of_user_may_do_their_kind_of_statement() {
    let (engine, _folder) = with_users();
    let root = |sql: &'static str| ask(&engine, "root", "root secret", sql);
    let writer = |sql: &'static str| ask(&engine, "writer", "writer secret", sql);
    let reader = |sql: &'static str| ask(&engine, "reader", "secret", sql);
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a Int32) ENGINE = ReplacingMergeTree ORDER BY a",
        "INSERT INTO d.t VALUES (1), (2)",
        "INSERT INTO d.t SELECT a + 10 FROM d.t",
        "CREATE VIEW d.v AS SELECT * FROM d.t FINAL",
        "CREATE TABLE d.u AS d.t",
        "CREATE MATERIALIZED VIEW d.m TO d.u AS SELECT a FROM d.t",
        "INSERT INTO d.t VALUES (100)",
        "EXCHANGE TABLES d.t AND d.u",
        "EXCHANGE TABLES d.t AND d.u",
        "ALTER TABLE d.u REPLACE PARTITION tuple() FROM d.t",
        "ALTER TABLE d.t ADD COLUMN b String DEFAULT 'x'",
        "OPTIMIZE TABLE d.t FINAL",
        "RENAME TABLE d.u TO d.w",
        "TRUNCATE TABLE d.w",
        "DROP TABLE d.w",
        "SET max_threads = 1",
        "USE d",
        "SELECT count() FROM system.parts WHERE active",
        "SHOW CREATE TABLE d.t",
        "SELECT * FROM numbers(3)",
        "SELECT 'file(1)', length('url(')",
    ] {
        let answer = writer(sql).await;
        assert_eq!(answer.0, 200, "writer: {sql}: {}", answer.1);
    }
    for sql in [
        "SYSTEM FLUSH LOGS",
        "SYSTEM STOP MERGES",
        "SYSTEM START MERGES",
        "SYSTEM DROP MARK CACHE",
        "KILL QUERY WHERE 0 ASYNC",
    ] {
        assert_eq!(root(sql).await.0, 200, "root: {sql}: {}", root(sql).await.1);
        assert_ne!(writer(sql).await.0, 200, "writer: {sql}");
    }
    for sql in ["SELECT count() FROM d.v", "SHOW TABLES FROM d", "DESCRIBE d.t", "EXPLAIN SELECT * FROM d.t"] {
        assert_eq!(reader(sql).await.0, 200, "reader: {sql}: {}", reader(sql).await.1);
    }
    for sql in [
        "INSERT INTO d.t (a) VALUES (3)",
        "INSERT INTO d.t (a) FORMAT CSV\n3\n",
        "DROP TABLE d.t",
        "CREATE TABLE d.x (a Int32) ENGINE = Memory",
        "SYSTEM STOP MERGES",
        "ALTER TABLE d.t DELETE WHERE 1",
    ] {
        assert_ne!(reader(sql).await.0, 200, "reader: {sql}");
    }
    assert_eq!(reader("SELECT count() FROM d.t WHERE a < 100").await.1, "4\n");
}

/// Every way out that is known, in every place of a statement; for the writer and, but for nothing, for the admin too.
#[actix_rt::test]
async fn nothing_beyond_the_tables_is_reached() {
    let (engine, _folder) = with_users();
    let secret = engine.path.join("secret.txt");
    std::fs::write(&secret, "TOP-SECRET\n").unwrap();
    let out = engine.path.join("written.txt");
    let (file, written) = (secret.to_str().unwrap(), out.to_str().unwrap());
    ask(&engine, "root", "root secret", "CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a").await;
    let ways = [
        "SELECT * FROM file('FILE', 'LineAsString')",
        "SELECT * FROM (SELECT * FROM (SELECT * FROM file('FILE', 'LineAsString')))",
        "WITH x AS (SELECT * FROM file('FILE', 'LineAsString')) SELECT * FROM x",
        "SELECT (SELECT * FROM file('FILE', 'LineAsString'))",
        "SELECT 1 IN (SELECT length(line) FROM file('FILE', 'LineAsString'))",
        "SELECT * FROM t JOIN file('FILE', 'LineAsString') AS f ON 1",
        "SELECT * FROM `FILE`",
        "SELECT 1 IN `FILE`",
        "DESCRIBE TABLE `FILE`",
        "SHOW CREATE TABLE `FILE`",
        "TRUNCATE TABLE default.`FILE`",
        "DROP TABLE default.`FILE`",
        "ALTER TABLE default.`FILE` ADD COLUMN x Int8",
        "DELETE FROM `FILE` WHERE 1",
        "INSERT INTO `OUT` VALUES ('x')",
        "INSERT INTO default.`OUT` FORMAT TSV\nx",
        "CREATE TABLE v AS default.`FILE`",
        "CREATE MATERIALIZED VIEW v TO default.`OUT` AS SELECT a FROM t",
        "SELECT * FROM loop('default', 'FILE')",
        "SELECT * FROM mergeTreeIndex('default', 'FILE')",
        "DROP DATABASE default",
        "DETACH DATABASE `default`",
        "RENAME DATABASE default TO other",
        "SELECT * FROM default.`FILE`",
        "SELECT * FROM view(SELECT * FROM file('FILE', 'LineAsString'))",
        "SELECT * FROM merge('default', 'FILE')",
        "DESCRIBE file('FILE')",
        "SELECT file('FILE')",
        "SELECT File /* x */ ('FILE')",
        "SELECT `file`('FILE')",
        "SELECT `\\x66ile`('FILE')",
        "SELECT arrayMap(x -> file(x), ['FILE'])",
        "EXPLAIN SELECT file('FILE')",
        "INSERT INTO t SELECT file('FILE')",
        "INSERT INTO t VALUES (file('FILE'))",
        "INSERT INTO t SELECT * FROM file('FILE', 'LineAsString')",
        "INSERT INTO t FROM INFILE 'FILE' FORMAT LineAsString",
        "CREATE VIEW v AS SELECT * FROM file('FILE', 'LineAsString')",
        "CREATE VIEW v SQL SECURITY NONE AS SELECT * FROM file('FILE', 'LineAsString')",
        "CREATE VIEW v DEFINER = default SQL SECURITY DEFINER AS SELECT * FROM file('FILE', 'LineAsString')",
        "CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY a POPULATE AS SELECT file('FILE') AS a",
        "CREATE TABLE v ENGINE = MergeTree ORDER BY tuple() AS SELECT * FROM file('FILE', 'LineAsString')",
        "CREATE TABLE v (a String DEFAULT file('FILE')) ENGINE = MergeTree ORDER BY tuple()",
        "CREATE TABLE v AS file('FILE', 'LineAsString')",
        "CREATE TABLE v (a String) ENGINE = File(LineAsString, 'FILE')",
        "CREATE TABLE v (a String) ENGINE = File(LineAsString)",
        "CREATE TABLE v (a String) ENGINE = URL('http://127.0.0.1:9/', LineAsString)",
        "CREATE TABLE v (a String) ENGINE = S3('http://127.0.0.1:9/b/k', 'CSV')",
        "CREATE TABLE v (a String) ENGINE = Executable('x', 'TSV')",
        "CREATE TABLE v (a String) ENGINE = MySQL('127.0.0.1:9', 'd', 't', 'u', 'p')",
        "CREATE TABLE v (a String) ENGINE = Kafka('127.0.0.1:9', 't', 'g', 'CSV')",
        "CREATE TABLE v (a String) ENGINE = SQLite('FILE', 't')",
        "CREATE TABLE v (a String) ENGINE = FileLog('FILE', 'LineAsString')",
        "CREATE TABLE v (a String) ENGINE = EmbeddedRocksDB(0, 'OUT') PRIMARY KEY a",
        "CREATE TABLE v (a String) ENGINE = Distributed('c', 'd', 't')",
        "CREATE TABLE v (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = 'OUT')",
        "CREATE TABLE v (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = web, endpoint = 'http://127.0.0.1:9/')",
        "ALTER TABLE t MODIFY SETTING disk = disk(type = local, path = 'OUT')",
        "BACKUP TABLE t TO S3('http://127.0.0.1:9/b/k')",
        "RESTORE TABLE t FROM File('FILE')",
        "CREATE DATABASE v ENGINE = Filesystem('/')",
        "CREATE DATABASE v ENGINE = SQLite('FILE')",
        "CREATE DATABASE v ENGINE = MySQL('127.0.0.1:9', 'd', 'u', 'p')",
        "CREATE DATABASE v ENGINE = PostgreSQL('127.0.0.1:9', 'd', 'u', 'p')",
        "CREATE DICTIONARY v (k UInt64, a String) PRIMARY KEY k SOURCE(FILE(path 'FILE' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE DICTIONARY v (k UInt64, a String) PRIMARY KEY k SOURCE(HTTP(url 'http://127.0.0.1:9' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE FUNCTION v AS x -> file(x)",
        "SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')",
        "SELECT * FROM s3('http://127.0.0.1:9/b/k', 'CSV')",
        "SELECT * FROM gcs('http://127.0.0.1:9/b/k', 'CSV')",
        "SELECT * FROM hdfs('hdfs://127.0.0.1:9/k', 'CSV')",
        "SELECT * FROM azureBlobStorage('http://127.0.0.1:9', 'c', 'k')",
        "SELECT * FROM remote('127.0.0.1:9', 'system.one')",
        "SELECT * FROM remoteSecure('127.0.0.1:9', 'system.one')",
        "SELECT * FROM cluster('default', 'system.one')",
        "SELECT * FROM mysql('127.0.0.1:9', 'd', 't', 'u', 'p')",
        "SELECT * FROM postgresql('127.0.0.1:9', 'd', 't', 'u', 'p')",
        "SELECT * FROM mongodb('127.0.0.1:9', 'd', 't', 'u', 'p', 'a Int32')",
        "SELECT * FROM redis('127.0.0.1:9', 'k', 'k String')",
        "SELECT * FROM sqlite('FILE', 't')",
        "SELECT * FROM odbc('DSN=x', 'd', 't')",
        "SELECT * FROM jdbc('x', 'd', 't')",
        "SELECT * FROM executable('x', 'TSV', 'a Int32')",
        "SELECT * FROM filesystem('/etc')",
        "SELECT * FROM deltaLake('http://127.0.0.1:9/b/k')",
        "SELECT * FROM deltaLakeLocal('/etc')",
        "SELECT * FROM icebergLocal('/etc')",
        "SELECT * FROM hudi('http://127.0.0.1:9/b/k')",
        "SELECT * FROM fileCluster('c', 'FILE', 'LineAsString')",
        "SELECT * FROM eval('SELECT file(\\'FILE\\')')",
        "SELECT * FROM eval('SELECT 1') SETTINGS allow_experimental_eval_table_function = 1",
        "SELECT hasColumnInTable('127.0.0.1:9', 'u', 'p', 'd', 't', 'c')",
        "SELECT reverseDNSQuery('127.0.0.1')",
        "SELECT catboostEvaluate('FILE', 1)",
        "SELECT 1 INTO OUTFILE 'OUT'",
        "SELECT 1 INTO OUTFILE 'OUT' TRUNCATE FORMAT CSV",
        "INSERT INTO FUNCTION file('OUT', 'CSV') SELECT 1",
        "INSERT INTO FUNCTION file('OUT', 'CSV', 'a Int32') VALUES (1)",
        "INSERT INTO TABLE FUNCTION url('http://127.0.0.1:9/', 'CSV') SELECT 1",
        "SET user_files_path = '/'",
        "SELECT 1 SETTINGS additional_result_filter = 'file(''FILE'') != '''''",
        "SELECT * FROM (SELECT * FROM t SETTINGS additional_table_filters = {'t': 'file(''FILE'') != '''''})",
        "CREATE VIEW v AS SELECT * FROM (SELECT * FROM t SETTINGS additional_table_filters = {'t': 'file(''FILE'') != '''''})",
        "SELECT 1 FORMAT Template SETTINGS format_template_row = 'FILE'",
        "SELECT 1 FORMAT Protobuf SETTINGS format_schema = 'FILE:X'",
        "SET dialect = 'prql'",
        "SELECT 1 SETTINGS dialect = 'kusto'",
        "SET ROLE admin",
        "SET DEFAULT ROLE admin TO default",
        "EXECUTE AS default SELECT 1",
        "GRANT FILE ON *.* TO default",
        "CREATE USER x",
        "BACKUP TABLE t TO File('OUT')",
        "BACKUP TABLE t TO Disk('default', 'OUT')",
        "ATTACH TABLE v FROM 'FILE' (a String) ENGINE = File(LineAsString)",
        "SELECT 1; SELECT file('FILE')",
        "SELECT 1 PARALLEL WITH SELECT 2",
    ];
    for way in ways {
        let sql = way
            .replace("FILE'", &format!("{file}'"))
            .replace("FILE`", &format!("{file}`"))
            .replace("OUT'", &format!("{written}'"))
            .replace("OUT`", &format!("{written}`"))
            .replace("FILE:X", &format!("{file}:X"));
        let (status, text) = ask(&engine, "writer", "writer secret", &sql).await;
        assert!(status != 200 && !text.contains("TOP-SECRET"), "writer: {sql}: {status} {text}");
        // Roles and backups are an admin's business; files and hosts are not.
        if way.contains("FILE") || way.contains("OUT'") || way.contains("127.0.0.1") {
            let (status, text) = ask(&engine, "root", "root secret", &sql).await;
            assert!(status != 200 && !text.contains("TOP-SECRET"), "admin: {sql}: {status} {text}");
        }
    }
    // Names that come by parameter, settings that come by URL.
    let http = Client::new();
    for params in [
        vec![("query", "SELECT * FROM {x:Identifier}"), ("param_x", file)],
        vec![("query", "SELECT {x:Identifier}(1)"), ("param_x", "file")],
        vec![("query", "SELECT 1"), ("additional_result_filter", "file('/etc/passwd') != ''")],
        vec![("query", "SELECT 1"), ("dialect", "kusto")],
        vec![("query", "SELECT 1 FORMAT Template"), ("format_template_row", file)],
        vec![("query", "INSERT INTO t FORMAT CSV"), ("input_format_record_errors_file_path", written)],
        vec![("query", "SELECT 1"), ("role", "admin")],
    ] {
        let request = http.post(format!("{}/", engine.url)).basic_auth("writer", Some("writer secret")).query(&params);
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(status != 200 && !text.contains("TOP-SECRET"), "{params:?}: {status} {text}");
    }
    // Tables that stand before another one, which is no table.
    for (make, use_it) in [
        ("CREATE TABLE b (c1 String) ENGINE = Buffer(default, 'FILE', 1, 0, 0, 0, 0, 0, 0)", "SELECT * FROM b"),
        ("CREATE TABLE m (c1 String) ENGINE = Merge(default, '.*')", "SELECT * FROM m"),
        ("CREATE TABLE al ENGINE = Alias('default', 'FILE')", "SELECT * FROM al"),
    ] {
        ask(&engine, "writer", "writer secret", &make.replace("FILE", file)).await;
        let (_, text) = ask(&engine, "writer", "writer secret", use_it).await;
        assert!(!text.contains("TOP-SECRET"), "{make}: {text}");
    }
    let buffer = format!("CREATE TABLE w (a String) ENGINE = Buffer(default, '{written}', 1, 0, 0, 0, 0, 0, 0)");
    ask(&engine, "writer", "writer secret", &buffer).await;
    ask(&engine, "writer", "writer secret", "INSERT INTO w VALUES ('x')").await;
    // A parameterised view made by one user does not open the way for another.
    ask(&engine, "root", "root secret", "CREATE VIEW pv AS SELECT * FROM {x:Identifier}").await;
    let (status, text) = ask(&engine, "writer", "writer secret", &format!("SELECT * FROM pv(x = '{file}')")).await;
    assert!(status != 200 && !text.contains("TOP-SECRET"), "{status} {text}");
    assert!(!out.exists(), "a file was written");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "TOP-SECRET\n", "a file was changed");
    assert_eq!(ask(&engine, "root", "root secret", "SELECT count() FROM t").await.1, "0\n");
}

/// The refused functions were picked from the list of this version; another version has another list.
#[actix_rt::test]
async fn the_engine_is_the_one_whose_functions_were_gone_through() {
    let engine = Engine::start();
    assert_eq!(engine.sql("SELECT version()"), "26.7.2.1\n");
    assert_eq!(
        engine.sql("SELECT count() FROM system.functions"),
        "1825\n",
        "go through the new functions: src/engine/guard.rs"
    );
    assert_eq!(
        engine.sql("SELECT count() FROM system.settings"),
        "1721\n",
        "go through the new settings: src/engine/boot.rs"
    );
}

#[actix_rt::test]
async fn a_web_page_cannot_use_a_server_without_passwords() {
    let engine = Engine::start();
    let send = |name: &'static str, value: &'static str| {
        Client::new().post(format!("{}/", engine.url)).header(name, value).body("SELECT 1").send()
    };
    for (name, value) in [("Origin", "http://evil.example"), ("Host", "evil.example")] {
        assert_eq!(send(name, value).await.unwrap().status().as_u16(), 403, "{name}");
    }
    assert_eq!(send("Host", "localhost:8123").await.unwrap().status().as_u16(), 200);
    // With a password it is the user's own business where they use it.
    let (engine, _folder) = with_users();
    let request = Client::new().post(format!("{}/", engine.url)).header("Origin", "http://grafana.example");
    let answer = request.basic_auth("reader", Some("secret")).body("SELECT 1").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
}

#[test]
fn an_open_server_is_refused_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(&["--path", folder.path().to_str().unwrap(), "--listen", "0.0.0.0:0"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("--users") && said.contains("127.0.0.1"), "{said}");
}

/// Each of them by its name, for an admin, who may do most: a name that the engine no longer knows would guard nothing.
#[actix_rt::test]
async fn each_frozen_setting_and_each_function_that_reaches_out_is_refused() {
    let (engine, _folder) = with_users();
    let root = async |sql: String| ask(&engine, "root", "root secret", &sql).await;
    let (_, known) = root("SELECT name FROM system.settings".into()).await;
    for name in FROZEN_SETTINGS {
        let value = match name {
            "dialect" => "kusto",
            "default_normal_view_sql_security" | "default_materialized_view_sql_security" => "NONE",
            "format_schema_source" => "string",
            "additional_table_filters" => "{'t': '1'}",
            // They are on already, which a change must differ from.
            "allow_introspection_functions" | "allow_python_table_function" => "0",
            _ => "1",
        };
        assert!(known.lines().any(|line| line == name), "{name} is no setting");
        let url = Client::new().post(format!("{}/", engine.url)).query(&[(name, value)]);
        let by_url = url.basic_auth("root", Some("root secret")).body("SELECT 1").send().await.unwrap();
        let by_url = (by_url.status().as_u16(), by_url.text().await.unwrap());
        let quoted = if value.starts_with('{') { value.to_owned() } else { format!("'{value}'") };
        // The engine's constraint, and before it the guard, which looks into subqueries too.
        for (how, (status, said), expected) in [
            ("SET", root(format!("SET {name} = {quoted}")).await, (500, "Code: 452.", "should not be changed")),
            ("URL", by_url, (500, "Code: 452.", "should not be changed")),
            (
                "SETTINGS",
                root(format!("SELECT 1 SETTINGS {name} = {quoted}")).await,
                (403, "Code: 497.", "cannot be changed on this server"),
            ),
        ] {
            let (code, begun, why) = expected;
            let refused = status == code && said.starts_with(begun) && said.contains(&format!("Setting {name} {why}"));
            assert!(refused, "{how} {name}: {status} {said}");
        }
    }
    for name in OUTSIDE_FUNCTIONS {
        let (status, said) = root(format!("SELECT {name}('x')")).await;
        let why = format!("{name} reaches beyond the tables");
        assert!(status == 403 && said.starts_with("Code: 497.") && said.contains(&why), "{name}: {status} {said}");
    }
}
