//! The messages that follow from a batch.

use jiff::Timestamp;

use super::shared::Shared;
use crate::broker::{Delivery, Message};
use crate::domain::disposition::Disposition;
use crate::domain::event_batch::{self, GroupOrigin};

/// A message, its role, and the deliveries of the batch that it belongs to.
pub struct Outgoing<'a> {
    /// One, or those whose events the message carries.
    pub indexes: Vec<usize>,
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
    let now = Timestamp::now();
    let mut all = Vec::with_capacity(batch.len());
    for (index, (delivery, disposition)) in batch.iter().zip(dispositions).enumerate() {
        let passed_on = passed_on(shared, delivery, disposition, now);
        all.extend(passed_on.map(|(role, message)| Outgoing {
            indexes: vec![index],
            role,
            message,
        }));
    }
    let exchange = shared.settings.topology.reply_exchange.as_str();
    all.extend(events(exchange, batch, dispositions));
    all
}

/// The delivery again, if its disposition publishes it.
fn passed_on<'a>(
    shared: &'a Shared,
    delivery: &'a Delivery,
    disposition: &'a Disposition,
    now: Timestamp,
) -> Option<(MessageRole, Message<'a>)> {
    let topology = &shared.settings.topology;
    let waiting = |message| Some((MessageRole::Waiting, message));
    match disposition {
        Disposition::Answer(_) => None,
        Disposition::Retry { rung } => {
            waiting(Message::retry(&shared.retry_queues[*rung], delivery, now))
        }
        Disposition::Wait { rung } | Disposition::AwaitTrust { rung } => {
            waiting(Message::wait(&shared.retry_queues[*rung], delivery, now))
        }
        Disposition::Returned => {
            waiting(Message::wait(topology.work_queue.as_str(), delivery, now))
        }
        Disposition::DeadLetter { failure, .. } => {
            let exchange = topology.dead_letter_exchange.as_str();
            let key = topology.dead_letter_queue.as_str();
            let letter = Message::dead_letter(exchange, key, delivery, failure, now);
            Some((MessageRole::Letter, letter))
        }
    }
}

/// The messages that carry the events of a batch: one for each event, and those of each group.
pub fn events<'a>(
    exchange: &'a str,
    batch: &'a [Delivery],
    dispositions: &'a [Disposition],
) -> Vec<Outgoing<'a>> {
    let mut all = Vec::with_capacity(batch.len());
    let mut first = 0;
    for requests in batch.chunk_by(Delivery::is_grouped_with) {
        let places = first..first + requests.len();
        let events = places.filter_map(|index| Some((index, dispositions[index].event()?)));
        match &requests[0].group {
            None => all.extend(events.map(|(index, event)| Outgoing {
                indexes: vec![index],
                role: MessageRole::Event,
                message: Message::answer(exchange, event, &batch[index]),
            })),
            Some(group) => {
                let origin = GroupOrigin {
                    id: &group.id,
                    size: group.size,
                };
                let messages = event_batch::messages(origin, group.replies, events);
                all.extend(messages.into_iter().map(|message| {
                    let indexes: Vec<_> = message.events.iter().map(|(index, _)| *index).collect();
                    let delivery = &batch[indexes[0]];
                    Outgoing {
                        indexes,
                        role: MessageRole::Event,
                        message: Message::group_events(exchange, message, delivery),
                    }
                }));
            }
        }
        first += requests.len();
    }
    all
}
