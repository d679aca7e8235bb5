//! A queue of revertd's own, as the management API shows it.

use serde_json::Value;

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueRole {
    Work,
    Rung { delay_ms: u128 },
    Replies,
    Dead,
}

/// A queue, and what the broker says of it.
pub struct QueueInfo<'a> {
    pub name: &'a str,
    pub role: QueueRole,
    pub answer: &'a Value,
}
