//! Black-box tests against real servers: requests in, entries, events and dead letters out.
//!
//! `tests/README.md` says which test holds which rule.

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod contract;
mod delivery;
mod deploy;
mod documents;
mod gateway;
mod operator;
