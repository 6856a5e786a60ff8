//! The invariants of docs/architecture.md that a reader could break without noticing: what each room must not know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Crates and clocks that a pure room has no business with.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "Utc::now",
    "tokio",
    "actix",
    "rdkafka",
    "reqwest",
    "clickhouse::",
    "deltalake",
    "datafusion",
];

/// A room, and what may not appear in its code (tests and comments aside).
const MUST_NOT_KNOW: &[(&str, &[&str])] = &[
    ("event", &["crate::actors", "crate::bronze", "crate::serving", "crate::telemetry", "crate::cli"]),
    ("window", &["crate::actors", "crate::bronze", "crate::serving", "crate::telemetry", "crate::cli"]),
    (
        "config",
        &["crate::actors", "crate::bronze", "crate::serving", "crate::telemetry", "crate::cli", "tokio", "actix"],
    ),
    (
        "kafka",
        &["crate::actors", "crate::bronze", "crate::serving", "crate::cli", "actix", "deltalake", "clickhouse::"],
    ),
    ("bronze", &["crate::actors", "crate::serving", "crate::cli", "actix", "rdkafka", "clickhouse::"]),
    ("serving", &["crate::actors", "crate::bronze", "crate::cli", "actix", "rdkafka", "deltalake"]),
    ("batch", &["crate::actors", "crate::kafka", "crate::window", "crate::cli", "actix", "rdkafka"]),
    ("console", &["crate::actors", "crate::kafka", "crate::window", "crate::bronze", "rdkafka"]),
    ("letters", &["crate::actors", "crate::serving", "crate::console", "crate::telemetry", "actix"]),
    ("tap", &["crate::actors", "crate::bronze", "crate::serving", "crate::console", "crate::telemetry", "actix"]),
    ("reconcile", &["crate::actors", "crate::console", "actix"]),
    ("trace", &["crate::actors", "crate::cli", "actix", "rdkafka"]),
    ("telemetry", &["crate::actors", "crate::bronze", "crate::serving", "crate::cli", "rdkafka", "deltalake"]),
];
const PURE: &[&str] = &["event", "window"];
/// Pure files in rooms that are not, and what they may not know besides.
const PURE_FILES: &[&str] = &["batch/run/graph.rs", "batch/slots.rs"];
const LINES_MAX: usize = 700;

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

fn source(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// The lines of a file that are code of the room itself: no comments, nothing from its test module on.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|l| l.trim() != "#[cfg(test)]")
        .enumerate()
        .filter(|(_, l)| !l.trim_start().starts_with("//"))
}

fn violations(room: &str, text: &str, forbidden: &[&str]) -> Vec<String> {
    code(text)
        .flat_map(|(number, line)| {
            forbidden
                .iter()
                .filter(|word| line.contains(**word))
                .map(move |word| format!("{room}, line {}: {word}: {}", number + 1, line.trim()))
        })
        .collect()
}

#[test]
fn rooms_know_only_what_they_may() {
    let mut found = Vec::new();
    for (room, forbidden) in MUST_NOT_KNOW {
        let all = if PURE.contains(room) { [*forbidden, IMPURE].concat() } else { forbidden.to_vec() };
        for file in rust_files(&source("src").join(room)) {
            // A folder or file of tests alone, or a simulation for them.
            if ["tests", "simulation"].iter().any(|t| file.to_string_lossy().contains(&format!("/{t}"))) {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("source");
            found.extend(violations(&file.display().to_string(), &text, &all));
        }
    }
    for file in PURE_FILES {
        let text = std::fs::read_to_string(source("src").join(file)).expect("source");
        found.extend(violations(file, &text, &[IMPURE, &["crate::actors", "sqlx", "super::history"]].concat()));
    }
    assert!(found.is_empty(), "see docs/architecture.md:\n{}", found.join("\n"));
}

#[test]
fn the_check_sees_code_and_not_comments_or_tests() {
    let text = "use tokio::sync;\n// tokio\nfn f() {}\n#[cfg(test)]\nuse tokio::time;\n";
    assert_eq!(violations("event", text, &["tokio"]), ["event, line 1: tokio: use tokio::sync;"]);
}

#[test]
fn files_stay_readable_in_one_sitting() {
    let long: Vec<String> = ["src", "tests"]
        .iter()
        .flat_map(|folder| rust_files(&source(folder)))
        .filter_map(|file| {
            let lines = std::fs::read_to_string(&file).expect("source").lines().count();
            (lines > LINES_MAX).then(|| format!("{}: {lines} lines", file.display()))
        })
        .collect();
    assert!(long.is_empty(), "split them by idea, at most {LINES_MAX} lines a file:\n{}", long.join("\n"));
}

/// The names that follow `before` in the files of a folder, up to the next quotation mark.
fn names_after(folder: &str, before: &str) -> BTreeSet<String> {
    let files = rust_files(&source(folder)).into_iter();
    let texts = files.map(|file| std::fs::read_to_string(file).expect("source"));
    let names = |text: String| -> Vec<String> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    texts.flat_map(names).collect()
}

#[test]
fn a_test_names_every_fail_point() {
    let points = names_after("src", "failpoint::hit(\"");
    assert!(points.len() > 30, "{points:?}");
    // In a test a name may stand after what is to happen there, and before how often it is passed.
    let tests: BTreeSet<String> = names_after("tests/it", "\"")
        .iter()
        .filter_map(|text| text.rsplit('!').next()?.split(':').next().map(str::to_owned))
        .collect();
    let forgotten: Vec<&String> = points.difference(&tests).collect();
    assert!(forgotten.is_empty(), "no test ends a process at {forgotten:?}");
}
