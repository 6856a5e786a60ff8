//! What a statement may reach. Four walls, each enough for most of what an attacker would try:
//!
//! 1. Grants of the engine ([`super::boot`]): nobody has READ or WRITE on a source (file, url, s3, remote, …), however
//!    the statement names it, as table function, engine, database or plain table name.
//! 2. Constraints of the engine: settings that name files or hosts, or carry SQL in a string, cannot be changed; and the
//!    same again here, since a subquery's SETTINGS clause escapes the constraints.
//! 3. The engine's own parser says what kind of statement it is; only an admin may run more than reads and writes.
//! 4. Functions that read files or call out without asking for a grant are refused by name, here.

use std::collections::HashSet;

use super::boot::FROZEN_SETTINGS;
use super::error::{EngineError, code};
use super::ffi::{Analysis, Class, Connection, Params};
use super::lexer::{Kind, Lexer, Token};
use super::users::Access;

/// Ordinary functions that reach beyond the tables and for which the engine asks no grant. Gone through by hand for
/// the 1,825 functions of 26.7.2; a test fails when that number changes.
pub const OUTSIDE_FUNCTIONS: [&str; 23] = [
    "file",
    // SETTINGS disk = disk(type = …), BACKUP TO Disk(…)
    "disk",
    "catboostevaluate",
    "hascolumnintable",
    "reversednsquery",
    "evalmlmethod",
    "addresstoline",
    "addresstolinewithinlines",
    "addresstosymbol",
    "aiclassify",
    "aiembed",
    "aiextract",
    "aigenerate",
    "aitranslate",
    "naivebayesclassifier",
    "naivebayesclassifierwithprob",
    "naivebayesclassifierwithallprobs",
    "getserversetting",
    "getmacro",
    "showcertificate",
    "logtrace",
    "filesystemcapacity",
    "getclienthttpheader",
];

/// Table functions that stay inside the engine. Every other one is refused, also those of a later engine.
const INSIDE_TABLE_FUNCTIONS: [&str; 23] = [
    "dictionary",
    "format",
    "generaterandom",
    "generateseries",
    "generate_series",
    "input",
    "loop",
    "merge",
    "mergetreeindex",
    "mergetreeprojection",
    "mergetreetextindex",
    "mergetreeanalyzeindexes",
    "null",
    "numbers",
    "numbers_mt",
    "primes",
    "sqlstandardvalues",
    "values",
    "view",
    "viewexplain",
    "viewifpermitted",
    "zeros",
    "zeros_mt",
];

/// The refused names, in lower case.
pub struct Guard {
    denied: HashSet<String>,
}

impl Guard {
    /// Asks the engine for its table functions.
    pub fn new(connection: &mut Connection) -> Result<Self, EngineError> {
        let names = connection.query(b"SELECT lower(name) FROM system.table_functions", "TSVRaw", &[])?;
        Ok(Self::of(&String::from_utf8_lossy(names.bytes())))
    }

    fn of(table_functions: &str) -> Self {
        let outside = table_functions.lines().filter(|name| !INSIDE_TABLE_FUNCTIONS.contains(name));
        Self { denied: outside.chain(OUTSIDE_FUNCTIONS).map(str::to_owned).collect() }
    }

    /// Lets `sql`, which `analysis` is of, pass or says why not.
    pub fn check(
        &self,
        connection: &mut Connection,
        access: Access,
        sql: &str,
        params: &Params,
    ) -> Result<(), EngineError> {
        let analysis = connection.classify(sql.as_bytes());
        allowed_class(access, analysis, sql)?;
        self.check_calls(sql)?;
        check_settings(sql)?;
        keep_default_database(sql)?;
        let creates = Lexer::new(sql).next().is_some_and(|t| t.is("create") || t.is("replace") || t.is("attach"));
        if creates {
            check_engines(sql)?;
        }
        // Only a text that holds a refused name, or could hide one behind an escape, costs the second look.
        if analysis.class != Class::Unknown && (creates || self.is_suspicious(sql)) {
            self.check_tree(connection, sql, params)?;
        }
        Ok(())
    }

    /// Looks for calls of refused functions in SQL text, which may be a statement or the data of a VALUES clause.
    pub fn check_calls(&self, text: &str) -> Result<(), EngineError> {
        let mut previous: Option<Token<'_>> = None;
        for token in Lexer::new(text) {
            if token.is_mark('(')
                && let Some(name) = previous.filter(Token::is_name)
            {
                let hidden = name.kind == Kind::Quoted && name.text.contains('\\');
                let plain = name.text.trim_matches(['`', '"', '“', '”']).to_lowercase();
                if hidden || self.denied.contains(&plain) {
                    return Err(refused(name.text));
                }
            }
            previous = Some(token);
        }
        Ok(())
    }

    fn is_suspicious(&self, sql: &str) -> bool {
        let lower = sql.to_lowercase();
        lower.contains('\\') || self.denied.iter().any(|name| lower.contains(name.as_str()))
    }

