//! Black-box tests against real servers: requests in, entries, events and dead letters out.

#[path = "../support/mod.rs"]
mod support;

mod batches;
mod commands;
mod concurrency;
mod doctor;
mod documents;
mod frontier;
mod gateway;
mod grants;
mod house;
mod ladder;
mod model;
mod outcomes;
mod permissions;
mod policies;
mod precedence;
mod replay;
mod replies;
mod secrets;
mod sieve;
mod starts;
mod transport;
mod writers;
