//! `revertd usages`: requests for the usages of an org or account, as a file.

mod file;
mod filters;
mod mistakes;
mod reverted;
mod setup;
