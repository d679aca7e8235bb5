//! A channel to publish on: a window of messages at a time, each confirm awaited.

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

/// Messages whose confirms are awaited together.
const WINDOW: usize = 1000;

/// Messages on their way at once: enough to keep the broker busy, and few enough to be small. More
/// than a batch has by default, so that a queue that does not answer is found out once for all of
/// it.
const IN_FLIGHT: usize = 512;

/// Bytes of their bodies, of which the client keeps copies until they are written; one larger body
/// goes alone.
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// What the broker said of the messages of a window that were published, and of probes.
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
    /// Closed with the publisher, where it has one of its own.
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

    /// Publishes `messages` in their order and tells what became of each, once the broker has said
    /// so of all.
    ///
    /// # Errors
    /// Where the channel or the connection fails. What became of the messages is then unknown: they
    /// are to be published again, under the same ids.
    pub async fn publish(
        &self,
        messages: &[Message<'_>],
    ) -> Result<Vec<PublishResult>, BrokerError> {
        let results = self.publish_probing(messages, |_| None).await?.into_iter();
        // Without a probe nothing is given up.
        Ok(results
            .map(|result| result.unwrap_or(PublishResult::Refused))
            .collect())
    }

    /// The same, and finds out whether the broker or a queue is silent. Where nothing is confirmed
    /// for a while, the event that waits longest is also published to revertd's own queue for it,
    /// and to no other: if that is confirmed, the broker is well, and what is not confirmed is
    /// given up. `None` stands for such a message, which may be in any of its queues; the channel
    /// is then to be replaced. What was not published any more is missing at the end.
    ///
    /// # Errors
    /// As of [`Publisher::publish`].
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

    /// Whether the broker takes messages at all, and as those of the user that we take ourselves
    /// for. One that is out of memory or disk tells nobody until asked to take one, nor does one
    /// that knows this login by another name; this message is for no queue, and comes back.
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
        // A returned message hangs on whichever confirm comes next: only its own id tells whose it
        // is.
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

    /// Publishes the window, a part of it at a time, and collects what the broker says of each.
    /// What counts is that something goes on: a slow network may take its time for the whole, and a
    /// silent one not for the next step.
    async fn said_of<'q>(
        &self,
        window: &[Message<'_>],
        own_queue: &impl Fn(&Event) -> Option<&'q str>,
    ) -> Result<Said, BrokerError> {
        let (written, all) = (AtomicUsize::new(0), window.len());
        let mut said = Said::default();
        let (mut bytes, mut steps) = (0, 0u64);
        let mut silence = self.channel.silence();
        // The steps before the probe that is under way.
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

    /// What the broker says of the message at that place of the window, or of a probe.
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
