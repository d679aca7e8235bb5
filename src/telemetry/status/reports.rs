//! The values that callers report: pauses, queue depths, connections.

use std::fmt;

/// Why the process pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The database fails.
    Database,
    /// The broker fails, or blocks the connections that publish.
    Broker,
    /// The broker refuses messages that the workers publish, or a queue is full.
    Publishing,
    /// An operator paused the fleet.
    Operator,
}

impl Pause {
    pub(crate) const ALL: [Self; 4] = [
        Self::Database,
        Self::Broker,
        Self::Publishing,
        Self::Operator,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Broker => "broker",
            Self::Publishing => "publishing",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "the database",
            Self::Broker => "the broker",
            Self::Publishing => "publishing",
            Self::Operator => "an operator",
        })
    }
}

/// The role of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Holds requests.
    Work,
    /// Is a rung of the ladder.
    Retry,
    /// Holds dead letters.
    DeadLetter,
}

impl QueueKind {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Retry => "retry",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// The depth of a queue at the last poll.
#[derive(Clone, Debug)]
pub struct QueueDepth {
    /// The name of the queue.
    pub queue: String,
    /// The role of the queue.
    pub kind: QueueKind,
    /// The configured bound, in bytes of bodies.
    pub max_bytes: u64,
    /// Messages that are ready; `None` if the queue is missing or the poll failed.
    pub messages: Option<u32>,
}

/// Counts of connections to the database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connections {
    /// Connections in use.
    pub used: usize,
    /// Open connections that are idle.
    pub idle: usize,
    /// Most connections.
    pub max: usize,
    /// Workers that wait for a connection.
    pub waiting: usize,
}
