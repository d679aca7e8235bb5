//! A channel that consumes the work queue, and its acknowledgements.

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
use crate::broker::raw::inbound::Flow;

/// The consumer tag. Each delivery repeats it, and a tag that the broker generates is four times as
/// long.
const TAG: &str = "revertd";

/// Deliveries that are settled together.
pub struct Batch {
    /// The deliveries, in the order of their tags.
    pub deliveries: Vec<Delivery>,
    id: BatchId,
    channel: Arc<ConsumerChannel>,
}

impl Batch {
    /// Splits off the deliveries after the first `count` as a batch of their own.
    #[must_use]
    pub fn split_off(&mut self, count: usize) -> Self {
        let deliveries = self.deliveries.split_off(count.min(self.deliveries.len()));
        Self {
            deliveries,
            id: self.channel.tracker().split_off(self.id, count),
            channel: self.channel.clone(),
        }
    }

    /// Settles the batch. It is acknowledged as soon as all batches before it are settled.
    ///
    /// # Errors
    /// If the channel is closed. Unacknowledged messages are delivered again.
    pub async fn settle(&self) -> Result<(), BrokerError> {
        self.channel.settle(self.id).await
    }
}

/// The channel of a consumer. The stream of deliveries is returned by [`ConsumerChannel::open`].
pub struct ConsumerChannel {
    channel: Channel,
    flow: Arc<Flow>,
    consumer: ShortString,
    tracker: std::sync::Mutex<AckTracker>,
    /// Held while an acknowledgement is chosen and written. An acknowledgement that is written
    /// after a later one names tags that are settled already, and the broker closes the channel.
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
        let classify =
            |error| BrokerError::classify(&error, &broker.host, &format!("consuming {queue}"));
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

    /// The delivery together with the facts that its frames showed. `Err` is the tag of a message
    /// whose properties can't be parsed.
    pub(crate) fn read(&self, came: lapin::message::Delivery) -> Result<Delivery, u64> {
        let arrival = self.flow.take(self.channel.id(), came.delivery_tag);
        match arrival {
            Some((arrival, _)) if !arrival.readable => Err(came.delivery_tag),
            arrival => Ok(Delivery::new(came, arrival, &self.trust)),
        }
    }

    /// Registers deliveries as a batch before they are handled, so that no acknowledgement of a
    /// later batch covers them.
    pub(crate) fn register(self: &Arc<Self>, deliveries: Vec<Delivery>) -> Batch {
        let tags = deliveries.iter().map(|delivery| delivery.tag).collect();
        Batch {
            id: self.tracker().register(tags),
            deliveries,
            channel: self.clone(),
        }
    }

    /// Cancels the consumer. Messages that were sent before are still delivered.
    pub(crate) async fn cancel(&self) -> Result<(), BrokerError> {
        if self.cancelled.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let options = BasicCancelOptions { nowait: false };
        let cancelling = async {
            let cancelled = self.channel.basic_cancel(self.consumer.clone(), options);
            let cancelled = cancelled.await;
            cancelled.map_err(|error| self.classify(&error, "cancelling the consumer"))
        };
        within(CONFIRM_TIMEOUT, &self.host, cancelling).await
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether every registered batch is settled.
    pub(crate) fn is_idle(&self) -> bool {
        self.tracker().is_empty()
    }

    /// Acknowledges the settled messages behind a batch that will never be settled. Called once no
    /// batch is registered any more.
    pub(crate) async fn settle_the_rest(&self) -> Result<(), BrokerError> {
        let _turn = self.acknowledging.lock().await;
        let tags = self.tracker().settled_out_of_order();
        for tag in tags {
            self.acknowledge(tag, false).await?;
        }
        Ok(())
    }

    /// Closes the channel. Unacknowledged messages are requeued.
    pub(crate) async fn close(&self) -> Result<(), BrokerError> {
        // The consumer ends with the channel and must not be cancelled later.
        self.cancelled.store(true, Ordering::Release);
        self.flow.close(self.channel.id());
        let closing = async {
            let closed = self.channel.close(200, "done".into()).await;
            closed.map_err(|error| self.classify(&error, "closing a channel"))
        };
        within(CONNECT_TIMEOUT, &self.host, closing).await
    }

    /// Rejects a message that was not registered, without requeueing it.
    pub(crate) async fn reject(&self, tag: u64) -> Result<(), BrokerError> {
        let rejecting = async {
            let options = BasicRejectOptions { requeue: false };
            let rejected = self.channel.basic_reject(tag, options).await;
            rejected.map_err(|error| self.classify(&error, "rejecting a message"))
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
            acknowledged.map_err(|error| self.classify(&error, "acknowledging"))
        };
        within(CONFIRM_TIMEOUT, &self.host, acknowledging).await
    }

    fn tracker(&self) -> std::sync::MutexGuard<'_, AckTracker> {
        // No code panics while it holds the lock.
        self.tracker
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn classify(&self, error: &lapin::Error, doing: &str) -> BrokerError {
        BrokerError::classify(error, &self.host, &format!("{doing} ({})", self.queue))
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
    // Set before consuming: RabbitMQ applies `global: false` to each new consumer.
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
