//! Each row of the contract's table: the event, the ledger, and the last queue of the message.

mod setup;
mod stored_refusals;
mod success;
mod unstored_refusals;
