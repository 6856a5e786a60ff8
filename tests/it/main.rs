//! Integration tests, one binary: each module speaks to the product as a user does.

mod config;
mod support;
mod grafana;
mod telemetry;
