//! Publishes what came of a batch, and finds another way for what a queue refuses: only its own request waits.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::batch::Worker;
use super::messages::{Outgoing, Role, messages};
use super::record::{Began, Record};
use super::{End, Shared};
use crate::broker::{BrokerError, Delivery, Fate, Message};
use crate::disposition::{Disposition, Recourse, Refused};
use crate::event::Event;
use crate::patience::Patience;
use crate::telemetry;

/// How long a worker waits, with its batch in hand, for a rung to take what must wait: well below the broker's
/// acknowledgement timeout.
const HOLD_AT_MOST: Duration = Duration::from_mins(10);

/// A wait for the broker with a batch in hand.
struct Hold {
    began: Instant,
    patience: Patience,
    /// The pool is seen to be paused for as long as it is there.
    refusing: Option<telemetry::Refused>,
}

impl Hold {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            patience: Patience::new(Duration::from_millis(100), Duration::from_secs(5)),
            refusing: None,
        }
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() >= HOLD_AT_MOST
    }

    async fn pause(&mut self, shared: &Shared, reason: &BrokerError) {
        let wait = self.patience.next_wait();
        error!(%reason, retry_in = ?wait, "paused: publishing");
        let refused = || shared.sight.status.refused();
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

impl Worker {
    /// Publishes what came of the batch. Where a queue refused some of it, `dispositions` tells what became of that
    /// instead. Returns an error where messages are back in the work queue: the pool pauses once the batch is settled.
    pub(super) async fn publish(
        &mut self,
        batch: &[Delivery],
        dispositions: &mut [Disposition],
        record: &mut Record,
    ) -> Result<Option<BrokerError>, End> {
        let shared = self.shared.clone();
        let began = Began::now();
        let mut rerouted = Rerouted {
            batch,
            dispositions,
            elsewhere: BTreeMap::new(),
        };
        let outgoing = messages(&shared, batch, rerouted.dispositions);
        let count = outgoing.len();
        let published = self.publish_all(outgoing, &mut rerouted, record).await;
        let elsewhere = rerouted.elsewhere;
        let error = published.as_ref().err().map(ToString::to_string);
        record.published(began, count, error.as_deref());
        for (index, disposition) in elsewhere {
            dispositions[index] = disposition;
        }
        published.map_err(End::Broker)
    }

    async fn publish_all<'a>(
        &mut self,
        mut outgoing: Vec<Outgoing<'a>>,
        rerouted: &mut Rerouted<'a>,
        record: &Record,
    ) -> Result<Option<BrokerError>, BrokerError> {
        let shared = self.shared.clone();
        let mut hold = Hold::new();
        loop {
            let mut refused = self.send(outgoing, record, &mut hold).await?;
            if !refused.is_empty() {
                // A channel whose first message for a quorum queue met a leader that had just died has every later one
                // refused, too, until that node is back. A new channel learns of the new leader.
                self.outlet = self.broker.outlet().await?;
                refused = self.send(refused, record, &mut hold).await?;
            }
            let Some(first) = refused.first() else {
                return Ok(None);
            };
            let wrong = first.message.undeliverable();
            shared.logs.refused(refused.len(), &first.message);
            let waiting = self.resort(&refused, rerouted, record, &mut hold).await?;
            let left = self
                .wait_on_rungs(waiting, rerouted, record, &mut hold)
                .await?;
            if left.is_empty() {
                return Ok(None);
            }
            if hold.is_over() {
                return self
                    .give_back(left, rerouted, record, &mut hold)
                    .await
                    .map(Some);
            }
            hold.pause(&shared, &wrong).await;
            self.outlet = self.broker.outlet().await?;
            refused.retain(|outgoing| left.contains(&outgoing.index));
            outgoing = refused;
        }
    }

    /// Publishes messages, and returns those that a queue refused.
    async fn send<'m>(
        &mut self,
        outgoing: Vec<Outgoing<'m>>,
        record: &Record,
        hold: &mut Hold,
    ) -> Result<Vec<Outgoing<'m>>, BrokerError> {
        let shared = self.shared.clone();
        let part = |outgoing: Outgoing<'m>| ((outgoing.index, outgoing.role), outgoing.message);
        let (places, messages): (Vec<_>, Vec<_>) = outgoing.into_iter().map(part).unzip();
        let fates = loop {
            match self.outlet.publish(&messages).await {
                Ok(fates) => break fates,
                Err(wrong) if wrong.is_lasting() && !hold.is_over() => {
                    hold.pause(&shared, &wrong).await;
                    // Each new generation would have the batch delivered again.
                    let _ = self.broker.ensure_topology(&shared.settings).await;
                    self.outlet = self.broker.outlet().await?;
                }
                Err(wrong) => return Err(wrong),
            }
        };
        record.fates(&messages, &fates);
        let mut refused = Vec::new();
        let mut unroutable = Vec::new();
        for (((index, role), message), fate) in places.into_iter().zip(messages).zip(fates) {
            match (fate, role) {
                (Fate::Confirmed, _) => {}
                (Fate::Refused, _) | (Fate::Unroutable, Role::OwnEvent) => {
                    refused.push(Outgoing {
                        index,
                        role,
                        message,
                    });
                }
                (Fate::Unroutable, Role::Event) => unroutable.push(message),
                // It would be lost. The next generation declares what is missing.
                (Fate::Unroutable, Role::Letter | Role::Waiting) => {
                    return Err(message.undeliverable());
                }
            }
        }
        let exchange = shared.settings.topology.reply_exchange.as_str();
        shared.logs.unroutable(&unroutable, exchange);
        Ok(refused)
    }

    /// Settles those requests that can be without what was refused; the others, by their indexes, must wait.
    async fn resort<'a>(
        &mut self,
        refused: &[Outgoing<'a>],
        rerouted: &Rerouted<'a>,
        record: &Record,
        hold: &mut Hold,
    ) -> Result<Vec<usize>, BrokerError> {
        let shared = self.shared.clone();
        let mut by_delivery: BTreeMap<usize, Refused> = BTreeMap::new();
        for outgoing in refused {
            let refused = by_delivery.entry(outgoing.index).or_default();
            match outgoing.role {
                Role::Event | Role::OwnEvent => refused.event = true,
                Role::Letter => refused.letter = true,
                Role::Waiting => {}
            }
        }
        let (mut waiting, mut own) = (Vec::new(), Vec::new());
        for (index, refused) in &by_delivery {
            let waits = rerouted.batch[*index].envelope.waits;
            match rerouted.dispositions[*index].recourse(*refused, waits, &shared.ladder) {
                Recourse::Wait => waiting.push(*index),
                Recourse::DropLetter => record.letter_dropped(&rerouted.batch[*index]),
                Recourse::OwnQueue => own.push(*index),
            }
        }
        let to_own = own.iter().filter_map(|index| {
            let event = rerouted.dispositions[*index].event()?;
            let queue = own_queue(&shared, event)?;
            Some(Outgoing {
                index: *index,
                role: Role::OwnEvent,
                message: Message::event_to(queue, event, &rerouted.batch[*index]),
            })
        });
        let to_own: Vec<_> = to_own.collect();
        let tried: Vec<_> = to_own.iter().map(|outgoing| outgoing.index).collect();
        let failed = self.send(to_own, record, hold).await?;
        for index in own {
            let taken = tried.contains(&index) && failed.iter().all(|other| other.index != index);
            let refused = by_delivery[&index];
            let is_letter = matches!(rerouted.dispositions[index], Disposition::DeadLetter { .. });
            if !taken && (refused.letter || !is_letter) {
                waiting.push(index);
                continue;
            }
            record.event_undelivered(&rerouted.batch[index]);
            if refused.letter {
                record.letter_dropped(&rerouted.batch[index]);
            }
        }
        Ok(waiting)
    }

    /// Puts those deliveries on the first rung that takes each, from the one that is its turn. Returns those that none
    /// took.
    async fn wait_on_rungs(
        &mut self,
        mut left: Vec<usize>,
        rerouted: &mut Rerouted<'_>,
        record: &Record,
        hold: &mut Hold,
    ) -> Result<Vec<usize>, BrokerError> {
        let shared = self.shared.clone();
        let rungs = &shared.retry_queues;
        let now = Timestamp::now();
        for shift in 0..rungs.len() {
            if left.is_empty() {
                break;
            }
            let mut chosen = Vec::with_capacity(left.len());
            let mut outgoing = Vec::with_capacity(left.len());
            for index in left {
                let delivery = &rerouted.batch[index];
                let (first, is_attempt) = match &rerouted.dispositions[index] {
                    Disposition::Retry { rung } => (Some(*rung), true),
                    Disposition::Wait { rung } => (Some(*rung), false),
                    Disposition::Answer(_)
                    | Disposition::Returned
                    | Disposition::DeadLetter { .. } => {
                        (shared.ladder.wait(delivery.envelope.waits), false)
                    }
                };
                let rung = (first.unwrap_or(0) + shift) % rungs.len();
                let (message, disposition) = if is_attempt {
                    let message = Message::retry(&rungs[rung], delivery, now);
                    (message, Disposition::Retry { rung })
                } else {
                    let message = Message::wait(&rungs[rung], delivery, now);
                    (message, Disposition::Wait { rung })
                };
                chosen.push((index, disposition));
                let role = Role::Waiting;
                outgoing.push(Outgoing {
                    index,
                    role,
                    message,
                });
            }
            let refused = self.send(outgoing, record, hold).await?;
            left = refused.iter().map(|outgoing| outgoing.index).collect();
            chosen.retain(|(index, _)| !left.contains(index));
            rerouted.elsewhere.extend(chosen);
        }
        Ok(left)
    }

    /// Puts those deliveries at the end of the work queue, so that they are in nobody's hands while the rungs are full:
    /// no delivery is charged for that.
    async fn give_back(
        &mut self,
        left: Vec<usize>,
        rerouted: &mut Rerouted<'_>,
        record: &Record,
        hold: &mut Hold,
    ) -> Result<BrokerError, BrokerError> {
        let shared = self.shared.clone();
        let queue = shared.settings.topology.work_queue.as_str();
        let now = Timestamp::now();
        let outgoing = left.iter().map(|index| Outgoing {
            index: *index,
            role: Role::Waiting,
            message: Message::wait(queue, &rerouted.batch[*index], now),
        });
        let outgoing: Vec<_> = outgoing.collect();
        let refused = self.send(outgoing, record, hold).await?;
        if let Some(first) = refused.first() {
            return Err(first.message.undeliverable());
        }
        let returned = left.into_iter().map(|index| (index, Disposition::Returned));
        rerouted.elsewhere.extend(returned);
        Ok(BrokerError::passing(
            "every queue of topology.retry_queue_prefix is full, or without a leader; what had to wait is back in the \
             work queue",
        ))
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
