//! The ledger in PostgreSQL: decides batches of requests, and writes the entries.
//!
//! Only this module names the PostgreSQL client. It must not know the broker.

pub mod admin;
mod apply;
mod client;
mod connection;
mod doctor;
mod error;
mod schema;
mod suspects;
pub mod verify;

pub use client::{Connections, Ledger};
pub use connection::connect::unencrypted;
pub use doctor::doctor;
pub use error::LedgerError;
pub use schema::migrate::{Migrated, check, migrate};
pub use suspects::Tries;
