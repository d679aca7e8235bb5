//! Checks messages against the documents asyncapi.yaml and openapi.yaml.
//!
//! It must not know the program: its verdict on a message comes from the documents alone.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use jsonschema::{Draft, Validator};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Value, json};

use super::Message;

pub mod answers;
pub mod batches;

/// Levels of a header's value that are looked at; tests send some that are nested as deep as a
/// frame allows.
const DEPTH: usize = 4;

static ASYNCAPI: LazyLock<Document> = LazyLock::new(|| Document::read("api/asyncapi.yaml"));

/// A document, and the schemas that were compiled so far.
pub struct Document {
    pub text: Value,
    compiled: Mutex<HashMap<String, &'static Validator>>,
}

/// asyncapi.yaml, read once.
pub fn asyncapi() -> &'static Document {
    &ASYNCAPI
}

impl Document {
    fn read(name: &str) -> Self {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the document is there");
        Self {
            text: serde_saphyr::from_str(&text).unwrap_or_else(|wrong| panic!("{name}: {wrong}")),
            compiled: Mutex::default(),
        }
    }

    /// The value at a JSON pointer, with references followed.
    pub fn at(&self, pointer: &str) -> &Value {
        let found = self.text.pointer(pointer);
        self.resolved(found.unwrap_or_else(|| panic!("nothing at {pointer}")))
    }

    /// The value that a reference names, or the value itself.
    pub fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str().and_then(|to| to.strip_prefix('#')) {
            Some(pointer) => self.at(pointer),
            None => value,
        }
    }

    /// The violations in `value` of the schema at a JSON pointer.
    pub fn complaints(&self, pointer: &str, value: &Value) -> Vec<String> {
        let mut compiled = self.compiled.lock().expect("nobody panics with it");
        let validator = *compiled
            .entry(pointer.to_owned())
            .or_insert_with(|| Box::leak(Box::new(self.compile(pointer))));
        drop(compiled);
        let complaint = |wrong: jsonschema::ValidationError<'_>| {
            format!("{pointer}: {wrong} (at {:?})", wrong.instance_path())
        };
        validator.iter_errors(value).map(complaint).collect()
    }

    fn compile(&self, pointer: &str) -> Validator {
        let schemas = &self.text["components"]["schemas"];
        let schema = json!({
            "allOf": [self.text.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"))],
            "components": {"schemas": schemas},
        });
        jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .build(&schema)
            .unwrap_or_else(|wrong| panic!("{pointer}: {wrong}"))
    }
}

/// Whether a body is a request, or a group, as asyncapi.yaml describes one.
pub fn is_request(body: &[u8]) -> Result<(), Vec<String>> {
    let body: Value = serde_json::from_slice(body).map_err(|wrong| vec![wrong.to_string()])?;
    let name = match body.get("requests") {
        Some(_) => "RevertGroup",
        None => "RevertRequest",
    };
    let complaints = asyncapi().complaints(&format!("/components/schemas/{name}"), &body);
    complaints.is_empty().then_some(()).ok_or(complaints)
}

/// Checks that a message from `exchange` is as asyncapi.yaml describes the channel.
pub fn check(exchange: &str, letter: &Message) {
    let complaints = complaints(exchange, letter);
    let body = String::from_utf8_lossy(&letter.body);
    assert!(
        complaints.is_empty(),
        "not as asyncapi.yaml says: {complaints:#?}\n{} {:?}\n{body}",
        letter.routing_key,
        letter.properties
    );
}

/// The differences of a message from asyncapi.yaml. Queues of the tests' own may have any message.
pub fn complaints(exchange: &str, letter: &Message) -> Vec<String> {
    let content_type = letter.properties.content_type().as_ref();
    let is_event = content_type.is_some_and(|kind| kind.as_str() == "application/cloudevents+json");
    if content_type.is_some_and(|kind| kind.as_str() == batches::CONTENT_TYPE) {
        return batches::complaints(exchange, letter);
    }
    // The last part of the name, in the document as on an environment.
    let kind = exchange.rsplit('.').next();
    if kind == Some("dead") {
        of_dead_letter(exchange, letter)
    } else if is_event || kind == Some("replies") {
        of_event(exchange, letter)
    } else {
        Vec::new()
    }
}

fn of_dead_letter(exchange: &str, letter: &Message) -> Vec<String> {
    let name = match letter.header("x-error-reason") {
        Some(_) => "deadLetter",
        None => "brokersDeadLetter",
    };
    let mut complaints = of_envelope(name, letter);
    // In the document as on an environment, exchange and queue have one name, which is the key too.
    if letter.routing_key != exchange {
        complaints.push(format!("the routing key is {}", letter.routing_key));
    }
    complaints
}

