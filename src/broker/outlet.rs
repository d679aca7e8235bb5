//! A channel to publish on: a window of messages at a time, each confirm awaited.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::time::timeout;

use super::delivery::Delivery;
use super::error::BrokerError;
use super::letter::Letter;
use super::message::{Message, Properties};
use super::{CONFIRM_TIMEOUT, properties};
use crate::seam;

/// Messages whose confirms are awaited together.
const WINDOW: usize = 1000;

/// Messages on their way at once: enough to keep the broker busy, and few enough to be small.
const IN_FLIGHT: usize = 256;

/// Bytes of their bodies, of which the client keeps copies until they are written; one larger body goes alone.
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// Room in a frame for what is not the publisher's own headers.
const FRAME_RESERVE: usize = 8 * 1024;

/// What the broker did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is in every queue that it was routed to, as safe as the queue makes it.
    Confirmed,
    /// No queue is bound for it; it is nowhere.
    Unroutable,
    /// A queue refused it, being full; it may be in others.
    Refused,
}

/// A channel in confirm mode.
pub struct Outlet {
    channel: Channel,
    user: Arc<str>,
    host: String,
    headers_max_bytes: usize,
    /// Closed with the outlet, where it has one of its own.
    _connection: Option<Connection>,
}

impl Outlet {
    pub(super) async fn open(
        connection: &Connection,
        user: &Arc<str>,
        host: &str,
    ) -> Result<Self, BrokerError> {
        let wrong = |error| BrokerError::classify(&error, host, "opening a channel to publish");
        let channel = connection.create_channel().await.map_err(wrong)?;
        let confirm = ConfirmSelectOptions { nowait: false };
        channel.confirm_select(confirm).await.map_err(wrong)?;
        let frame_max = connection.configuration().frame_max() as usize;
        Ok(Self {
            channel,
            user: user.clone(),
            host: host.into(),
            headers_max_bytes: frame_max.saturating_sub(FRAME_RESERVE),
            _connection: None,
        })
    }

    pub(super) fn keeping(self, connection: Connection) -> Self {
        Self {
            _connection: Some(connection),
            ..self
        }
    }

