//! Publishes one window of messages, and awaits each confirm.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::types::ShortString;
use tokio::time::{Instant, timeout};

use super::confirm_channel::{
    Confirm, ConfirmChannel, PublishError, PublishResult, QUIET, RawMessage,
};
use super::login::PublishLogin;
use super::message::Message;
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::common::failpoint;

/// The largest number of messages from the oldest unconfirmed one to the newest. If a quorum queue
/// does not answer, RabbitMQ takes about 200 further messages of the channel. Then it stops reading
/// from the connection, and no channel of the connection gets a confirm.
const IN_FLIGHT: usize = 200;

/// The size of the bodies in flight, in bytes. lapin keeps copies of them until they are written. A
/// larger body is published alone.
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// The longest wait for the confirm of a probe before another queue is probed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A message for another queue, published while a message is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The place of the unconfirmed message.
    pub place: usize,
    /// The number of earlier probes, each for another queue.
    pub number: usize,
}

/// Messages to publish on a channel.
pub struct Window<'w, 'm> {
    channel: &'w ConfirmChannel,
    login: &'w PublishLogin,
    host: &'w str,
    messages: &'w [Message<'m>],
    written: AtomicUsize,
}

/// The confirms of a window's messages and of the probes.
#[derive(Default)]
pub struct WindowConfirms {
    of_messages: Vec<Option<Confirm>>,
    of_probes: Vec<Confirm>,
    /// The probe whose confirm showed that the broker works.
    pub confirmed_probe: Option<Probe>,
    /// Whether confirms are outstanding.
    pub is_outstanding: bool,
}

/// A published message: of the window, by its place, or a probe.
#[derive(Clone, Copy)]
enum Sent {
    Message(usize),
    Probe(Probe),
}

/// The state of the messages in flight.
struct InFlight {
    confirms: WindowConfirms,
    /// The place of the oldest unconfirmed message.
    oldest: usize,
    bytes: usize,
    /// The number of confirmed messages.
    confirmed: usize,
    probes: usize,
    probing: Option<ProbeInFlight>,
}

/// The newest probe in flight.
struct ProbeInFlight {
    probe: Probe,
    /// The number of messages that were confirmed before it.
    confirmed: usize,
    since: Instant,
}

impl<'w, 'm> Window<'w, 'm> {
    pub fn new(
        channel: &'w ConfirmChannel,
        login: &'w PublishLogin,
        host: &'w str,
        messages: &'w [Message<'m>],
    ) -> Self {
        Self {
            channel,
            login,
            host,
            messages,
            written: AtomicUsize::new(0),
        }
    }

    /// Publishes the window in parts, and collects the confirms. The timeout is for the next
    /// confirm, not for the whole window, so that a slow network has the time that it needs.
    pub async fn publish<'q>(
        &self,
        probe: &impl Fn(Probe) -> Option<Message<'q>>,
    ) -> Result<WindowConfirms, BrokerError> {
        let mut state = InFlight::new();
        let mut silence = self.channel.silence();
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some((place, message)) = state.next(self.messages) {
                if place + 1 == self.messages.len().div_ceil(2) && self.messages.len() > 1 {
                    failpoint::hit(failpoint::HALF_PUBLISHED);
                }
                under_way.push(self.confirmed(Sent::Message(place), Cow::Borrowed(message)));
            }
            match timeout(QUIET, under_way.next()).await {
                Ok(None) => return Ok(state.confirms),
                Ok(Some((Sent::Message(place), confirm))) => {
                    silence.broken();
                    state.confirmed(place, confirm?, self.messages[place].body.len());
                }
                Ok(Some((Sent::Probe(probe), confirm))) => {
                    if state.answers(probe, confirm?) {
                        return Ok(state.confirms);
                    }
                }
                Err(_) if self.channel.is_silent(&mut silence) => {
                    return Err(BrokerError::silent(self.host));
                }
                Err(_) if state.confirmed == self.messages.len() => {
                    // Only probes are in flight.
                    state.confirms.is_outstanding = true;
                    return Ok(state.confirms);
                }
                Err(_) => {
                    if let Some((at, message)) = state.next_probe(probe) {
                        under_way.push(self.confirmed(Sent::Probe(at), Cow::Owned(message)));
                    }
                }
            }
        }
    }

    /// The result of each published message. lapin attaches a returned message to the next confirm;
    /// its id tells which message it is.
    pub fn results(&self, confirms: &WindowConfirms) -> Vec<Option<PublishResult>> {
        let of_messages = &confirms.of_messages;
        let mut returned = HashSet::new();
        for confirm in of_messages.iter().flatten().chain(&confirms.of_probes) {
            if let Some(message) = &confirm.returned {
                let id = message.message_id.clone();
                returned.insert((message.exchange.clone(), message.routing_key.clone(), id));
            }
        }
        let is_returned = |message: &Message<'_>| {
            if returned.is_empty() {
                return false;
            }
            let key: ShortString = message.routing_key.as_ref().into();
            let id = message.properties.message_id();
            returned.contains(&(message.exchange.into(), key, id))
        };
        let result = |(message, confirm): (&Message<'_>, &Option<Confirm>)| {
            let confirm = confirm.as_ref()?;
            Some(confirm.result(is_returned(message)))
        };
        self.messages.iter().zip(of_messages).map(result).collect()
    }

    /// Publishes a message, and awaits its confirm.
    async fn confirmed(
        &self,
        sent: Sent,
        message: Cow<'_, Message<'_>>,
    ) -> (Sent, Result<Confirm, BrokerError>) {
        let raw = RawMessage {
            exchange: message.exchange.into(),
            routing_key: message.routing_key.as_ref().into(),
            mandatory: message.mandatory,
            properties: message.properties.make(self.login),
            body: &message.body,
        };
        let is_written = || {
            if matches!(sent, Sent::Message(_))
                && self.written.fetch_add(1, Ordering::Relaxed) + 1 == self.messages.len()
                && message.is_event
            {
                failpoint::hit(failpoint::PUBLISHED);
            }
        };
        let confirm = self.channel.publish(raw, is_written).await;
        let classify = |error: PublishError| error.classify(self.host, Operation::Publishing);
        (sent, confirm.map_err(classify))
    }
}

