//! Declares the topology, one exchange or queue at a time, or checks that it exists.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};

use super::declarations::{ExchangeDeclaration, QueueDeclaration, exchanges, queues};
use crate::broker::connection::{CONNECT_TIMEOUT, within};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::config::Settings;

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
        self.done(declared, Operation::DeclaringQueue(name))?;
        Ok(channel)
    }

    pub async fn channel(&self) -> Result<Channel, BrokerError> {
        let channel = self.connection.create_channel().await;
        self.done(channel, Operation::OpeningChannel)
    }

    /// Closes the channel. A failure is ignored: the channel ends with its connection.
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
