//! What revertd was doing with the broker when an error arose.

use std::fmt;

/// An operation on the broker, with the names that its error message needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    /// Up to the broker's answer to the login and to the virtual host.
    Connecting,
    /// Keeping a connection open that was opened before.
    KeepingConnection,
    OpeningChannel,
    /// Closing the channel that consumes a queue.
    ClosingChannel(&'a str),
    DeclaringExchange(&'a str),
    DeclaringQueue(&'a str),
    Binding {
        queue: &'a str,
        exchange: &'a str,
    },
    /// Declaring the exclusive queue that events come to.
    DeclaringReplyQueue,
    AwaitingReplies,
    /// Asking for the length of a queue.
    InspectingQueue(&'a str),
    /// Reading the messages of a queue without consuming them for good.
    ReadingQueue(&'a str),
    Consuming(&'a str),
    CancellingConsumer(&'a str),
    Acknowledging(&'a str),
    Rejecting(&'a str),
    Publishing,
    PublishingTo {
        exchange: &'a str,
        /// The login that publishes, where it is not the one of `amqp.url`.
        client: Option<&'a str>,
    },
    /// The doctor's questions, which the broker refuses by design.
    CheckingPermission,
}

impl Operation<'_> {
    pub(crate) fn is_publishing(self) -> bool {
        matches!(self, Self::Publishing | Self::PublishingTo { .. })
    }

    pub(crate) fn is_declaring(self) -> bool {
        matches!(
            self,
            Self::DeclaringExchange(_)
                | Self::DeclaringQueue(_)
                | Self::Binding { .. }
                | Self::DeclaringReplyQueue
        )
    }
}

/// To follow "while".
impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::KeepingConnection => f.write_str("keeping a connection open"),
            Self::OpeningChannel => f.write_str("opening a channel"),
            Self::ClosingChannel(queue) => write!(f, "closing the channel of queue {queue}"),
            Self::DeclaringExchange(name) => write!(f, "declaring exchange {name}"),
            Self::DeclaringQueue(name) => write!(f, "declaring queue {name}"),
            Self::Binding { queue, exchange } => {
                write!(f, "binding queue {queue} to exchange {exchange}")
            }
            Self::DeclaringReplyQueue => f.write_str("declaring a reply queue"),
            Self::AwaitingReplies => f.write_str("consuming the reply queue"),
            Self::InspectingQueue(queue) => write!(f, "inspecting queue {queue}"),
            Self::ReadingQueue(queue) => write!(f, "reading queue {queue}"),
            Self::Consuming(queue) => write!(f, "consuming queue {queue}"),
            Self::CancellingConsumer(queue) => {
                write!(f, "cancelling the consumer of queue {queue}")
            }
            Self::Acknowledging(queue) => write!(f, "acknowledging messages of queue {queue}"),
            Self::Rejecting(queue) => write!(f, "rejecting a message of queue {queue}"),
            Self::Publishing => f.write_str("publishing"),
            Self::PublishingTo { exchange, client } => {
                write!(f, "publishing to exchange {exchange}")?;
                match client {
                    Some(client) => write!(f, " as user {client}"),
                    None => Ok(()),
                }
            }
            Self::CheckingPermission => f.write_str("checking a permission"),
        }
    }
}
