//! Decides batches: facts are read, the requests are decided by `domain::decide`, and one statement
//! writes the outcomes and the entries.

mod batch;
mod dry_run;
mod facts;
mod history;
pub(super) mod locks;
pub(super) mod metadata;
mod probe;
mod round;
mod split;
pub(super) mod statements;
pub(super) mod stored_outcome;
mod unit;
mod write;
