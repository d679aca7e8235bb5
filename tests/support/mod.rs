//! Shared parts of the tests: an environment for each test, processes, servers and checks.
//!
//! Each module has one job. `use crate::support::*` brings in the names that most tests need.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its own part"
)]

pub mod atomic_groups;
pub mod audit;
pub mod collected;
pub mod compare;
pub mod connect;
pub mod dead_letters;
pub mod documents;
pub mod env;
pub mod eventually;
pub mod expected;
pub mod gateway;
pub mod group_generator;
pub mod http;
pub mod initial_ledger;
pub mod ledger;
pub mod ledger_generator;
pub mod load;
pub mod logs;
pub mod mailbox;
pub mod model;
pub mod observed;
pub mod otlp_collector;
pub mod program;
pub mod progress;
pub mod proxy;
pub mod publish;
pub mod queues;
pub mod raw;
pub mod reconnect;
pub mod report;
pub mod request_bodies;
pub mod request_generator;
pub mod scrape;
pub mod serializability;
pub mod servers;
pub mod sessions;
pub mod tls;
pub mod unrelated;
pub mod worker;

pub use connect::{connect_amqp, connect_db, try_connect_amqp, with_database};
pub use env::TestEnv;
pub use eventually::{TIMEOUT, eventually};
pub use mailbox::{Mailbox, Message};
pub use program::Program;
pub use publish::{Publisher, Request};
pub use servers::{Servers, environment, manage};
pub use worker::WorkerProcess;
