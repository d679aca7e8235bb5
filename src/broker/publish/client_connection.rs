//! The connection of a gateway's client, under the client's own login, so that the broker's
//! permissions apply to it.
//!
//! All requests of a client share one channel, and their confirms are awaited concurrently. Id and
//! secret are in `credentials.rs`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Connection, ErrorKind};

use super::confirm_channel::{
    Confirm, ConfirmChannel, Confirms, PublishError, PublishResult, RawMessage,
};
use super::reply_router::{Correlation, PendingReply, RequestResult};
use crate::broker::connection::credentials::{Credentials, Plain};
use crate::broker::connection::{any_of, close, connect_as};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::broker::properties::{MAX_ATTEMPTS, TRACEPARENT};
use crate::config::{AmqpUrl, Settings};

/// The number of channels that a request tries if each turns out to be closed.
const TRIES: usize = 3;

/// The error of a client that has no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientConnectionError {
    /// The broker has no user with this name and password.
    #[error("{0}")]
    Refused(BrokerError),
    /// The user may not use the virtual host.
    #[error("{0}")]
    Barred(BrokerError),
    /// The broker can't be asked at present.
    #[error("{0}")]
    Unavailable(BrokerError),
}

/// A request to publish under a client's login.
#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    /// The request's id.
    pub message_id: String,
    /// The body, unchanged.
    pub body: Bytes,
    /// The W3C `traceparent`.
    pub traceparent: Option<String>,
}

/// A client's connection. It closes when its last user drops it.
pub struct ClientConnection {
    client: String,
    connection: Connection,
    outgoing: Mutex<Arc<ClientChannel>>,
    opening: tokio::sync::Mutex<()>,
    exchange: ShortString,
    key: ShortString,
    host: String,
    /// The confirms of all its channels.
    confirms: Arc<Confirms>,
    silent: AtomicBool,
}

/// The channel that requests are published on.
struct ClientChannel {
    channel: ConfirmChannel,
    /// Whether the broker confirmed a message on it: the exchange exists, and the client may write
    /// to it.
    proven: AtomicBool,
    /// Held until the channel is proven, so that the first message is in flight alone, and a
    /// failure has one possible cause.
    first: tokio::sync::Mutex<()>,
    /// The number of messages without a confirm.
    unsettled: AtomicUsize,
}

impl ClientConnection {
    /// Logs in.
    ///
    /// # Errors
    /// If the login is refused, or the broker can't be reached.
    pub async fn open(
        settings: &Settings,
        credentials: Credentials,
    ) -> Result<Self, ClientConnectionError> {
        let client = credentials.id.clone();
        let credentials = &credentials;
        let connecting = |url: AmqpUrl| async move {
            let connected = connect_as(&url, "revertd gateway", Plain::new(credentials)).await;
            match connected {
                Ok(connection) => Ok(Ok((connection, url.host()))),
                // A refusal by one node counts for all nodes.
                Err(error) if error.is_login_refused() => {
                    Ok(Err(ClientConnectionError::Refused(error)))
                }
                Err(error) if error.is_host_refused() => {
                    Ok(Err(ClientConnectionError::Barred(error)))
                }
                Err(error) => Err(error),
            }
        };
        let connected = any_of(&settings.amqp.url, connecting).await;
        let (connection, host) = connected.map_err(ClientConnectionError::Unavailable)??;
        let confirms = Arc::default();
        let outgoing = ClientChannel::open(&connection, &host, &confirms).await;
        Ok(Self {
            client,
            outgoing: Mutex::new(Arc::new(
                outgoing.map_err(ClientConnectionError::Unavailable)?,
            )),
            connection,
            opening: tokio::sync::Mutex::new(()),
            exchange: settings.topology.request_exchange.as_str().into(),
            key: settings.topology.request_key.as_str().into(),
            host,
            confirms,
            silent: AtomicBool::new(false),
        })
    }

