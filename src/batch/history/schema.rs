//! The history's tables, and how they come to be: steps that are applied in order at each start.
//!
//! Two processes may apply a step at the same time, and one may end in the middle of it: each step says `IF NOT EXISTS`
//! or finds its work done, and its number is noted after it.

use sqlx::{AssertSqlSafe, Row};

use super::{History, HistoryError, is_taken, micros};

/// The text columns' size in bytes is bound by MySQL's `TEXT`; what is written is cut to it.
pub(super) const TEXT_MAX: usize = 60_000;

/// Each step is a list of statements. `UNIQUE` inside a table is an index in either kind of database.
const STEPS: &[&[&str]] = &[FIRST, GRAPHS];

const FIRST: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS runs (
        run_id VARCHAR(40) NOT NULL PRIMARY KEY,
        pipeline VARCHAR(64) NOT NULL,
        graph VARCHAR(64) NOT NULL,
        cause VARCHAR(16) NOT NULL,
        state VARCHAR(16) NOT NULL,
        slot_us BIGINT,
        requested_us BIGINT NOT NULL,
        started_us BIGINT,
        ended_us BIGINT,
        runner VARCHAR(120),
        cancel_asked BIGINT NOT NULL,
        tries BIGINT NOT NULL,
        error TEXT,
        UNIQUE (state, pipeline, run_id),
        UNIQUE (pipeline, run_id)
    )",
    "CREATE TABLE IF NOT EXISTS attempts (
        run_id VARCHAR(40) NOT NULL,
        task VARCHAR(40) NOT NULL,
        attempt BIGINT NOT NULL,
        try_number BIGINT NOT NULL,
        state VARCHAR(16) NOT NULL,
        started_us BIGINT NOT NULL,
        ended_us BIGINT,
        rows_in BIGINT NOT NULL,
        rows_out BIGINT NOT NULL,
        rows_refused BIGINT NOT NULL,
        summary TEXT,
        error TEXT,
        PRIMARY KEY (run_id, task, attempt)
    )",
    "CREATE TABLE IF NOT EXISTS log_lines (
        run_id VARCHAR(40) NOT NULL,
        line BIGINT NOT NULL,
        task VARCHAR(40) NOT NULL,
        attempt BIGINT NOT NULL,
        at_us BIGINT NOT NULL,
        severity VARCHAR(8) NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (run_id, line)
    )",
    "CREATE TABLE IF NOT EXISTS slots (
        pipeline VARCHAR(64) NOT NULL,
        slot_us BIGINT NOT NULL,
        run_id VARCHAR(40) NOT NULL,
        PRIMARY KEY (pipeline, slot_us)
    )",
    "CREATE TABLE IF NOT EXISTS schedules (
        pipeline VARCHAR(64) NOT NULL PRIMARY KEY,
        since_us BIGINT NOT NULL,
        paused_us BIGINT
    )",
    "CREATE TABLE IF NOT EXISTS leases (
        pipeline VARCHAR(64) NOT NULL PRIMARY KEY,
        holder VARCHAR(120) NOT NULL,
        token VARCHAR(40) NOT NULL,
        beat BIGINT NOT NULL
    )",
    "CREATE TABLE IF NOT EXISTS daemons (
        instance VARCHAR(120) NOT NULL PRIMARY KEY,
        beat BIGINT NOT NULL,
        seen_us BIGINT NOT NULL
    )",
];

/// Runs through other graphs than the batch's: what they were asked with, and the slots of upkeep.
const GRAPHS: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS run_parameters (
        run_id VARCHAR(40) NOT NULL,
        name VARCHAR(40) NOT NULL,
        value VARCHAR(200) NOT NULL,
        PRIMARY KEY (run_id, name)
    )",
    "CREATE TABLE IF NOT EXISTS upkeep_slots (
        pipeline VARCHAR(64) NOT NULL,
        slot_us BIGINT NOT NULL,
        run_id VARCHAR(40) NOT NULL,
        PRIMARY KEY (pipeline, slot_us)
    )",
];

/// Brings the tables to this program's version.
pub(super) async fn migrate(history: &History, sqlite: bool) -> Result<(), HistoryError> {
    // Names and run ids are told apart byte by byte in either kind of database.
    let options = if sqlite { "" } else { " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" };
    let fail = history.error("bringing its tables up to date");
    let create = |statement: &str| sqlx::query(AssertSqlSafe(format!("{statement}{options}")));
    create("CREATE TABLE IF NOT EXISTS migrations (step BIGINT NOT NULL PRIMARY KEY, applied_us BIGINT NOT NULL)")
        .execute(&history.pool)
        .await
        .map_err(&fail)?;
    let row = sqlx::query("SELECT MAX(step) AS step FROM migrations").fetch_one(&history.pool).await.map_err(&fail)?;
    let found = row.try_get::<Option<i64>, _>("step").map_err(&fail)?.unwrap_or(0);
    let known = STEPS.len() as i64;
    if found > known {
        return Err(HistoryError::Newer { address: history.shown.clone(), found, known });
    }
    for (number, step) in (1..).zip(STEPS).skip(found as usize) {
        for statement in *step {
            create(statement).execute(&history.pool).await.map_err(&fail)?;
        }
        let noted = sqlx::query("INSERT INTO migrations (step, applied_us) VALUES (?, ?)")
            .bind(number)
            .bind(micros(chrono::Utc::now()))
            .execute(&history.pool)
            .await;
        match noted {
            Ok(_) => {}
            Err(e) if is_taken(&e) => {}
            Err(e) => return Err(fail(e)),
        }
    }
    Ok(())
}
