use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::request::{RevertRequest, decode};

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
fn a_fault_of_structure_fails_the_whole_group() {
    let valid = with(&json!({})).to_string();
    let with_more = |more: &str| format!(r#"{{"requests":[{valid}],{more}}}"#);
    let of = |elements: &[&str]| format!(r#"{{"requests":[{}]}}"#, elements.join(","));
    let many = vec![element(); 1001];
    let id = with(&json!({"request_id": "a"})).to_string();
    let first = with(&json!({"requestId": "m/1"})).to_string();
    let nested = format!(r#"{{"requests":[{valid}]}}"#);
    let long = element_of(64 * 1024 + 1);
    let reason = with_more(&format!(r#""reason":"{}""#, "x".repeat(513)));
    for (body, text) in [
        (r#"{"requests":[]}"#.into(), "requests is empty"),
        (r#"{"requests":{}}"#.into(), "requests must be an array"),
        (r#"{"requests":"x"}"#.into(), "requests must be an array"),
        (r#"{"requests":1e400}"#.into(), "requests must be an array"),
        (r#"{"requests":true}"#.into(), "requests must be an array"),
        (
            r#"{"requests":"\ud800"}"#.into(),
            "requests must be an array",
        ),
        (
            json!({"requests": many}).to_string(),
            "requests has 1001 elements, more than 1000 (amqp.max_group)",
        ),
        (
            with_more(r#""requests":null"#),
            "requests is given more than once",
        ),
        (with_more(r#""atomic":1"#), "atomic must be true or false"),
        (
            with_more(r#""atomic":"true""#),
            "atomic must be true or false",
        ),
        (with_more(r#""atomic":[]"#), "atomic must be true or false"),
        (
            with_more(r#""atomic":true,"atomic":true"#),
            "atomic is given more than once",
        ),
        (
            with_more(r#""replies":"batch""#),
            "replies must be \"each\", or absent",
        ),
        (
            with_more(r#""replies":true"#),
            "replies must be \"each\", or absent",
        ),
        (
            with_more(r#""replies":"each","replies":null"#),
            "replies is given more than once",
        ),
        (
            with_more(r#""amount":1"#),
            "amount beside requests: must stand in each",
        ),
        (
            with_more(r#""usageId":"x""#),
            "usage_id beside requests: must stand in each",
        ),
        (
            with_more(r#""billing_id":"x""#),
            "billing_id beside requests: must be a hyphenated UUID",
        ),
        (
            with_more(r#""orgId":5"#),
            "org_id beside requests: must be a UUID or a name",
        ),
        (
            with_more(r#""project_id":"a\u0000""#),
            "project_id beside requests: must not contain",
        ),
        (
            with_more(r#""org_id":"a","orgId":"a""#),
            "org_id beside requests: is given more than",
        ),
        (
            with_more(r#""org_id":"a","project_id":"b""#),
            "org_id beside requests: give org_id or",
        ),
        (
            reason,
            "reason beside requests: must be at most 512 characters long",
        ),
        (of(&[&valid, "5"]), "requests[1] is not a JSON object"),
        (of(&["null"]), "requests[0] is not a JSON object"),
        (
            of(&[&valid, &valid, "[]"]),
            "requests[2] is not a JSON object",
        ),
        (of(&["\"{}\""]), "requests[0] is not a JSON object"),
        (
            of(&[&valid, &nested]),
            "requests[1] has a member requests: a group can't hold a group",
        ),
        (
            of(&[r#"{"requests":5}"#]),
            "requests[0] has a member requests",
        ),
        (
            of(&[&id, &valid, &id]),
            "requests[2] has the id of requests[0]",
        ),
        (
            of(&[&first, &valid]),
            "requests[1] has the id of requests[0]",
        ),
        (
            of(&[&valid, &long]),
            "requests[1] has 65537 bytes, more than 65536",
        ),
    ] {
        let found = malformed(&body, Some("m"));
        let shown: String = body.chars().take(80).collect();
        assert!(found.starts_with(text), "{shown}: {found}");
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

#[test]
fn one_invalid_request_among_a_thousand_is_alone() {
    let mut elements = vec![with(&json!({})); 1000];
    elements[7]["amount"] = json!(-1);
    elements[7]["reason"] = json!("a\u{0}");
    let body = json!({"requests": elements}).to_string();
    let found = violations(&body);
    assert_eq!((found.len(), &found[7]), (1000, &vec!["amount", "reason"]));
    assert_eq!(found.iter().filter(|fields| fields.is_empty()).count(), 999);
    let Err(invalid) = &group(&body).requests[7].fields else {
        panic!("-1 is no amount");
    };
    assert_eq!(
        invalid.fragments.org_id.map(|id| id.to_string()).as_deref(),
        Some(ORG)
    );
}

#[test]
fn a_request_id_has_the_form_of_a_message_id() {
    let long = "x".repeat(255);
    for (given, id) in [
        (json!({}), "m/0"),
        (json!({"request_id": null}), "m/0"),
        (json!({"request_id": ""}), "m/0"),
        (json!({"request_id": "a\tü"}), "a\tü"),
        (json!({"requestId": long}), long.as_str()),
    ] {
        let body = json!({"requests": [with(&given)]}).to_string();
        assert_eq!(ids(&body), [id], "{given}");
        assert_eq!(violations(&body), [Vec::<&str>::new()], "{given}");
    }
    for wrong in [
        json!(5),
        json!(["a"]),
        json!(true),
        json!("a\0"),
        json!("x".repeat(256)),
    ] {
        let body = json!({"requests": [with(&json!({"request_id": wrong}))]}).to_string();
        assert_eq!(ids(&body), ["m/0"], "{wrong}");
        assert_eq!(violations(&body), [["request_id"]], "{wrong}");
    }
    for wrong in [
        r#""a","requestId":"a""#,
        r#""a","request_id":null"#,
        r#""\ud800""#,
    ] {
        let rest = r#""amount":0,"org_id":"a""#;
        let body = format!(r#"{{"requests":[{{"request_id":{wrong},{rest}}}]}}"#);
        assert_eq!(
            violations(&body),
            [["amount", "usage_id", "request_id"]],
            "{wrong}"
        );
    }
}

#[test]
fn ids_are_counted_from_0_where_none_is_given() {
    let named = with(&json!({"request_id": "a"}));
    let body = json!({"requests": [with(&json!({})), named, with(&json!({}))]}).to_string();
    assert_eq!(ids(&body), ["m/0", "a", "m/2"]);
}

#[test]
fn a_group_gives_an_account_to_those_without_one() {
    let bare = element();
    for (defaults, element, expected) in [
        (json!({"org_id": ORG}), bare.clone(), json!({"org_id": ORG})),
        (
            json!({"orgId": "acme"}),
            bare.clone(),
            json!({"org_id": "acme"}),
        ),
        (
            json!({"project_id": "p"}),
            bare.clone(),
            json!({"project_id": "p"}),
        ),
        (
            json!({"billing_id": BILLING, "project_id": "p"}),
            bare.clone(),
            json!({"billing_id": BILLING, "project_id": "p"}),
        ),
        // One of the three, and none of the group's are taken.
        (
            json!({"billing_id": BILLING}),
            with(&json!({})),
            json!({"org_id": ORG}),
        ),
        (
            json!({"project_id": "p"}),
            with(&json!({})),
            json!({"org_id": ORG}),
        ),
        // null and the empty string count as absent.
        (
            json!({"org_id": "acme"}),
            with(&json!({"org_id": null, "projectId": ""})),
            json!({"org_id": "acme"}),
        ),
        (
            json!({"org_id": "acme", "reason": "r"}),
            bare.clone(),
            json!({"org_id": "acme", "reason": "r"}),
        ),
        (
            json!({"reason": "r"}),
            with(&json!({"reason": "own"})),
            json!({"org_id": ORG, "reason": "own"}),
        ),
        (
            json!({"reason": "r"}),
            with(&json!({"reason": ""})),
            json!({"org_id": ORG, "reason": "r"}),
        ),
    ] {
        let mut body = defaults.clone();
        body["requests"] = json!([element]);
        let mut alone = expected.clone();
        alone["usage_id"] = json!(USAGE);
        alone["amount"] = json!(1);
        let body = body.to_string();
        let fields = group(&body).requests[0].fields.clone();
        let expected = decode(alone.to_string().as_bytes()).expect("valid");
        assert_eq!(fields, Ok(expected), "{body}");
    }
}

#[test]
fn the_group_does_not_replace_an_invalid_account() {
    let elements = [
        json!({"usage_id": USAGE, "amount": 1, "org_id": 5}),
        json!({"usage_id": USAGE, "amount": 1, "reason": 5}),
    ];
    let body = json!({"billing_id": BILLING, "reason": "r", "requests": elements}).to_string();
    assert_eq!(violations(&body), [["org_id"], ["reason"]]);
    let twice = r#""billing_id":null,"billingId":null"#;
    let body = format!(r#"{{"billing_id":"{BILLING}","requests":[{{{twice}}}]}}"#);
    assert_eq!(violations(&body), [["billing_id", "usage_id", "amount"]]);
}

#[test]
fn lone_surrogates_and_deep_nesting_are_json_here() {
    let deep = format!("{}1e400{}", "[".repeat(20_000), "]".repeat(20_000));
    let fields = format!(r#""usage_id":"{USAGE}","amount":1,"org_id":"a""#);
    let body = format!(
        r#"{{"\ud800":1,"x":{deep},"requests":[{{{fields},"\udc00":"\ud800","x":{deep}}}]}}"#
    );
    assert_eq!(violations(&body), [Vec::<&str>::new()]);
}

/// Texts with all that JSON escapes.
fn text() -> impl Strategy<Value = String> {
    "[a-z\"\\\\/ü\u{1f600}\u{202e}]{1,12}"
}

fn account() -> impl Strategy<Value = Value> {
    let uuid = any::<u128>().prop_map(|id| uuid::Uuid::from_u128(id).to_string());
    prop_oneof![
        uuid.clone().prop_map(|id| json!({"billing_id": id})),
        uuid.clone()
            .prop_map(|id| json!({"orgId": id.replace('-', "")})),
        text().prop_map(|name| json!({"org_id": name})),
        (uuid, text()).prop_map(|(id, name)| json!({"billingId": id, "project_id": name})),
    ]
}

proptest! {
    /// Sent alone, or in a group that gives some of the fields: one identity, one content.
    #[test]
    fn a_group_of_one_is_the_single_request(
        account in account(),
        reason in proptest::option::of(text()),
        amount in 1_i64..,
        id in proptest::option::of(text()),
        (account_outside, reason_outside) in any::<(bool, bool)>(),
    ) {
        let mut alone = json!({"usage_id": USAGE, "amount": amount.to_string()});
        let mut element = alone.clone();
        let mut outer = json!({});
        let mut add = |key: &str, value: &Value, outside: bool| {
            alone[key] = value.clone();
            (if outside { &mut outer } else { &mut element })[key] = value.clone();
        };
        for (key, value) in account.as_object().expect("an object") {
            add(key, value, account_outside);
        }
        if let Some(reason) = reason {
            add("reason", &json!(reason), reason_outside);
        }
        if let Some(id) = &id {
            element["request_id"] = json!(id);
        }
        outer["requests"] = json!([element]);
        let body = outer.to_string();
        let member = group(&body).requests.remove(0);

        let envelope = Envelope { client: "c".into(), message_id: Some("m".into()), ..Envelope::default() };
        let expected_id = id.unwrap_or_else(|| "m/0".into());
        let single = Envelope { message_id: Some(expected_id.clone()), ..envelope.clone() };
        prop_assert_eq!(member.envelope(&envelope), single.clone());
        let fields = decode(alone.to_string().as_bytes()).expect("valid");
        let expected = RevertRequest::new(&single, fields.clone(), false);
        let member_fields = member.fields.clone().expect("valid");
        let found = RevertRequest::under("c", Some(&member.id), member_fields, false);
        prop_assert_eq!(found, expected);
        // The body with which it is sent alone says the same.
        prop_assert_eq!(decode(&member.body()), Ok(fields));
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes, Some("m"), &LIMITS);
    }

    /// JSON that is almost a group.
    #[test]
    fn any_members_of_a_group_are_parsed_or_refused(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"requests\"", "\"request_id\"", "\"amount\"", "1",
                "\"atomic\"", "true", "null", "\"\\ud800\"", "\"org_id\"", "\"\"", "\"replies\"",
                "{\"requests\":[", "{\"requests\":[{", "}]}",
            ]),
            0..24,
        ),
    ) {
        let _ = parse(parts.concat().as_bytes(), Some("m"), &LIMITS);
    }
}
