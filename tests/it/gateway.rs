//! `revertd gateway` as a client meets it: the real program, broker and database, over sockets.

mod answers;
mod clients;
mod crowds;
mod curl;
mod guesses;
mod limits;
mod outages;
mod telemetry;
mod tls;
