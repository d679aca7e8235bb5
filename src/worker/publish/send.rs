//! Publishes messages on a worker's channel, and replaces the channel when that is needed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::error;

use super::super::batch_recorder::BatchRecorder;
use super::super::messages::{MessageRole, Outgoing};
use super::super::shared::Shared;
use super::reroute::Rerouted;
use super::silent_queues::Permit;
use crate::broker::{Broker, BrokerError, Message, Probe, Probing, PublishResult, Publisher};
use crate::common::backoff::Backoff;
use crate::telemetry;

/// The longest time for which a worker keeps a batch whose messages no queue takes. It is well
/// below the broker's acknowledgement timeout.
const HOLD_AT_MOST: Duration = Duration::from_mins(10);

/// A channel to publish on, and the connections that open its successor.
pub struct Sender {
    pub shared: Arc<Shared>,
    pub broker: Arc<Broker>,
    publisher: Publisher,
}

/// A wait with a batch in flight, while the broker refuses its messages.
pub struct PublishHold {
    began: Instant,
    backoff: Backoff,
    /// Readiness shows the pause as long as this is there.
    refusing: Option<telemetry::PublishRefusal>,
}

/// Messages that are not confirmed.
#[derive(Default)]
pub struct Unconfirmed<'a> {
    pub refused: Vec<Outgoing<'a>>,
    /// A queue did not answer. It may have them.
    pub unanswered: Vec<Outgoing<'a>>,
    /// Not published, since earlier ones were not answered.
    unsent: Vec<Outgoing<'a>>,
}

impl PublishHold {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            refusing: None,
        }
    }

    pub fn is_over(&self) -> bool {
        self.began.elapsed() >= HOLD_AT_MOST
    }

    /// Waits for the backoff. A stop waits with it, as long as it may.
    pub async fn wait(&mut self, shared: &Shared, error: &BrokerError) {
        let wait = self.backoff.next_wait();
        let event = "publishing_paused";
        error!(event, %error, retry_in = ?wait, "paused: publishing");
        let refused = || shared.telemetry.status.refused();
        self.refusing.get_or_insert_with(refused);
        sleep(wait).await;
    }
}

impl<'a> Unconfirmed<'a> {
    pub fn all(&self) -> impl Iterator<Item = &Outgoing<'a>> {
        let all = self.refused.iter().chain(&self.unanswered);
        all.chain(&self.unsent)
    }

    pub fn first(&self) -> Option<&Outgoing<'a>> {
        self.all().next()
    }

    pub fn count(&self) -> usize {
        self.all().count()
    }

    pub fn into_all(self) -> Vec<Outgoing<'a>> {
        let all = self.refused.into_iter().chain(self.unanswered);
        all.chain(self.unsent).collect()
    }

    fn add_to(mut self, all: &mut Self) {
        all.refused.append(&mut self.refused);
        all.unanswered.append(&mut self.unanswered);
        all.unsent.append(&mut self.unsent);
    }

    /// Sorts messages by their results. Events without a queue are counted and logged.
    fn sort(
        messages: impl Iterator<Item = ((Vec<usize>, MessageRole), Message<'a>)>,
        results: Vec<Option<PublishResult>>,
        shared: &Shared,
    ) -> Result<Self, BrokerError> {
        use PublishResult::{Confirmed, Refused, Unroutable};
        let mut sent = Self::default();
        let mut unroutable = Vec::new();
        let mut results = results.into_iter();
        for ((indexes, role), message) in messages {
            let outgoing = |message| Outgoing {
                indexes,
                role,
                message,
            };
            match (results.next(), role) {
                (Some(Some(Confirmed)), _) => {}
                (Some(Some(Refused)), _) | (Some(Some(Unroutable)), MessageRole::OwnEvent) => {
                    sent.refused.push(outgoing(message));
                }
                (Some(Some(Unroutable)), MessageRole::Event) => unroutable.push(message),
                // It would be lost. The next generation declares what is missing.
                (Some(Some(Unroutable)), MessageRole::Letter | MessageRole::Waiting) => {
                    return Err(message.undeliverable());
                }
                (Some(None), _) => sent.unanswered.push(outgoing(message)),
                (None, _) => sent.unsent.push(outgoing(message)),
            }
        }
        let exchange = shared.settings.topology.reply_exchange.as_str();
        shared.logs.unroutable(&unroutable, exchange);
        Ok(sent)
    }
}

impl Sender {
    pub fn new(shared: Arc<Shared>, broker: Arc<Broker>, publisher: Publisher) -> Self {
        Self {
            shared,
            broker,
            publisher,
        }
    }

    /// Replaces the channel.
    pub async fn reopen(&mut self) -> Result<(), BrokerError> {
        self.publisher = self.broker.publisher().await?;
        Ok(())
    }

