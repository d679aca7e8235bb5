//! Publishes what came of a batch, and finds another way for what a queue refuses: only its own
//! request waits.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::error;

use super::batch::Worker;
use super::batch_recorder::{BatchRecorder, StepTimer};
use super::messages::{MessageRole, Outgoing, messages};
use super::{Exit, Shared};
use crate::broker::{BrokerError, Delivery, PublishResult};
use crate::common::backoff::Backoff;
use crate::domain::disposition::Disposition;
use crate::domain::event::Event;
use crate::telemetry;

mod reroute;

/// How long a worker waits, with its batch in hand, for a rung to take what must wait: well below
/// the broker's acknowledgement timeout.
const HOLD_AT_MOST: Duration = Duration::from_mins(10);

/// A wait for the broker with a batch in hand.
struct PublishHold {
    timer: Instant,
    backoff: Backoff,
    /// The pool is seen to be paused for as long as it is there.
    refusing: Option<telemetry::PublishRefusal>,
}

impl PublishHold {
    fn new() -> Self {
        Self {
            timer: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            refusing: None,
        }
    }

    fn is_over(&self) -> bool {
        self.timer.elapsed() >= HOLD_AT_MOST
    }

    async fn pause(&mut self, shared: &Shared, error: &BrokerError) {
        let wait = self.backoff.next_wait();
        error!(%error, retry_in = ?wait, "paused: publishing");
        let refused = || shared.telemetry.status.refused();
        self.refusing.get_or_insert_with(refused);
        // A stop waits with it, as long as it may.
        sleep(wait).await;
    }
}

/// A batch, and where its deliveries went otherwise than they were to.
struct Rerouted<'a> {
    batch: &'a [Delivery],
    dispositions: &'a [Disposition],
    elsewhere: BTreeMap<usize, Disposition>,
}

/// Messages that were published, and are not settled with that.
#[derive(Default)]
struct Sent<'a> {
    refused: Vec<Outgoing<'a>>,
    unconfirmed: Vec<Outgoing<'a>>,
    /// Not published any more, since others were not confirmed.
    unsent: Vec<Outgoing<'a>>,
}

impl<'a> Sent<'a> {
    /// All of them.
    fn failed(self) -> impl Iterator<Item = Outgoing<'a>> {
        let failed = self.refused.into_iter().chain(self.unconfirmed);
        failed.chain(self.unsent)
    }
}

impl Worker {
    /// Publishes what came of the batch. Where a queue refused some of it, `dispositions` tells
    /// what became of that instead. Returns an error where messages are back in the work queue: the
    /// pool pauses once the batch is settled.
    pub(super) async fn publish(
        &mut self,
        batch: &[Delivery],
        dispositions: &mut [Disposition],
        recorder: &mut BatchRecorder,
    ) -> Result<Option<BrokerError>, Exit> {
        let shared = self.shared.clone();
        let timer = StepTimer::now();
        let mut rerouted = Rerouted {
            batch,
            dispositions,
            elsewhere: BTreeMap::new(),
        };
        let outgoing = messages(&shared, batch, rerouted.dispositions);
        let count = outgoing.len();
        let published = self.publish_all(outgoing, &mut rerouted, recorder).await;
        let elsewhere = rerouted.elsewhere;
        let error = published.as_ref().err().map(ToString::to_string);
        recorder.published(timer, count, error.as_deref());
        for (index, disposition) in elsewhere {
            dispositions[index] = disposition;
        }
        published.map_err(Exit::Broker)
    }

