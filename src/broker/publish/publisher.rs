//! Publishes a worker's messages in windows, and awaits each confirm.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::types::ShortString;
use lapin::{BasicProperties, Connection};
use tokio::time::timeout;

use super::confirm_channel::{
    Confirm, ConfirmChannel, Confirms, PublishError, PublishResult, QUIET, RawMessage,
};
use super::login::PublishLogin;
use super::message::{Message, Properties};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::common::failpoint;
use crate::domain::event::Event;

/// The number of messages whose confirms are awaited together.
const WINDOW: usize = 1000;

/// The largest number of messages in flight. It exceeds the default size of a batch, so that a
/// queue that does not answer delays a batch only once.
const IN_FLIGHT: usize = 512;

/// The size of the bodies in flight, in bytes. lapin keeps copies of them until they are written. A
/// larger body is published alone.
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// The confirms of a window's messages and of the probes.
#[derive(Default)]
struct Said {
    of_window: Vec<Option<Confirm>>,
    of_probes: Vec<Confirm>,
}

/// A channel of the worker or of a command, with the login that publishes on it.
pub struct Publisher {
    channel: ConfirmChannel,
    login: PublishLogin,
    host: String,
    /// Its own connection, if it has one. It closes with the publisher.
    _connection: Option<Connection>,
}

impl Publisher {
    pub(crate) async fn open(
        connection: &Connection,
        user: &Arc<str>,
        host: &str,
        confirms: Arc<Confirms>,
    ) -> Result<Self, BrokerError> {
        Ok(Self {
            channel: ConfirmChannel::open(connection, host, confirms).await?,
            login: PublishLogin::new(user.clone(), connection),
            host: host.into(),
            _connection: None,
        })
    }

    /// The login that publishes.
    #[must_use]
    pub fn login(&self) -> &PublishLogin {
        &self.login
    }

    pub(crate) fn keeping(self, connection: Connection) -> Self {
        Self {
            _connection: Some(connection),
            ..self
        }
    }

    /// Publishes `messages` in order, awaits all confirms, and returns the result of each.
    ///
    /// # Errors
    /// If the channel or the connection fails. The results are unknown then: the messages must be
    /// published again, under the same ids.
    pub async fn publish(
        &self,
        messages: &[Message<'_>],
    ) -> Result<Vec<PublishResult>, BrokerError> {
        let results = self.publish_probing(messages, |_| None).await?.into_iter();
        // Without a probe, every message has a result.
        Ok(results
            .map(|result| result.unwrap_or(PublishResult::Refused))
            .collect())
    }

    /// Publishes `messages`, and tells a silent broker from a silent queue. If no confirm comes for
    /// a while, the event that waits longest is also published to revertd's own queue alone. If
    /// that message is confirmed first, the broker works, and the unconfirmed messages are given
    /// up. `None` is the result of such a message, which may be in any of its queues; the channel
    /// must be replaced then. Messages that were not published are missing at the end.
    ///
    /// # Errors
    /// See [`Publisher::publish`].
    pub async fn publish_probing<'q>(
        &self,
        messages: &[Message<'_>],
        own_queue: impl Fn(&Event) -> Option<&'q str>,
    ) -> Result<Vec<Option<PublishResult>>, BrokerError> {
        let mut results = Vec::with_capacity(messages.len());
        for window in messages.chunks(WINDOW) {
            results.extend(self.publish_window(window, &own_queue).await?);
            if results.contains(&None) {
                break;
            }
        }
        Ok(results)
    }

    /// Whether the broker accepts messages from this login. A broker that is out of memory or disk
    /// space reports it only to a connection that publishes. The probe has no queue, and is
    /// returned.
    ///
    /// # Errors
    /// If it does not.
    pub async fn probe(&self) -> Result<(), BrokerError> {
        let nowhere = format!("revertd.probe.{}", uuid::Uuid::new_v4());
        let probe = Message {
            exchange: "",
            routing_key: Cow::Borrowed(&nowhere),
            properties: Properties::Made(Box::new(
                BasicProperties::default()
                    .with_message_id(nowhere.as_str().into())
                    .with_user_id(self.login.user().into()),
            )),
            body: Cow::Borrowed(b""),
            is_event: false,
            mandatory: true,
        };
        self.publish(&[probe]).await.map(|_| ())
    }

    async fn publish_window<'q>(
        &self,
        window: &[Message<'_>],
        own_queue: &impl Fn(&Event) -> Option<&'q str>,
    ) -> Result<Vec<Option<PublishResult>>, BrokerError> {
        let Said {
            of_window,
            of_probes,
        } = self.said_of(window, own_queue).await?;
        let mut returned = HashSet::new();
        // lapin attaches a returned message to the next confirm; its id tells which message it is.
        for confirm in of_window.iter().flatten().chain(&of_probes) {
            if let Some(message) = &confirm.returned {
                let id = message.message_id.clone();
                returned.insert((message.exchange.clone(), message.routing_key.clone(), id));
            }
        }
        let is_returned = |message: &Message<'_>| {
            let key: ShortString = message.routing_key.as_ref().into();
            !returned.is_empty()
                && returned.contains(&(
                    message.exchange.into(),
                    key,
                    message.properties.message_id(),
                ))
        };
        let result = |(message, confirm): (&Message<'_>, &Option<Confirm>)| {
            let confirm = confirm.as_ref()?;
            Some(confirm.result(is_returned(message)))
        };
        Ok(window.iter().zip(&of_window).map(result).collect())
    }

