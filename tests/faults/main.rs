//! Processes and servers stopped, killed and taken away under load; then everything is counted.
//!
//! Each test that touches a server has an instance of its own.

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod broker;
mod cluster;
mod connections;
mod crashes;
mod database;
mod instance;
mod isolation;
mod neighbours;
mod poison;
mod servers;
mod soak;
mod standby;
mod storm;

use support::report;
