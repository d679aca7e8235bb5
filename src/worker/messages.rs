//! What is to be published of a batch.

use jiff::Timestamp;

use super::Shared;
use crate::broker::{Delivery, Message};
use crate::disposition::Disposition;

/// An answer is an event, a retry the message itself, a dead letter both.
pub fn messages<'a>(
    shared: &'a Shared,
    batch: &'a [Delivery],
    dispositions: &'a [Disposition],
) -> Vec<Message<'a>> {
    let topology = &shared.settings.topology;
    let (events, dead) = (
        topology.reply_exchange.as_str(),
        topology.dead_letter_exchange.as_str(),
    );
    let now = Timestamp::now();
    let mut messages = Vec::with_capacity(batch.len());
    for (delivery, disposition) in batch.iter().zip(dispositions) {
        match disposition {
            Disposition::Answer(event) => {
                messages.push(Message::event(events, event, delivery));
            }
            Disposition::Retry { rung } => {
                let queue = &shared.retry_queues[*rung];
                messages.push(Message::retry(queue, delivery, now));
            }
            Disposition::AwaitTrust { rung } => {
                let queue = &shared.retry_queues[*rung];
                messages.push(Message::untrusted(queue, delivery, now));
            }
            Disposition::DeadLetter { failure, event } => {
                let key = topology.dead_letter_queue.as_str();
                let letter = Message::dead_letter(dead, key, delivery, failure, now);
                messages.push(letter);
                messages.push(Message::event(events, event, delivery));
            }
        }
    }
    messages
}
