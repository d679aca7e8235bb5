//! A channel in confirm mode, on which every message is published.
//!
//! Three facts about the broker and its client shape it:
//!
//! - The broker closes a channel at the first message that it cannot take, and drops the messages
//!   behind it. The confirms of the messages before it may be lost with the channel.
//! - The client attaches a returned message to the next confirm of the channel, which may be the
//!   confirm of another message.
//! - A broker that is short of memory or disk space stops reading and sends no confirm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind};
use tokio::time::{Instant, timeout};

use crate::broker::connection::{CONFIRM_TIMEOUT, CONNECT_TIMEOUT};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;

/// The interval at which the time since the last confirm is checked.
pub const QUIET: Duration = Duration::from_millis(500);

/// The longest wait of a channel for a confirm while other channels of its connection get some.
const CHANNEL_TIMEOUT: Duration = Duration::from_mins(2);

/// The broker's answer to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishResult {
    /// Every queue that it was routed to has accepted it.
    Confirmed,
    /// No queue is bound for it.
    Unroutable,
    /// A queue refused it, such as a full one. Other queues may have it.
    Refused,
}

/// A message as lapin takes it.
pub struct RawMessage<'a> {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    /// Whether the broker returns it if no queue is bound for it; otherwise the broker confirms and
    /// drops it.
    pub mandatory: bool,
    pub properties: BasicProperties,
    pub body: &'a [u8],
}

/// The confirm of a message.
#[derive(Debug)]
pub struct Confirm {
    /// Whether every queue that it was routed to accepted it.
    is_ack: bool,
    /// A returned message, which may be another one.
    pub returned: Option<ReturnedMessage>,
}

/// The identity of a returned message.
#[derive(Debug)]
pub struct ReturnedMessage {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub message_id: Option<ShortString>,
    pub correlation_id: Option<ShortString>,
}

/// The error of a message without a confirm.
#[derive(Debug)]
pub enum PublishError {
    /// The channel was closed already, and nothing was written.
    Unwritten(lapin::Error),
    /// The channel or the connection failed. Whether the broker took the message is unknown.
    Failed(lapin::Error),
    /// The channel is not in confirm mode. Whether the broker took the message is unknown.
    Unconfirmed,
    /// The broker sent no confirm in time. Whether it took the message is unknown.
    Silent,
}

/// The number of confirms that came on a connection. On a slow network a channel waits for its turn
/// behind others: the broker is silent only if no channel of the connection gets a confirm.
#[derive(Default)]
pub struct Confirms(AtomicU64);

/// The time without a confirm.
pub struct Silence {
    confirms: u64,
    since: Instant,
    here_since: Instant,
}

/// A channel in confirm mode.
pub struct ConfirmChannel {
    channel: Channel,
    confirms: Arc<Confirms>,
}

impl ConfirmChannel {
    /// Opens a channel. While the broker confirms messages on other channels of the connection, it
    /// is waited for, up to [`CHANNEL_TIMEOUT`].
    pub async fn open(
        connection: &Connection,
        host: &str,
        confirms: Arc<Confirms>,
    ) -> Result<Self, BrokerError> {
        let opening = async {
            let opening = Operation::OpeningChannel;
            let classify = |error| BrokerError::classify(&error, host, opening);
            let channel = connection.create_channel().await.map_err(classify)?;
            let confirm = ConfirmSelectOptions { nowait: false };
            channel.confirm_select(confirm).await.map_err(classify)?;
            Ok(channel)
        };
        tokio::pin!(opening);
        let began = Instant::now();
        loop {
            let seen = confirms.count();
            match timeout(CONNECT_TIMEOUT, &mut opening).await {
                Ok(channel) => {
                    let channel = channel?;
                    return Ok(Self { channel, confirms });
                }
                Err(_) if confirms.count() == seen || began.elapsed() >= CHANNEL_TIMEOUT => {
                    return Err(BrokerError::silent(host));
                }
                Err(_) => {}
            }
        }
    }

