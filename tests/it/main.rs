//! Black-box tests against real servers: requests in, entries, events and dead letters out.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod commands;
mod concurrency;
mod files;
mod frontier;
mod grants;
mod house;
mod ladder;
mod model;
mod outcomes;
mod pause;
mod permissions;
mod policies;
mod precedence;
mod replay;
mod replies;
mod republish;
mod sieve;
mod starts;
mod verify;
mod writers;
