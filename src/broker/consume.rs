//! Deliveries of the work queue: read, tracked, and acknowledged.

pub(super) mod ack_tracker;
pub(super) mod channel;
pub(super) mod consumer;
pub(super) mod delivery;
pub(super) mod envelope;
pub(super) mod trust;
