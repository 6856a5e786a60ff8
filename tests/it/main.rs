//! Integration tests, one binary: each module speaks to the product as a user does.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read variables for the number of seeds, and wait on other processes"
)]

mod at_hand;
mod bad_records;
mod bench;
mod bi;
mod bronze;
mod bucket;
mod by_hand;
mod choices;
mod cli;
mod compacted;
mod config;
mod console;
mod corpus;
mod crash;
mod demo;
mod deploy;
mod documented;
mod engine;
mod event;
mod gold;
mod grafana;
mod history;
mod idle;
mod letters;
mod lost_log;
mod medallion;
mod mend;
mod odd_state;
mod pause;
mod poison;
mod producer;
mod prometheus;
mod reference;
mod remote;
mod scheduler;
mod serving;
mod shell;
mod silver;
mod storage;
mod stream;
mod support;
mod telemetry;
mod tidy;
mod tls;
mod topic;
mod topic_id;
mod upkeep;
mod verify;
mod watchdog;
