//! Servers stopped and killed under load. Each test has servers of its own.

#[path = "../support/mod.rs"]
mod support;