    /// Publishes `messages` in their order and tells what became of each, once the broker has said so of all.
    ///
    /// # Errors
    /// Where the channel or the connection fails. What became of the messages is then unknown: they are to be
    /// published again, under the same ids.
    pub async fn publish(&self, messages: &[Message<'_>]) -> Result<Vec<Fate>, BrokerError> {
        let mut fates = Vec::with_capacity(messages.len());
        for window in messages.chunks(WINDOW) {
            fates.extend(self.publish_window(window).await?);
        }
        Ok(fates)
    }

    /// Whether the broker takes messages at all, and as those of the user that we take ourselves for. One that is out
    /// of memory or disk tells nobody until asked to take one, nor does one that knows this login by another name; this
    /// message is for no queue, and comes back.
    ///
    /// # Errors
    /// Where it doesn't.
    pub async fn probe(&self) -> Result<(), BrokerError> {
        let nowhere = format!("revertd.probe.{}", uuid::Uuid::new_v4());
        let probe = Message {
            exchange: "",
            routing_key: Cow::Borrowed(&nowhere),
            properties: Properties::Made(Box::new(
                BasicProperties::default()
                    .with_message_id(nowhere.as_str().into())
                    .with_user_id(self.user.as_ref().into()),
            )),
            body: Cow::Borrowed(b""),
            is_event: false,
            mandatory: true,
        };
        self.publish(&[probe]).await.map(|_| ())
    }

    /// A delivery's properties as they are published again: but for what would make the broker act.
    pub(super) fn passed_on(
        &self,
        delivery: &Delivery,
        added: Vec<(&'static str, AMQPValue)>,
    ) -> BasicProperties {
        let (envelope, max_bytes) = (&delivery.envelope, self.headers_max_bytes);
        let claimed = envelope
            .claim
            .as_ref()
            .map_or(&[][..], |claim| &claim.names);
        let (read, client) = (&delivery.properties, &envelope.client);
        properties::passed_on(read, client, claimed, &self.user, added, max_bytes)
    }

    /// A dead letter's properties as it is published as a request again.
    pub(super) fn replayed(&self, letter: &Letter) -> Option<BasicProperties> {
        let (read, client) = (letter.properties.as_ref()?, &letter.client);
        let max_bytes = self.headers_max_bytes;
        Some(properties::replayed(read, client, &self.user, max_bytes))
    }

    async fn publish_window(&self, window: &[Message<'_>]) -> Result<Vec<Fate>, BrokerError> {
        let mut nacked = Vec::with_capacity(window.len());
        let mut returned = HashSet::new();
        for confirmation in self.confirmations(window).await? {
            let (nack, message) = match confirmation {
                Confirmation::Ack(message) => (false, message),
                Confirmation::Nack(message) => (true, message),
                Confirmation::NotRequested => {
                    return Err(BrokerError::passing("the channel lost its confirm mode"));
                }
            };
            nacked.push(nack);
            // A returned message hangs on whichever confirm comes next: only its own id tells whose it is.
            if let Some(message) = message {
                let message = message.delivery;
                let id = message.properties.message_id().clone();
                returned.insert((message.exchange, message.routing_key, id));
            }
        }
        let fate = |(message, nack): (&Message<'_>, bool)| {
            let key = || -> (ShortString, ShortString, Option<ShortString>) {
                let id = message.properties.message_id();
                (
                    message.exchange.into(),
                    message.routing_key.as_ref().into(),
                    id,
                )
            };
            if nack {
                Fate::Refused
            } else if !returned.is_empty() && returned.contains(&key()) {
                Fate::Unroutable
            } else {
                Fate::Confirmed
            }
        };
        Ok(window.iter().zip(nacked).map(fate).collect())
    }

    /// Publishes the window, a part of it at a time, and collects what the broker says of each. What counts is that
    /// something goes on: a slow network may take its time for the whole, and a silent one not for the next step.
    async fn confirmations(
        &self,
        window: &[Message<'_>],
    ) -> Result<Vec<Confirmation>, BrokerError> {
        let written = AtomicUsize::new(0);
        let mut under_way = FuturesOrdered::new();
        let mut bytes = 0;
        let mut done = Vec::with_capacity(window.len());
        let mut rest = window.iter();
        loop {
            while under_way.len() < IN_FLIGHT
                && (bytes < IN_FLIGHT_BYTES || under_way.is_empty())
                && let Some(message) = rest.next()
            {
                bytes += message.body.len();
                if rest.len() == window.len() / 2 && window.len() > 1 {
                    seam::pass(seam::HALF_PUBLISHED);
                }
                under_way.push_back(self.confirmed(message, &written, window.len()));
            }
            let next = timeout(CONFIRM_TIMEOUT, under_way.next()).await;
            let next = next.map_err(|_| BrokerError::silent(&self.host))?;
            match next {
                Some(step) => {
                    bytes -= window[done.len()].body.len();
                    done.push(step.map_err(|error| self.wrong(&error))?);
                }
                None => return Ok(done),
            }
        }
    }

    async fn confirmed(
        &self,
        message: &Message<'_>,
        written: &AtomicUsize,
        all: usize,
    ) -> lapin::Result<Confirmation> {
        let options = BasicPublishOptions {
            // What no queue is bound for comes back, instead of vanishing with a confirm.
            mandatory: message.mandatory,
            immediate: false,
        };
        let (exchange, key) = (message.exchange.into(), message.routing_key.as_ref().into());
        let properties = message.properties.make(self);
        let publishing =
            self.channel
                .basic_publish(exchange, key, options, &message.body, properties);
        let confirm = publishing.await?;
        if written.fetch_add(1, Ordering::Relaxed) + 1 == all && message.is_event {
            seam::pass(seam::PUBLISHED);
        }
        confirm.await
    }

    fn wrong(&self, error: &lapin::Error) -> BrokerError {
        BrokerError::classify(error, &self.host, "publishing")
    }
}
