//! What several modules use: backoff, failpoints, TLS, the HTTP server, checks, text that prints.

pub mod backoff;
pub mod check;
pub mod connectivity;
pub mod diagnostic;
pub mod failpoint;
pub mod http_client;
pub mod http_server;
pub mod log_limit;
pub mod printable;
pub mod tls;