fn of_event(exchange: &str, letter: &Message) -> Vec<String> {
    let kind = letter.properties.kind().as_ref();
    let kind = kind.map(ShortString::as_str).unwrap_or_default();
    let Ok(event) = serde_json::from_slice::<Value>(&letter.body) else {
        return vec!["the body is not JSON".into()];
    };
    let reason = event["data"]["error"]["details"][0]["reason"].as_str();
    let is_denied = matches!(reason, Some("CLIENT_UNKNOWN" | "ORG_NOT_GRANTED"));
    let Some((address, name)) = channel_of(kind, is_denied) else {
        return vec![format!("no channel has messages of type {kind:?}")];
    };
    let mut complaints = of_envelope(&name, letter);
    complaints
        .extend(asyncapi().complaints(&format!("/components/messages/{name}/payload"), &event));
    // A copy to a reply_to comes through the default exchange, whose keys are names of queues.
    let org = event["data"]["org_id"].as_str().unwrap_or("unknown");
    if !exchange.is_empty() && letter.routing_key != address.replace("{orgId}", org) {
        complaints.push(format!("the routing key is {}", letter.routing_key));
    }
    let properties = properties_json(&letter.properties);
    let time = event["time"].as_str().unwrap_or_default();
    let seconds = time
        .parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_second);
    for (property, expected) in [
        ("message_id", event["id"].clone()),
        ("type", event["type"].clone()),
        ("timestamp", json!(seconds.unwrap_or_default())),
    ] {
        if properties[property] != expected {
            complaints.push(format!("{property} is not {expected}"));
        }
    }
    complaints
}

/// The address of the channel that has messages of that type, and the message's name. Rejections of
/// those who may not ask have a channel of their own.
fn channel_of(kind: &str, is_denied: bool) -> Option<(String, String)> {
    let channels = asyncapi().text["channels"].as_object().expect("channels");
    for (name, channel) in channels {
        if (name == "denied") != is_denied {
            continue;
        }
        for (name, message) in channel["messages"].as_object().expect("messages") {
            let message = asyncapi().resolved(message);
            if message["bindings"]["amqp"]["messageType"] == kind {
                let address = channel["address"].as_str().expect("an address");
                return Some((address.to_owned(), name.clone()));
            }
        }
    }
    None
}

fn of_envelope(name: &str, letter: &Message) -> Vec<String> {
    let none = FieldTable::default();
    let headers = letter.properties.headers().as_ref().unwrap_or(&none);
    let (headers, properties) = (
        table_json(headers, DEPTH),
        properties_json(&letter.properties),
    );
    [("headers", headers), ("x-amqp-properties", properties)]
        .iter()
        .flat_map(|(part, value)| {
            asyncapi().complaints(&format!("/components/messages/{name}/{part}"), value)
        })
        .collect()
}

/// Properties by the names that AMQP gives them, without the headers.
fn properties_json(properties: &BasicProperties) -> Value {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| json!(text.as_str()));
    let given = [
        ("content_type", text(properties.content_type())),
        ("content_encoding", text(properties.content_encoding())),
        ("delivery_mode", properties.delivery_mode().map(Value::from)),
        ("priority", properties.priority().map(Value::from)),
        ("correlation_id", text(properties.correlation_id())),
        ("reply_to", text(properties.reply_to())),
        ("expiration", text(properties.expiration())),
        ("message_id", text(properties.message_id())),
        ("timestamp", properties.timestamp().map(Value::from)),
        ("type", text(properties.kind())),
        ("user_id", text(properties.user_id())),
        ("app_id", text(properties.app_id())),
        ("cluster_id", text(properties.cluster_id())),
    ];
    given
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<Map<_, _>>()
        .into()
}

fn table_json(table: &FieldTable, depth: usize) -> Value {
    let entry =
        |(name, value): (&ShortString, &AMQPValue)| (name.to_string(), value_json(value, depth));
    table
        .inner()
        .iter()
        .map(entry)
        .collect::<Map<_, _>>()
        .into()
}

fn value_json(value: &AMQPValue, depth: usize) -> Value {
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::Timestamp(value) => json!(value),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => json!(String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::FieldArray(values) if depth > 0 => values
            .as_slice()
            .iter()
            .map(|value| value_json(value, depth - 1))
            .collect(),
        AMQPValue::FieldTable(table) if depth > 0 => table_json(table, depth - 1),
        _ => Value::Null,
    }
}
