//! The event producer: makes the events of users who log in, look at pages, sometimes buy, and log out, and
//! sends them to a Kafka topic.
//!
//! [`session`], [`event`], [`fault`], [`clock`] and [`generator`] are pure and seeded: the same seed gives the
//! same bytes. [`sender`] paces them and keeps account of every delivery; [`topic`] waits for the broker and
//! makes the topic.
//!
//! What this room must not know: Delta, ClickHouse, pipelines. The program links a third as large for it.

#![allow(clippy::disallowed_methods, reason = "a program of its own, without actors, that waits for the broker")]

pub mod clock;
pub mod event;
pub mod fault;
pub mod generator;
pub mod sender;
pub mod session;
pub mod topic;
