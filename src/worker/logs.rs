//! Log lines that publishers and subscribers can cause: each kind at most once a minute, with a
//! count.

use tracing::{debug, warn};

use crate::broker::{Delivery, Message};
use crate::common::log_limit::LogLimit;
use crate::domain::event::Event;
use crate::domain::outcome::Failure;
use crate::domain::request::Envelope;

/// One limit for each kind.
#[derive(Debug, Default)]
pub struct Logs {
    refused: LogLimit,
    unroutable: LogLimit,
    letters_dropped: LogLimit,
    undelivered: LogLimit,
    copies_failed: LogLimit,
    reply_to_refused: LogLimit,
    denied: LogLimit,
    untrusted: LogLimit,
    malformed: LogLimit,
    exhausted: LogLimit,
}

impl Logs {
    /// A queue refused messages; `first` is one of them.
    pub fn refused(&self, messages: usize, first: &Message<'_>) {
        if let Some(messages) = self.refused.note(messages as u64) {
            warn!(
                event = "queue_refused",
                messages,
                to = first.target(),
                "a queue refused messages: it is full, has no leader, or does not answer; make \
                room in it, or repair its cluster"
            );
        }
    }

    /// No queue is bound for these events.
    pub fn unroutable(&self, events: &[Message<'_>], exchange: &str) {
        if let Some(count) = self.unroutable.note(events.len() as u64) {
            // Of the first that is traced.
            let trace_id = events.iter().find_map(Message::trace_id);
            warn!(
                event = "event_unroutable",
                events = count,
                exchange,
                trace_id,
                "no queue is bound for these events; bind one, or set topology.reply_queue_declare"
            );
        }
    }

    /// The dead-letter queue refused the dead letter of a malformed request. The request is settled
    /// without it.
    pub fn letter_dropped(&self, delivery: &Delivery) {
        if let Some(letters) = self.letters_dropped.note(1) {
            let (message_id, client) = ids(delivery);
            warn!(
                event = "dead_letter_dropped",
                letters,
                message_id,
                client,
                "the dead-letter queue is full: dead letters of malformed requests were dropped; \
                make room with `revertd dead-letters discard`"
            );
        }
    }

    /// A subscriber's queue refused an event until the last retry. It is in revertd's own queue.
    pub fn undelivered(&self, delivery: &Delivery) {
        if let Some(events) = self.undelivered.note(1) {
            let (message_id, client) = ids(delivery);
            warn!(
                event = "event_undelivered",
                events,
                message_id,
                client,
                "a subscriber's queue refused events until the last retry; make room in it, then \
                send them again with `revertd events republish`"
            );
        }
    }

    /// Copies did not reach the queues named by `reply_to`; `error` is the last cause.
    pub fn copies_failed(&self, copies: usize, error: &str) {
        if let Some(copies) = self.copies_failed.note(copies as u64) {
            warn!(
                event = "copies_failed",
                copies, error, "copies of events did not reach the queues named by reply_to"
            );
        }
        debug!(
            copies,
            error, "copies of events did not reach the queues named by reply_to"
        );
    }

    /// A request names a queue in `reply_to` that it may not name. Its event goes to the reply
    /// exchange alone.
    pub fn reply_to_refused(&self, delivery: &Delivery, queue: &str) {
        if let Some(requests) = self.reply_to_refused.note(1) {
            let (message_id, client) = ids(delivery);
            warn!(
                requests,
                message_id,
                client,
                reply_to = queue,
                event = "reply_to_refused",
                "no copy was sent to reply_to: it is one of revertd's own queues, or does not \
                match amqp.reply_to_pattern; have the client name another queue, or widen the \
                pattern"
            );
        }
    }

    /// A request was refused because its client is unknown or has no grant.
    pub fn denied(&self, delivery: &Delivery, event: &Event) {
        if let Some(requests) = self.denied.note(1) {
            let (message_id, client) = ids(delivery);
            warn!(
                event = "request_denied",
                requests,
                message_id,
                client,
                reason = event.reason,
                "denied: requests of clients without a grant were refused"
            );
        }
    }

    /// A message waits until the login that names its client is trusted.
    pub fn untrusted(&self, envelope: &Envelope) {
        if let Some(messages) = self.untrusted.note(1) {
            warn!(
                event = "untrusted_login",
                messages,
                login = envelope.client,
                message_id = envelope.message_id,
                "a message waits: its login names another client and is not trusted to. If it is a \
                 former login of the worker or an operator's, add it to amqp.trusted_users and \
                 restart the workers; otherwise find out who publishes with it"
            );
        }
    }

    /// A message went to the dead-letter queue.
    pub fn dead_lettered(&self, delivery: &Delivery, event: &Event, failure: &Failure) {
        let limit = match failure {
            Failure::Malformed(_) => &self.malformed,
            Failure::RetriesExhausted(_) | Failure::Unavailable(_) => &self.exhausted,
        };
        if let Some(messages) = limit.note(1) {
            let (message_id, client) = ids(delivery);
            warn!(
                event = "dead_lettered",
                messages,
                message_id,
                client,
                event_id = %event.id,
                reason = event.reason,
                trace_id = delivery.envelope.trace_id(),
                "dead-lettered: {}",
                failure.message()
            );
        }
    }
}

fn ids(delivery: &Delivery) -> (Option<&str>, &str) {
    let envelope = &delivery.envelope;
    (envelope.message_id.as_deref(), &envelope.client)
}
