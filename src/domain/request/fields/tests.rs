use proptest::prelude::*;
use serde_json::json;

use super::*;

const USAGE: &str = "11111111-1111-4111-8111-111111111111";
const ORG: &str = "22222222-2222-4222-8222-222222222222";

fn body(amount: &str) -> String {
    format!(r#"{{"usage_id":"{USAGE}","org_id":"{ORG}","amount":{amount}}}"#)
}

fn amount_of(amount: &str) -> Result<i64, Vec<String>> {
    match decode(body(amount).as_bytes()) {
        Ok(fields) => Ok(fields.amount.get()),
        Err(undecodable) => Err(violations(undecodable)),
    }
}

fn violations(undecodable: Undecodable) -> Vec<String> {
    match undecodable {
        Undecodable::Malformed(message) => vec![format!("malformed: {message}")],
        Undecodable::Invalid { violations, .. } => violations
            .into_iter()
            .map(|violation| violation.field.to_owned())
            .collect(),
    }
}

fn refused(body: &str) -> Vec<String> {
    violations(decode(body.as_bytes()).expect_err("the body breaks a rule"))
}

#[test]
fn an_amount_is_a_positive_int64_or_its_string() {
    for (text, amount) in [
        ("1", 1),
        ("\"1\"", 1),
        ("9223372036854775807", i64::MAX),
        ("\"9223372036854775807\"", i64::MAX),
    ] {
        assert_eq!(amount_of(text), Ok(amount), "{text}");
    }
    for text in [
        "0",
        "-1",
        "\"0\"",
        "\"-1\"",
        "1.0",
        "1e3",
        "1E3",
        "-0",
        "0.5",
        "1E0",
        "1e400",
        "-1e400",
        "1e-400",
        "\"\\ud800\"",
        "\"1.0\"",
        "\"1e3\"",
        "\"\"",
        "\"abc\"",
        "\" 1\"",
        "\"1 \"",
        "\"+1\"",
        "\"01\"",
        "\"0x1\"",
        "\"1_0\"",
        "\"\\u0661\"",
        "\"NaN\"",
        "\"-\"",
        "null",
        "true",
        "[1]",
        "{\"a\":1}",
        "9223372036854775808",
        "\"9223372036854775808\"",
        "-9223372036854775809",
        "18446744073709551616",
        "123456789012345678901234567890",
    ] {
        let fields = match amount_of(text) {
            Ok(amount) => panic!("{text} was read as {amount}"),
            Err(fields) => fields,
        };
        assert_eq!(fields, ["amount"], "{text}");
    }
    for text in ["NaN", "Infinity", "01", "+1", "1.", "0x10", "'1'"] {
        let error = amount_of(text).expect_err(text);
        assert!(error[0].starts_with("malformed: "), "{text}: {error:?}");
    }
}

#[test]
fn key_spelling_and_uuid_case_do_not_count() {
    let snake = format!(r#"{{"usage_id":"{USAGE}","billing_id":"{ORG}","amount":2}}"#);
    let camel = format!(
        r#"{{"amount":"2","billingId":"{}","usageId":"{}","x":[1]}}"#,
        ORG.to_uppercase(),
        USAGE.to_uppercase()
    );
    assert_eq!(decode(snake.as_bytes()), decode(camel.as_bytes()));
}

#[test]
fn an_escaped_key_equals_the_plain_key() {
    let escaped = body("1").replace("usage_id", r"usage\u005fid");
    assert_eq!(decode(escaped.as_bytes()), decode(body("1").as_bytes()));
}

#[test]
fn an_empty_string_and_null_are_absent() {
    let text = format!(
        r#"{{"usage_id":"{USAGE}","org_id":"{ORG}","project_id":"","billing_id":null,"amount":1,"reason":""}}"#
    );
    let fields = decode(text.as_bytes()).expect("valid");
    assert_eq!(
        (fields.project_id, fields.billing_id, fields.reason),
        (None, None, None)
    );
    assert_eq!(
        refused(r#"{"usage_id":"","org_id":"","amount":""}"#),
        ["usage_id", "amount", "billing_id"]
    );
}

#[test]
fn every_violation_is_reported_at_once() {
    let text = json!({
        "usage_id": "nonsense", "amount": -5, "billing_id": 7, "org_id": [], "project_id": {},
        "reason": "a\u{0}b".repeat(300),
    });
    assert_eq!(
        refused(&text.to_string()),
        [
            "usage_id",
            "amount",
            "billing_id",
            "org_id",
            "project_id",
            "reason",
            "reason",
            "org_id"
        ]
    );
    assert_eq!(refused("{}"), ["usage_id", "amount", "billing_id"]);
}

#[test]
fn valid_fields_of_an_invalid_request_are_kept() {
    let Err(Undecodable::Invalid { fragments, .. }) = decode(body("0").as_bytes()) else {
        panic!("0 is no amount");
    };
    assert_eq!(
        fragments.usage_id.map(|id| id.to_string()).as_deref(),
        Some(USAGE)
    );
    assert_eq!(
        fragments.org_id.map(|id| id.to_string()).as_deref(),
        Some(ORG)
    );
    assert_eq!(fragments.amount, None);
}

#[test]
fn a_key_given_twice_is_a_violation() {
    for twice in [
        format!(r#"{{"usage_id":"{USAGE}","usage_id":"{USAGE}","org_id":"{ORG}","amount":1}}"#),
        format!(r#"{{"usage_id":"{USAGE}","usageId":"{USAGE}","org_id":"{ORG}","amount":1}}"#),
        format!(r#"{{"usage_id":"{USAGE}","usageId":null,"org_id":"{ORG}","amount":1}}"#),
    ] {
        assert_eq!(refused(&twice), ["usage_id"]);
    }
    let amounts = format!(r#"{{"usage_id":"{USAGE}","org_id":"{ORG}","amount":1,"amount":2}}"#);
    assert_eq!(refused(&amounts), ["amount"]);
}

#[test]
fn only_the_hyphenated_form_is_a_uuid() {
    let simple = USAGE.replace('-', "");
    for form in [
        simple.clone(),
        format!("{{{USAGE}}}"),
        format!("urn:uuid:{USAGE}"),
        format!(" {USAGE}"),
        format!("{USAGE}\\n"),
        USAGE.replace('1', "g"),
        USAGE.replacen('-', "", 1) + "-",
    ] {
        let text = format!(r#"{{"usage_id":"{form}","org_id":"{ORG}","amount":1}}"#);
        assert_eq!(refused(&text), ["usage_id"], "{form}");
    }
}

#[test]
fn a_reason_has_512_characters_and_no_control_chars() {
    let with = |reason: &str| {
        decode(
            json!({"usage_id": USAGE, "org_id": ORG, "amount": 1, "reason": reason})
                .to_string()
                .as_bytes(),
        )
    };
    assert!(with(&"ü".repeat(512)).is_ok());
    assert!(with("'; DROP TABLE usage; -- \u{202e}").is_ok());
    for error in [
        "x".repeat(513),
        "a\tb".into(),
        "\u{0}".into(),
        "\u{7f}".into(),
        "\u{85}".into(),
    ] {
        assert_eq!(
            with(&error).map_err(violations),
            Err(vec!["reason".to_owned()])
        );
    }
}

#[test]
fn a_body_that_is_no_json_object_is_malformed() {
    let deep = "[".repeat(100_000);
    let cases: [&[u8]; 18] = [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b"\"{}\"",
        b"{",
        b"{}}",
        b"{} {}",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"\xff\xfe",
        b"{\"x\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        // JSON, and no object.
        b"1e400",
        br#""\ud800""#,
        br#"{"reason":"\ud8"}"#,
        deep.as_bytes(),
    ];
    for case in cases {
        let error = violations(decode(case).expect_err("no object"));
        let shown = String::from_utf8_lossy(&case[..case.len().min(20)]).into_owned();
        assert!(error[0].starts_with("malformed: "), "{shown}: {error:?}");
    }
}

#[test]
fn a_lone_surrogate_and_a_huge_number_are_json() {
    let with = |more: &str| {
        let text = format!(r#"{{"usage_id":"{USAGE}","org_id":"{ORG}","amount":1,{more}}}"#);
        decode(text.as_bytes()).map_err(violations)
    };
    let deep = format!("{}1e400{}", "[".repeat(200), "]".repeat(200));
    let huge = "9".repeat(400);
    // In an ignored field it is valid.
    for ignored in [
        r#""x":"\ud800""#,
        r#""x":"\udc00\ud800""#,
        r#""x":["\ud800",{"\udfff":1e400}]"#,
        r#""\ud800":1"#,
        r#""\ud800":1,"\ud800":2"#,
        r#""reason\udc00":"not the reason""#,
        r#""x":-1e-400"#,
        r#""x":-0,"y":1E0,"z":1.0"#,
        &format!(r#""x":{huge}"#),
        &format!(r#""x":{deep}"#),
    ] {
        assert!(with(ignored).is_ok(), "{ignored}: {:?}", with(ignored));
    }
    for (error, field) in [
        (r#""reason":"\ud800""#, "reason"),
        (r#""reason":"a\udc00b""#, "reason"),
        (r#""reason":1e400"#, "reason"),
        (r#""reason":["\ud800"]"#, "reason"),
        (r#""billing_id":"\ud800""#, "billing_id"),
        (r#""billingId":1e400"#, "billing_id"),
        (&format!(r#""reason":{deep}"#), "reason"),
    ] {
        assert_eq!(with(error), Err(vec![field.to_owned()]), "{error}");
    }
    let pair = with(r#""reason":"\ud83d\ude00""#).expect("a whole pair");
    assert_eq!(pair.reason.as_deref(), Some("\u{1f600}"));
    let escaped = with(r#""\u0072eason":"\u0061""#).expect("an escaped key");
    assert_eq!(escaped.reason.as_deref(), Some("a"));
    let projects = with(r#""project_id":"\ud800""#);
    assert_eq!(
        projects,
        Err(vec!["project_id".to_owned(), "org_id".to_owned()])
    );
}

#[test]
fn a_malformed_body_gets_a_precise_message() {
    let said = |body: &str| match decode(body.as_bytes()) {
        Err(Undecodable::Malformed(what)) => what,
        other => panic!("{body}: {other:?}"),
    };
    for json in ["1e400", r#""\ud800""#, "[1e400]", "null"] {
        assert!(
            said(json).starts_with("the body is not a JSON object"),
            "{json}"
        );
    }
    assert!(said("").starts_with("the body is cut off or empty"));
    assert!(said(r#"{"x":"\u12"}"#).starts_with("the body is not valid JSON"));
}

#[test]
fn nesting_of_any_depth_is_read_without_recursion() {
    for key in ["x", "reason"] {
        let nested = format!("{}1{}", "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
        let text =
            format!(r#"{{"usage_id":"{USAGE}","org_id":"{ORG}","amount":1,"{key}":{nested}}}"#);
        assert_eq!(decode(text.as_bytes()).is_ok(), key == "x");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_number_and_its_decimal_string_are_one_amount(value in any::<i64>()) {
        prop_assert_eq!(amount_of(&value.to_string()), amount_of(&format!("\"{value}\"")));
        prop_assert_eq!(amount_of(&value.to_string()).ok(), (value > 0).then_some(value));
    }
}