    /// The second look: the engine prints the tree that its own parser makes of the statement. It sees what a lexer of
    /// ours might take for a string or a comment.
    fn check_tree(&self, connection: &mut Connection, sql: &str, params: &Params) -> Result<(), EngineError> {
        let explain = format!("EXPLAIN AST {}", sql.trim_end().trim_end_matches(';'));
        // A statement that EXPLAIN AST does not take (SHOW, DESCRIBE) has no calls that the
        // lexer could not see.
        let Ok(tree) = connection.query(explain.as_bytes(), "TSVRaw", params) else { return Ok(()) };
        let mut in_storage = false;
        for line in String::from_utf8_lossy(tree.bytes()).lines() {
            let line = line.trim_start();
            if let Some(call) = line.strip_prefix("Function ") {
                let name = call.split(' ').next().unwrap_or_default();
                if self.denied.contains(&name.to_lowercase()) || in_storage && !is_inside_engine(name) {
                    return Err(refused(name));
                }
            }
            // The engine is the first child of its definition.
            in_storage = line.starts_with("Storage definition");
        }
        Ok(())
    }
}

/// Engines of tables and databases that keep their data in the data folder and read no other. The grants stop those
/// that reach out to a source; a few (RocksDB, Distributed, …) ask for none.
fn is_inside_engine(name: &str) -> bool {
    const INSIDE: [&str; 13] = [
        "Alias",
        "Atomic",
        "Buffer",
        "GenerateRandom",
        "Join",
        "Log",
        "Memory",
        "Merge",
        "Null",
        "Ordinary",
        "Set",
        "StripeLog",
        "TinyLog",
    ];
    INSIDE.contains(&name) || name.ends_with("MergeTree") && !name.starts_with("Replicated")
}

/// Looks for `ENGINE = name` in a CREATE statement.
fn check_engines(sql: &str) -> Result<(), EngineError> {
    let mut tokens = Lexer::new(sql).peekable();
    let mut depth = 0_i32;
    while let Some(token) = tokens.next() {
        depth += i32::from(token.is_mark('(')) - i32::from(token.is_mark(')'));
        if depth > 0 || !token.is("engine") {
            // A column may be called so; behind a top-level SELECT stands no engine.
            if depth == 0 && token.is("select") {
                return Ok(());
            }
            continue;
        }
        tokens.next_if(|t| t.is_mark('='));
        if let Some(name) = tokens.next_if(Token::is_name)
            && !is_inside_engine(name.text.trim_matches(['`', '"']))
        {
            return Err(refused(name.text));
        }
    }
    Ok(())
}

/// Every session starts in the database `default`; without it the server would be dead until its next start.
fn keep_default_database(sql: &str) -> Result<(), EngineError> {
    let mut tokens = Lexer::new(sql);
    let takes_away = tokens.next().is_some_and(|t| t.is("drop") || t.is("detach") || t.is("rename"))
        && tokens.next().is_some_and(|t| t.is("database"));
    let named = |t: Token<'_>| t.is_name() && (t.text.trim_matches(['`', '"']) == "default" || t.text.contains('\\'));
    if takes_away && tokens.any(named) {
        return Err(EngineError::new(code::ACCESS_DENIED, "Database default cannot be dropped, detached or renamed."));
    }
    Ok(())
}

/// Looks for frozen settings. The engine holds its constraints against the SETTINGS clause of a statement, but not
/// against that of a subquery.
fn check_settings(sql: &str) -> Result<(), EngineError> {
    let mut previous: Option<Token<'_>> = None;
    let mut in_settings = false;
    for token in Lexer::new(sql) {
        in_settings |= token.is("settings");
        if in_settings
            && token.is_mark('=')
            && let Some(name) = previous.filter(Token::is_name)
        {
            let hidden = name.kind == Kind::Quoted && name.text.contains('\\');
            let plain = name.text.trim_matches(['`', '"', '“', '”']).to_lowercase();
            if hidden || FROZEN_SETTINGS.contains(&plain.as_str()) {
                return Err(frozen(name.text));
            }
        }
        previous = Some(token);
    }
    // Whatever this lexer takes for a string or a comment: the long names have no other use.
    let lower = sql.to_lowercase();
    match FROZEN_SETTINGS.iter().find(|name| name.len() > 10 && lower.contains(**name)) {
        Some(name) if lower.contains("settings") => Err(frozen(name)),
        _ => Ok(()),
    }
}

fn frozen(name: &str) -> EngineError {
    EngineError::new(code::ACCESS_DENIED, format_args!("Setting {name} cannot be changed on this server."))
}

fn refused(name: &str) -> EngineError {
    EngineError::new(
        code::ACCESS_DENIED,
        format_args!("{name} reaches beyond the tables of this server and is not available here."),
    )
}

