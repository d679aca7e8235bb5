//! Publishes one window of messages, and awaits each confirm.

use std::collections::HashSet;
use std::pin::Pin;
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
/// does not answer, the channel stops, and RabbitMQ takes 200 to 400 further messages for it. Then
/// it stops reading from the connection, and no channel of the connection gets a confirm.
const IN_FLIGHT: usize = 200;

/// The size of the bodies in flight, in bytes. lapin keeps copies of them until they are written. A
/// larger body is published alone.
const IN_FLIGHT_BYTES: usize = 1024 * 1024;

/// The longest wait for the confirm of a probe before another queue is probed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A message to another queue, while a message is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The place of the unconfirmed message.
    pub place: usize,
    /// The number of earlier probes, each for another queue.
    pub number: usize,
}

/// Publishes a probe on a channel of its own. The output is whether it was confirmed.
pub type Probing<'p> = Pin<Box<dyn Future<Output = bool> + Send + 'p>>;

/// Messages to publish on a channel.
pub struct Window<'w, 'm> {
    channel: &'w ConfirmChannel,
    login: &'w PublishLogin,
    host: &'w str,
    messages: &'w [Message<'m>],
    written: AtomicUsize,
}

/// The confirms of a window's messages.
#[derive(Default)]
pub struct WindowConfirms {
    confirms: Vec<Option<Confirm>>,
    /// The probe whose confirm showed that the broker works. The unconfirmed messages are given up.
    pub confirmed_probe: Option<Probe>,
}

/// The state of the messages in flight.
#[derive(Default)]
struct InFlight<'p> {
    window: WindowConfirms,
    /// The place of the oldest unconfirmed message.
    oldest: usize,
    bytes: usize,
    /// The number of confirmed messages.
    confirmed: usize,
    probes: usize,
    probing: Option<ProbeInFlight<'p>>,
}

struct ProbeInFlight<'p> {
    probe: Probe,
    /// The number of messages that were confirmed before it.
    confirmed: usize,
    since: Instant,
    probing: Probing<'p>,
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
    pub async fn publish<'p>(
        &self,
        probe: &impl Fn(Probe) -> Option<Probing<'p>>,
    ) -> Result<WindowConfirms, BrokerError> {
        let mut state = InFlight::default();
        let mut silence = self.channel.silence();
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some((place, message)) = state.next(self.messages) {
                if place + 1 == self.messages.len().div_ceil(2) && self.messages.len() > 1 {
                    failpoint::hit(failpoint::HALF_PUBLISHED);
                }
                under_way.push(self.confirmed(place, message));
            }
            let next = tokio::select! {
                biased;
                next = timeout(QUIET, under_way.next()) => next,
                is_confirmed = answer(&mut state.probing), if state.probing.is_some() => {
                    if state.answers(is_confirmed) {
                        return Ok(state.window);
                    }
                    continue;
                }
            };
            match next {
                Ok(None) => return Ok(state.window),
                Ok(Some((place, confirm))) => {
                    silence.broken();
                    state.confirmed(place, confirm?, self.messages[place].body.len());
                }
                Err(_) if self.channel.is_silent(&mut silence) => {
                    return Err(BrokerError::silent(self.host));
                }
                Err(_) => state.probe(probe),
            }
        }
    }

    /// The result of each published message. lapin attaches a returned message to the next confirm;
    /// its id tells which message it is.
    pub fn results(&self, window: &WindowConfirms) -> Vec<Option<PublishResult>> {
        let confirms = &window.confirms;
        let mut returned = HashSet::new();
        for confirm in confirms.iter().flatten() {
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
        self.messages.iter().zip(confirms).map(result).collect()
    }

    /// Publishes the message at a place, and awaits its confirm.
    async fn confirmed(
        &self,
        place: usize,
        message: &Message<'_>,
    ) -> (usize, Result<Confirm, BrokerError>) {
        let raw = RawMessage {
            exchange: message.exchange.into(),
            routing_key: message.routing_key.as_ref().into(),
            mandatory: message.mandatory,
            properties: message.properties.make(self.login),
            body: &message.body,
        };
        let is_written = || {
            let written = self.written.fetch_add(1, Ordering::Relaxed) + 1;
            if written == self.messages.len() && message.is_event {
                failpoint::hit(failpoint::PUBLISHED);
            }
        };
        let confirm = self.channel.publish(raw, is_written).await;
        let classify = |error: PublishError| error.classify(self.host, Operation::Publishing);
        (place, confirm.map_err(classify))
    }
}

impl<'p> InFlight<'p> {
    /// The next message to publish, unless too many are in flight.
    fn next<'w, 'm>(&mut self, messages: &'w [Message<'m>]) -> Option<(usize, &'w Message<'m>)> {
        let confirms = &mut self.window.confirms;
        while confirms.get(self.oldest).is_some_and(Option::is_some) {
            self.oldest += 1;
        }
        let place = confirms.len();
        let is_alone = self.confirmed == place;
        let has_room = place - self.oldest < IN_FLIGHT && self.bytes < IN_FLIGHT_BYTES;
        let message = messages.get(place).filter(|_| is_alone || has_room)?;
        self.bytes += message.body.len();
        confirms.push(None);
        Some((place, message))
    }

    fn confirmed(&mut self, place: usize, confirm: Confirm, bytes: usize) {
        self.bytes -= bytes;
        self.confirmed += 1;
        self.probes = 0;
        self.window.confirms[place] = Some(confirm);
    }

    /// Whether the answer of the probe shows that the broker works: no message was confirmed since
    /// the probe began.
    fn answers(&mut self, is_confirmed: bool) -> bool {
        let probing = self.probing.take();
        let newest = probing.filter(|probing| probing.confirmed == self.confirmed);
        self.window.confirmed_probe = newest.filter(|_| is_confirmed).map(|at| at.probe);
        self.window.confirmed_probe.is_some()
    }

    /// Begins a probe in place of the message that waits longest and has one, unless another probe
    /// began a short time ago.
    fn probe(&mut self, probe: &impl Fn(Probe) -> Option<Probing<'p>>) {
        let is_recent = |probing: &ProbeInFlight| probing.since.elapsed() < PROBE_TIMEOUT;
        if self.probing.as_ref().is_some_and(is_recent) {
            return;
        }
        let number = self.probes;
        let confirms = self.window.confirms.iter().enumerate();
        let mut unconfirmed = confirms.filter(|(_, confirm)| confirm.is_none());
        let begun = unconfirmed.find_map(|(place, _)| {
            let at = Probe { place, number };
            Some((at, probe(at)?))
        });
        if let Some((probe, probing)) = begun {
            self.probes += 1;
            self.probing = Some(ProbeInFlight {
                probe,
                confirmed: self.confirmed,
                since: Instant::now(),
                probing,
            });
        }
    }
}

async fn answer(probing: &mut Option<ProbeInFlight<'_>>) -> bool {
    match probing {
        Some(probing) => probing.probing.as_mut().await,
        None => std::future::pending().await,
    }
}
