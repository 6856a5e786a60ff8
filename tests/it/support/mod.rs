//! What the integration tests share: one broker, one engine, and ways to look at results.

#![allow(dead_code, reason = "a box of tools: not each has a user in every state of the tests")]

pub mod broker;
pub mod chromium;
pub mod daemon;
pub mod engine;
pub mod mariadb;
pub mod node;
pub mod prometheus;
pub mod python;
pub mod s3;
pub mod soak;
pub mod terminal;

/// curl as people have it, without its progress.
pub fn curl(arguments: &[&str]) -> std::process::Output {
    std::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "120"])
        .args(arguments)
        .output()
        .expect("curl runs (Debian, Ubuntu: apt install curl)")
}

/// Says past the test's capture that something cannot be looked at here.
pub fn not_checked(what: &str) {
    use std::io::Write;
    // eprintln! would be caught, and nobody would see it.
    writeln!(std::io::stderr(), "NOT CHECKED: {what}").expect("stderr can be written to");
}

/// Bytes that must be free on a disk of memory: containers often have one of 64 MiB.
const MEMORY_LEAST: u64 = 1 << 30;

/// Takes the marks of what was read out of the logs of all tables below a folder, as if they had been made before marks
/// were noted; how many there were.
pub fn without_marks(folder: &std::path::Path) -> usize {
    let mut taken = 0;
    for path in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            taken += without_marks(&path);
        } else if path.extension().is_some_and(|e| e == "json") {
            let text = std::fs::read_to_string(&path).expect("a log entry");
            let is_mark = |line: &&str| line.contains("\"appId\":\"entry/");
            let marks = text.lines().filter(is_mark).count();
            if marks > 0 {
                let rest: String = text.lines().filter(|l| !is_mark(l)).map(|l| format!("{l}\n")).collect();
                std::fs::write(&path, rest).expect("written");
                taken += marks;
            }
        }
    }
    taken
}

/// A folder on a disk of memory, where there is one: a process that is killed leaves there what it would leave on any
/// disk, and nothing is waited for. For long rounds.
pub fn folder_in_memory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let roomy = memory.exists() && boathouse::telemetry::space(memory).is_some_and(|s| s.free_bytes >= MEMORY_LEAST);
    let folder = if roomy { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}
