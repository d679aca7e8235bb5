//! Whether a batch of events is what asyncapi.yaml says of its channel.

use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::{Message, asyncapi, of_envelope, properties_json, table_json};

/// Media type of a batch.
pub const CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// What of a batch is not as the document says.
pub fn complaints(exchange: &str, letter: &Message) -> Vec<String> {
    let Ok(Value::Array(events)) = serde_json::from_slice::<Value>(&letter.body) else {
        return vec!["the body is not a JSON array".into()];
    };
    let prefix = events.first().map_or("error", prefix);
    let name = match prefix {
        "result" => "revertedBatch",
        "denied" => "deniedBatch",
        _ => "errorBatch",
    };
    let mut complaints = of_envelope(name, letter);
    let payload = format!("/components/messages/{name}/payload");
    complaints.extend(asyncapi().complaints(&payload, &json!(events)));
    for event in &events {
        let org = event["data"]["org_id"].as_str().unwrap_or("unknown");
        let key = format!("{prefix}.{org}");
        // A copy to a reply_to comes through the default exchange, whose keys are names of queues.
        if !exchange.is_empty() && letter.routing_key != key {
            complaints.push(format!(
                "{key} is not the routing key {}",
                letter.routing_key
            ));
        }
    }
    let times = events.iter().filter_map(|event| event["time"].as_str());
    let seconds = times.filter_map(|time| time.parse::<jiff::Timestamp>().ok());
    let latest = seconds.map(jiff::Timestamp::as_second).max();
    if properties_json(&letter.properties)["timestamp"] != json!(latest) {
        complaints.push(format!("timestamp is not {latest:?}"));
    }
    let none = FieldTable::default();
    let headers = table_json(letter.properties.headers().as_ref().unwrap_or(&none), 1);
    if headers["x-group-count"] != json!(events.len()) {
        complaints.push(format!("x-group-count is not {}", events.len()));
    }
    complaints
}

/// What the routing key of an event begins with.
fn prefix(event: &Value) -> &'static str {
    if event["type"] == "usage.reverted" {
        return "result";
    }
    match event["data"]["error"]["code"].as_i64() {
        Some(7 | 16) => "denied",
        _ => "error",
    }
}
