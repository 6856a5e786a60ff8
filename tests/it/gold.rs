//! Gold from end to end: silver's rows through the shipped models into Delta and the real engine.

pub mod lakehouse;
mod leftover;
mod memory;
mod models;
mod retention;
mod served;
