//! Integration tests, one binary: each module speaks to the product as a user does.

mod config;
mod corpus;
mod event;
mod grafana;
mod producer;
mod reference;
mod support;
mod telemetry;
