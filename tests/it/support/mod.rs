//! What the integration tests share: one broker, one engine, and ways to look at results.

#![allow(dead_code, reason = "a box of tools: not each has a user in every state of the tests")]

pub mod broker;
pub mod daemon;
pub mod engine;
pub mod mariadb;
pub mod prometheus;
pub mod python;
pub mod soak;
