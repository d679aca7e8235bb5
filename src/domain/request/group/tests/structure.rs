use super::*;

fn assert_malformed(body: &str, text: &str) {
    let found = malformed(body, Some("m"));
    let shown: String = body.chars().take(80).collect();
    assert!(found.starts_with(text), "{shown}: {found}");
}

#[test]
fn a_group_has_1_to_1000_requests() {
    let many = vec![element(); 1001];
    for (body, text) in [
        (r#"{"requests":[]}"#.to_owned(), "requests is empty"),
        (r#"{"requests":{}}"#.to_owned(), "requests must be an array"),
        (
            r#"{"requests":"x"}"#.to_owned(),
            "requests must be an array",
        ),
        (
            r#"{"requests":1e400}"#.to_owned(),
            "requests must be an array",
        ),
        (
            r#"{"requests":true}"#.to_owned(),
            "requests must be an array",
        ),
        (
            r#"{"requests":"\ud800"}"#.to_owned(),
            "requests must be an array",
        ),
        (
            json!({"requests": many}).to_string(),
            "requests has 1001 elements, more than 1000 (amqp.max_group)",
        ),
    ] {
        assert_malformed(&body, text);
    }
}

#[test]
fn a_wrong_member_beside_requests_fails_the_group() {
    let valid = with(&json!({})).to_string();
    let with_more = |more: &str| format!(r#"{{"requests":[{valid}],{more}}}"#);
    let reason = with_more(&format!(r#""reason":"{}""#, "x".repeat(513)));
    for (body, text) in [
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
    ] {
        assert_malformed(&body, text);
    }
}

#[test]
fn an_element_of_a_wrong_form_fails_the_group() {
    let valid = with(&json!({})).to_string();
    let of = |elements: &[&str]| format!(r#"{{"requests":[{}]}}"#, elements.join(","));
    let id = with(&json!({"request_id": "a"})).to_string();
    let first = with(&json!({"requestId": "m/1"})).to_string();
    let nested = format!(r#"{{"requests":[{valid}]}}"#);
    let long = element_of(64 * 1024 + 1);
    for (body, text) in [
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
        assert_malformed(&body, text);
    }
}
