//! The schemas of asyncapi.yaml: as strict as the decoder, and strict enough to notice what is not as documented.

use revertd::request::decode;
use serde_json::{Value, json};

use super::examples;
use crate::support::Letter;
use crate::support::documents::{complaints, is_request};

#[test]
fn the_schema_of_a_request_and_the_decoder_agree() {
    let (usage, org) = (
        "11111111-1111-4111-8111-11111111111a",
        "22222222-2222-4222-8222-222222222222",
    );
    let with = |field: &str, value: Value| {
        let mut body = json!({"usage_id": usage, "org_id": org, "amount": 1});
        body[field] = value;
        body
    };
    let ids = [
        json!(usage),
        json!(usage.to_uppercase()),
        json!(usage.replace('-', "")),
        json!(format!("{{{usage}}}")),
        json!(format!("urn:uuid:{usage}")),
        json!(format!("{usage}\n")),
        json!(format!(" {usage}")),
        json!("x"),
        json!(""),
        Value::Null,
        json!(1),
        json!([usage]),
        json!({}),
        json!(false),
    ];
    let amounts = [
        json!(1),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(9_223_372_036_854_775_808_u64),
        json!("1"),
        json!("0"),
        json!("-1"),
        json!("01"),
        json!("1.0"),
        json!("1e3"),
        json!("+1"),
        json!(" 1"),
        json!("1\n"),
        json!("٣"),
        json!("9223372036854775807"),
        json!("9223372036854775808"),
        json!("9223372036854775810"),
        json!("9300000000000000000"),
        json!("10000000000000000000"),
        json!("8999999999999999999"),
        json!("9199999999999999999"),
        json!(""),
        Value::Null,
        json!(true),
        json!([1]),
        json!({}),
    ];
    let reasons = [
        json!("x"),
        json!(""),
        Value::Null,
        json!("ü".repeat(512)),
        json!("x".repeat(513)),
        json!("😀".repeat(512)),
        json!("a\tb"),
        json!("a\n"),
        json!("\u{0}"),
        json!("\u{7f}"),
        json!("\u{85}"),
        json!("\u{a0}\u{202e}"),
        json!(1),
        json!([]),
    ];
    let mut bodies: Vec<Value> = Vec::new();
    for name in [
        "usage_id",
        "usageId",
        "billing_id",
        "billingId",
        "org_id",
        "orgId",
        "project_id",
        "projectId",
    ] {
        bodies.extend(ids.iter().map(|id| with(name, id.clone())));
        // The same without an org.
        bodies.extend(
            ids.iter()
                .map(|id| json!({"usageId": usage, "amount": "1", name: id})),
        );
    }
    bodies.extend(amounts.map(|amount| with("amount", amount)));
    bodies.extend(reasons.map(|reason| with("reason", reason)));
    bodies.extend([
        with("unknown", json!({"deep": [1]})),
        json!({}),
        json!([]),
        Value::Null,
        json!("{}"),
        json!({"usage_id": usage, "amount": 1}),
        json!({"usage_id": usage, "amount": 1, "billing_id": "", "org_id": null}),
        json!({"usage_id": usage, "amount": 1, "billing_id": org, "project_id": org}),
        json!({"usage_id": usage, "amount": 1, "billing_id": org, "org_id": org, "projectId": ""}),
        json!({"usage_id": usage, "amount": 1, "billing_id": org, "orgId": org, "project_id": org}),
    ]);
    let (mut taken, mut refused) = (0, 0);
    for body in bodies {
        let text = body.to_string();
        let (by_schema, by_decoder) = (is_request(text.as_bytes()), decode(text.as_bytes()));
        assert_eq!(
            by_schema.is_ok(),
            by_decoder.is_ok(),
            "{text}: {by_schema:?}, {by_decoder:?}"
        );
        if by_decoder.is_ok() {
            taken += 1
        } else {
            refused += 1
        }
    }
    assert!(taken > 30 && refused > 100, "{taken} {refused}");
}

/// A letter that bears an example's event as the document wants it.
fn letter(event: &Value, routing_key: &str) -> Letter {
    let time: jiff::Timestamp = event["time"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("RFC 3339");
    let text = |name: &str| event[name].as_str().unwrap_or_default().into();
    Letter {
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
fn what_is_not_as_documented_is_noticed() {
    let events: Vec<_> = examples()
        .into_iter()
        .map(|example| example.event)
        .collect();
    let key = "result.0a000000-0000-4000-8000-000000000001";
    let good = letter(&events[0], key);
    assert_eq!(complaints("t.replies", &good), Vec::<String>::new());
    type Change = fn(&mut Value);
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
        |event| {
            event["data"]["error"]["details"][0]["metadata"]["amount"]
                .take()
                .as_null()
                .unwrap_or_default()
        },
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
        let letter = Letter {
            properties,
            ..good.clone()
        };
        assert_ne!(
            complaints("t.replies", &letter),
            Vec::<String>::new(),
            "{letter:?}"
        );
    }
    let unexplained = Letter {
        routing_key: "t.dead".into(),
        ..good
    };
    assert_ne!(complaints("t.dead", &unexplained), Vec::<String>::new());
}
