//! Black-box tests against real servers.

#[path = "../support/mod.rs"]
mod support;

mod outcomes;
