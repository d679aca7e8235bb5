//! AMQP properties: what is read of a publisher's, and what of them is passed on.
//!
//! A publisher's properties are passed on under the worker's own permissions, so whatever makes the broker
//! act (routing, expiry, dead-lettering) is taken off first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::request::{Envelope, is_traceparent};

pub const ATTEMPTS: &str = "x-attempts";
pub const CLIENT: &str = "x-client";
pub const FIRST_ATTEMPT_AT: &str = "x-first-attempt-at";
pub const ERROR_CODE: &str = "x-error-code";
pub const ERROR_REASON: &str = "x-error-reason";
pub const ERROR_MESSAGE: &str = "x-error-message";
pub const HEADERS_DROPPED: &str = "x-headers-dropped";
pub const TRACEPARENT: &str = "traceparent";
pub const BODY_SIZE: &str = "x-body-size";
pub const BODY_SHA256: &str = "x-body-sha256";
pub const MAX_ATTEMPTS: &str = "x-max-attempts";

/// Headers that are never passed on. CC and BCC would route copies wherever the publisher likes; a forged
/// x-death makes the broker take an expiry for a cycle, and drop the message.
const NEVER_PASSED_ON: [&str; 15] = [
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
    BODY_SIZE,
    BODY_SHA256,
    ERROR_CODE,
    ERROR_REASON,
    ERROR_MESSAGE,
];

/// Longest text that is put into a header.
const TEXT_MAX_BYTES: usize = 500;

/// Reads a delivery's properties. `user` is the worker's own login: only what it published itself is
/// believed to name the client in `x-client`.
pub fn envelope(properties: &BasicProperties, user: &str) -> Envelope {
    let headers = properties.headers();
    let header = |name: &str| headers.as_ref().and_then(|table| table.inner().get(name));
    let from = properties.user_id().as_ref().map(ShortString::as_str);
    let client = match (from, header(CLIENT)) {
        (Some(from), Some(client)) if from == user => text(client).unwrap_or_default(),
        (Some(from), _) => from.to_owned(),
        (None, _) => String::new(),
    };
    let count = |name| {
        header(name)
            .and_then(integer)
            .and_then(|value| u32::try_from(value).ok())
    };
    Envelope {
        client,
        message_id: given(properties.message_id().as_ref()),
        correlation_id: given(properties.correlation_id().as_ref()),
        reply_to: given(properties.reply_to().as_ref()),
        traceparent: header(TRACEPARENT)
            .and_then(text)
            .filter(|text| is_traceparent(text)),
        attempts: count(ATTEMPTS).unwrap_or(0),
        max_attempts: count(MAX_ATTEMPTS).filter(|max| *max > 0),
    }
}

/// The properties under which a delivery is published again by `user`, with `added` headers. Where they would
/// not fit into `max_bytes` (a frame), the publisher's own headers are left behind.
pub fn passed_on(
    properties: &BasicProperties,
    client: &str,
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
    for (name, value) in added {
        headers.insert(name.into(), value);
    }
    let mut passed = BasicProperties::default()
        .with_headers(FieldTable::from(headers))
        .with_delivery_mode(2)
        .with_user_id(user.into());
    // All but expiration, which would end the message's wait early, and user_id, which the broker refuses.
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

/// The properties under which a dead letter is published as a request again: of what the worker noted on it only the
/// client is left, since a replay begins a new ladder.
pub fn replayed(
    properties: &BasicProperties,
    client: &str,
    user: &str,
    max_bytes: usize,
) -> BasicProperties {
    let passed = passed_on(properties, client, user, Vec::new(), max_bytes);
    let mut headers = passed.headers().clone().unwrap_or_default().inner().clone();
    for noted in [ATTEMPTS, FIRST_ATTEMPT_AT] {
        headers.remove(noted);
    }
    passed.with_headers(FieldTable::from(headers))
}

/// Whether they are those of a dead letter that was published again: they name the client as `user`, the worker's own
/// login, does, and no attempt, which a rung of the ladder would.
pub fn is_replay(properties: &BasicProperties, user: &str) -> bool {
    let headers = properties.headers().as_ref();
    let has = |name: &str| headers.is_some_and(|table| table.inner().contains_key(name));
    let from = properties.user_id().as_ref().map(ShortString::as_str);
    from == Some(user) && has(CLIENT) && !has(ATTEMPTS)
}

/// When the publisher says that it published the message.
pub fn published_at(properties: &BasicProperties) -> Option<Timestamp> {
    let seconds = i64::try_from((*properties.timestamp())?).ok()?;
    Timestamp::from_second(seconds).ok()
}

/// When the request was first attempted, believed only of what `user`, the worker's own login, published.
pub fn first_attempt(properties: &BasicProperties, user: &str) -> Option<Timestamp> {
    let from = properties.user_id().as_ref().map(ShortString::as_str);
    noted_first_attempt(properties).filter(|_| from == Some(user))
}

/// When the request was first attempted: as an earlier attempt noted it, or now.
pub fn first_attempt_at(properties: &BasicProperties, now: Timestamp) -> AMQPValue {
    let noted = noted_first_attempt(properties);
    long_text(&noted.unwrap_or(now).to_string())
}

fn noted_first_attempt(properties: &BasicProperties) -> Option<Timestamp> {
    let headers = properties.headers().as_ref();
    let noted = headers.and_then(|table| table.inner().get(FIRST_ATTEMPT_AT));
    noted.and_then(text)?.parse().ok()
}

/// A header's text, cut to a bounded length.
pub fn long_text(text: &str) -> AMQPValue {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    AMQPValue::LongString(text[..end].into())
}

fn given(value: Option<&ShortString>) -> Option<String> {
    let text = value.map(ShortString::as_str);
    text.filter(|text| !text.is_empty()).map(Into::into)
}

/// A value's text, where it is UTF-8.
pub fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// A value's number, where it is a whole one.
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

/// At least what the table takes up in a frame.
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
