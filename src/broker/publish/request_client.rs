//! Publishes requests and receives their events, for `revertd submit`.

use std::sync::Arc;

use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection};

use super::confirm_channel::{ConfirmChannel, PublishResult, RawMessage};
use super::reply_queue::ReplyQueue;
use crate::broker::connection::{CONNECT_TIMEOUT, any_of, close, connect, within};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::common::diagnostic::Diagnostic;
use crate::config::{AmqpUrl, Settings};

/// A connection with an exclusive reply queue.
pub struct RequestClient {
    sender: RequestPublisher,
    answers: ReplyQueue,
}

/// The publishing half.
pub struct RequestPublisher {
    connection: Connection,
    channel: ConfirmChannel,
    reply_to: String,
    exchange: String,
    key: String,
    host: String,
}

/// A request to publish.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The request's id.
    pub message_id: String,
    /// The correlation id, by which its event is recognized.
    pub correlation_id: String,
    /// The body, unchanged.
    pub body: Vec<u8>,
    /// The header `x-max-attempts`, if set.
    pub max_attempts: Option<u32>,
}

impl RequestClient {
    /// Connects with the login of `amqp.url`.
    ///
    /// # Errors
    /// If the broker can't be reached or refuses.
    pub async fn connect(settings: &Settings) -> Result<Self, BrokerError> {
        let connecting = |url: AmqpUrl| async move {
            let connection = connect(&url, "revertd submit").await?;
            Ok((connection, url.host()))
        };
        let (connection, host) = any_of(&settings.amqp.url, connecting).await?;
        let channel = ConfirmChannel::open(&connection, &host, Arc::default()).await?;
        let declaring = ReplyQueue::declare(channel.channel(), &host);
        let answers = within(CONNECT_TIMEOUT, &host, declaring).await?;
        let sender = RequestPublisher {
            channel,
            reply_to: answers.name().to_string(),
            exchange: settings.topology.request_exchange.to_string(),
            key: settings.topology.request_key.to_string(),
            host,
            connection,
        };
        Ok(Self { sender, answers })
    }

    /// Both halves, to publish while events arrive.
    pub fn split(&mut self) -> (&RequestPublisher, &mut ReplyQueue) {
        (&self.sender, &mut self.answers)
    }

    /// Closes the connection, and with it the reply queue.
    pub async fn close(self) {
        close(&self.sender.connection).await;
    }
}

impl RequestPublisher {
    /// Publishes the request, and waits until the broker confirms it.
    ///
    /// # Errors
    /// If the broker refuses it, or no queue is bound for it.
    pub async fn publish(&self, submission: &Submission) -> Result<(), BrokerError> {
        match self.try_publish(submission).await? {
            PublishResult::Confirmed => Ok(()),
            PublishResult::Unroutable => Err(self.unroutable()),
            PublishResult::Refused => {
                let exchange = &self.exchange;
                let text = format!(
                    "RabbitMQ refused the request: the work queue of exchange {exchange} is full"
                );
                let remedy = "check that workers run and keep up, then send it again";
                Err(BrokerError::permanent(Diagnostic::new(text).remedy(remedy)))
            }
        }
    }

    /// The error if no queue is bound for requests.
    #[must_use]
    pub fn unroutable(&self) -> BrokerError {
        let exchange = &self.exchange;
        let text = format!("no queue is bound to the exchange {exchange} for requests");
        BrokerError::permanent(
            Diagnostic::new(text).remedy("start `revertd worker` once, which declares it"),
        )
    }

    /// Publishes the request, and returns the broker's answer.
    ///
    /// # Errors
    /// If the connection fails. Whether the broker accepted the request is unknown then.
    pub async fn try_publish(&self, submission: &Submission) -> Result<PublishResult, BrokerError> {
        let id = submission.message_id.as_str();
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(id.into())
            .with_correlation_id(submission.correlation_id.as_str().into())
            .with_reply_to(self.reply_to.as_str().into())
            .with_user_id(self.connection.status().username().into());
        if let Some(max) = submission.max_attempts {
            let mut headers = FieldTable::default();
            headers.insert("x-max-attempts".into(), AMQPValue::LongLongInt(max.into()));
            properties = properties.with_headers(headers);
        }
        let message = RawMessage {
            exchange: self.exchange.as_str().into(),
            routing_key: self.key.as_str().into(),
            mandatory: true,
            properties,
            body: &submission.body,
        };
        let publishing = Operation::PublishingTo {
            exchange: &self.exchange,
            client: None,
        };
        let confirm = self.channel.publish_in_time(message).await;
        let confirm = confirm.map_err(|error| error.classify(&self.host, publishing))?;
        // All requests go to one exchange under one key: if one has no queue, none has.
        Ok(confirm.result(confirm.returned.is_some()))
    }
}
