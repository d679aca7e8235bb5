//! A client's own connection: what the broker lets it do is what it may.
//!
//! All requests of a client go over one channel, their confirms awaited beside each other. Id and
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

/// How often a request is given to a channel that turns out to be closed.
const TRIES: usize = 3;

/// Why a client has no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientConnectionError {
    /// The broker knows no user of that name and password.
    #[error("{0}")]
    Refused(BrokerError),
    /// It knows the user, who may not use the virtual host.
    #[error("{0}")]
    Barred(BrokerError),
    /// It can't be asked at present.
    #[error("{0}")]
    Unavailable(BrokerError),
}

/// A request to publish under a client's login.
#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    /// The request's id.
    pub message_id: String,
    /// The body, as it is.
    pub body: Bytes,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// A client's connection; closed when the last who uses it is done.
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
    /// Whether the broker settled anything on it: the exchange is there, and the client may write
    /// to it.
    proven: AtomicBool,
    /// Held until then, so that the first message is under way alone, and its failure is certain to
    /// be its own.
    first: tokio::sync::Mutex<()>,
    /// Messages of which the broker has not said what became of them.
    unsettled: AtomicUsize,
}

impl ClientConnection {
    /// Logs in.
    ///
    /// # Errors
    /// Whether it is the client or the broker that can't be worked with.
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
                // What one node refuses, no other needs to be asked.
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

    /// Whether it can be used; if not, a new one is to be made.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection.status().connected() && !self.silent.load(Ordering::Relaxed)
    }

    /// Publishes a request, and tells who waits for it what the broker says of it. It goes on by
    /// itself: neither a confirm nor a returned message may be given up halfway.
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

    /// What became of the request; `None` where it was taken, and its event answers it.
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
                // Another request's end; nothing was written of this one.
                continue;
            }
            tries += 1;
            let confirm = match outgoing.publish(self.message(posting, correlation)).await {
                Ok(confirm) => confirm,
                // Closed since it was looked at.
                Err(PublishError::Unwritten(_)) => continue,
                Err(PublishError::Unconfirmed) => return Some(RequestResult::Lost),
                Err(PublishError::Silent) => {
                    // The confirm is given up, and with it this connection.
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
        // Somebody waits: an unknown usage is refused at once, instead of being looked for again.
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

    /// What it means that the channel or the connection ended while the request was under way.
    ///
    /// The broker works on a channel's messages in their order, closes it at the first that it
    /// can't take, and drops those behind that. Those before it are taken, and their confirms may
    /// be lost with the channel. So of several of which nothing was said, one is not taken, and
    /// nobody can say which; of one alone it is certain.
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

    /// The channel; a new one where the last was closed.
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
        // Before it is written: a message that fails meanwhile must not take itself for the only
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

    /// Waits for the turn of a message: one at a time, until the channel is proven.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.proven.load(Ordering::SeqCst) {
            return None;
        }
        let turn = self.first.lock().await;
        (!self.proven.load(Ordering::SeqCst)).then_some(turn)
    }
}
