//! A reply queue: named by the broker, exclusive, and deleted with its connection.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::time::timeout;

use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;

/// A reply queue that is consumed.
pub struct ReplyQueue {
    replies: Consumer,
    name: ShortString,
    host: String,
}

/// A message of the reply queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The correlation id of the request that it answers; empty if it has none.
    pub correlation_id: String,
    /// The event, or the events of a group.
    pub body: Vec<u8>,
}

impl ReplyQueue {
    /// Declares a queue and consumes it without acknowledgements: a client that gets no answer asks
    /// again.
    pub(crate) async fn declare(channel: &Channel, host: &str) -> Result<Self, BrokerError> {
        let declaring = Operation::DeclaringReplyQueue;
        let classify = |error| BrokerError::classify(&error, host, declaring);
        // Named by the broker (amq.gen-...), which is what amqp.reply_to_pattern allows.
        let options = QueueDeclareOptions {
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: true,
            nowait: false,
        };
        let declared = channel.queue_declare("".into(), options, FieldTable::default());
        let name = declared.await.map_err(classify)?.name().clone();
        let options = BasicConsumeOptions {
            no_local: false,
            no_ack: true,
            exclusive: true,
            nowait: false,
        };
        let consuming =
            channel.basic_consume(name.clone(), "".into(), options, FieldTable::default());
        Ok(Self {
            replies: consuming.await.map_err(classify)?,
            name,
            host: host.to_owned(),
        })
    }

    /// The queue's name, for `reply_to`.
    pub(crate) fn name(&self) -> &ShortString {
        &self.name
    }

    /// Waits for the event of `correlation_id`. `None` if none came in time.
    ///
    /// # Errors
    /// If the connection fails. The request is still handled.
    pub async fn event(
        &mut self,
        correlation_id: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        let waiting = async {
            loop {
                let reply = self.next().await?;
                if reply.correlation_id == correlation_id {
                    return Ok(reply.body);
                }
            }
        };
        timeout(limit, waiting).await.ok().transpose()
    }

    /// Waits for the next event, whichever request it answers. Cancel-safe.
    ///
    /// # Errors
    /// If the connection fails. The requests are still handled.
    pub async fn next(&mut self) -> Result<Reply, BrokerError> {
        let Some(delivery) = self.replies.next().await else {
            return Err(BrokerError::ended(self.name.as_str()));
        };
        let delivery = delivery.map_err(|error| {
            BrokerError::classify(&error, &self.host, Operation::AwaitingReplies)
        })?;
        let correlation_id = delivery.properties.correlation_id().as_ref();
        Ok(Reply {
            correlation_id: correlation_id.map(ToString::to_string).unwrap_or_default(),
            body: delivery.data,
        })
    }
}
