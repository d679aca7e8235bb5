//! The decision of a request, and the resulting ledger and event.

mod batches;
mod concurrency;
mod frontier;
mod grants;
mod groups;
mod idempotency;
mod model;
mod org_names;
mod other_writers;
mod outcomes;
mod policies;
mod precedence;
mod trust;
mod versions;
mod writers;
