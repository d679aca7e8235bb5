//! AMQP properties: parsed from deliveries, and passed on to messages that are published again.
//!
//! Publishing again uses the worker's permissions. Properties that make the broker act (routing,
//! expiry, dead-lettering) are therefore removed first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

pub const ATTEMPTS: &str = "x-attempts";
pub const CLIENT: &str = "x-client";
pub const WAITS: &str = "x-waits";
pub const FIRST_ATTEMPT_AT: &str = "x-first-attempt-at";
/// The chain of logins that an untrusted login in `x-client` claims: each names the next.
pub const CLAIMED: &str = "x-client-claimed";
/// The time since which such a message waits.
pub const UNTRUSTED_SINCE: &str = "x-untrusted-since";
/// Marks a dead letter that was published again.
pub const REPLAYED: &str = "x-replayed";
pub const ERROR_CODE: &str = "x-error-code";
pub const ERROR_REASON: &str = "x-error-reason";
pub const ERROR_MESSAGE: &str = "x-error-message";
pub const HEADERS_DROPPED: &str = "x-headers-dropped";
/// The `message_id` of the group whose events a message carries.
pub const GROUP: &str = "x-group";
/// The number of requests of the group.
pub const GROUP_SIZE: &str = "x-group-size";
/// The number of events in the message.
pub const GROUP_COUNT: &str = "x-group-count";
pub const TRACEPARENT: &str = "traceparent";
pub const BODY_SIZE: &str = "x-body-size";
pub const BODY_SHA256: &str = "x-body-sha256";
pub const MAX_ATTEMPTS: &str = "x-max-attempts";

/// Headers that are never passed on. CC and BCC would route copies to any queue of the publisher's
/// choice. With a forged x-death the broker takes an expiry for a cycle and drops the message.
const NEVER_PASSED_ON: [&str; 19] = [
    "CC",
    "BCC",
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    WAITS,
    BODY_SIZE,
    BODY_SHA256,
    ERROR_CODE,
    ERROR_REASON,
    ERROR_MESSAGE,
    CLAIMED,
    UNTRUSTED_SINCE,
    REPLAYED,
];

/// The longest text of a header, in bytes.
const TEXT_MAX_BYTES: usize = 500;

/// A header.
pub fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

/// The properties of a request of a group, from those of the group.
pub fn of_member(group: &BasicProperties, message_id: &str) -> BasicProperties {
    let read = [TRACEPARENT, MAX_ATTEMPTS];
    let headers = read.map(|name| Some((name.into(), header(group, name)?.clone())));
    let headers: BTreeMap<ShortString, AMQPValue> = headers.into_iter().flatten().collect();
    let mut properties = BasicProperties::default()
        .with_message_id(message_id.into())
        .with_headers(FieldTable::from(headers));
    if let Some(value) = group.content_type() {
        properties = properties.with_content_type(value.clone());
    }
    if let Some(value) = group.correlation_id() {
        properties = properties.with_correlation_id(value.clone());
    }
    if let Some(value) = group.reply_to() {
        properties = properties.with_reply_to(value.clone());
    }
    if let Some(value) = group.timestamp() {
        properties = properties.with_timestamp(*value);
    }
    if let Some(value) = group.priority() {
        properties = properties.with_priority(*value);
    }
    properties
}

