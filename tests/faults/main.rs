//! Processes and servers are stopped and killed under load; then the audit compares everything.
//!
//! Each test that stops a server has an instance of its own.

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod broker;
mod chaos;
mod cluster;
mod connections;
mod crashes;
mod database;
mod instance;
mod isolation;
mod message_cost;
mod poison;
mod servers;
mod soak;
mod standby;

use support::report;
