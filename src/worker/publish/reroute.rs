//! Other ways for messages that a queue refused: settled without them, on a rung, or requeued.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::batch_recorder::BatchRecorder;
use super::super::messages::{MessageRole, Outgoing};
use super::send::{PublishHold, Sender, own_queue};
use crate::broker::{BrokerError, Delivery, Message};
use crate::domain::disposition::{Disposition, Recourse, RefusedMessages};

/// A batch, and the deliveries whose disposition changed because a queue refused their message.
pub struct Rerouted<'a> {
    pub batch: &'a [Delivery],
    pub dispositions: &'a [Disposition],
    elsewhere: BTreeMap<usize, Disposition>,
}

impl<'a> Rerouted<'a> {
    pub fn new(batch: &'a [Delivery], dispositions: &'a [Disposition]) -> Self {
        Self {
            batch,
            dispositions,
            elsewhere: BTreeMap::new(),
        }
    }

    /// The changed dispositions, by index.
    pub fn into_elsewhere(self) -> BTreeMap<usize, Disposition> {
        self.elsewhere
    }

    /// Settles the requests that can do without the refused message, and returns the indexes of the
    /// others, which must wait.
    pub async fn resort(
        &self,
        refused: &[Outgoing<'a>],
        sender: &mut Sender,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Vec<usize>, BrokerError> {
        let shared = sender.shared.clone();
        let mut by_delivery: BTreeMap<usize, RefusedMessages> = BTreeMap::new();
        for outgoing in refused {
            for index in &outgoing.indexes {
                let refused = by_delivery.entry(*index).or_default();
                match outgoing.role {
                    MessageRole::Event | MessageRole::OwnEvent => refused.event = true,
                    MessageRole::Letter => refused.letter = true,
                    MessageRole::Waiting => {}
                }
            }
        }
        let (mut waiting, mut own) = (Vec::new(), Vec::new());
        for (index, refused) in &by_delivery {
            let waits = self.batch[*index].envelope.waits;
            match self.dispositions[*index].recourse(*refused, waits, &shared.ladder) {
                Recourse::Wait => waiting.push(*index),
                Recourse::DropLetter => recorder.letter_dropped(&self.batch[*index]),
                Recourse::OwnQueue => own.push(*index),
            }
        }
        let to_own = own.iter().filter_map(|index| {
            let event = self.dispositions[*index].event()?;
            let queue = own_queue(&shared, event)?;
            Some(Outgoing {
                indexes: vec![*index],
                role: MessageRole::OwnEvent,
                message: Message::event_to(queue, event, &self.batch[*index]),
            })
        });
        let to_own: Vec<_> = to_own.collect();
        let tried = indexes(&to_own);
        let failed: Vec<_> = sender.send(to_own, recorder, hold).await?.all().collect();
        let failed = indexes(&failed);
        for index in own {
            let taken = tried.contains(&index) && !failed.contains(&index);
            let refused = by_delivery[&index];
            let is_letter = matches!(self.dispositions[index], Disposition::DeadLetter { .. });
            if !taken && (refused.letter || !is_letter) {
                waiting.push(index);
                continue;
            }
            recorder.event_undelivered(&self.batch[index]);
            if refused.letter {
                recorder.letter_dropped(&self.batch[index]);
            }
        }
        Ok(waiting)
    }

    /// Puts deliveries on the first rung that takes them, beginning with the next of each. Returns
    /// the indexes of those that no rung took.
    pub async fn wait_on_rungs(
        &mut self,
        mut left: Vec<usize>,
        sender: &mut Sender,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Vec<usize>, BrokerError> {
        let shared = sender.shared.clone();
        let rungs = &shared.retry_queues;
        let now = Timestamp::now();
        for shift in 0..rungs.len() {
            if left.is_empty() {
                break;
            }
            let mut chosen = Vec::with_capacity(left.len());
            let mut outgoing = Vec::with_capacity(left.len());
            for index in left {
                let delivery = &self.batch[index];
                let rung_from = |first: usize| (first + shift) % rungs.len();
                let disposition = match &self.dispositions[index] {
                    Disposition::Retry { rung } => Disposition::Retry {
                        rung: rung_from(*rung),
                    },
                    Disposition::AwaitTrust { rung } => Disposition::AwaitTrust {
                        rung: rung_from(*rung),
                    },
                    Disposition::Wait { rung } => Disposition::Wait {
                        rung: rung_from(*rung),
                    },
                    Disposition::Answer(_)
                    | Disposition::Returned
                    | Disposition::DeadLetter { .. } => Disposition::Wait {
                        rung: rung_from(shared.ladder.wait(delivery.envelope.waits).unwrap_or(0)),
                    },
                };
                let message = match &disposition {
                    Disposition::Retry { rung } => Message::retry(&rungs[*rung], delivery, now),
                    Disposition::AwaitTrust { rung } | Disposition::Wait { rung } => {
                        Message::wait(&rungs[*rung], delivery, now)
                    }
                    Disposition::Answer(_)
                    | Disposition::Returned
                    | Disposition::DeadLetter { .. } => continue,
                };
                chosen.push((index, disposition));
                let role = MessageRole::Waiting;
                outgoing.push(Outgoing {
                    indexes: vec![index],
                    role,
                    message,
                });
            }
            let refused = sender.send(outgoing, recorder, hold).await?.all();
            left = refused.flat_map(|outgoing| outgoing.indexes).collect();
            chosen.retain(|(index, _)| !left.contains(index));
            self.elsewhere.extend(chosen);
        }
        Ok(left)
    }

    /// Puts deliveries at the end of the work queue while all rungs are full. This does not count
    /// as an attempt.
    pub async fn requeue(
        &mut self,
        left: Vec<usize>,
        sender: &mut Sender,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<BrokerError, BrokerError> {
        let shared = sender.shared.clone();
        let queue = shared.settings.topology.work_queue.as_str();
        let now = Timestamp::now();
        let outgoing = left.iter().map(|index| Outgoing {
            indexes: vec![*index],
            role: MessageRole::Waiting,
            message: Message::wait(queue, &self.batch[*index], now),
        });
        let outgoing: Vec<_> = outgoing.collect();
        if let Some(first) = sender.send(outgoing, recorder, hold).await?.all().next() {
            return Err(first.message.undeliverable());
        }
        let returned = left.into_iter().map(|index| (index, Disposition::Returned));
        self.elsewhere.extend(returned);
        Ok(BrokerError::transient(
            "every queue of topology.retry_queue_prefix is full, or without a leader; what had to \
            wait is back in the work queue",
        ))
    }
}

fn indexes(outgoing: &[Outgoing<'_>]) -> Vec<usize> {
    let indexes = outgoing.iter().flat_map(|outgoing| &outgoing.indexes);
    indexes.copied().collect()
}
