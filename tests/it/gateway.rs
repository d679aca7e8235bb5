//! `revertd gateway` as a client meets it: the program, broker and database, over sockets.

mod answers;
mod batch;
mod clients;
mod fairness;
mod limits;
mod login_throttling;
mod outages;
mod printed_command;
mod telemetry;
mod tls;
mod validation;
