//! Probes, and the messages that they share with the ways out: a request on a rung, an event to
//! revertd's own queue alone.

use jiff::Timestamp;

use super::super::messages::MessageRole;
use super::rerouted::Rerouted;
use crate::broker::Message;
use crate::domain::disposition::Disposition;

/// A message to another queue while one is not confirmed, and the disposition once it is confirmed.
pub struct ProbeMessage<'a> {
    pub message: Message<'a>,
    disposition: Option<Disposition>,
}

impl<'a> Rerouted<'a> {
    /// The probe for an unconfirmed message after `number` probes. An event is probed by revertd's
    /// own queue, since it may only be a subscriber's queue that does not answer. Every other probe
    /// is the request on a rung: it is not lost, and has no second copy, if the probe is confirmed.
    pub fn probe(
        &self,
        index: usize,
        role: MessageRole,
        unconfirmed: &Message<'_>,
        number: usize,
    ) -> Option<ProbeMessage<'a>> {
        let passed = match role {
            MessageRole::Event => match (self.own_event(index), number.checked_sub(1)) {
                (Some(message), None) => {
                    return Some(ProbeMessage {
                        message,
                        disposition: None,
                    });
                }
                (Some(_), Some(passed)) => passed,
                (None, _) => number,
            },
            MessageRole::OwnEvent | MessageRole::Letter => number,
            MessageRole::Waiting => {
                let is_it = |passed: &usize| {
                    let on_rung = self.on_rung(index, *passed);
                    on_rung.is_some_and(|(_, rung)| rung.route() == unconfirmed.route())
                };
                let passed = (0..self.shared.retry_queues.len()).find(is_it)?;
                passed + 1 + number
            }
        };
        let (disposition, message) = self.on_rung(index, passed)?;
        Some(ProbeMessage {
            message,
            disposition: Some(disposition),
        })
    }

    /// The probe is confirmed: if it is the request on a rung, it waits there.
    pub fn probe_confirmed(
        &mut self,
        index: usize,
        role: MessageRole,
        unconfirmed: &Message<'_>,
        number: usize,
    ) {
        let probe = self.probe(index, role, unconfirmed, number);
        if let Some(disposition) = probe.and_then(|probe| probe.disposition) {
            self.elsewhere.insert(index, disposition);
        }
    }

    /// The request on its rung, after `passed` rungs that did not take it.
    pub(super) fn on_rung(
        &self,
        index: usize,
        passed: usize,
    ) -> Option<(Disposition, Message<'a>)> {
        let (delivery, ladder, now) = (self.carrier(index), &self.shared.ladder, Timestamp::now());
        let from = |first| ladder.rung_from(first, passed);
        let queue = |rung: usize| self.shared.retry_queues[rung].as_str();
        let on_rung = match &self.dispositions[index] {
            Disposition::Retry { rung } => {
                let rung = from(*rung)?;
                let message = Message::retry(queue(rung), delivery, now);
                (Disposition::Retry { rung }, message)
            }
            Disposition::AwaitTrust { rung } => {
                let rung = from(*rung)?;
                let message = Message::wait(queue(rung), delivery, now);
                (Disposition::AwaitTrust { rung }, message)
            }
            Disposition::Wait { rung } => {
                let rung = from(*rung)?;
                let message = Message::wait(queue(rung), delivery, now);
                (Disposition::Wait { rung }, message)
            }
            Disposition::Answer(_) | Disposition::Returned | Disposition::DeadLetter { .. } => {
                let rung = from(ladder.wait(delivery.envelope.waits)?)?;
                let message = Message::wait(queue(rung), delivery, now);
                (Disposition::Wait { rung }, message)
            }
        };
        Some(on_rung)
    }

    /// The event to revertd's own queue alone, if the delivery has an event and the queue exists.
    pub(super) fn own_event(&self, index: usize) -> Option<Message<'a>> {
        let topology = &self.shared.settings.topology;
        let event = self.dispositions[index].event()?;
        let queue = if event.is_denied() {
            &topology.denied_queue
        } else if topology.reply_queue_declare {
            &topology.reply_queue
        } else {
            return None;
        };
        let delivery = &self.batch[index];
        Some(Message::event_to(queue.as_str(), event, delivery))
    }
}
