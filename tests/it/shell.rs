//! `boathouse sql` without a statement: the shell, at a terminal.

use std::process::Command;

use super::silver::world::World;
use super::support::daemon::Site;
use super::support::engine::Engine;
use super::support::terminal::Terminal;

/// What a person does there, with a table that is found by the beginning of its name and has this many rows.
fn sits_down(mut command: impl FnMut() -> Command, prompt: &str, begun: &str, table: &str, rows: u64) {
    let state = tempfile::tempdir().unwrap();
    let mut start = |terminal: &Terminal| terminal.run(command().env("XDG_STATE_HOME", state.path()));
    let mut terminal = Terminal::open();
    let mut shell = start(&terminal);
    terminal.wait_for(&["\\? for help", prompt]);
    // A statement may take two lines.
    terminal.press("select 40 +\r");
    terminal.wait_for(&["select 40 +"]);
    terminal.press(" 2 as answer;\r");
    terminal.wait_for(&["answer", "42", "1 row", prompt]);
    // Ctrl-C drops the line, and no more than that.
    terminal.press("select nonsense");
    terminal.wait_for(&["nonsense"]);
    terminal.press("\x03");
    terminal.wait_for(&[prompt]);
    assert_eq!(shell.exited(), None, "Ctrl-C leaves the shell there");
    terminal.press("select 7 * 11 as other;\r");
    terminal.wait_for(&["77", "1 row", prompt]);
    // Tab completes a table's name.
    terminal.press(&format!("select count(*) as n from {begun}\t"));
    terminal.wait_for(&[table]);
    terminal.press(";\r");
    terminal.wait_for(&[&rows.to_string(), "1 row", prompt]);
    terminal.press("\x04");
    assert_eq!(shell.ends(&mut terminal).code(), Some(0), "{}", terminal.seen);
    let file = state.path().join("boathouse/sql_history");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("select 40 +") && kept.contains(&format!("from {table};")), "{kept}");
    assert!(!kept.contains("nonsense"), "{kept}");

    // The next one has it: the arrow up is the statement that was last.
    let mut terminal = Terminal::open();
    let mut shell = start(&terminal);
    terminal.wait_for(&[prompt]);
    terminal.press("\x1b[A");
    terminal.wait_for(&[table]);
    terminal.press("\r");
    terminal.wait_for(&[&rows.to_string(), "1 row", prompt]);
    terminal.press("\x04");
    assert_eq!(shell.ends(&mut terminal).code(), Some(0), "{}", terminal.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_on_delta_tables_is_one_to_sit_at() {
    let mut world = World::new().await;
    world.fill(1, 593).await;
    let lakehouse = world.folder.path().to_str().unwrap();
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_boathouse"));
        command.args(["sql", "--lakehouse", lakehouse]).env_remove("BOATHOUSE_CONFIG");
        command
    };
    sits_down(command, "delta> ", "bronze.us", "bronze.user_events", 593);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_on_clickhouse_is_one_to_sit_at() {
    let engine = Engine::start();
    engine.sql("CREATE DATABASE realtime");
    engine.sql(
        "CREATE TABLE realtime.visits_by_hour ENGINE = MergeTree ORDER BY n AS SELECT number AS n FROM numbers(593)",
    );
    let site = Site::new("127.0.0.1:1", &engine.url, "shell");
    let command = || site.command(&["sql", "--on", "clickhouse"]);
    sits_down(command, "clickhouse> ", "realtime.vis", "realtime.visits_by_hour", 593);
}