/// The properties of a delivery that `user` publishes again, with `added` headers: as a request of
/// `client`, or of the client that it claims. If they exceed `max_bytes` (a frame), the publisher's
/// headers are left out.
pub fn passed_on(
    properties: &BasicProperties,
    client: &str,
    claimed: &[String],
    user: &str,
    added: Vec<(&'static str, AMQPValue)>,
    max_bytes: usize,
) -> BasicProperties {
    let mut headers: BTreeMap<ShortString, AMQPValue> = properties
        .headers()
        .as_ref()
        .map(|table| table.inner().clone())
        .unwrap_or_default();
    headers.retain(|name, _| {
        let named = |never: &&str| never.eq_ignore_ascii_case(name.as_str());
        !NEVER_PASSED_ON.iter().any(named)
    });
    if table_bytes(&headers) > max_bytes {
        headers = BTreeMap::from([(HEADERS_DROPPED.into(), AMQPValue::Boolean(true))]);
    }
    headers.insert(CLIENT.into(), AMQPValue::LongString(client.into()));
    if !claimed.is_empty() {
        headers.insert(CLAIMED.into(), array(claimed));
    }
    for (name, value) in added {
        headers.insert(name.into(), value);
    }
    let mut passed = BasicProperties::default()
        .with_headers(FieldTable::from(headers))
        .with_delivery_mode(2)
        .with_user_id(user.into());
    // Without expiration, which would end the wait on a rung early, and user_id, which the broker
    // refuses.
    if let Some(value) = properties.content_type() {
        passed = passed.with_content_type(value.clone());
    }
    if let Some(value) = properties.content_encoding() {
        passed = passed.with_content_encoding(value.clone());
    }
    if let Some(value) = properties.priority() {
        passed = passed.with_priority(*value);
    }
    if let Some(value) = properties.correlation_id() {
        passed = passed.with_correlation_id(value.clone());
    }
    if let Some(value) = properties.reply_to() {
        passed = passed.with_reply_to(value.clone());
    }
    if let Some(value) = properties.message_id() {
        passed = passed.with_message_id(value.clone());
    }
    if let Some(value) = properties.timestamp() {
        passed = passed.with_timestamp(*value);
    }
    if let Some(value) = properties.kind() {
        passed = passed.with_type(value.clone());
    }
    if let Some(value) = properties.app_id() {
        passed = passed.with_app_id(value.clone());
    }
    if let Some(value) = properties.cluster_id() {
        passed = passed.with_cluster_id(value.clone());
    }
    passed
}

/// The properties of a replayed dead letter. Of the worker's headers only the client is kept, since
/// a replay begins a new ladder.
pub fn replayed(
    properties: &BasicProperties,
    client: &str,
    user: &str,
    max_bytes: usize,
) -> BasicProperties {
    // It tells a worker that does not trust this login that the client is another one.
    let replayed = vec![(REPLAYED, AMQPValue::Boolean(true))];
    let passed = passed_on(properties, client, &[], user, replayed, max_bytes);
    let mut headers = passed.headers().clone().unwrap_or_default().inner().clone();
    for noted in [ATTEMPTS, FIRST_ATTEMPT_AT] {
        headers.remove(noted);
    }
    passed.with_headers(FieldTable::from(headers))
}

/// The publisher's timestamp.
pub fn published_at(properties: &BasicProperties) -> Option<Timestamp> {
    let seconds = i64::try_from((*properties.timestamp())?).ok()?;
    Timestamp::from_second(seconds).ok()
}

/// The time of the first attempt, by the message's header.
pub fn noted_first_attempt(properties: &BasicProperties) -> Option<Timestamp> {
    header(properties, FIRST_ATTEMPT_AT)
        .and_then(text)?
        .parse()
        .ok()
}

/// A header's text, cut to a bounded length.
pub fn long_text(text: &str) -> AMQPValue {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    AMQPValue::LongString(text[..end].into())
}

/// The chain as a header.
pub fn array(names: &[String]) -> AMQPValue {
    let text = |name: &String| AMQPValue::LongString(name.as_str().into());
    AMQPValue::FieldArray(FieldArray::from(names.iter().map(text).collect::<Vec<_>>()))
}

/// A value's text, if it is UTF-8.
pub fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// A value's number, if it is an integer.
pub fn integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortShortUInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortInt(value) => Some(i64::from(*value)),
        AMQPValue::ShortUInt(value) => Some(i64::from(*value)),
        AMQPValue::LongInt(value) => Some(i64::from(*value)),
        AMQPValue::LongUInt(value) => Some(i64::from(*value)),
        AMQPValue::LongLongInt(value) => Some(*value),
        _ => None,
    }
}

/// An upper bound of the table's size in a frame, in bytes.
fn table_bytes(table: &BTreeMap<ShortString, AMQPValue>) -> usize {
    let entry =
        |(name, value): (&ShortString, &AMQPValue)| 1 + name.as_str().len() + value_bytes(value);
    4 + table.iter().map(entry).sum::<usize>()
}

fn value_bytes(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(array) => 4 + array.as_slice().iter().map(value_bytes).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_bytes(table.inner()),
        _ => 8,
    }
}
