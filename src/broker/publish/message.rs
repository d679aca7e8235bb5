//! Messages that the worker publishes: events, retries, dead letters.

use std::borrow::Cow;

use jiff::Timestamp;

use super::login::PublishLogin;
use crate::broker::consume::delivery::Delivery;
use crate::broker::error::BrokerError;
use crate::broker::queues::queued_message::QueuedMessage;
use crate::config::DIRECT_REPLY_TO;
use crate::domain::event::{CONTENT_TYPE, Event};
use crate::domain::event_batch::EventMessage;
use crate::domain::outcome::Failure;
use source::{GroupEvents, Passing, event_properties};

mod source;

pub(crate) use source::Properties;

/// Whether a `reply_to` is the address of a direct reply-to rather than a queue's name.
#[must_use]
pub fn is_direct(reply_to: &str) -> bool {
    reply_to.starts_with(DIRECT_REPLY_TO)
}

/// A message to publish: persistent, and mandatory unless it goes to a direct reply-to.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: Cow<'a, str>,
    pub(crate) properties: Properties<'a>,
    pub(crate) body: Cow<'a, [u8]>,
    pub(crate) is_event: bool,
    pub(crate) mandatory: bool,
}

impl<'a> Message<'a> {
    /// The event that answers `delivery`, to the reply exchange.
    #[must_use]
    pub fn answer(exchange: &'a str, event: &'a Event, delivery: &'a Delivery) -> Self {
        Self {
            exchange,
            routing_key: Cow::Borrowed(&event.routing_key),
            properties: Properties::Event(event, delivery),
            body: Cow::Borrowed(&event.body),
            is_event: true,
            mandatory: true,
        }
    }

    /// Events of a group, to the reply exchange. `delivery` is the request of the first.
    #[must_use]
    pub fn group_events(
        exchange: &'a str,
        events: EventMessage<'a>,
        delivery: &'a Delivery,
    ) -> Self {
        let is_single = events.content_type == CONTENT_TYPE;
        let of_group = GroupEvents {
            id: events.id,
            content_type: events.content_type,
            time: events.time,
            group: events.group.id,
            size: events.group.size,
            count: events.events.len(),
            kind: is_single.then(|| events.events[0].1.kind.name()),
        };
        Self {
            exchange,
            routing_key: Cow::Borrowed(events.routing_key),
            properties: Properties::Group(of_group, delivery),
            body: events.body,
            is_event: true,
            mandatory: true,
        }
    }

    /// The event that answers `delivery`, to one queue alone.
    #[must_use]
    pub fn event_to(queue: &'a str, event: &'a Event, delivery: &'a Delivery) -> Self {
        Self::answer(queue, event, delivery).straight_to(queue)
    }

    /// `delivery` again, for a retry after `queue`.
    #[must_use]
    pub fn retry(queue: &'a str, delivery: &'a Delivery, now: Timestamp) -> Self {
        let properties = Properties::PassedOn(delivery, Passing::Retry, now);
        Self::again("", queue, delivery, properties)
    }

    /// `delivery` again, to wait in `queue` without an attempt.
    #[must_use]
    pub fn wait(queue: &'a str, delivery: &'a Delivery, now: Timestamp) -> Self {
        let properties = Properties::PassedOn(delivery, Passing::Wait, now);
        Self::again("", queue, delivery, properties)
    }

    /// `delivery` again, with its reason, to the dead-letter exchange.
    #[must_use]
    pub fn dead_letter(
        exchange: &'a str,
        routing_key: &'a str,
        delivery: &'a Delivery,
        failure: &'a Failure,
        now: Timestamp,
    ) -> Self {
        let properties = Properties::PassedOn(delivery, Passing::DeadLetter(failure), now);
        Self::again(exchange, routing_key, delivery, properties)
    }

    /// A copy of this message of events to the queue that the request named in `reply_to`. It
    /// borrows nothing, since it is published later. `None` if the message carries no event.
    #[must_use]
    pub fn copy(&self, queue: &str) -> Option<Message<'static>> {
        Some(Message {
            exchange: "",
            routing_key: Cow::Owned(queue.to_owned()),
            properties: Properties::Made(Box::new(self.properties.of_event()?)),
            body: Cow::Owned(self.body.clone().into_owned()),
            is_event: true,
            // The broker returns every mandatory message to a direct reply-to, delivered or not.
            mandatory: !is_direct(queue),
        })
    }

    /// A dead letter as a request, as `login` publishes it. `None` if it can't be parsed.
    #[must_use]
    pub fn replay(
        exchange: &'a str,
        routing_key: &'a str,
        letter: &'a QueuedMessage,
        login: &PublishLogin,
    ) -> Option<Self> {
        Some(Self {
            exchange,
            routing_key: Cow::Borrowed(routing_key),
            properties: Properties::Made(Box::new(login.replayed(letter)?)),
            body: Cow::Borrowed(&letter.body),
            is_event: false,
            mandatory: true,
        })
    }

    /// A stored event again, without a delivery.
    #[must_use]
    pub fn event_again(exchange: &'a str, event: &'a Event, correlation: Option<&str>) -> Self {
        Self {
            exchange,
            routing_key: Cow::Borrowed(&event.routing_key),
            properties: Properties::Made(Box::new(event_properties(event, correlation, None))),
            body: Cow::Borrowed(&event.body),
            is_event: true,
            mandatory: true,
        }
    }

    /// Whether it is an event whose outcome the database stores.
    #[must_use]
    pub fn is_event(&self) -> bool {
        self.is_event
    }

    /// The trace id of its request.
    #[must_use]
    pub fn trace_id(&self) -> Option<&'a str> {
        match &self.properties {
            Properties::Event(_, delivery)
            | Properties::Group(_, delivery)
            | Properties::PassedOn(delivery, ..) => delivery.envelope.trace_id(),
            Properties::Made(_) => None,
        }
    }

    /// Its target, for log messages.
    #[must_use]
    pub fn target(&self) -> &str {
        if self.exchange.is_empty() {
            &self.routing_key
        } else {
            self.exchange
        }
    }

    /// Exchange and routing key, which determine its queues.
    #[must_use]
    pub fn route(&self) -> (&str, &str) {
        (self.exchange, &self.routing_key)
    }

    /// The error if the broker does not accept it.
    #[must_use]
    pub fn undeliverable(&self) -> BrokerError {
        BrokerError::transient(format!(
            "{} accepts no messages: it is missing, full, or not bound",
            self.target()
        ))
    }

    fn again(
        exchange: &'a str,
        routing_key: &'a str,
        delivery: &'a Delivery,
        properties: Properties<'a>,
    ) -> Self {
        Self {
            exchange,
            routing_key: Cow::Borrowed(routing_key),
            properties,
            body: Cow::Borrowed(&delivery.body),
            is_event: false,
            mandatory: true,
        }
    }

    /// The message to one queue alone.
    pub(crate) fn straight_to(self, queue: &'a str) -> Self {
        Self {
            exchange: "",
            routing_key: Cow::Borrowed(queue),
            ..self
        }
    }
}
