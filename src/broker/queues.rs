//! The messages that wait in queues, read without taking them, and their number.

pub(super) mod depths;
pub(super) mod queue_reader;
pub(super) mod queued_message;
mod requeue;
pub(super) mod rungs;
mod shown;
