//! What a request's headers say beside who asks. Pure.

use axum::http::header::{AsHeaderName, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::domain::outcome::ID_REQUIRED;
use crate::domain::request::{Violation, is_traceparent};

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What AMQP carries in `message_id`.
const ID_MAX_BYTES: usize = 255;

/// The ids of a request.
#[derive(Clone, Debug)]
pub struct Ids {
    /// The message's id: the `Idempotency-Key` as it stands, or a fresh one.
    pub message_id: Result<String, Violation>,
    /// `X-Request-Id` of the answer: the client's own, or the message's id.
    pub shown: HeaderValue,
    /// The trace that the request belongs to.
    pub traceparent: Option<HeaderValue>,
}

impl Ids {
    /// Reads them. With `key_required`, a request without a key is refused: sent twice, it would be two requests.
    pub fn of(headers: &HeaderMap, key_required: bool) -> Self {
        let fresh = || Uuid::new_v4().to_string();
        let message_id = match headers.get(IDEMPOTENCY_KEY) {
            None if key_required => Err(Violation {
                field: "Idempotency-Key",
                description: ID_REQUIRED.into(),
            }),
            None => Ok(fresh()),
            Some(_) => only(headers, IDEMPOTENCY_KEY)
                .and_then(text)
                .map(str::to_owned)
                .ok_or_else(|| Violation {
                    field: "Idempotency-Key",
                    description: "must be one header of 1 to 255 visible ASCII characters".into(),
                }),
        };
        let given = only(headers, REQUEST_ID).filter(|id| text(id).is_some());
        let shown = given.cloned().unwrap_or_else(|| {
            let id = message_id.clone().unwrap_or_else(|_| fresh());
            HeaderValue::try_from(id).expect("visible ASCII is a header's value")
        });
        let traceparent =
            only(headers, TRACEPARENT).filter(|given| given.to_str().is_ok_and(is_traceparent));
        Self {
            message_id,
            shown,
            traceparent: traceparent.cloned(),
        }
    }
}

/// A header's value, unless it is missing or repeated.
pub fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether the body is said to be JSON, as it is. Parameters don't count.
pub fn is_json(headers: &HeaderMap) -> bool {
    let essence = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        Some(text.split(';').next()?.trim().to_ascii_lowercase())
    };
    let json = only(headers, CONTENT_TYPE).and_then(essence);
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    json.as_deref() == Some("application/json") && plain
}

/// Visible ASCII, with spaces inside at most.
fn text(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let bounded = (1..=ID_MAX_BYTES).contains(&text.len()) && text.trim() == text;
    (visible && bounded).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = given.iter().map(|(name, value)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header's value");
            (name.clone(), value)
        });
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    #[test]
    fn the_idempotency_key_is_the_message_id_unchanged() {
        let longest = "k".repeat(255);
        for key in ["k", "a b", "~!\"{}", &longest] {
            let ids = Ids::of(&headers(&[(IDEMPOTENCY_KEY, key)]), false);
            assert_eq!(ids.message_id.as_deref(), Ok(key));
            assert_eq!(ids.shown, key);
        }
        let too_long = "k".repeat(256);
        for key in ["", "a\tb", "é", &too_long] {
            let ids = Ids::of(&headers(&[(IDEMPOTENCY_KEY, key)]), false);
            assert!(ids.message_id.is_err(), "{key}");
        }
        let twice = headers(&[(IDEMPOTENCY_KEY, "a"), (IDEMPOTENCY_KEY, "a")]);
        assert!(Ids::of(&twice, false).message_id.is_err());
        let [one, two] = [0, 1].map(|_| Ids::of(&HeaderMap::new(), false).message_id);
        assert_ne!(one, two);
    }

    #[test]
    fn a_required_idempotency_key_is_not_generated() {
        assert!(Ids::of(&HeaderMap::new(), true).message_id.is_err());
        let given = Ids::of(&headers(&[(IDEMPOTENCY_KEY, "k")]), true);
        assert_eq!(given.message_id.as_deref(), Ok("k"));
    }

    #[test]
    fn an_invalid_request_id_is_replaced_by_message_id() {
        let both = |id| headers(&[(REQUEST_ID, id), (IDEMPOTENCY_KEY, "key")]);
        assert_eq!(Ids::of(&both("mine"), false).shown, "mine");
        assert_eq!(Ids::of(&both("mïne"), false).shown, "key");
        assert_eq!(Ids::of(&both(""), false).shown, "key");
    }

    #[test]
    fn an_invalid_trace_context_is_ignored() {
        let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let of = |given: &str| Ids::of(&headers(&[(TRACEPARENT, given)]), false).traceparent;
        assert_eq!(of(sound).expect("sound"), sound);
        assert_eq!(of(&sound.to_uppercase()), None);
        assert_eq!(of("00-1-2-3"), None);
    }

    #[test]
    fn content_type_json_may_have_parameters() {
        for (given, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json;x=y", true),
            ("application/jsonl", false),
            ("text/json", false),
            ("", false),
        ] {
            assert_eq!(is_json(&headers(&[(CONTENT_TYPE, given)])), json, "{given}");
        }
        assert!(!is_json(&HeaderMap::new()));
        let json = (CONTENT_TYPE, "application/json");
        assert!(!is_json(&headers(&[json.clone(), json.clone()])));
        assert!(is_json(&headers(&[
            json.clone(),
            (CONTENT_ENCODING, "identity")
        ])));
        assert!(!is_json(&headers(&[json, (CONTENT_ENCODING, "gzip")])));
    }
}