/// Which kinds of statement a user may run.
fn allowed_class(access: Access, analysis: Analysis, sql: &str) -> Result<(), EngineError> {
    if analysis.statements > 1 {
        return Err(EngineError::new(
            code::SYNTAX_ERROR,
            "Syntax error (Multi-statements are not allowed): send one statement a request.",
        ));
    }
    match analysis.class {
        Class::ReadOnly | Class::Mutating => Ok(()),
        // It does not parse: the engine says where. It would run nothing.
        Class::Unknown if analysis.statements == 0 => Ok(()),
        // An INSERT with SETTINGS counts as control there.
        _ if access == Access::Admin || ends_with_the_session(sql) || inserts_into_table(sql) => Ok(()),
        _ => Err(EngineError::new(
            code::ACCESS_DENIED,
            "Not enough privileges: this kind of statement (SYSTEM, ATTACH, KILL, BACKUP, CREATE FUNCTION and their like) \
             needs a user with access = \"admin\".",
        )),
    }
}

/// `INSERT INTO [TABLE] name`, not `INSERT INTO FUNCTION`.
fn inserts_into_table(sql: &str) -> bool {
    let mut tokens = Lexer::new(sql);
    tokens.next().is_some_and(|t| t.is("insert"))
        && tokens.find(|t| !t.is("into") && !t.is("table")).is_some_and(|t| t.is_name() && !t.is("function"))
}

/// `USE db` and `SET name = value` change a session that ends with the request.
fn ends_with_the_session(sql: &str) -> bool {
    let mut tokens = Lexer::new(sql);
    match tokens.next() {
        Some(first) if first.is("use") => true,
        Some(first) if first.is("set") => {
            tokens.next().is_some_and(|t| t.is_name()) && tokens.next().is_some_and(|t| t.is_mark('='))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_however_they_are_written() {
        let guard = Guard::of("file\nurl\nnumbers\nview\n");
        for sql in [
            "SELECT file('/etc/passwd')",
            "SELECT FILE /* x */ ('/etc/passwd')",
            "SELECT `file`('x')",
            "SELECT \"File\"\n('x')",
            r"SELECT `fi\x6ce`('x')",
            "SELECT “file”('x')",
            "INSERT INTO t SELECT * FROM url('http://x')",
            "SELECT (SELECT 1 FROM (SELECT file('x')))",
            "(1, file('x'))",
        ] {
            assert!(guard.check_calls(sql).is_err(), "{sql}");
        }
        for sql in [
            "SELECT 'file(1)'",
            "SELECT file, (1)",
            "SELECT * FROM numbers(3)",
            "SELECT url -- file('x')",
            "profile(1)",
        ] {
            assert!(guard.check_calls(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn engines_that_reach_out_are_refused() {
        for sql in [
            "CREATE TABLE t (a Int8) ENGINE = EmbeddedRocksDB(0, '/x')",
            "CREATE DATABASE d ENGINE Filesystem('/')",
            "CREATE TABLE t (a Int8) engine=`URL`('x')",
        ] {
            assert!(check_engines(sql).is_err(), "{sql}");
        }
        for sql in [
            "CREATE TABLE t (engine String) ENGINE = ReplacingMergeTree ORDER BY engine",
            "CREATE DATABASE d ENGINE = Atomic",
            "CREATE VIEW v AS SELECT engine FROM t WHERE engine = 'x'",
        ] {
            assert!(check_engines(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn frozen_settings_are_found_in_every_clause() {
        for sql in [
            "SELECT * FROM (SELECT * FROM t SETTINGS additional_table_filters = {'t': '1'})",
            "SELECT 1 SETTINGS max_threads = 1, `dialect` = 'kusto'",
            r"SELECT 1 SETTINGS `dia\x6cect` = 'kusto'",
            "SELECT * FROM (SELECT 1 settings /* x */ Format_Schema='x')",
        ] {
            assert!(check_settings(sql).is_err(), "{sql}");
        }
        for sql in [
            "SELECT 1 SETTINGS max_threads = 1",
            "SELECT * FROM t WHERE dialect = 'x'",
            "SELECT 'additional_result_filter'",
        ] {
            assert!(check_settings(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn only_an_admin_runs_more_than_reads_and_writes() {
        let control = Analysis { statements: 1, class: Class::Control };
        assert!(allowed_class(Access::Admin, control, "SYSTEM FLUSH LOGS").is_ok());
        assert!(allowed_class(Access::Write, control, "SYSTEM FLUSH LOGS").is_err());
        assert!(allowed_class(Access::Write, control, "SET ROLE admin").is_err());
        assert!(allowed_class(Access::Write, control, "SET max_threads = 1").is_ok());
        assert!(allowed_class(Access::Write, control, "USE realtime").is_ok());
        assert!(allowed_class(Access::Write, control, "INSERT INTO t SETTINGS a = 1 FORMAT CSV").is_ok());
        assert!(allowed_class(Access::Write, control, "INSERT INTO FUNCTION file('x') SELECT 1").is_err());
        let two = Analysis { statements: 2, class: Class::ReadOnly };
        assert_eq!(allowed_class(Access::Admin, two, "").map_err(|e| e.code), Err(62));
    }
}
