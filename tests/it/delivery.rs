//! How messages come from the broker and go back to it: routing, retries, replies, redelivery.

pub mod alternate_exchange;
mod ladder;
mod queue_reader;
mod redelivery;
mod replies;
mod unreadable;
