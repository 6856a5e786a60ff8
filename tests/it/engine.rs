//! The embedded ClickHouse server, spoken to as its clients do.

mod clients;
mod http;
mod process;
mod security;
