//! revertd reverts billing usage: requests from RabbitMQ, entries in PostgreSQL, an event for each.
//!
//! The way of one message:
//!
//! ```text
//! delivery -> decode -> batch -> apply (one SQL statement) -> outcome -> reply event -> confirm -> settle
//! ```
//!
//! 1. Consume with manual acknowledgement and a bounded prefetch.
//! 2. Decode; what can't be decoded is a failure with a reason.
//! 3. One SQL statement claims, decides, writes the entries and returns one row per request.
//! 4. Entries are only ever added; a revert is a new entry naming the original.
//! 5. What a concurrent worker decided meanwhile goes through the statement once more.
//! 6. Each outcome determines its event, with a deterministic id.
//! 7. Publish persistent and mandatory, a window at a time; await every confirm.
//! 8. Only then acknowledge. The unacknowledged request is the outbox: a crash at any point replays to the
//!    same outcome and the same event.
//! 9. A request that fails, or whose event a queue refuses, waits alone on a rung; only a server's failure pauses
//!    the pool, and a probe tells which it is.
//! 10. Attempts exhausted, or never decodable: dead-letter queue, with the reason.
//!
//! `main -> cli -> {worker, gateway} -> {broker, ledger, telemetry} -> domain`: each knows those to its right.
//! `config` and `common` are known to all.

pub mod broker;
pub mod cli;
pub mod common;
pub mod config;
pub mod domain;
pub mod gateway;
pub mod ledger;
pub mod telemetry;
pub mod worker;
