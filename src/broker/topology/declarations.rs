//! The declarations of exchanges, queues and bindings, by the configuration. Pure.

use lapin::ExchangeKind;
use lapin::types::{AMQPValue, FieldTable};

use crate::config::{Settings, TopologySettings};

/// The delivery limit of the queues: practically unlimited, and within the range that every
/// supported version accepts. Listing dead letters must not use it up, and only the worker gives up
/// requests.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

/// A queue.
pub struct QueueDeclaration {
    pub name: String,
    pub arguments: FieldTable,
    /// The exchanges that it is bound to, and the routing keys.
    pub bindings: Vec<(String, Vec<String>)>,
}

/// An exchange.
#[derive(Clone)]
pub struct ExchangeDeclaration<'a> {
    pub name: &'a str,
    pub kind: ExchangeKind,
    /// Its alternate exchange, for messages that no binding matches.
    pub alternate: Option<&'a str>,
}

/// The exchanges, in the order in which they are declared.
pub fn exchanges(topology: &TopologySettings) -> [ExchangeDeclaration<'_>; 4] {
    let alternate = topology.alternate_exchange.as_str();
    let exchange = |name, kind, alternate| ExchangeDeclaration {
        name,
        kind,
        alternate,
    };
    [
        exchange(alternate, ExchangeKind::Fanout, None),
        exchange(
            topology.request_exchange.as_str(),
            ExchangeKind::Direct,
            Some(alternate),
        ),
        exchange(topology.reply_exchange.as_str(), ExchangeKind::Topic, None),
        exchange(
            topology.dead_letter_exchange.as_str(),
            ExchangeKind::Direct,
            None,
        ),
    ]
}

/// The queues, in the order in which they are declared.
pub fn queues(settings: &Settings) -> Vec<QueueDeclaration> {
    let topology = &settings.topology;
    let mut queues = vec![dead_letter_queue(topology)];
    if topology.reply_queue_declare {
        queues.push(reply_queue(topology));
    }
    queues.push(denied_queue(topology));
    for (name, delay) in settings
        .retry_queues()
        .into_iter()
        .zip(&settings.retry.delays)
    {
        queues.push(retry_queue(topology, name, delay.0.as_millis()));
    }
    // The work queue is last, so that no request is delivered before all queues exist.
    queues.push(work_queue(topology));
    queues
}

fn work_queue(topology: &TopologySettings) -> QueueDeclaration {
    let mut arguments = quorum(
        topology.work_queue_max_bytes.bytes(),
        "reject-publish",
        DELIVERY_LIMIT,
    );
    dead_letters_to(
        &mut arguments,
        topology.dead_letter_exchange.as_str(),
        topology.dead_letter_queue.as_str(),
    );
    QueueDeclaration {
        name: topology.work_queue.to_string(),
        arguments,
        bindings: vec![
            (
                topology.request_exchange.to_string(),
                vec![topology.request_key.to_string()],
            ),
            (
                topology.alternate_exchange.to_string(),
                vec![ANY_KEY.to_owned()],
            ),
        ],
    }
}

/// A rung: all its messages have the same time to live, since expiry stops at the first message
/// that is not expired. Then they return to the work queue through the default exchange.
fn retry_queue(topology: &TopologySettings, name: String, delay_ms: u128) -> QueueDeclaration {
    let max_bytes = topology.retry_queue_max_bytes.bytes();
    let mut arguments = quorum(max_bytes, "reject-publish", DELIVERY_LIMIT);
    dead_letters_to(&mut arguments, "", topology.work_queue.as_str());
    let delay = i64::try_from(delay_ms).expect("delays are at most 28 days");
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(delay));
    QueueDeclaration {
        name,
        arguments,
        bindings: Vec::new(),
    }
}

/// The key of the work queue's binding to the alternate exchange, a fanout, which ignores it.
pub const ANY_KEY: &str = "";

/// The routing keys of the reply queue's events.
pub const REPLY_KEYS: [&str; 2] = ["result.#", "error.#"];

/// The routing key of the denied queue's events.
pub const DENIED_KEY: &str = "denied.#";

fn reply_queue(topology: &TopologySettings) -> QueueDeclaration {
    let max_bytes = topology.reply_queue_max_bytes.bytes();
    let keys = REPLY_KEYS.map(str::to_owned).to_vec();
    QueueDeclaration {
        name: topology.reply_queue.to_string(),
        arguments: quorum(max_bytes, "drop-head", DELIVERY_LIMIT),
        bindings: vec![(topology.reply_exchange.to_string(), keys)],
    }
}

/// The denied queue: small and separate, so that clients without a grant can't fill the reply
/// queue.
fn denied_queue(topology: &TopologySettings) -> QueueDeclaration {
    let max_bytes = topology.denied_queue_max_bytes.bytes();
    QueueDeclaration {
        name: topology.denied_queue.to_string(),
        arguments: quorum(max_bytes, "drop-head", DELIVERY_LIMIT),
        bindings: vec![(
            topology.reply_exchange.to_string(),
            vec![DENIED_KEY.to_owned()],
        )],
    }
}

fn dead_letter_queue(topology: &TopologySettings) -> QueueDeclaration {
    let max_bytes = topology.dead_letter_queue_max_bytes.bytes();
    let name = topology.dead_letter_queue.to_string();
    QueueDeclaration {
        arguments: quorum(max_bytes, "reject-publish", DELIVERY_LIMIT),
        bindings: vec![(
            topology.dead_letter_exchange.to_string(),
            vec![name.clone()],
        )],
        name,
    }
}

fn quorum(max_bytes: u64, overflow: &str, delivery_limit: i64) -> FieldTable {
    let max_bytes = i64::try_from(max_bytes).expect("settings bound sizes to int64");
    let mut arguments = FieldTable::default();
    arguments
        .insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        )
        .insert(
            "x-max-length-bytes".into(),
            AMQPValue::LongLongInt(max_bytes),
        )
        .insert("x-overflow".into(), AMQPValue::LongString(overflow.into()))
        .insert(
            "x-delivery-limit".into(),
            AMQPValue::LongLongInt(delivery_limit),
        );
    arguments
}

/// Dead-lettering at least once, which the broker supports only together with `reject-publish`.
fn dead_letters_to(arguments: &mut FieldTable, exchange: &str, routing_key: &str) {
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments
        .insert("x-dead-letter-exchange".into(), text(exchange))
        .insert("x-dead-letter-routing-key".into(), text(routing_key))
        .insert("x-dead-letter-strategy".into(), text("at-least-once"));
}