    async fn publish_all<'a>(
        &mut self,
        mut outgoing: Vec<Outgoing<'a>>,
        rerouted: &mut Rerouted<'a>,
        recorder: &BatchRecorder,
    ) -> Result<Option<BrokerError>, BrokerError> {
        let shared = self.shared.clone();
        let mut hold = PublishHold::new();
        loop {
            let mut refused = self.send_anew(outgoing, recorder, &mut hold).await?;
            let Some(first) = refused.first() else {
                return Ok(None);
            };
            let error = first.message.undeliverable();
            shared.logs.refused(refused.len(), &first.message);
            let waiting = self.resort(&refused, rerouted, recorder, &mut hold).await?;
            let left = self
                .wait_on_rungs(waiting, rerouted, recorder, &mut hold)
                .await?;
            if left.is_empty() {
                return Ok(None);
            }
            if hold.is_over() {
                return self
                    .requeue(left, rerouted, recorder, &mut hold)
                    .await
                    .map(Some);
            }
            hold.pause(&shared, &error).await;
            self.publisher = self.broker.publisher().await?;
            refused.retain(|outgoing| left.contains(&outgoing.index));
            outgoing = refused;
        }
    }

    /// Publishes messages, and returns those that a queue refused on two channels, or did not confirm.
    async fn send_anew<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Vec<Outgoing<'m>>, BrokerError> {
        let mut sent = self.send(outgoing, recorder, hold).await?;
        let mut failed = Vec::new();
        // A channel whose first message for a quorum queue met a leader that had just died has every
        // later one refused, too, until that node is back. A new channel learns of the new leader.
        let mut again = std::mem::take(&mut sent.refused);
        loop {
            failed.append(&mut sent.refused);
            failed.append(&mut sent.unconfirmed);
            again.append(&mut sent.unsent);
            if again.is_empty() {
                return Ok(failed);
            }
            self.publisher = self.broker.publisher().await?;
            sent = self
                .send(std::mem::take(&mut again), recorder, hold)
                .await?;
        }
    }

    /// Publishes messages, and returns those that are not settled with that.
    async fn send<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Sent<'m>, BrokerError> {
        let shared = self.shared.clone();
        let part = |outgoing: Outgoing<'m>| ((outgoing.index, outgoing.role), outgoing.message);
        let (places, messages): (Vec<_>, Vec<_>) = outgoing.into_iter().map(part).unzip();
        let own_queue = |event: &Event| own_queue(&shared, event);
        let results = loop {
            match self.publisher.publish_probing(&messages, own_queue).await {
                Ok(results) => break results,
                Err(error) if error.is_permanent() && !hold.is_over() => {
                    hold.pause(&shared, &error).await;
                    // Each new generation would have the batch delivered again.
                    let _ = self.broker.ensure_topology(&shared.settings).await;
                    self.publisher = self.broker.publisher().await?;
                }
                Err(error) => return Err(error),
            }
        };
        recorder.results(&messages, &results);
        let mut sent = Sent::default();
        let mut unroutable = Vec::new();
        let mut results = results.into_iter();
        for ((index, role), message) in places.into_iter().zip(messages) {
            let outgoing = |message| Outgoing {
                index,
                role,
                message,
            };
            match (results.next(), role) {
                (Some(Some(PublishResult::Confirmed)), _) => {}
                (Some(Some(PublishResult::Refused)), _)
                | (Some(Some(PublishResult::Unroutable)), MessageRole::OwnEvent) => {
                    sent.refused.push(outgoing(message));
                }
                (Some(Some(PublishResult::Unroutable)), MessageRole::Event) => {
                    unroutable.push(message)
                }
                // It would be lost. The next generation declares what is missing.
                (
                    Some(Some(PublishResult::Unroutable)),
                    MessageRole::Letter | MessageRole::Waiting,
                ) => {
                    return Err(message.undeliverable());
                }
                (Some(None), _) => sent.unconfirmed.push(outgoing(message)),
                (None, _) => sent.unsent.push(outgoing(message)),
            }
        }
        let exchange = shared.settings.topology.reply_exchange.as_str();
        shared.logs.unroutable(&unroutable, exchange);
        if !sent.unconfirmed.is_empty() {
            // A confirm that comes late could take along what tells of a returned message.
            self.publisher = self.broker.publisher().await?;
        }
        Ok(sent)
    }
}

/// revertd's own queue for an event, where there is one.
fn own_queue<'a>(shared: &'a Shared, event: &Event) -> Option<&'a str> {
    let topology = &shared.settings.topology;
    if event.is_denied() {
        return Some(topology.denied_queue.as_str());
    }
    let is_there = topology.reply_queue_declare;
    is_there.then_some(topology.reply_queue.as_str())
}
