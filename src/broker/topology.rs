//! Exchanges, queues and bindings that revertd needs.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::connection::{CONNECT_TIMEOUT, within};
use super::error::BrokerError;
use super::operation::Operation;
use crate::config::{Settings, TopologySettings};

/// Practically unlimited, and within the range that every supported version takes: to list letters
/// must not use them up, and requests are given up by the worker alone.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

pub struct QueueDeclaration {
    pub name: String,
    pub arguments: FieldTable,
    /// The exchanges that it is bound to, and the keys.
    pub bindings: Vec<(String, Vec<String>)>,
}

/// An exchange.
#[derive(Clone)]
pub struct ExchangeDeclaration<'a> {
    pub name: &'a str,
    pub kind: ExchangeKind,
    /// Where it sends what no binding fits.
    pub alternate: Option<&'a str>,
}

/// Where requests go whose routing key no queue is bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alternate {
    /// To the alternate exchange: the request exchange was declared with it.
    Declared,
    /// The request exchange has no such argument, or was not asked. A policy may give it one.
    NotSeen,
}

/// Declares everything, or checks that it is there.
pub async fn ensure(
    connection: &Connection,
    settings: &Settings,
    host: &str,
) -> Result<Alternate, BrokerError> {
    let topology = &settings.topology;
    let passive = !topology.declare;
    let steps = Steps { connection, host };
    let mut alternate = Alternate::Declared;
    // Each has its own time: together they are some forty round trips.
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
    // Last, so that nothing is delivered before there is a place for what comes of it.
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

/// One fixed time to live for all of a queue's messages, since expiry stops at the first unexpired
/// one; then back to the work queue, through the default exchange.
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

/// The key by which the work queue is bound to the alternate exchange, which looks at none.
pub const ANY_KEY: &str = "";

/// The keys of the events that the reply queue holds.
pub const REPLY_KEYS: [&str; 2] = ["result.#", "error.#"];

/// The key of those that the queue of denied requests holds.
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

/// Small, and of its own: who may ask for nothing must not push out what others were answered.
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

/// At least once, which the broker honours only together with `reject-publish`.
fn dead_letters_to(arguments: &mut FieldTable, exchange: &str, routing_key: &str) {
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments
        .insert("x-dead-letter-exchange".into(), text(exchange))
        .insert("x-dead-letter-routing-key".into(), text(routing_key))
        .insert("x-dead-letter-strategy".into(), text("at-least-once"));
}

/// Each on a channel of its own, since a refusal closes the channel.
pub struct Steps<'a> {
    pub connection: &'a Connection,
    pub host: &'a str,
}

impl Steps<'_> {
    /// Declares an exchange, or looks whether it is there. One that is there without its alternate
    /// exchange is taken as it is: arguments can't be changed, and a policy can give it one.
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
        self.done(declared, Operation::DeclaringExchange(exchange.name))?;
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
        self.done(binding.await, Operation::Binding { queue, exchange })
    }

    /// Declares a queue alone, or looks whether it is there. The channel is still open.
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
        self.done(declared, Operation::DeclaringQueue(name))?;
        Ok(channel)
    }

    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        let channel = self.connection.create_channel().await;
        self.done(channel, Operation::OpeningChannel)
    }

    /// Nothing depends on it: an open channel costs a little until the connection ends.
    pub async fn close(&self, channel: &Channel) {
        let _ = channel.close(200, "done".into()).await;
    }

    pub fn done<T>(
        &self,
        result: Result<T, lapin::Error>,
        operation: Operation<'_>,
    ) -> Result<T, BrokerError> {
        result.map_err(|error| BrokerError::classify(&error, self.host, operation))
    }
}
