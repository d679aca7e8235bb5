//! AMQP frames as bytes: what the client must not parse, and what it can't.

pub(super) mod inbound;
pub(super) mod wire;