    /// Publishes the window in parts, and collects the confirms. The timeout is for the next
    /// confirm, not for the whole window, so that a slow network has the time that it needs.
    async fn said_of<'q>(
        &self,
        window: &[Message<'_>],
        own_queue: &impl Fn(&Event) -> Option<&'q str>,
    ) -> Result<Said, BrokerError> {
        let (written, all) = (AtomicUsize::new(0), window.len());
        let mut said = Said::default();
        let (mut bytes, mut steps) = (0, 0u64);
        let mut silence = self.channel.silence();
        // The number of confirms before the probe in flight.
        let mut probing: Option<u64> = None;
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < IN_FLIGHT
                && (bytes < IN_FLIGHT_BYTES || under_way.is_empty())
                && let Some(message) = window.get(said.of_window.len())
            {
                bytes += message.body.len();
                let place = said.of_window.len();
                if place + 1 == all.div_ceil(2) && all > 1 {
                    failpoint::hit(failpoint::HALF_PUBLISHED);
                }
                let message = Cow::Borrowed(message);
                under_way.push(self.confirmed(Some(place), message, &written, all));
                said.of_window.push(None);
            }
            match timeout(QUIET, under_way.next()).await {
                Ok(None) => return Ok(said),
                Ok(Some((Some(place), confirm))) => {
                    steps += 1;
                    silence.broken();
                    bytes -= window[place].body.len();
                    said.of_window[place] = Some(confirm.map_err(|error| self.classify(&error))?);
                }
                Ok(Some((None, confirm))) => {
                    let confirm = confirm.map_err(|error| self.classify(&error))?;
                    let is_well = confirm.result(false) == PublishResult::Confirmed;
                    said.of_probes.push(confirm);
                    if probing.take() == Some(steps) && is_well {
                        return Ok(said);
                    }
                }
                Err(_) => {
                    if self.channel.is_silent(&mut silence) {
                        return Err(BrokerError::silent(&self.host));
                    }
                    if probing.is_none()
                        && let Some((event, queue)) = longest_waiting(window, &said, own_queue)
                    {
                        let probe = Cow::Owned(event.clone().straight_to(queue));
                        under_way.push(self.confirmed(None, probe, &written, usize::MAX));
                        probing = Some(steps);
                    }
                }
            }
        }
    }

    /// Publishes the message at a place of the window, or a probe, and awaits its confirm.
    async fn confirmed(
        &self,
        place: Option<usize>,
        message: Cow<'_, Message<'_>>,
        written: &AtomicUsize,
        all: usize,
    ) -> (Option<usize>, Result<Confirm, PublishError>) {
        let raw = RawMessage {
            exchange: message.exchange.into(),
            routing_key: message.routing_key.as_ref().into(),
            mandatory: message.mandatory,
            properties: message.properties.make(&self.login),
            body: &message.body,
        };
        let is_written = || {
            if written.fetch_add(1, Ordering::Relaxed) + 1 == all && message.is_event {
                failpoint::hit(failpoint::PUBLISHED);
            }
        };
        (place, self.channel.publish(raw, is_written).await)
    }

    fn classify(&self, error: &PublishError) -> BrokerError {
        error.classify(&self.host, Operation::Publishing)
    }
}

/// The event that waits longest for its confirm, and revertd's own queue for it.
fn longest_waiting<'w, 'm, 'q>(
    window: &'w [Message<'m>],
    said: &Said,
    own_queue: &impl Fn(&Event) -> Option<&'q str>,
) -> Option<(&'w Message<'m>, &'q str)> {
    let mut unconfirmed = window.iter().zip(&said.of_window);
    let (message, event) = unconfirmed.find_map(|(message, said)| {
        let event = message.event().filter(|_| said.is_none());
        event.map(|event| (message, event))
    })?;
    Some((message, own_queue(event)?))
}
