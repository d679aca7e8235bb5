//! revertd reverts billing usage: requests from RabbitMQ, entries in PostgreSQL, one event per
//! request.
//!
//! The path of one message:
//!
//! ```text
//! delivery -> decode -> batch -> apply (one SQL statement) -> outcome -> reply event -> confirm
//! -> settle
//! ```
//!
//! 1. The consumer acknowledges manually and has a bounded prefetch.
//! 2. A body is decoded. A body that cannot be decoded is a failure with a reason.
//! 3. One SQL statement claims, decides, writes the entries and returns one row per request.
//! 4. Entries are only ever added. A revert is a new entry that names the original.
//! 5. A request that a concurrent worker decided meanwhile goes through the statement once more.
//! 6. Each outcome determines its event, with a deterministic id.
//! 7. Events are published persistent and mandatory, a window at a time; every confirm is awaited.
//! 8. Only then is the request acknowledged. The unacknowledged request is the outbox: after a
//!    crash at any point it is delivered again, with the same outcome and the same event.
//! 9. A request that fails, or whose event a queue refuses, waits alone on a rung. Only a server's
//!    failure pauses the pool, and a probe tells which of the two it is.
//! 10. A request whose attempts are exhausted, or that can never be decoded, goes to the
//!     dead-letter queue, with the reason.
//!
//! `main -> cli -> {worker, gateway} -> {broker, ledger, telemetry} -> domain`: each module may use
//! the modules to its right. Every module may use `config` and `common`.

pub mod broker;
pub mod cli;
pub mod common;
pub mod config;
pub mod domain;
pub mod gateway;
pub mod ledger;
pub mod telemetry;
pub mod worker;
