//! Black-box tests against real servers: requests in, entries, events and dead letters out.

#[path = "../support/mod.rs"]
mod support;

mod alternate;
mod batches;
mod browse;
mod comes_again;
mod commands;
mod concurrency;
mod dead_letters;
mod dead_letters_killed;
mod dead_letters_large;
mod deploy;
mod doctor;
mod documents;
mod file_mistakes;
mod files;
mod frontier;
mod gateway;
mod grants;
mod house;
mod ladder;
mod log_codes;
mod model;
mod names;
mod others_entries;
mod outcomes;
mod pause;
mod permissions;
mod policies;
mod precedence;
mod printable;
mod replay;
mod replies;
mod republish;
mod secrets;
mod starts;
mod status;
mod telemetry;
mod transport;
mod trust;
mod unreadable;
mod verify;
mod versions;
mod writers;
