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
