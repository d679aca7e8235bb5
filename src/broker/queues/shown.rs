//! A letter's properties as JSON, for people and programs.

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value, json};

use super::queued_message::QueuedMessage;
use crate::broker::properties;

/// Tables and arrays within each other that are shown; a frame holds thousands.
const DEPTH: u8 = 16;

impl QueuedMessage {
    /// The AMQP properties by their names, headers among them; `None` where they can't be read.
    #[must_use]
    pub fn shown_properties(&self) -> Option<Map<String, Value>> {
        let read = self.properties.as_ref()?;
        let mut shown = Map::new();
        let texts = [
            ("content_type", read.content_type()),
            ("content_encoding", read.content_encoding()),
            ("correlation_id", read.correlation_id()),
            ("reply_to", read.reply_to()),
            ("expiration", read.expiration()),
            ("message_id", read.message_id()),
            ("type", read.kind()),
            ("user_id", read.user_id()),
            ("app_id", read.app_id()),
            ("cluster_id", read.cluster_id()),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                shown.insert(name.into(), value.as_str().into());
            }
        }
        let numbers = [
            ("delivery_mode", read.delivery_mode().map(u64::from)),
            ("priority", read.priority().map(u64::from)),
            ("timestamp", *read.timestamp()),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                shown.insert(name.into(), value.into());
            }
        }
        if let Some(headers) = read.headers() {
            shown.insert("headers".into(), table(headers, DEPTH));
        }
        Some(shown)
    }
}

fn table(fields: &FieldTable, depth: u8) -> Value {
    let shown = |(name, field): (&lapin::types::ShortString, &AMQPValue)| {
        (name.as_str().to_owned(), value(field, depth))
    };
    Value::Object(fields.inner().iter().map(shown).collect())
}

fn value(value_: &AMQPValue, depth: u8) -> Value {
    let Some(below) = depth.checked_sub(1) else {
        return json!("...");
    };
    let bytes = |bytes: &[u8]| json!(String::from_utf8_lossy(bytes));
    match value_ {
        AMQPValue::Boolean(is) => json!(is),
        AMQPValue::Float(number) => json!(number),
        AMQPValue::Double(number) => json!(number),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => bytes(text.as_bytes()),
        AMQPValue::ByteArray(array) => bytes(array.as_slice()),
        AMQPValue::Timestamp(seconds) => json!(seconds),
        AMQPValue::LongUInt(number) => json!(number),
        AMQPValue::DecimalValue(number) => json!({"scale": number.scale, "value": number.value}),
        AMQPValue::FieldArray(array) => array
            .as_slice()
            .iter()
            .map(|item| value(item, below))
            .collect(),
        AMQPValue::FieldTable(fields) => table(fields, below),
        AMQPValue::Void => Value::Null,
        AMQPValue::ShortShortInt(_)
        | AMQPValue::ShortShortUInt(_)
        | AMQPValue::ShortInt(_)
        | AMQPValue::ShortUInt(_)
        | AMQPValue::LongInt(_)
        | AMQPValue::LongLongInt(_) => json!(properties::integer(value_)),
    }
}
