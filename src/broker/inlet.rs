//! Deliveries of the work queue, in batches of what is ready.
//!
//! One consumer for all workers of a process: when the process dies, the broker takes back what it had in hand at
//! once, and counts one delivery. Of several consumers, each would be given what the one before returned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::sync::Mutex;

use super::error::BrokerError;
use super::order::Order;
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

/// A consumer of the work queue, shared by the workers of a process.
pub struct Inlet {
    channel: Channel,
    tag: ShortString,
    deliveries: Mutex<Deliveries>,
    order: std::sync::Mutex<Order>,
    /// Held while an acknowledgement is decided on and written: one that comes after a later one names tags
    /// that are settled already, which closes the channel.
    acknowledging: Mutex<()>,
    queue: String,
    user: Arc<str>,
    host: String,
    cancelled: AtomicBool,
}

struct Deliveries {
    consumer: Consumer,
    /// A stream that ended says so once, and then waits for ever.
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
            tag: consumer.tag(),
            deliveries: Mutex::new(Deliveries {
                consumer,
                exhausted: false,
            }),
            order: std::sync::Mutex::default(),
            acknowledging: Mutex::default(),
            queue: queue.into(),
            user: user.clone(),
            host: host.into(),
            cancelled: AtomicBool::new(false),
        })
    }

    /// Waits for a delivery and takes with it what is ready, up to `max`. `None` after [`Inlet::cancel`], once
    /// nothing is left. Cancel-safe: dropped while it waits, it has taken nothing.
    ///
    /// # Errors
    /// Where the stream fails or ends without being asked to.
    pub async fn next_batch(&self, max: usize) -> Result<Option<Vec<Delivery>>, BrokerError> {
        let mut deliveries = self.deliveries.lock().await;
        if deliveries.exhausted {
            return Ok(None);
        }
        let Some(first) = deliveries.consumer.next().await else {
            return self.end(&mut deliveries).map(|()| None);
        };
        let mut batch = vec![self.accept(first)?];
        while batch.len() < max {
            match deliveries.consumer.next().now_or_never() {
                None => break,
                Some(Some(next)) => batch.push(self.accept(next)?),
                // If it was not asked to end, the batch can't be acknowledged any more either.
                Some(None) => {
                    self.end(&mut deliveries)?;
                    break;
                }
            }
        }
        if let (Some(first), Some(last)) = (batch.first(), batch.last()) {
            self.order().hand_out(first.tag, last.tag);
        }
        Ok(Some(batch))
    }

    /// Stops further deliveries; those on their way are still handed out.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn cancel(&self) -> Result<(), BrokerError> {
        self.cancelled.store(true, Ordering::Release);
        let cancelling = async {
            let options = BasicCancelOptions { nowait: false };
            let cancelled = self.channel.basic_cancel(self.tag.clone(), options).await;
            cancelled.map_err(|error| self.wrong(&error, "cancelling the consumer"))
        };
        within(CONFIRM_TIMEOUT, &self.host, cancelling).await
    }

    /// Settles a whole batch: it is acknowledged as soon as all handed out before it are settled too.
    ///
    /// # Errors
    /// Where the channel is gone; then everything unacknowledged is delivered again.
    pub async fn settle(&self, batch: &[Delivery]) -> Result<(), BrokerError> {
        let _turn = self.acknowledging.lock().await;
        let up_to = batch.last().and_then(|last| self.order().settle(last.tag));
        match up_to {
            Some(tag) => self.acknowledge(&[tag], true).await,
            None => Ok(()),
        }
    }

    /// Acknowledges what is settled behind a batch that was given up. To be called once no more is handed out.
    ///
    /// # Errors
    /// As [`Inlet::settle`].
    pub async fn settle_the_rest(&self) -> Result<(), BrokerError> {
        let _turn = self.acknowledging.lock().await;
        let tags = self.order().left_behind();
        self.acknowledge(&tags, false).await
    }

    async fn acknowledge(&self, tags: &[u64], multiple: bool) -> Result<(), BrokerError> {
        let acknowledging = async {
            for tag in tags {
                let options = BasicAckOptions { multiple };
                let acknowledged = self.channel.basic_ack(*tag, options).await;
                acknowledged.map_err(|error| self.wrong(&error, "acknowledging"))?;
            }
            Ok(())
        };
        within(CONFIRM_TIMEOUT, &self.host, acknowledging).await
    }

    fn order(&self) -> std::sync::MutexGuard<'_, Order> {
        // Nothing panics while it holds the lock; if it did, what it counts would still be true.
        self.order
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn end(&self, deliveries: &mut Deliveries) -> Result<(), BrokerError> {
        deliveries.exhausted = true;
        if self.cancelled.load(Ordering::Acquire) {
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
