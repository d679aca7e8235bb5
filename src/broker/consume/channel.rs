//! A channel that consumes the work queue, and what is acknowledged on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::sync::Mutex;

use super::ack_tracker::{AckTracker, BatchId};
use super::delivery::Delivery;
use super::trust::Trust;
use crate::broker::connection::{Broker, CONFIRM_TIMEOUT, CONNECT_TIMEOUT, within};
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::broker::raw::inbound::Flow;

/// The consumer's tag, of which a channel has one. Each delivery repeats it: one that the broker
/// makes up is four times as long.
const TAG: &str = "revertd";

/// Deliveries that are settled together.
pub struct Batch {
    /// The deliveries, in the order in which they came.
    pub deliveries: Vec<Delivery>,
    id: BatchId,
    channel: Arc<ConsumerChannel>,
}

impl Batch {
    /// Makes a batch of its own of what comes after the first `count` deliveries.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Self {
        let deliveries = self.deliveries.split_off(count.min(self.deliveries.len()));
        Self {
            deliveries,
            id: self.channel.tracker().split_off(self.id, count),
            channel: self.channel.clone(),
        }
    }

    /// Settles the batch: it is acknowledged as soon as all that came before it are settled too.
    ///
    /// # Errors
    /// Where the channel is gone; then everything unacknowledged is delivered again.
    pub async fn settle(&self) -> Result<(), BrokerError> {
        self.channel.settle(self.id).await
    }
}

/// A consumer's channel. What it consumes is read by who opened it.
pub struct ConsumerChannel {
    channel: Channel,
    flow: Arc<Flow>,
    consumer: ShortString,
    tracker: std::sync::Mutex<AckTracker>,
    /// Held while an acknowledgement is decided on and written: one that comes after a later one
    /// names tags that are settled already, which closes the channel.
    acknowledging: Mutex<()>,
    cancelled: AtomicBool,
    queue: String,
    trust: Trust,
    host: String,
}

impl ConsumerChannel {
    pub(crate) async fn open(
        broker: &Broker,
        queue: &str,
        prefetch: u16,
    ) -> Result<(Self, lapin::Consumer), BrokerError> {
        let (connection, flow) = (&broker.consuming.connection, broker.flow.clone());
        let consuming = Operation::Consuming(queue);
        let classify = |error| BrokerError::classify(&error, &broker.host, consuming);
        let opening = async {
            let opened = consume(connection, &flow, queue, prefetch).await;
            opened.map_err(classify)
        };
        let (channel, consumer) = within(CONNECT_TIMEOUT, &broker.host, opening).await?;
        let opened = Self {
            channel,
            flow,
            consumer: consumer.tag(),
            tracker: std::sync::Mutex::default(),
            acknowledging: Mutex::default(),
            cancelled: AtomicBool::new(false),
            queue: queue.into(),
            trust: broker.trust.clone(),
            host: broker.host.clone(),
        };
        Ok((opened, consumer))
    }

    /// What came, with what is known of it from the way here; its tag alone where it could not be
    /// parsed.
    pub(crate) fn read(&self, came: lapin::message::Delivery) -> Result<Delivery, u64> {
        let arrival = self.flow.take(self.channel.id(), came.delivery_tag);
        match arrival {
            Some((arrival, _)) if !arrival.readable => Err(came.delivery_tag),
            arrival => Ok(Delivery::new(came, arrival, &self.trust)),
        }
    }

    /// Takes note of deliveries before anything is made of them, so that no acknowledgement of
    /// others can take them along, whatever comes of that.
    pub(crate) fn register(self: &Arc<Self>, deliveries: Vec<Delivery>) -> Batch {
        let tags = deliveries.iter().map(|delivery| delivery.tag).collect();
        Batch {
            id: self.tracker().register(tags),
            deliveries,
            channel: self.clone(),
        }
    }

