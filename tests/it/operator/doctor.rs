//! `revertd doctor`: each planted problem is found, with its remedy.

mod definitions;
mod management_api;
mod missing_grants;
mod output;
mod problems;
mod remedies;
pub mod report;
mod sessions;
mod setup;
