//! Groups and batches of events in asyncapi.yaml.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use revertd::domain::request::{Body, RequestLimits, parse};
use serde_json::{Value, json};

use super::examples;
use crate::support::Message;
use crate::support::documents::{asyncapi, batches, complaints};

const USAGE: &str = "11111111-1111-4111-8111-111111111111";
const ORG: &str = "22222222-2222-4222-8222-222222222222";

/// Whether the program takes every request of the group.
fn is_taken(body: &str) -> bool {
    let limits = RequestLimits {
        message_bytes: 64 * 1024,
        group_bytes: 1024 * 1024,
        group_requests: 1000,
    };
    match parse(body.as_bytes(), Some("m"), &limits) {
        Ok(Body::Group(group)) => group.requests.iter().all(|one| one.fields.is_ok()),
        Ok(Body::Request(_)) | Err(_) => false,
    }
}

/// An object with more members.
fn with(mut object: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        object[key] = value.clone();
    }
    object
}

fn bodies() -> Vec<Value> {
    let bare = json!({"usageId": USAGE, "amount": 1});
    let request = with(bare.clone(), &json!({"org_id": ORG}));
    let group = json!({"requests": [request]});
    let mut bodies = vec![
        group.clone(),
        json!({"requests": []}),
        json!({"requests": {}}),
        json!({"requests": "x"}),
        json!({"requests": [5]}),
        json!({"requests": [group]}),
        json!({"requests": [bare]}),
        json!({"requests": [bare, request]}),
        json!({"requests": vec![&request; 1000]}),
        json!({"requests": vec![&request; 1001]}),
    ];
    for members in [
        json!({"atomic": true}),
        json!({"atomic": "true"}),
        json!({"atomic": 1}),
        json!({"atomic": null, "replies": ""}),
        json!({"replies": "each"}),
        json!({"replies": "batch"}),
        json!({"org_id": "acme"}),
        json!({"org_id": 5}),
        json!({"orgId": "acme", "project_id": "p"}),
        json!({"billing_id": ORG, "project_id": "p"}),
        json!({"billing_id": "acme"}),
        json!({"project_id": ""}),
        json!({"reason": "a\tb"}),
        json!({"reason": "r", "unknown": [1]}),
        json!({"amount": 1}),
        json!({"usageId": USAGE}),
        json!({"amount": null}),
    ] {
        bodies.push(with(group.clone(), &members));
        bodies.push(with(json!({"requests": [bare, bare]}), &members));
    }
    for members in [
        json!({"request_id": "a"}),
        json!({"requestId": "x".repeat(255)}),
        json!({"requestId": "x".repeat(256)}),
        json!({"request_id": "a\0"}),
        json!({"request_id": 5}),
        json!({"request_id": null}),
        json!({"request_id": "a", "requestId": "a"}),
        json!({"requests": null}),
        json!({"project_id": "p"}),
        json!({"amount": 0}),
        json!({"unknown": {}}),
    ] {
        bodies.push(json!({"requests": [with(request.clone(), &members)]}));
    }
    bodies
}

#[test]
fn the_schema_of_a_group_and_the_parser_agree() {
    let (mut taken, mut refused) = (0, 0);
    for body in bodies() {
        let wrong = asyncapi().complaints("/components/schemas/RevertGroup", &body);
        let text = body.to_string();
        let shown: String = text.chars().take(300).collect();
        // Unique ids are not in the schema.
        assert_eq!(wrong.is_empty(), is_taken(&text), "{shown}: {wrong:?}");
        *(if wrong.is_empty() {
            &mut taken
        } else {
            &mut refused
        }) += 1;
    }
    assert!(taken > 15 && refused > 25, "{taken} {refused}");
}

/// A batch of events as the document wants it.
fn batch(events: &[&Value], routing_key: &str) -> Message {
    let times = events
        .iter()
        .map(|event| event["time"].as_str().expect("a time"));
    let times = times.map(|time| time.parse::<jiff::Timestamp>().expect("RFC 3339"));
    let latest = times.map(jiff::Timestamp::as_second).max().unwrap_or(1);
    let count = i32::try_from(events.len()).expect("few");
    let mut headers = FieldTable::default();
    headers.insert("x-group".into(), AMQPValue::LongString("job".into()));
    headers.insert("x-group-size".into(), AMQPValue::LongInt(9));
    headers.insert("x-group-count".into(), AMQPValue::LongInt(count));
    Message {
        routing_key: routing_key.into(),
        properties: BasicProperties::default()
            .with_content_type(batches::CONTENT_TYPE.into())
            .with_delivery_mode(2)
            .with_message_id("0e000000-0000-4000-8000-000000000001".into())
            .with_correlation_id("job".into())
            .with_timestamp(latest.unsigned_abs())
            .with_app_id("revertd".into())
            .with_headers(headers),
        body: json!(events).to_string().into_bytes(),
    }
}

#[test]
fn batches_that_break_the_schema_are_noticed() {
    let examples = examples();
    let org = "0a000000-0000-4000-8000-000000000001";
    let of_type = |kind: &str| {
        let of_org = |event: &&Value| event["data"]["org_id"] == org;
        let events = examples.iter().map(|example| &example.event);
        events
            .filter(of_org)
            .find(|event| event["type"] == kind)
            .expect(kind)
    };
    let (success, rejection) = (of_type("usage.reverted"), of_type("usage.revert.rejected"));
    let wrong = |message: &Message| !complaints("t.replies", message).is_empty();
    let (result, error) = (format!("result.{org}"), format!("error.{org}"));
    for (events, key) in [(vec![success, success], &result), (vec![rejection], &error)] {
        let found = complaints("t.replies", &batch(&events, key));
        assert_eq!(found, Vec::<String>::new());
    }
    assert!(wrong(&batch(&[], &error)));
    assert!(wrong(&batch(&[success, rejection], &result)));
    assert!(wrong(&batch(&[success], &error)));
    let good = batch(&[success], &result);
    let mut object = good.clone();
    object.body = success.to_string().into_bytes();
    assert!(wrong(&object));
    let properties = &good.properties;
    for spoilt in [
        properties.clone().with_type("usage.reverted".into()),
        properties.clone().with_timestamp(1),
        properties.clone().with_delivery_mode(1),
        properties.clone().with_message_id("x".into()),
        properties.clone().with_headers(FieldTable::default()),
    ] {
        let message = Message {
            properties: spoilt,
            ..good.clone()
        };
        assert!(wrong(&message), "{message:?}");
    }
    for name in ["x-group", "x-group-size", "x-group-count"] {
        let mut headers = properties.headers().clone().expect("headers");
        headers.insert(name.into(), AMQPValue::LongInt(0));
        let message = Message {
            properties: properties.clone().with_headers(headers),
            ..good.clone()
        };
        assert!(wrong(&message), "{name}");
    }
}
