//! `revertd submit --file`: thousands of requests from one file.

mod answers;
mod dry_run;
mod groups;
mod mistakes;
pub mod setup;
