//! Processes and servers stopped, killed and taken away under load; then everything is counted.
//!
//! Each test that touches a server has an instance of its own.

#[path = "../support/mod.rs"]
mod support;

mod instance;
mod reckoning;
mod servers;

use support::report;