    /// Publishes messages, and returns those that a queue refused on two channels, or did not
    /// confirm.
    pub async fn send_twice<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Unconfirmed<'m>, BrokerError> {
        let mut sent = self.send(outgoing, rerouted, recorder, hold).await?;
        let mut failed = Unconfirmed::default();
        // If the first message of a channel for a quorum queue met a leader that had just died, the
        // channel has every later one refused until that node is back. A new channel learns of the
        // new leader.
        let mut again = std::mem::take(&mut sent.refused);
        loop {
            failed.refused.append(&mut sent.refused);
            failed.unanswered.append(&mut sent.unanswered);
            // Another message to a queue that does not answer would cost the batch another wait.
            let unanswered = failed.unanswered.iter();
            let silent: HashSet<_> = unanswered.map(|sent| sent.message.route()).collect();
            let unsent = sent.unsent.into_iter();
            let (unanswered, mut unsent): (Vec<_>, _) =
                unsent.partition(|unsent| silent.contains(&unsent.message.route()));
            failed.unanswered.extend(unanswered);
            again.append(&mut unsent);
            if again.is_empty() {
                return Ok(failed);
            }
            self.reopen().await?;
            let outgoing = std::mem::take(&mut again);
            sent = self.send(outgoing, rerouted, recorder, hold).await?;
        }
    }

    /// Publishes messages, and returns those that are not confirmed. If a rung took the request of
    /// one of them as a probe, `rerouted` has its new disposition.
    ///
    /// Events go first, and then the messages to each of revertd's own queues by themselves: if a
    /// queue does not answer, the channel confirms nothing else either.
    pub async fn send<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Unconfirmed<'m>, BrokerError> {
        let mut sent = Unconfirmed::default();
        let is_event = |outgoing: &Outgoing<'_>| outgoing.role == MessageRole::Event;
        let (events, mut rest): (Vec<_>, Vec<_>) = outgoing.into_iter().partition(is_event);
        if !events.is_empty() {
            let part = self.send_part(events, rerouted, recorder, hold);
            part.await?.add_to(&mut sent);
        }
        while let Some(first) = rest.first() {
            let (exchange, key) = first.message.route();
            let (exchange, key) = (exchange.to_owned(), key.to_owned());
            let queue = (exchange.as_str(), key.as_str());
            let is_to_it = |other: &Outgoing<'_>| other.message.route() == queue;
            let (part, other) = rest.into_iter().partition(is_to_it);
            rest = other;
            let part = self.send_to_queue(queue, part, rerouted, recorder, hold);
            part.await?.add_to(&mut sent);
        }
        Ok(sent)
    }

    /// Publishes messages to one of revertd's own queues, as far as it answers.
    async fn send_to_queue<'m>(
        &mut self,
        queue: (&str, &str),
        mut outgoing: Vec<Outgoing<'m>>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Unconfirmed<'m>, BrokerError> {
        let shared = self.shared.clone();
        let rest = match shared
            .silent_queues
            .permit(queue, Instant::now().into_std())
        {
            Permit::All => Vec::new(),
            Permit::One => outgoing.split_off(1),
            Permit::None => std::mem::take(&mut outgoing),
        };
        let mut sent = Unconfirmed::default();
        if !outgoing.is_empty() {
            sent = self.send_part(outgoing, rerouted, recorder, hold).await?;
            let is_silent = !sent.unanswered.is_empty();
            if is_silent {
                let now = Instant::now().into_std();
                shared.silent_queues.silent(queue, now);
            } else {
                shared.silent_queues.answered(queue);
            }
            if !is_silent && !rest.is_empty() {
                let rest = self.send_part(rest, rerouted, recorder, hold);
                rest.await?.add_to(&mut sent);
                return Ok(sent);
            }
        }
        sent.unanswered.append(&mut sent.unsent);
        sent.unanswered.extend(rest);
        Ok(sent)
    }

    async fn send_part<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Unconfirmed<'m>, BrokerError> {
        let shared = self.shared.clone();
        let part = |outgoing: Outgoing<'m>| ((outgoing.indexes, outgoing.role), outgoing.message);
        let (places, messages): (Vec<_>, Vec<_>) = outgoing.into_iter().map(part).unzip();
        let published = loop {
            let probe = |at: Probe| {
                // A message of several events has the request of the first as its probe.
                let (indexes, role) = &places[at.place];
                let message = &messages[at.place];
                let probe = rerouted.probe(indexes[0], *role, message, at.number)?;
                let probing = probe_alone(self.broker.clone(), probe.message);
                Some(Box::pin(probing) as Probing<'_>)
            };
            match self.publisher.publish_probing(&messages, probe).await {
                Ok(published) => break published,
                Err(error) if error.is_permanent() && !hold.is_over() => {
                    hold.wait(&shared, &error).await;
                    // A new generation would have the batch delivered again.
                    let _ = self.broker.ensure_topology(&shared.settings).await;
                    self.reopen().await?;
                }
                Err(error) => return Err(error),
            }
        };
        recorder.publish_results(&messages, &published.results);
        if let Some(at) = published.confirmed_probe {
            let (indexes, role) = &places[at.place];
            rerouted.probe_confirmed(indexes[0], *role, &messages[at.place], at.number);
        }
        let places = places.into_iter().zip(messages);
        let sent = Unconfirmed::sort(places, published.results, &shared)?;
        if !sent.unanswered.is_empty() {
            self.reopen().await?;
        }
        Ok(sent)
    }
}

/// Publishes a probe on a channel of its own.
async fn probe_alone(broker: Arc<Broker>, probe: Message<'_>) -> bool {
    let Ok(publisher) = broker.publisher().await else {
        return false;
    };
    let results = publisher.publish(&[probe]).await;
    results.is_ok_and(|results| results == [PublishResult::Confirmed])
}
