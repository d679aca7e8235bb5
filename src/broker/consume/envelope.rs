//! What a delivery says beside its body, read as far as its login is trusted.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::ShortString;

use super::trust::{Speakers, Trust};
use crate::broker::properties::{
    ATTEMPTS, CLIENT, MAX_ATTEMPTS, TRACEPARENT, WAITS, header, integer, noted_first_attempt, text,
};
use crate::domain::request::{Envelope, is_traceparent};

/// Parses the properties of a delivery, or with `noted` those of a dead letter.
pub fn envelope(properties: &BasicProperties, trust: &Trust, noted: bool) -> Envelope {
    let Speakers { client, claim } = trust.speakers(properties, noted);
    let header = |name| header(properties, name);
    let count = |name| {
        header(name)
            .and_then(integer)
            .and_then(|value| u32::try_from(value).ok())
    };
    Envelope {
        client,
        claim,
        message_id: given(properties.message_id().as_ref()),
        correlation_id: given(properties.correlation_id().as_ref()),
        reply_to: given(properties.reply_to().as_ref()),
        traceparent: header(TRACEPARENT)
            .and_then(text)
            .filter(|text| is_traceparent(text)),
        attempts: count(ATTEMPTS).unwrap_or(0),
        waits: count(WAITS)
            .filter(|_| trust.vouches(properties))
            .unwrap_or(0),
        max_attempts: count(MAX_ATTEMPTS).filter(|max| *max > 0),
    }
}

/// Whether the message is a replayed dead letter: a trusted login published it, and it has a client
/// but no attempt, unlike a message from a rung.
pub fn is_replay(properties: &BasicProperties, trust: &Trust) -> bool {
    let has = |name: &str| header(properties, name).is_some();
    trust.vouches(properties) && has(CLIENT) && !has(ATTEMPTS)
}

/// The time of the first attempt, if a trusted login published the message.
pub fn first_attempt(properties: &BasicProperties, trust: &Trust) -> Option<Timestamp> {
    noted_first_attempt(properties).filter(|_| trust.vouches(properties))
}

fn given(value: Option<&ShortString>) -> Option<String> {
    let text = value.map(ShortString::as_str);
    text.filter(|text| !text.is_empty()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lapin::types::FieldTable;

    use super::*;
    use crate::broker::properties::passed_on;
    use crate::config::Settings;

    #[test]
    fn retry_headers_count_only_from_the_own_login() {
        let headers = BTreeMap::from([(WAITS.into(), lapin::types::AMQPValue::LongLongInt(3))]);
        let properties = |user: &str| {
            BasicProperties::default()
                .with_headers(FieldTable::from(headers.clone()))
                .with_user_id(user.into())
        };
        let trust = Trust::new("worker", &Settings::load_from(None, []).expect("defaults"));
        let waits = |properties: &BasicProperties| envelope(properties, &trust, false).waits;
        assert_eq!(waits(&properties("worker")), 3);
        assert_eq!(waits(&properties("other")), 0);
        let other = properties("other");
        let passed = passed_on(&other, "other", &[], "worker", Vec::new(), 1000);
        assert_eq!(waits(&passed), 0, "it is taken off");
    }
}
