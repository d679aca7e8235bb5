//! TLS to the servers' encrypted ports, client certificates, and secrets in files.

mod client_certificates;
mod secret_files;
mod setup;
mod verification;
