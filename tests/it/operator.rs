//! The operator's interface: commands, settings, startup, permissions, TLS, telemetry.

mod commands;
pub mod dead_letters;
mod demo;
pub mod doctor;
mod groups;
mod pause;
pub mod permissions;
mod printable;
mod republish;
mod secrets;
pub mod startup;
mod status;
mod submit_file;
mod telemetry;
mod tls;
mod usages;
mod verify;
