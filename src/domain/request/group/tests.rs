use serde_json::{Value, json};

use super::*;
use crate::domain::request::{REQUEST_ID_MAX_BYTES, decode};

mod identity;
mod requests;
mod structure;

const USAGE: &str = "11111111-1111-4111-8111-111111111111";
const ORG: &str = "22222222-2222-4222-8222-222222222222";
const BILLING: &str = "33333333-3333-4333-8333-333333333333";
const LIMITS: RequestLimits = RequestLimits {
    message_bytes: 64 * 1024,
    group_bytes: 1024 * 1024,
    group_requests: 1000,
};

/// An element without an account.
fn element() -> Value {
    json!({"usage_id": USAGE, "amount": 1})
}

/// An element with an account and more members.
fn with(more: &Value) -> Value {
    let mut element = json!({"usage_id": USAGE, "amount": 1, "org_id": ORG});
    for (key, value) in more.as_object().expect("an object") {
        element[key] = value.clone();
    }
    element
}

fn group(body: &str) -> Group<'_> {
    match parse(body.as_bytes(), Some("m"), &LIMITS) {
        Ok(Body::Group(group)) => group,
        other => panic!("{other:?}"),
    }
}

fn malformed(body: &str, message_id: Option<&str>) -> String {
    match parse(body.as_bytes(), message_id, &LIMITS) {
        Err(Undecodable::Malformed(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// The fields that each request violates; none if it is valid.
fn violations(body: &str) -> Vec<Vec<&'static str>> {
    let requests = group(body).requests.into_iter();
    let fields = requests.map(|request| match request.fields {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid.violations.iter().map(|one| one.field).collect(),
    });
    fields.collect()
}

fn ids(body: &str) -> Vec<String> {
    let requests = group(body).requests.into_iter();
    requests.map(|request| request.id.into_owned()).collect()
}

/// A valid request that has exactly `bytes`.
fn element_of(bytes: usize) -> String {
    let empty = with(&json!({"x": ""})).to_string();
    with(&json!({"x": "x".repeat(bytes - empty.len())})).to_string()
}

/// A group of one valid request that has exactly `bytes`.
fn group_of(bytes: usize) -> String {
    let (start, end) = (r#"{"requests":["#, "],\"x\":\"\"}");
    let element = with(&json!({})).to_string();
    let missing = bytes - start.len() - element.len() - end.len();
    format!("{start}{element}],\"x\":\"{}\"}}", "x".repeat(missing))
}

#[test]
fn only_a_body_with_requests_is_a_group() {
    let single = with(&json!({"atomic": 5, "replies": 5})).to_string();
    let parsed = parse(single.as_bytes(), None, &LIMITS);
    assert_eq!(
        parsed,
        Ok(Body::Request(decode(single.as_bytes()).expect("valid")))
    );
    // null and the empty string count as absent.
    for absent in [Value::Null, json!("")] {
        let body = with(&json!({"requests": absent})).to_string();
        let parsed = parse(body.as_bytes(), None, &LIMITS);
        assert!(matches!(parsed, Ok(Body::Request(_))), "{body}");
    }
    let invalid = parse(b"{}", None, &LIMITS).expect_err("no fields");
    assert_eq!(Err(invalid), decode(b"{}"));
    let escaped = format!(r#"{{"\u0072equests":[{}]}}"#, with(&json!({})));
    assert_eq!(group(&escaped).requests.len(), 1);
}

#[test]
fn the_members_of_a_group_are_read() {
    for (more, atomic, replies) in [
        ("", false, Replies::Batch),
        (r#","atomic":false"#, false, Replies::Batch),
        (r#","atomic":null,"replies":null"#, false, Replies::Batch),
        (r#","atomic":"","replies":"""#, false, Replies::Batch),
        (r#","atomic":true,"unknown":[{}]"#, true, Replies::Batch),
        (r#","replies":"each","amount":null"#, false, Replies::Each),
    ] {
        let body = format!(r#"{{"requests":[{}]{more}}}"#, with(&json!({})));
        let group = group(&body);
        assert_eq!((group.atomic, group.replies), (atomic, replies), "{more}");
    }
}

#[test]
fn a_group_needs_a_message_id_that_can_be_stored() {
    let body = json!({"requests": [with(&json!({}))]}).to_string();
    assert_eq!(malformed(&body, None), "a group needs a message_id");
    let nul = malformed(&body, Some("a\0"));
    assert_eq!(nul, "message_id must not contain the character U+0000");
    // With "/0" an id has two bytes more.
    let id = "x".repeat(REQUEST_ID_MAX_BYTES - 2);
    assert!(parse(body.as_bytes(), Some(&id), &LIMITS).is_ok());
    let long = malformed(&body, Some(&format!("{id}x")));
    assert!(long.starts_with("message_id is too long"), "{long}");
    let given = json!({"requests": [with(&json!({"request_id": "a"}))]}).to_string();
    assert!(parse(given.as_bytes(), Some(&format!("{id}xx")), &LIMITS).is_ok());
}

#[test]
fn a_body_has_the_bound_of_its_kind() {
    assert!(parse(group_of(1024 * 1024).as_bytes(), Some("m"), &LIMITS).is_ok());
    assert_eq!(
        malformed(&group_of(1024 * 1024 + 1), Some("m")),
        "the body has 1048577 bytes, more than 1048576 (amqp.max_group_bytes)"
    );
    assert!(parse(element_of(64 * 1024).as_bytes(), None, &LIMITS).is_ok());
    for bytes in [64 * 1024 + 1, 1024 * 1024] {
        let text = malformed(&element_of(bytes), None);
        let expected = format!("has {bytes} bytes, more than 65536 (amqp.max_message_bytes)");
        assert!(text.ends_with(&expected), "{text}");
    }
    let longest = format!(r#"{{"requests":[{}]}}"#, element_of(64 * 1024));
    assert_eq!(group(&longest).requests.len(), 1);
    // Groups may have the smaller bound.
    let limits = RequestLimits {
        group_bytes: 100,
        ..LIMITS
    };
    let body = group_of(200);
    let refused = parse(body.as_bytes(), Some("m"), &limits);
    let text = "the body has 200 bytes, more than 100 (amqp.max_group_bytes)";
    assert_eq!(refused, Err(Undecodable::Malformed(text.into())));
    // A body above both bounds is not parsed.
    let text = malformed(&"[".repeat(1024 * 1024 + 1), None);
    assert!(
        text.ends_with("more than 1048576 (amqp.max_group_bytes)"),
        "{text}"
    );
}

#[test]
fn a_body_that_is_not_json_is_told_as_a_single_one() {
    let cases: [&[u8]; 7] = [
        b"",
        b"[]",
        b"{\"requests\":[}",
        b"{\"requests\":[{}",
        b"{\"requests\":[{}]}}",
        b"{\"requests\":[\"\xff\"]}",
        b"{\"requests\":[{\"a\":01}]}",
    ];
    for case in cases {
        let parsed = parse(case, Some("m"), &LIMITS).expect_err("malformed");
        assert_eq!(
            Err(parsed),
            decode(case),
            "{}",
            String::from_utf8_lossy(case)
        );
    }
}
