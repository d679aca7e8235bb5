//! Each row of the contract's table: the event, the ledger, and the queue where the message ends.

mod setup;
mod stored_refusals;
mod success;
mod unstored_refusals;
