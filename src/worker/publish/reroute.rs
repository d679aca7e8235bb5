//! Other ways for what a queue refused: settled without it, on a rung, or back in the work queue.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::batch::Worker;
use super::super::messages::{MessageRole, Outgoing};
use super::{PublishHold, Rerouted, own_queue};
use crate::broker::{BrokerError, Message};
use crate::domain::disposition::{Disposition, Recourse, RefusedMessages};
use crate::worker::batch_recorder::BatchRecorder;

impl Worker {
    /// Settles those requests that can be without what was refused; the others, by their indexes,
    /// must wait.
    pub(super) async fn resort<'a>(
        &mut self,
        refused: &[Outgoing<'a>],
        rerouted: &Rerouted<'a>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Vec<usize>, BrokerError> {
        let shared = self.shared.clone();
        let mut by_delivery: BTreeMap<usize, RefusedMessages> = BTreeMap::new();
        for outgoing in refused {
            let refused = by_delivery.entry(outgoing.index).or_default();
            match outgoing.role {
                MessageRole::Event | MessageRole::OwnEvent => refused.event = true,
                MessageRole::Letter => refused.letter = true,
                MessageRole::Waiting => {}
            }
        }
        let (mut waiting, mut own) = (Vec::new(), Vec::new());
        for (index, refused) in &by_delivery {
            let waits = rerouted.batch[*index].envelope.waits;
            match rerouted.dispositions[*index].recourse(*refused, waits, &shared.ladder) {
                Recourse::Wait => waiting.push(*index),
                Recourse::DropLetter => recorder.letter_dropped(&rerouted.batch[*index]),
                Recourse::OwnQueue => own.push(*index),
            }
        }
        let to_own = own.iter().filter_map(|index| {
            let event = rerouted.dispositions[*index].event()?;
            let queue = own_queue(&shared, event)?;
            Some(Outgoing {
                index: *index,
                role: MessageRole::OwnEvent,
                message: Message::event_to(queue, event, &rerouted.batch[*index]),
            })
        });
        let to_own: Vec<_> = to_own.collect();
        let tried: Vec<_> = to_own.iter().map(|outgoing| outgoing.index).collect();
        let failed: Vec<_> = self.send(to_own, recorder, hold).await?.failed().collect();
        for index in own {
            let taken = tried.contains(&index) && failed.iter().all(|other| other.index != index);
            let refused = by_delivery[&index];
            let is_letter = matches!(rerouted.dispositions[index], Disposition::DeadLetter { .. });
            if !taken && (refused.letter || !is_letter) {
                waiting.push(index);
                continue;
            }
            recorder.event_undelivered(&rerouted.batch[index]);
            if refused.letter {
                recorder.letter_dropped(&rerouted.batch[index]);
            }
        }
        Ok(waiting)
    }

    /// Puts those deliveries on the first rung that takes each, from the one that is its turn.
    /// Returns those that none took.
    pub(super) async fn wait_on_rungs(
        &mut self,
        mut left: Vec<usize>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
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
                let rung_from = |first: usize| (first + shift) % rungs.len();
                let disposition = match &rerouted.dispositions[index] {
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
                    index,
                    role,
                    message,
                });
            }
            let refused = self.send(outgoing, recorder, hold).await?.failed();
            left = refused.map(|outgoing| outgoing.index).collect();
            chosen.retain(|(index, _)| !left.contains(index));
            rerouted.elsewhere.extend(chosen);
        }
        Ok(left)
    }

    /// Puts those deliveries at the end of the work queue, so that they are in nobody's hands while
    /// the rungs are full: no delivery is charged for that.
    pub(super) async fn requeue(
        &mut self,
        left: Vec<usize>,
        rerouted: &mut Rerouted<'_>,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<BrokerError, BrokerError> {
        let shared = self.shared.clone();
        let queue = shared.settings.topology.work_queue.as_str();
        let now = Timestamp::now();
        let outgoing = left.iter().map(|index| Outgoing {
            index: *index,
            role: MessageRole::Waiting,
            message: Message::wait(queue, &rerouted.batch[*index], now),
        });
        let outgoing: Vec<_> = outgoing.collect();
        if let Some(first) = self.send(outgoing, recorder, hold).await?.failed().next() {
            return Err(first.message.undeliverable());
        }
        let returned = left.into_iter().map(|index| (index, Disposition::Returned));
        rerouted.elsewhere.extend(returned);
        Ok(BrokerError::transient(
            "every queue of topology.retry_queue_prefix is full, or without a leader; what had to wait is back in the \
             work queue",
        ))
    }
}
