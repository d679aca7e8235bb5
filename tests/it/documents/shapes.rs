//! The schemas of asyncapi.yaml: as strict as the decoder, and strict enough to notice undocumented
//! messages.

use revertd::domain::request::decode;
use serde_json::{Value, json};

use super::examples;
use crate::support::Message;
use crate::support::documents::{complaints, is_request};

const USAGE: &str = "11111111-1111-4111-8111-11111111111a";
const ORG: &str = "22222222-2222-4222-8222-222222222222";

/// Values of an id, of an amount and of a reason, as JSON.
const IDS: &str = r#""11111111-1111-4111-8111-11111111111a" "11111111-1111-4111-8111-11111111111A"
    "1111111111114111811111111111111a" "{11111111-1111-4111-8111-11111111111a}" "x" "" null 1 [1] {} false
    "urn:uuid:11111111-1111-4111-8111-11111111111a" "11111111-1111-4111-8111-11111111111a\n"
    "\u002011111111-1111-4111-8111-11111111111a" "11111111-1111-4111-8111-11111111111g""#;
const AMOUNTS: &str = r#"1 0 -1 1.5 9223372036854775807 -9223372036854775808 9223372036854775808 "1" "0" "-1" "01" "1.0"
    "1e3" "+1" "\u00201" "1\n" "\u0663" "9223372036854775807" "9223372036854775808" "9223372036854775810"
    "9300000000000000000" "10000000000000000000" "8999999999999999999" "9199999999999999999" "" null true [1] {}"#;
const REASONS: &str = r#""x" "" null "a\tb" "a\n" "\u0000" "\u007f" "\u0085" "\u00a0\u202e" 1 []"#;
const NAMES: [&str; 8] = [
    "usage_id",
    "usageId",
    "billing_id",
    "billingId",
    "org_id",
    "orgId",
    "project_id",
    "projectId",
];

fn values(text: &str) -> Vec<Value> {
    let values = text.split_ascii_whitespace();
    values
        .map(|value| serde_json::from_str(value).expect(value))
        .collect()
}

/// A request with one field as it is given here.
fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"usage_id": USAGE, "org_id": ORG, "amount": 1});
    body[field] = value;
    body
}

fn bodies() -> Vec<Value> {
    let mut bodies = vec![
        json!({}),
        json!([]),
        Value::Null,
        json!("{}"),
        json!({"usage_id": USAGE, "amount": 1}),
        json!({"usage_id": USAGE, "amount": 1, "billing_id": "", "org_id": null}),
        json!({"usage_id": USAGE, "amount": 1, "billing_id": ORG, "project_id": ORG}),
        json!({"usage_id": USAGE, "amount": 1, "billing_id": ORG, "org_id": ORG, "projectId": ""}),
        json!({"usage_id": USAGE, "amount": 1, "billing_id": ORG, "orgId": ORG, "project_id": ORG}),
        with("unknown", json!({"deep": [1]})),
        with("reason", json!("ü".repeat(512))),
        with("reason", json!("😀".repeat(512))),
        with("reason", json!("x".repeat(513))),
    ];
    for name in NAMES {
        for id in values(IDS) {
            bodies.push(json!({"usageId": USAGE, "amount": "1", name: id}));
            bodies.push(with(name, id));
        }
    }
    bodies.extend(
        values(AMOUNTS)
            .into_iter()
            .map(|amount| with("amount", amount)),
    );
    bodies.extend(
        values(REASONS)
            .into_iter()
            .map(|reason| with("reason", reason)),
    );
    bodies
}

#[test]
fn the_schema_of_a_request_and_the_decoder_agree() {
    let (mut taken, mut refused) = (0, 0);
    for body in bodies() {
        let text = body.to_string();
        let (by_schema, by_decoder) = (is_request(text.as_bytes()), decode(text.as_bytes()));
        assert_eq!(
            by_schema.is_ok(),
            by_decoder.is_ok(),
            "{text}: {by_schema:?}, {by_decoder:?}"
        );
        *(if by_decoder.is_ok() {
            &mut taken
        } else {
            &mut refused
        }) += 1;
    }
    assert!(taken > 30 && refused > 100, "{taken} {refused}");
}

