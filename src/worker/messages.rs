//! The messages that follow from a batch.

use jiff::Timestamp;

use super::shared::Shared;
use crate::broker::{Delivery, Message};
use crate::domain::disposition::Disposition;

/// A message, its role, and the delivery of the batch that it belongs to.
pub struct Outgoing<'a> {
    pub index: usize,
    pub role: MessageRole,
    pub message: Message<'a>,
}

/// The role of a message for its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRole {
    Event,
    /// The event again, to revertd's own queue alone.
    OwnEvent,
    Letter,
    /// The delivery itself, to wait.
    Waiting,
}

/// An answer is an event; a retry is the delivered message; a dead letter is both.
pub fn messages<'a>(
    shared: &'a Shared,
    batch: &'a [Delivery],
    dispositions: &'a [Disposition],
) -> Vec<Outgoing<'a>> {
    let topology = &shared.settings.topology;
    let (events, dead) = (
        topology.reply_exchange.as_str(),
        topology.dead_letter_exchange.as_str(),
    );
    let now = Timestamp::now();
    let mut all = Vec::with_capacity(batch.len());
    for (index, (delivery, disposition)) in batch.iter().zip(dispositions).enumerate() {
        let outgoing = |role, message| Outgoing {
            index,
            role,
            message,
        };
        match disposition {
            Disposition::Answer(event) => {
                all.push(outgoing(
                    MessageRole::Event,
                    Message::answer(events, event, delivery),
                ));
            }
            Disposition::Retry { rung } => {
                let message = Message::retry(&shared.retry_queues[*rung], delivery, now);
                all.push(outgoing(MessageRole::Waiting, message));
            }
            Disposition::Wait { rung } | Disposition::AwaitTrust { rung } => {
                let message = Message::wait(&shared.retry_queues[*rung], delivery, now);
                all.push(outgoing(MessageRole::Waiting, message));
            }
            Disposition::Returned => {
                let queue = topology.work_queue.as_str();
                all.push(outgoing(
                    MessageRole::Waiting,
                    Message::wait(queue, delivery, now),
                ));
            }
            Disposition::DeadLetter { failure, event } => {
                let key = topology.dead_letter_queue.as_str();
                let letter = Message::dead_letter(dead, key, delivery, failure, now);
                all.push(outgoing(MessageRole::Letter, letter));
                all.push(outgoing(
                    MessageRole::Event,
                    Message::answer(events, event, delivery),
                ));
            }
        }
    }
    all
}
