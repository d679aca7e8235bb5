//! A publisher of requests, that waits for their events.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer};
use tokio::time::timeout;

use super::publisher::PublishResult;
use super::reply_queue;
use crate::broker::connection::{
    CLOSE_TIMEOUT, CONFIRM_TIMEOUT, CONNECT_TIMEOUT, any_of, connect, within,
};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::common::diagnostic::Diagnostic;
use crate::config::{AmqpUrl, Settings};

/// A connection with a reply queue of its own, which goes with it.
pub struct RequestClient {
    sender: RequestPublisher,
    answers: ReplyReceiver,
}

/// Its half that publishes.
pub struct RequestPublisher {
    connection: Connection,
    channel: Channel,
    reply_to: String,
    exchange: String,
    key: String,
    host: String,
}

/// Its half that receives.
pub struct ReplyReceiver {
    replies: Consumer,
    reply_to: String,
    host: String,
}

/// What came to the reply queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The correlation id of the request that it answers.
    pub correlation_id: String,
    /// The event.
    pub event: Vec<u8>,
}

/// A request to publish.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The request's id.
    pub message_id: String,
    /// What its event is known by.
    pub correlation_id: String,
    /// The body, as it is.
    pub body: Vec<u8>,
    /// Header `x-max-attempts`, where given.
    pub max_attempts: Option<u32>,
}

impl RequestClient {
    /// Connects with the login of `amqp.url`.
    ///
    /// # Errors
    /// Where the broker can't be reached or refuses.
    pub async fn connect(settings: &Settings) -> Result<Self, BrokerError> {
        let connecting = |url: AmqpUrl| async move {
            let connection = connect(&url, "revertd submit").await?;
            Ok((connection, url.host()))
        };
        let (connection, host) = any_of(&settings.amqp.url, connecting).await?;
        let opening = async {
            let opening = Operation::OpeningChannel;
            let classify = |error| BrokerError::classify(&error, &host, opening);
            let channel = connection.create_channel().await.map_err(classify)?;
            let confirm = ConfirmSelectOptions { nowait: false };
            channel.confirm_select(confirm).await.map_err(classify)?;
            let (replies, name) = reply_queue::declare(&channel, &host).await?;
            let reply_to = name.to_string();
            Ok((channel, replies, reply_to))
        };
        let (channel, replies, reply_to) = within(CONNECT_TIMEOUT, &host, opening).await?;
        let answers = ReplyReceiver {
            replies,
            reply_to: reply_to.clone(),
            host: host.clone(),
        };
        let sender = RequestPublisher {
            channel,
            reply_to,
            exchange: settings.topology.request_exchange.to_string(),
            key: settings.topology.request_key.to_string(),
            host,
            connection,
        };
        Ok(Self { sender, answers })
    }

    /// Its halves, to publish while events come.
    pub fn split(&mut self) -> (&RequestPublisher, &mut ReplyReceiver) {
        (&self.sender, &mut self.answers)
    }

    /// Closes the connection, and with it the reply queue.
    pub async fn close(self) {
        let closing = self.sender.connection.close(200, "bye".into());
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

impl RequestPublisher {
    /// Publishes the request; once this returns, the broker has it.
    ///
    /// # Errors
    /// Where the broker does not take it, or no queue is bound for it.
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

    /// The error where no queue is bound for requests.
    #[must_use]
    pub fn unroutable(&self) -> BrokerError {
        let exchange = &self.exchange;
        let text = format!("no queue is bound to the exchange {exchange} for requests");
        BrokerError::permanent(
            Diagnostic::new(text).remedy("start `revertd worker` once, which declares it"),
        )
    }

    /// Publishes the request, and tells what the broker did with it.
    ///
    /// # Errors
    /// Where the connection fails; then nobody knows.
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
        let publishing = async {
            let publishing = Operation::PublishingTo {
                exchange: &self.exchange,
                client: None,
            };
            let classify = |error| BrokerError::classify(&error, &self.host, publishing);
            let options = BasicPublishOptions {
                mandatory: true,
                immediate: false,
            };
            let confirm = self
                .channel
                .basic_publish(
                    self.exchange.as_str().into(),
                    self.key.as_str().into(),
                    options,
                    &submission.body,
                    properties,
                )
                .await
                .map_err(classify)?;
            confirm.await.map_err(classify)
        };
        match within(CONFIRM_TIMEOUT, &self.host, publishing).await? {
            Confirmation::Ack(None) => Ok(PublishResult::Confirmed),
            Confirmation::Ack(Some(_)) => Ok(PublishResult::Unroutable),
            Confirmation::Nack(_) | Confirmation::NotRequested => Ok(PublishResult::Refused),
        }
    }
}

impl ReplyReceiver {
    /// Waits for the event that answers `correlation_id`; `None` where none came in time.
    ///
    /// # Errors
    /// Where the connection fails meanwhile. The request goes on all the same.
    pub async fn event(
        &mut self,
        correlation_id: &str,
        limit: Duration,
    ) -> Result<Option<Vec<u8>>, BrokerError> {
        let waiting = async {
            loop {
                let answer = self.next().await?;
                if answer.correlation_id == correlation_id {
                    return Ok(answer.event);
                }
            }
        };
        timeout(limit, waiting).await.ok().transpose()
    }

    /// Waits for the next event, whichever request it answers. Cancel-safe.
    ///
    /// # Errors
    /// Where the connection fails meanwhile. The requests go on all the same.
    pub async fn next(&mut self) -> Result<Reply, BrokerError> {
        let Some(delivery) = self.replies.next().await else {
            return Err(BrokerError::ended(&self.reply_to));
        };
        let delivery = delivery.map_err(|error| {
            BrokerError::classify(&error, &self.host, Operation::AwaitingReplies)
        })?;
        let correlation_id = delivery.properties.correlation_id().as_ref();
        Ok(Reply {
            correlation_id: correlation_id.map(ToString::to_string).unwrap_or_default(),
            event: delivery.data,
        })
    }
}
