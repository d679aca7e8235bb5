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
//! The modules below stand in reading order: the pure ones, TLS, whether servers can be reached, the seams at which tests crash the program, the two rooms that do I/O, the loop that joins
//! them, the operation over HTTP, and the command line.

pub mod request;

pub mod outcome;

pub mod event;

pub mod retry;

pub mod disposition;

pub mod patience;

pub mod log_limit;

pub mod printable;

pub mod check;

pub mod settings;

pub mod tls;

pub mod reach;

pub mod http_server;

pub mod seam;

pub mod ledger;

pub mod broker;

pub mod telemetry;

pub mod worker;

pub mod gateway;

pub mod cli;
