//! Authorization by grants.

mod authorization;
mod client_identity;
mod command;
mod setup;
pub use setup::grant;