    /// The channel, for other methods than publishing.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the channel takes messages.
    pub fn is_open(&self) -> bool {
        self.channel.status().connected()
    }

    /// Publishes a message and waits for its confirm without a limit. `written` is called once the
    /// message is written.
    pub async fn publish(
        &self,
        message: RawMessage<'_>,
        written: impl FnOnce(),
    ) -> Result<Confirm, PublishError> {
        let options = BasicPublishOptions {
            mandatory: message.mandatory,
            immediate: false,
        };
        let (exchange, key) = (message.exchange, message.routing_key);
        let (body, properties) = (message.body, message.properties);
        let publishing = self
            .channel
            .basic_publish(exchange, key, options, body, properties);
        let confirming = publishing.await.map_err(|error| match error.kind() {
            ErrorKind::InvalidChannelState(..) => PublishError::Unwritten(error),
            _ => PublishError::Failed(error),
        })?;
        written();
        let confirmation = confirming.await.map_err(PublishError::Failed)?;
        self.confirms.0.fetch_add(1, Ordering::Relaxed);
        Confirm::read(confirmation)
    }

    /// Publishes a message and waits for its confirm until the broker is silent.
    pub async fn publish_in_time(&self, message: RawMessage<'_>) -> Result<Confirm, PublishError> {
        let publishing = self.publish(message, || ());
        tokio::pin!(publishing);
        let mut silence = self.silence();
        loop {
            match timeout(QUIET, &mut publishing).await {
                Ok(done) => return done,
                Err(_) if self.is_silent(&mut silence) => return Err(PublishError::Silent),
                Err(_) => {}
            }
        }
    }

    /// Begins to measure the time without a confirm.
    pub fn silence(&self) -> Silence {
        let now = Instant::now();
        Silence {
            confirms: self.confirms.count(),
            since: now,
            here_since: now,
        }
    }

    /// Whether a confirm is overdue: none came on the connection for [`CONFIRM_TIMEOUT`], or none
    /// on this channel for [`CHANNEL_TIMEOUT`].
    pub fn is_silent(&self, silence: &mut Silence) -> bool {
        let confirms = self.confirms.count();
        if confirms != silence.confirms {
            (silence.confirms, silence.since) = (confirms, Instant::now());
        }
        silence.since.elapsed() >= CONFIRM_TIMEOUT
            || silence.here_since.elapsed() >= CHANNEL_TIMEOUT
    }
}

impl Silence {
    /// A confirm came on this channel.
    pub fn broken(&mut self) {
        self.here_since = Instant::now();
    }
}

impl Confirms {
    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Confirm {
    fn read(confirmation: Confirmation) -> Result<Self, PublishError> {
        let is_ack = match confirmation {
            Confirmation::Ack(_) => true,
            Confirmation::Nack(_) => false,
            Confirmation::NotRequested => return Err(PublishError::Unconfirmed),
        };
        let returned = confirmation.take_message().map(|message| {
            let delivery = &message.delivery;
            ReturnedMessage {
                exchange: delivery.exchange.clone(),
                routing_key: delivery.routing_key.clone(),
                message_id: delivery.properties.message_id().clone(),
                correlation_id: delivery.properties.correlation_id().clone(),
            }
        });
        Ok(Self { is_ack, returned })
    }

    /// The result of the message; `is_returned`: the broker returned it.
    pub fn result(&self, is_returned: bool) -> PublishResult {
        match (self.is_ack, is_returned) {
            (false, _) => PublishResult::Refused,
            (true, true) => PublishResult::Unroutable,
            (true, false) => PublishResult::Confirmed,
        }
    }
}

impl PublishError {
    /// The error for the operator.
    pub fn classify(&self, host: &str, operation: Operation<'_>) -> BrokerError {
        match self {
            Self::Unwritten(error) | Self::Failed(error) => {
                BrokerError::classify(error, host, operation)
            }
            Self::Unconfirmed => BrokerError::transient("the channel lost its confirm mode"),
            Self::Silent => BrokerError::silent(host),
        }
    }
}
