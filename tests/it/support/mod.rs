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

/// Says past the test's capture that something cannot be looked at here.
pub fn not_checked(what: &str) {
    use std::io::Write;
    // eprintln! would be caught, and nobody would see it.
    writeln!(std::io::stderr(), "NOT CHECKED: {what}").expect("stderr can be written to");
}

/// Bytes that must be free on a disk of memory: containers often have one of 64 MiB.
const MEMORY_LEAST: u64 = 1 << 30;

/// A folder on a disk of memory, where there is one: a process that is killed leaves there what it would leave on any
/// disk, and nothing is waited for. For long rounds.
pub fn folder_in_memory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let roomy = memory.exists() && boathouse::telemetry::space(memory).is_some_and(|s| s.free_bytes >= MEMORY_LEAST);
    let folder = if roomy { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.expect("a temporary folder")
}
