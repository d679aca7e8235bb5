//! Publishes messages on a worker's channel, and replaces the channel when that is needed.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::batch_recorder::BatchRecorder;
use super::super::messages::{MessageRole, Outgoing};
use super::super::shared::Shared;
use super::hold::PublishHold;
use super::rerouted::Rerouted;
use super::silent_queues::Permit;
use super::unconfirmed::Unconfirmed;
use crate::broker::{Broker, BrokerError, Message, Probe, Probing, PublishResult, Publisher};

/// A channel to publish on, and the connections that open its successor.
pub struct Sender {
    pub shared: Arc<Shared>,
    pub broker: Arc<Broker>,
    publisher: Publisher,
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
    /// Events go first, together. If a queue does not answer, the channel confirms nothing else
    /// either, so the unconfirmed events are published again, those of each routing key by
    /// themselves. The messages to each of revertd's own queues follow by themselves, too.
    pub async fn send<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Unconfirmed<'m>, BrokerError> {
        let mut sent = Unconfirmed::default();
        let shared = self.shared.clone();
        let is_together = |outgoing: &Outgoing<'_>| {
            let is_event = outgoing.role == MessageRole::Event;
            is_event && !shared.silent_queues.contains(outgoing.message.route())
        };
        let (events, mut rest): (Vec<_>, Vec<_>) = outgoing.into_iter().partition(is_together);
        let mut again = Vec::new();
        if !events.is_empty() {
            let (mut part, probes) = self.send_part(events, rerouted, recorder, hold).await?;
            if probes == 0 {
                again.append(&mut part.unanswered);
                again.append(&mut part.unsent);
            }
            part.add_to(&mut sent);
        }
        self.send_by_route(again, &mut sent, rerouted, recorder, hold)
            .await?;
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

    /// Publishes events again, those of each routing key by themselves, since a queue of one of
    /// them does not answer. It is probably that of the oldest event, which comes last. If another
    /// one does not answer either, the rest is not tried.
    async fn send_by_route<'m>(
        &mut self,
        mut again: Vec<Outgoing<'m>>,
        sent: &mut Unconfirmed<'m>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<(), BrokerError> {
        again.retain(|outgoing| !rerouted.is_elsewhere(&outgoing.indexes));
        while let Some(last) = again.last() {
            let (exchange, key) = last.message.route();
            let (exchange, key) = (exchange.to_owned(), key.to_owned());
            let route = (exchange.as_str(), key.as_str());
            let is_on_it = |other: &Outgoing<'_>| other.message.route() == route;
            let (part, other) = again.into_iter().partition(is_on_it);
            again = other;
            let part = self.send_to_queue(route, part, rerouted, recorder, hold);
            let part = part.await?;
            let is_silent = !part.unanswered.is_empty();
            part.add_to(sent);
            if is_silent {
                sent.unanswered.append(&mut again);
            }
        }
        Ok(())
    }

    /// Publishes messages of one route, as far as its queues answer.
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
            (sent, _) = self.send_part(outgoing, rerouted, recorder, hold).await?;
            let is_silent = !sent.unanswered.is_empty();
            if is_silent {
                let now = Instant::now().into_std();
                shared.silent_queues.silent(queue, now);
            } else {
                shared.silent_queues.answered(queue);
            }
            if !is_silent && !rest.is_empty() {
                let rest = self.send_part(rest, rerouted, recorder, hold);
                let (rest, _) = rest.await?;
                rest.add_to(&mut sent);
                return Ok(sent);
            }
        }
        sent.unanswered.append(&mut sent.unsent);
        sent.unanswered.extend(rest);
        Ok(sent)
    }

    /// Publishes messages together. Returns those that are not confirmed, and the number of probes
    /// that were not confirmed before the one for which they were given up. It is 0 if revertd's
    /// own queue answers.
    async fn send_part<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<(Unconfirmed<'m>, usize), BrokerError> {
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
        let probes = published.confirmed_probe.map_or(0, |at| at.number);
        Ok((sent, probes))
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
