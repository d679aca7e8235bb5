//! Connections to the database: servers, encryption, sessions and their settings.

pub(super) mod connect;
pub(super) mod encryption;
pub(super) mod hosts;
pub(super) mod session;