    /// Stops further deliveries; those on their way are still handed out.
    pub(crate) async fn cancel(&self) -> Result<(), BrokerError> {
        if self.cancelled.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let options = BasicCancelOptions { nowait: false };
        let cancelling = async {
            let cancelled = self.channel.basic_cancel(self.consumer.clone(), options);
            let cancelled = cancelled.await;
            cancelled.map_err(|error| self.classify(&error, Operation::CancellingConsumer))
        };
        within(CONFIRM_TIMEOUT, &self.host, cancelling).await
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether everything that was registered is settled.
    pub(crate) fn is_idle(&self) -> bool {
        self.tracker().is_empty()
    }

    /// Acknowledges what is settled behind a batch that was given up. To be called once no more is
    /// registered.
    pub(crate) async fn settle_the_rest(&self) -> Result<(), BrokerError> {
        let _turn = self.acknowledging.lock().await;
        let tags = self.tracker().settled_out_of_order();
        for tag in tags {
            self.acknowledge(tag, false).await?;
        }
        Ok(())
    }

    /// Closes the channel; what is unacknowledged, or still on its way, goes back to the queue.
    pub(crate) async fn close(&self) -> Result<(), BrokerError> {
        // Nobody is to cancel a consumer that is gone.
        self.cancelled.store(true, Ordering::Release);
        self.flow.close(self.channel.id());
        let closing = async {
            let closed = self.channel.close(200, "done".into()).await;
            closed.map_err(|error| self.classify(&error, Operation::ClosingChannel))
        };
        within(CONNECT_TIMEOUT, &self.host, closing).await
    }

    /// Rejects a message that was not registered, for good: requeued, it would only come again.
    pub(crate) async fn reject(&self, tag: u64) -> Result<(), BrokerError> {
        let rejecting = async {
            let options = BasicRejectOptions { requeue: false };
            let rejected = self.channel.basic_reject(tag, options).await;
            rejected.map_err(|error| self.classify(&error, Operation::Rejecting))
        };
        within(CONFIRM_TIMEOUT, &self.host, rejecting).await
    }

    async fn settle(&self, id: BatchId) -> Result<(), BrokerError> {
        let _turn = self.acknowledging.lock().await;
        let up_to = self.tracker().settle(id);
        match up_to {
            Some(tag) => self.acknowledge(tag, true).await,
            None => Ok(()),
        }
    }

    async fn acknowledge(&self, tag: u64, multiple: bool) -> Result<(), BrokerError> {
        let acknowledging = async {
            let options = BasicAckOptions { multiple };
            let acknowledged = self.channel.basic_ack(tag, options).await;
            acknowledged.map_err(|error| self.classify(&error, Operation::Acknowledging))
        };
        within(CONFIRM_TIMEOUT, &self.host, acknowledging).await
    }

    fn tracker(&self) -> std::sync::MutexGuard<'_, AckTracker> {
        // Nothing panics while it holds the lock; if it did, what it counts would still be true.
        self.tracker
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `operation` gets the name of the queue.
    pub(crate) fn classify<'a>(
        &'a self,
        error: &lapin::Error,
        operation: impl FnOnce(&'a str) -> Operation<'a>,
    ) -> BrokerError {
        BrokerError::classify(error, &self.host, operation(&self.queue))
    }
}

async fn consume(
    connection: &Connection,
    flow: &Flow,
    queue: &str,
    prefetch: u16,
) -> lapin::Result<(Channel, lapin::Consumer)> {
    let channel = connection.create_channel().await?;
    flow.open(channel.id());
    // Before consuming. It counts for each consumer, as RabbitMQ reads `global: false`.
    let for_each = BasicQosOptions { global: false };
    channel.basic_qos(prefetch, for_each).await?;
    let options = BasicConsumeOptions {
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
    };
    let arguments = FieldTable::default();
    let consuming = channel.basic_consume(queue.into(), TAG.into(), options, arguments);
    let consumer = consuming.await?;
    Ok((channel, consumer))
}