    /// The client's id.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Whether it can be used. If not, a new one must be opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.status().connected() && !self.silent.load(Ordering::Relaxed)
    }

    /// Publishes a request in a task of its own, and passes on the broker's answer to the caller
    /// that waits. The task goes on if the caller is dropped, since neither a confirm nor a
    /// returned message may be lost.
    pub fn publish(self: &Arc<Self>, posting: OutgoingRequest, expected: &PendingReply) {
        let (login, correlation) = (self.clone(), expected.correlation());
        tokio::spawn(async move {
            if let Some(answer) = login.settle(&posting, &correlation).await {
                correlation.answer(answer);
            }
        });
    }

    /// Closes the connection.
    pub async fn close(&self) {
        close(&self.connection).await;
    }

    /// The result of the request. `None` if the broker accepted it; its event is the answer then.
    async fn settle(
        &self,
        posting: &OutgoingRequest,
        correlation: &Correlation,
    ) -> Option<RequestResult> {
        let mut tries = 0;
        while tries < TRIES {
            if self.connection.status().blocked() {
                let reason = "memory or disk space is low";
                return Some(RequestResult::Unsent(BrokerError::blocked(
                    &self.host, reason,
                )));
            }
            let outgoing = match self.outgoing().await {
                Ok(outgoing) => outgoing,
                Err(error) => return Some(RequestResult::Unsent(error)),
            };
            let _turn = outgoing.turn().await;
            if self.silent.load(Ordering::Relaxed) {
                return Some(RequestResult::Unsent(BrokerError::silent(&self.host)));
            }
            if !outgoing.channel.is_open() {
                // Another request closed the channel; nothing of this one was written.
                continue;
            }
            tries += 1;
            let confirm = match outgoing.publish(self.message(posting, correlation)).await {
                Ok(confirm) => confirm,
                // The channel was closed meanwhile.
                Err(PublishError::Unwritten(_)) => continue,
                Err(PublishError::Unconfirmed) => return Some(RequestResult::Lost),
                Err(PublishError::Silent) => {
                    // The confirm is given up, and so is this connection.
                    self.silent.store(true, Ordering::Relaxed);
                    return Some(RequestResult::Lost);
                }
                Err(PublishError::Failed(error)) => return Some(self.failed(&error, &outgoing)),
            };
            // The message that came back may be another request.
            if let Some(returned) = &confirm.returned {
                let other = returned.correlation_id.as_ref();
                correlation.answer_other(other, RequestResult::Unroutable);
            }
            let is_full = confirm.result(false) == PublishResult::Refused;
            return is_full.then_some(RequestResult::Full);
        }
        let error = BrokerError::transient(format!(
            "the broker closed {TRIES} channels of user {} in a row",
            self.client
        ));
        Some(RequestResult::Unsent(error))
    }

    fn message<'a>(
        &self,
        posting: &'a OutgoingRequest,
        correlation: &Correlation,
    ) -> RawMessage<'a> {
        RawMessage {
            exchange: self.exchange.clone(),
            routing_key: self.key.clone(),
            mandatory: true,
            properties: self.properties(posting, correlation),
            body: &posting.body,
        }
    }

    fn properties(&self, posting: &OutgoingRequest, correlation: &Correlation) -> BasicProperties {
        let mut headers = FieldTable::default();
        // An HTTP client waits, so an unknown usage is refused at once instead of retried.
        headers.insert(MAX_ATTEMPTS.into(), AMQPValue::LongInt(1));
        if let Some(traceparent) = &posting.traceparent {
            let text = AMQPValue::LongString(traceparent.as_str().into());
            headers.insert(TRACEPARENT.into(), text);
        }
        BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(posting.message_id.as_str().into())
            .with_correlation_id(correlation.id.to_string().into())
            .with_reply_to(correlation.reply_to.clone())
            .with_user_id(self.client.as_str().into())
            .with_headers(headers)
    }

    /// The result of a request whose channel or connection ended while it was in flight.
    ///
    /// The broker handles a channel's messages in order, closes the channel at the first that it
    /// can't accept, and drops the messages behind it. The messages before it are accepted, and
    /// their confirms may be lost with the channel. If several messages have no confirm, it is
    /// unknown which one was refused; if only one has none, it is that one.
    fn failed(&self, error: &lapin::Error, outgoing: &ClientChannel) -> RequestResult {
        let ErrorKind::ProtocolError(amqp) = error.kind() else {
            return RequestResult::Lost;
        };
        if outgoing.unsettled.load(Ordering::SeqCst) != 1 {
            return RequestResult::Lost;
        }
        let publishing = Operation::PublishingTo {
            exchange: self.exchange.as_str(),
            client: Some(&self.client),
        };
        match amqp.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => RequestResult::Unroutable,
            AMQPErrorKind::Soft(
                AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED,
            ) => RequestResult::Forbidden(BrokerError::classify(error, &self.host, publishing)),
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => RequestResult::Lost,
        }
    }

    /// The channel, or a new one if it was closed.
    async fn outgoing(&self) -> Result<Arc<ClientChannel>, BrokerError> {
        let open = |outgoing: &Arc<ClientChannel>| outgoing.channel.is_open();
        if let Some(outgoing) = Some(self.current()).filter(open) {
            return Ok(outgoing);
        }
        let _opening = self.opening.lock().await;
        if let Some(outgoing) = Some(self.current()).filter(open) {
            return Ok(outgoing);
        }
        let fresh =
            Arc::new(ClientChannel::open(&self.connection, &self.host, &self.confirms).await?);
        let mut current = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        *current = fresh.clone();
        Ok(fresh)
    }

    fn current(&self) -> Arc<ClientChannel> {
        let current = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }
}

impl ClientChannel {
    async fn open(
        connection: &Connection,
        host: &str,
        confirms: &Arc<Confirms>,
    ) -> Result<Self, BrokerError> {
        Ok(Self {
            channel: ConfirmChannel::open(connection, host, confirms.clone()).await?,
            proven: AtomicBool::new(false),
            first: tokio::sync::Mutex::new(()),
            unsettled: AtomicUsize::new(0),
        })
    }

    async fn publish(&self, message: RawMessage<'_>) -> Result<Confirm, PublishError> {
        // Counted before it is written: a message that fails meanwhile must not count as the only
        // one.
        self.unsettled.fetch_add(1, Ordering::SeqCst);
        let published = self.channel.publish_in_time(message).await;
        if published.is_ok() {
            self.proven.store(true, Ordering::SeqCst);
        }
        if matches!(published, Ok(_) | Err(PublishError::Unwritten(_))) {
            self.unsettled.fetch_sub(1, Ordering::SeqCst);
        }
        published
    }

    /// Waits until the message may be written: one at a time until the channel is proven.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.proven.load(Ordering::SeqCst) {
            return None;
        }
        let turn = self.first.lock().await;
        (!self.proven.load(Ordering::SeqCst)).then_some(turn)
    }
}
