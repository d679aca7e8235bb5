//! The source of a message's properties, and the properties that are made from it.

use std::fmt::Write;

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use uuid::Uuid;

use crate::broker::consume::delivery::Delivery;
use crate::broker::properties;
use crate::broker::publish::login::PublishLogin;
use crate::domain::disposition::attempts;
use crate::domain::event::{CONTENT_TYPE, Event, SOURCE};
use crate::domain::outcome::Failure;

/// The source of a message's properties. The properties are large, and built when it is published.
#[derive(Clone, Debug)]
pub(crate) enum Properties<'a> {
    Event(&'a Event, &'a Delivery),
    /// Those of events of a group. The delivery is the first of their requests.
    Group(GroupEvents<'a>, &'a Delivery),
    /// Those of the delivery, with further headers.
    PassedOn(&'a Delivery, Passing<'a>, Timestamp),
    Made(Box<BasicProperties>),
}

/// A message that carries events of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupEvents<'a> {
    pub id: Uuid,
    pub content_type: &'static str,
    pub time: Timestamp,
    pub group: &'a str,
    pub size: usize,
    pub count: usize,
    /// The AMQP `type` of a single event.
    pub kind: Option<&'static str>,
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
            Self::Group(events, delivery) => answering_group(events, delivery),
            Self::PassedOn(delivery, passing, now) => {
                login.passed_on(delivery, noted(delivery, *passing, *now))
            }
            Self::Made(properties) => (**properties).clone(),
        }
    }

    /// The properties of an event, which are the same for every login.
    pub(super) fn of_event(&self) -> Option<BasicProperties> {
        match self {
            Self::Event(event, delivery) => Some(answering(event, delivery)),
            Self::Group(events, delivery) => Some(answering_group(events, delivery)),
            Self::PassedOn(..) | Self::Made(_) => None,
        }
    }

    /// The message id, by which a returned message is recognized.
    pub(crate) fn message_id(&self) -> Option<ShortString> {
        match self {
            Self::Event(event, _) => Some(event.id.to_string().into()),
            Self::Group(events, _) => Some(events.id.to_string().into()),
            Self::PassedOn(delivery, ..) => delivery.properties.message_id().clone(),
            Self::Made(properties) => properties.message_id().clone(),
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

fn answering_group(events: &GroupEvents<'_>, delivery: &Delivery) -> BasicProperties {
    let envelope = &delivery.envelope;
    let correlation = envelope.correlation_id.as_deref().unwrap_or(events.group);
    let mut properties = properties_of_events(events.id, events.content_type, events.time)
        .with_correlation_id(correlation.into());
    if let Some(kind) = events.kind {
        properties = properties.with_type(kind.into());
    }
    let number = |number| AMQPValue::LongLongInt(i64::try_from(number).unwrap_or(i64::MAX));
    let mut headers = FieldTable::default();
    let group = properties::long_text(events.group);
    headers.insert(properties::GROUP.into(), group);
    headers.insert(properties::GROUP_SIZE.into(), number(events.size));
    headers.insert(properties::GROUP_COUNT.into(), number(events.count));
    if let Some(traceparent) = &envelope.traceparent {
        let traceparent = properties::long_text(traceparent);
        headers.insert(properties::TRACEPARENT.into(), traceparent);
    }
    properties.with_headers(headers)
}

pub(super) fn event_properties(
    event: &Event,
    correlation: Option<&str>,
    traceparent: Option<&str>,
) -> BasicProperties {
    let mut properties = properties_of_events(event.id, CONTENT_TYPE, event.time)
        .with_type(event.kind.name().into());
    if let Some(correlation) = correlation {
        properties = properties.with_correlation_id(correlation.into());
    }
    if let Some(traceparent) = traceparent {
        let mut headers = FieldTable::default();
        let traceparent = properties::long_text(traceparent);
        headers.insert(properties::TRACEPARENT.into(), traceparent);
        properties = properties.with_headers(headers);
    }
    properties
}

fn properties_of_events(id: Uuid, content_type: &str, time: Timestamp) -> BasicProperties {
    BasicProperties::default()
        .with_content_type(content_type.into())
        .with_delivery_mode(2)
        .with_message_id(id.to_string().into())
        .with_timestamp(u64::try_from(time.as_second()).unwrap_or(0))
        .with_app_id(SOURCE.into())
}