/// Spoils an event.
type Change = fn(&mut Value);

/// A letter that bears an example's event as the document wants it.
fn letter(event: &Value, routing_key: &str) -> Message {
    let time: jiff::Timestamp = event["time"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("RFC 3339");
    let text = |name: &str| event[name].as_str().unwrap_or_default().into();
    Message {
        routing_key: routing_key.into(),
        properties: lapin::BasicProperties::default()
            .with_content_type("application/cloudevents+json".into())
            .with_delivery_mode(2)
            .with_message_id(text("id"))
            .with_type(text("type"))
            .with_timestamp(time.as_second().unsigned_abs())
            .with_app_id("revertd".into()),
        body: event.to_string().into_bytes(),
    }
}

#[test]
fn messages_that_break_the_schema_are_noticed() {
    let events: Vec<_> = examples()
        .into_iter()
        .map(|example| example.event)
        .collect();
    let key = "result.0a000000-0000-4000-8000-000000000001";
    let good = letter(&events[0], key);
    assert_eq!(complaints("t.replies", &good), Vec::<String>::new());
    let changes: [Change; 11] = [
        |event| event["data"]["transactionId"] = event["data"]["transaction_id"].take(),
        |event| event["data"]["more"] = json!(1),
        |event| event["more"] = json!(1),
        |event| event["data"]["amount"] = json!(15),
        |event| event["data"]["amount"] = json!("0"),
        |event| event["data"]["org_id"] = json!("0A000000-0000-4000-8000-000000000001"),
        |event| event["source"] = json!("frontier"),
        |event| event["time"] = json!("2026-11-23T13:43:45Z"),
        |event| event["specversion"] = json!("0.3"),
        |event| event["type"] = json!("usage.done"),
        |event| event["data"]["error"] = json!({"code": 6, "message": "x", "details": []}),
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut event = events[0].clone();
        change(&mut event);
        assert_ne!(
            complaints("t.replies", &letter(&event, key)),
            Vec::<String>::new(),
            "{number}"
        );
    }
    let of_refusals: [Change; 5] = [
        |event| event["data"]["error"]["code"] = json!(3),
        |event| event["data"]["error"]["status"] = json!(409),
        |event| event["data"]["error"]["details"][0]["reason"] = json!("UNKNOWN"),
        |event| event["data"]["error"]["details"][0]["metadata"]["amount"] = Value::Null,
        |event| event["data"]["error"]["details"] = json!([]),
    ];
    let refusal = "error.0a000000-0000-4000-8000-000000000001";
    for (number, change) in of_refusals.iter().enumerate() {
        let mut event = events[1].clone();
        assert_eq!(
            complaints("t.replies", &letter(&event, refusal)),
            Vec::<String>::new()
        );
        change(&mut event);
        assert_ne!(
            complaints("t.replies", &letter(&event, refusal)),
            Vec::<String>::new(),
            "{number}"
        );
    }
    for wrong in [refusal, "result.unknown", "result", ""] {
        assert_ne!(
            complaints("t.replies", &letter(&events[0], wrong)),
            Vec::<String>::new(),
            "{wrong}"
        );
    }
    let spoilt = [
        good.properties.clone().with_delivery_mode(1),
        good.properties.clone().with_app_id("frontier".into()),
        good.properties.clone().with_message_id("x".into()),
        good.properties.clone().with_timestamp(1),
        good.properties.clone().with_expiration("1".into()),
        good.properties
            .clone()
            .with_content_type("application/json".into()),
        lapin::BasicProperties::default(),
    ];
    for properties in spoilt {
        let letter = Message {
            properties,
            ..good.clone()
        };
        assert_ne!(
            complaints("t.replies", &letter),
            Vec::<String>::new(),
            "{letter:?}"
        );
    }
    let unexplained = Message {
        routing_key: "t.dead".into(),
        ..good
    };
    assert_ne!(complaints("t.dead", &unexplained), Vec::<String>::new());
}
