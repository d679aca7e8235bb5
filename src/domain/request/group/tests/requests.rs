use super::*;

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