impl InFlight {
    fn new() -> Self {
        Self {
            confirms: WindowConfirms::default(),
            oldest: 0,
            bytes: 0,
            confirmed: 0,
            probes: 0,
            probing: None,
        }
    }

    /// The next message to publish, unless too many are in flight.
    fn next<'w, 'm>(&mut self, messages: &'w [Message<'m>]) -> Option<(usize, &'w Message<'m>)> {
        let of_messages = &mut self.confirms.of_messages;
        while of_messages.get(self.oldest).is_some_and(Option::is_some) {
            self.oldest += 1;
        }
        let place = of_messages.len();
        let is_alone = self.confirmed == place;
        let has_room = place - self.oldest < IN_FLIGHT && self.bytes < IN_FLIGHT_BYTES;
        let message = messages.get(place).filter(|_| is_alone || has_room)?;
        self.bytes += message.body.len();
        of_messages.push(None);
        Some((place, message))
    }

    fn confirmed(&mut self, place: usize, confirm: Confirm, bytes: usize) {
        self.bytes -= bytes;
        self.confirmed += 1;
        self.confirms.of_messages[place] = Some(confirm);
    }

    /// Whether the confirm of a probe shows that the broker works: no message was confirmed since
    /// the probe was published.
    fn answers(&mut self, probe: Probe, confirm: Confirm) -> bool {
        let is_taken = confirm.result(false) == PublishResult::Confirmed;
        self.confirms.of_probes.push(confirm);
        let newest = self.probing.take_if(|probing| probing.probe == probe);
        let answers = newest.is_some_and(|probing| is_taken && probing.confirmed == self.confirmed);
        if answers {
            self.confirms.confirmed_probe = Some(probe);
            self.confirms.is_outstanding = true;
        }
        answers
    }

    /// The next probe, unless one is in flight: in place of the message that waits longest and has
    /// one.
    fn next_probe<'q>(
        &mut self,
        probe: &impl Fn(Probe) -> Option<Message<'q>>,
    ) -> Option<(Probe, Message<'q>)> {
        let is_recent = |probing: &ProbeInFlight| probing.since.elapsed() < PROBE_TIMEOUT;
        if self.probing.as_ref().is_some_and(is_recent) {
            return None;
        }
        let number = self.probes;
        let of_messages = self.confirms.of_messages.iter().enumerate();
        let mut unconfirmed = of_messages.filter(|(_, confirm)| confirm.is_none());
        let (at, message) = unconfirmed.find_map(|(place, _)| {
            let at = Probe { place, number };
            Some((at, probe(at)?))
        })?;
        self.probes += 1;
        self.probing = Some(ProbeInFlight {
            probe: at,
            confirmed: self.confirmed,
            since: Instant::now(),
        });
        Some((at, message))
    }
}
