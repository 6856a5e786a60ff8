//! Integration tests, one binary: each module speaks to the product as a user does.

mod config;
mod grafana;
mod support;
mod telemetry;
