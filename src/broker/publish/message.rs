//! Messages that the worker publishes: events, retries, dead letters.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::login::PublishLogin;
use crate::broker::consume::delivery::Delivery;
use crate::broker::error::BrokerError;
use crate::broker::properties;
use crate::broker::queues::queued_message::QueuedMessage;
use crate::config::DIRECT_REPLY_TO;
use crate::domain::disposition::attempts;
use crate::domain::event::{CONTENT_TYPE, Event, SOURCE};
use crate::domain::outcome::Failure;

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

/// The source of a message's properties. The properties are large, and built when it is published.
#[derive(Clone, Debug)]
pub(crate) enum Properties<'a> {
    Event(&'a Event, &'a Delivery),
    /// Those of the delivery, with further headers.
    PassedOn(&'a Delivery, Passing<'a>, Timestamp),
    Made(Box<BasicProperties>),
}

/// The cause of publishing a delivery again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Passing<'a> {
    /// A retry, after an attempt.
    Retry,
    /// A wait, which is no attempt.
    Wait,
    /// A dead letter.
    DeadLetter(&'a Failure),
}

impl Properties<'_> {
    /// The properties as `login` publishes them.
    pub(crate) fn make(&self, login: &PublishLogin) -> BasicProperties {
        match self {
            Self::Event(event, delivery) => answering(event, delivery),
            Self::PassedOn(delivery, passing, now) => {
                login.passed_on(delivery, noted(delivery, *passing, *now))
            }
            Self::Made(properties) => (**properties).clone(),
        }
    }

    /// The message id, by which a returned message is recognized.
    pub(crate) fn message_id(&self) -> Option<ShortString> {
        match self {
            Self::Event(event, _) => Some(event.id.to_string().into()),
            Self::PassedOn(delivery, ..) => delivery.properties.message_id().clone(),
            Self::Made(properties) => properties.message_id().clone(),
        }
    }
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

    /// A copy of the event to the queue that the request named in `reply_to`. It borrows nothing,
    /// since it is published later.
    #[must_use]
    pub fn copy(queue: &str, event: &Event, delivery: &Delivery) -> Message<'static> {
        Message {
            exchange: "",
            routing_key: Cow::Owned(queue.to_owned()),
            properties: Properties::Made(Box::new(answering(event, delivery))),
            body: Cow::Owned(event.body.clone()),
            is_event: true,
            // The broker returns every mandatory message to a direct reply-to, delivered or not.
            mandatory: !is_direct(queue),
        }
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
            Properties::Event(_, delivery) | Properties::PassedOn(delivery, ..) => {
                delivery.envelope.trace_id()
            }
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

/// The headers that are added to a delivery that is published again.
fn noted(
    delivery: &Delivery,
    passing: Passing<'_>,
    now: Timestamp,
) -> Vec<(&'static str, AMQPValue)> {
    let envelope = &delivery.envelope;
    let count = match passing {
        Passing::Retry | Passing::DeadLetter(_) => attempts(envelope),
        Passing::Wait => envelope.attempts,
    };
    // The claim of an untrusted login is kept until the login is trusted.
    let said = envelope
        .claim
        .as_ref()
        .and_then(|_| properties::noted_first_attempt(&delivery.properties));
    let first = delivery.first_attempt_at.or(said).unwrap_or(now);
    let mut added = counted(count, first);
    if let Some(cut) = &delivery.cut {
        let bytes = i64::try_from(cut.bytes).unwrap_or(i64::MAX);
        added.push((properties::BODY_SIZE, AMQPValue::LongLongInt(bytes)));
        let sha256 = properties::long_text(&hexadecimal(&cut.sha256));
        added.push((properties::BODY_SHA256, sha256));
    }
    match (passing, &envelope.claim) {
        (Passing::Retry, _) => {}
        (Passing::Wait, Some(claim)) => {
            let since = claim.since.unwrap_or(now).to_string();
            added.push((properties::UNTRUSTED_SINCE, properties::long_text(&since)));
        }
        (Passing::Wait, None) => {
            let waits = i64::from(envelope.waits.saturating_add(1));
            added.push((properties::WAITS, AMQPValue::LongLongInt(waits)));
        }
        (Passing::DeadLetter(failure), _) => {
            let (code, message) = (failure.code(), failure.message());
            added.push((properties::ERROR_CODE, AMQPValue::LongInt(code.number)));
            added.push((properties::ERROR_REASON, properties::long_text(code.reason)));
            added.push((properties::ERROR_MESSAGE, properties::long_text(message)));
        }
    }
    added
}

fn counted(attempts: u32, first: Timestamp) -> Vec<(&'static str, AMQPValue)> {
    let count = i64::from(attempts);
    let first = properties::long_text(&first.to_string());
    vec![
        (properties::ATTEMPTS, AMQPValue::LongLongInt(count)),
        (properties::FIRST_ATTEMPT_AT, first),
    ]
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn answering(event: &Event, delivery: &Delivery) -> BasicProperties {
    let envelope = &delivery.envelope;
    let correlation = envelope
        .correlation_id
        .as_ref()
        .or(envelope.message_id.as_ref());
    let correlation = correlation.map(String::as_str);
    event_properties(event, correlation, envelope.traceparent.as_deref())
}

fn event_properties(
    event: &Event,
    correlation: Option<&str>,
    traceparent: Option<&str>,
) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(2)
        .with_message_id(event.id.to_string().into())
        .with_type(event.kind.name().into())
        .with_timestamp(u64::try_from(event.time.as_second()).unwrap_or(0))
        .with_app_id(SOURCE.into());
    if let Some(correlation) = correlation {
        properties = properties.with_correlation_id(correlation.into());
    }
    if let Some(traceparent) = traceparent {
        let mut headers = FieldTable::default();
        headers.insert(
            properties::TRACEPARENT.into(),
            properties::long_text(traceparent),
        );
        properties = properties.with_headers(headers);
    }
    properties
}
