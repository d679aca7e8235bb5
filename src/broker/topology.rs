//! The exchanges, queues and bindings of revertd.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::connection::{CONNECT_TIMEOUT, within};
use super::error::BrokerError;
use crate::config::{Settings, TopologySettings};

/// The delivery limit of the queues: practically unlimited, and within the range that every
/// supported version accepts. Listing dead letters must not use it up, and only the worker gives up
/// requests.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

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

/// The alternate exchange of the request exchange, which receives requests of any routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternate {
    /// The request exchange was declared with it.
    Declared,
    /// The request exchange has no such argument, or was not checked. A policy may set one.
    NotSeen,
}

/// Declares the topology, or checks that it exists.
pub async fn ensure(
    connection: &Connection,
    settings: &Settings,
    host: &str,
) -> Result<Alternate, BrokerError> {
    let topology = &settings.topology;
    let passive = !topology.declare;
    let steps = Steps { connection, host };
    let mut alternate = Alternate::Declared;
    // Each step has its own timeout: together they are some forty round trips.
    for exchange in exchanges(topology) {
        let step = steps.exchange(&exchange, passive);
        if within(CONNECT_TIMEOUT, host, step).await? == Alternate::NotSeen {
            alternate = Alternate::NotSeen;
        }
    }
    for queue in queues(settings) {
        within(CONNECT_TIMEOUT, host, steps.queue(&queue, passive)).await?;
    }
    Ok(alternate)
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

/// The declarations, each on a channel of its own, since a refusal closes the channel.
pub struct Steps<'a> {
    pub connection: &'a Connection,
    pub host: &'a str,
}

impl Steps<'_> {
    /// Declares an exchange, or checks that it exists. An exchange that exists without its
    /// alternate exchange is accepted: arguments can't be changed, and a policy can set one.
    pub async fn exchange(
        &self,
        exchange: &ExchangeDeclaration<'_>,
        passive: bool,
    ) -> Result<Alternate, BrokerError> {
        let Some(alternate) = exchange.alternate.filter(|_| !passive) else {
            self.exchange_with(exchange, FieldTable::default(), passive)
                .await?;
            return Ok(match exchange.alternate {
                Some(_) => Alternate::NotSeen,
                None => Alternate::Declared,
            });
        };
        let mut arguments = FieldTable::default();
        let value = AMQPValue::LongString(alternate.into());
        arguments.insert("alternate-exchange".into(), value);
        match self.exchange_with(exchange, arguments, false).await {
            Err(error) if error.is_unequal() => {
                let plain = FieldTable::default();
                self.exchange_with(exchange, plain, false).await?;
                Ok(Alternate::NotSeen)
            }
            declared => declared.map(|()| Alternate::Declared),
        }
    }

    async fn exchange_with(
        &self,
        exchange: &ExchangeDeclaration<'_>,
        arguments: FieldTable,
        passive: bool,
    ) -> Result<(), BrokerError> {
        let options = ExchangeDeclareOptions {
            passive,
            durable: true,
            auto_delete: false,
            internal: false,
            nowait: false,
        };
        let channel = self.channel().await?;
        let declared = channel
            .exchange_declare(
                exchange.name.into(),
                exchange.kind.clone(),
                options,
                arguments,
            )
            .await;
        let doing = format!("declaring the exchange {}", exchange.name);
        self.done(declared, &doing)?;
        self.close(&channel).await;
        Ok(())
    }

    async fn queue(&self, queue: &QueueDeclaration, passive: bool) -> Result<(), BrokerError> {
        let channel = self.declare(queue, passive).await?;
        for (exchange, keys) in queue.bindings.iter().filter(|_| !passive) {
            for key in keys {
                self.bind(&channel, &queue.name, exchange, key).await?;
            }
        }
        self.close(&channel).await;
        Ok(())
    }

    async fn bind(
        &self,
        channel: &Channel,
        queue: &str,
        exchange: &str,
        key: &str,
    ) -> Result<(), BrokerError> {
        let options = QueueBindOptions { nowait: false };
        let binding = channel.queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            options,
            FieldTable::default(),
        );
        let doing = format!("binding the queue {queue} to the exchange {exchange}");
        self.done(binding.await, &doing)
    }

    /// Declares a queue, or checks that it exists. The channel stays open.
    pub async fn declare(
        &self,
        queue: &QueueDeclaration,
        passive: bool,
    ) -> Result<Channel, BrokerError> {
        let name = queue.name.as_str();
        let options = QueueDeclareOptions {
            passive,
            durable: true,
            exclusive: false,
            auto_delete: false,
            nowait: false,
        };
        let channel = self.channel().await?;
        let declared = channel
            .queue_declare(name.into(), options, queue.arguments.clone())
            .await;
        self.done(declared, &format!("declaring the queue {name}"))?;
        Ok(channel)
    }

    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        let channel = self.connection.create_channel().await;
        self.done(channel, "opening a channel")
    }

    /// Closes the channel. A failure is ignored: the channel ends with its connection.
    pub async fn close(&self, channel: &Channel) {
        let _ = channel.close(200, "done".into()).await;
    }

    pub fn done<T>(&self, result: Result<T, lapin::Error>, doing: &str) -> Result<T, BrokerError> {
        result.map_err(|error| BrokerError::classify(&error, self.host, doing))
    }
}
