//! Deliveries of the work queue, in batches of what is ready.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};

use super::error::BrokerError;
use super::{CONFIRM_TIMEOUT, properties, within};
use crate::request::Envelope;

/// A message, unacknowledged.
#[derive(Debug)]
pub struct Delivery {
    /// What it says about its request, checked and bounded.
    pub envelope: Envelope,
    /// The body, unread.
    pub body: Vec<u8>,
    /// How often it was delivered before without being settled.
    pub redeliveries: u32,
    pub(super) properties: BasicProperties,
    tag: u64,
}

/// A consumer of the work queue on a channel of its own.
pub struct Inlet {
    channel: Channel,
    consumer: Consumer,
    queue: String,
    user: Arc<str>,
    host: String,
    cancelled: bool,
    exhausted: bool,
}

impl Inlet {
    pub(super) async fn open(
        connection: &Connection,
        queue: &str,
        prefetch: u16,
        user: &Arc<str>,
        host: &str,
    ) -> Result<Self, BrokerError> {
        let wrong = |error| BrokerError::classify(&error, host, &format!("consuming {queue}"));
        let channel = connection.create_channel().await.map_err(wrong)?;
        // Before consuming: the client's own buffer has no bound but this one. It counts for each
        // consumer, as RabbitMQ reads `global: false`.
        channel
            .basic_qos(prefetch, BasicQosOptions { global: false })
            .await
            .map_err(wrong)?;
        let options = BasicConsumeOptions {
            no_local: false,
            no_ack: false,
            exclusive: false,
            nowait: false,
        };
        let consumer = channel
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await
            .map_err(wrong)?;
        Ok(Self {
            channel,
            consumer,
            queue: queue.into(),
            user: user.clone(),
            host: host.into(),
            cancelled: false,
            exhausted: false,
        })
    }

    /// Waits for a delivery and takes with it what is ready, up to `max`. `None` after [`Inlet::cancel`], once
    /// nothing is left. Cancel-safe: dropped while it waits, it has taken nothing.
    ///
    /// # Errors
    /// Where the stream fails or ends without being asked to.
    pub async fn next_batch(&mut self, max: usize) -> Result<Option<Vec<Delivery>>, BrokerError> {
        // A stream that ended says so once, and then waits for ever.
        if self.exhausted {
            return Ok(None);
        }
        let Some(first) = self.consumer.next().await else {
            return self.end().map(|()| None);
        };
        let mut batch = vec![self.accept(first)?];
        while batch.len() < max {
            match self.consumer.next().now_or_never() {
                None => break,
                Some(Some(next)) => batch.push(self.accept(next)?),
                // If it was not asked to end, the batch can't be acknowledged any more either.
                Some(None) => return self.end().map(|()| Some(batch)),
            }
        }
        Ok(Some(batch))
    }

    /// Stops further deliveries; those on their way are still handed out.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn cancel(&mut self) -> Result<(), BrokerError> {
        self.cancelled = true;
        let tag = self.consumer.tag();
        let cancelling = async {
            let options = BasicCancelOptions { nowait: false };
            let cancelled = self.channel.basic_cancel(tag, options).await;
            cancelled.map_err(|error| self.wrong(&error, "cancelling the consumer"))
        };
        within(CONFIRM_TIMEOUT, &self.host, cancelling).await
    }

    /// Acknowledges `last` and everything handed out before it: batches are settled whole, in their order.
    ///
    /// # Errors
    /// Where the channel is gone; then everything unacknowledged is delivered again.
    pub async fn settle(&self, last: &Delivery) -> Result<(), BrokerError> {
        let acknowledging = async {
            let options = BasicAckOptions { multiple: true };
            let acked = self.channel.basic_ack(last.tag, options).await;
            acked.map_err(|error| self.wrong(&error, "acknowledging"))
        };
        within(CONFIRM_TIMEOUT, &self.host, acknowledging).await
    }

    fn end(&mut self) -> Result<(), BrokerError> {
        self.exhausted = true;
        if self.cancelled {
            Ok(())
        } else {
            Err(BrokerError::ended(&self.queue))
        }
    }

    fn accept(
        &self,
        delivery: Result<lapin::message::Delivery, lapin::Error>,
    ) -> Result<Delivery, BrokerError> {
        let delivery = delivery.map_err(|error| self.wrong(&error, "consuming"))?;
        Ok(Delivery {
            envelope: properties::envelope(&delivery.properties, &self.user),
            redeliveries: properties::redeliveries(&delivery.properties, delivery.redelivered),
            body: delivery.data,
            properties: delivery.properties,
            tag: delivery.delivery_tag,
        })
    }

    fn wrong(&self, error: &lapin::Error, doing: &str) -> BrokerError {
        BrokerError::classify(error, &self.host, &format!("{doing} ({})", self.queue))
    }
}
