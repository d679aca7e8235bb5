//! A channel that consumes the work queue, and what is acknowledged on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::sync::{Mutex, Notify};

use super::error::BrokerError;
use super::order::{Order, Ticket};
use super::trust::Trust;
use super::{CONFIRM_TIMEOUT, CONNECT_TIMEOUT, properties, within};
use crate::request::Envelope;

/// The consumer's tag, of which a channel has one. Each delivery repeats it: one that the broker makes up is four times
/// as long.
const TAG: &str = "revertd";

/// A message, unacknowledged.
#[derive(Debug)]
pub struct Delivery {
    /// What it says about its request, checked and bounded.
    pub envelope: Envelope,
    /// The body, unread.
    pub body: Vec<u8>,
    /// How often it was delivered before without being settled.
    pub redeliveries: u32,
    /// Whether it was delivered before at all.
    pub redelivered: bool,
    /// Whether it is a dead letter that `revertd dead-letters replay` published again.
    pub is_replay: bool,
    /// When its publisher says that it was published, to the second.
    pub published_at: Option<Timestamp>,
    /// When it was first attempted, where that was before: as the worker noted it.
    pub first_attempt_at: Option<Timestamp>,
    pub(super) properties: BasicProperties,
    tag: u64,
}

/// Deliveries that are settled together.
pub struct Batch {
    /// The deliveries, in the order in which they came.
    pub deliveries: Vec<Delivery>,
    /// How many messages may be in hand of this process, these included.
    pub window: u16,
    ticket: Ticket,
    inlet: Arc<Inlet>,
}

impl Batch {
    /// Returns those deliveries to the queue that are `unwanted`, and only them, and takes no more on this channel. The
    /// broker counts a delivery. `false` where there are none.
    ///
    /// # Errors
    /// Where the channel is gone; then everything unacknowledged is delivered again.
    pub async fn give_back(
        &mut self,
        unwanted: impl Fn(&Delivery) -> bool,
    ) -> Result<bool, BrokerError> {
        let (back, kept): (Vec<_>, Vec<_>) = self
            .deliveries
            .drain(..)
            .partition(|delivery| unwanted(delivery));
        self.deliveries = kept;
        if !back.is_empty() {
            // First, or they would come back here at once, and be counted again each time.
            self.inlet.cancel().await?;
        }
        for delivery in &back {
            self.inlet.give_back(self.ticket, delivery.tag).await?;
        }
        Ok(!back.is_empty())
    }

    /// Settles the batch: it is acknowledged as soon as all handed out before it are settled too.
    ///
    /// # Errors
    /// Where the channel is gone; then everything unacknowledged is delivered again.
    pub async fn settle(&self) -> Result<(), BrokerError> {
        self.inlet.settle(self.ticket).await
    }
}

/// A consumer's channel. What it consumes is read by who opened it.
pub struct Inlet {
    channel: Channel,
    consumer: ShortString,
    order: std::sync::Mutex<Order>,
    /// Held while an acknowledgement is decided on and written: one that comes after a later one names tags
    /// that are settled already, which closes the channel.
    acknowledging: Mutex<()>,
    /// Told when everything handed out is settled.
    emptied: Notify,
    cancelled: AtomicBool,
    queue: String,
    trust: Trust,
    host: String,
}

impl Inlet {
    pub(super) async fn open(
        connection: &Connection,
        queue: &str,
        prefetch: u16,
        trust: &Trust,
        host: &str,
    ) -> Result<(Self, Consumer), BrokerError> {
        let opening = async {
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
                .basic_consume(queue.into(), TAG.into(), options, FieldTable::default())
                .await
                .map_err(wrong)?;
            Ok((channel, consumer))
        };
        let (channel, consumer) = within(CONNECT_TIMEOUT, host, opening).await?;
        let inlet = Self {
            channel,
            consumer: consumer.tag(),
            order: std::sync::Mutex::default(),
            acknowledging: Mutex::default(),
            emptied: Notify::new(),
            cancelled: AtomicBool::new(false),
            queue: queue.into(),
            trust: trust.clone(),
            host: host.into(),
        };
        Ok((inlet, consumer))
    }

    /// Hands out what was taken. Its tags are noted before anything is made of it, so that no acknowledgement of
    /// others can take it along, whatever comes of that.
    pub(super) fn hand_out(
        self: &Arc<Self>,
        taken: Vec<lapin::message::Delivery>,
        window: u16,
    ) -> Batch {
        let tags = taken.iter().map(|delivery| delivery.delivery_tag);
        let ticket = self.order().hand_out(tags.collect());
        let deliveries = taken.into_iter().map(|delivery| Delivery {
            envelope: properties::envelope(&delivery.properties, &self.trust, false),
            redeliveries: properties::redeliveries(&delivery.properties, delivery.redelivered),
            redelivered: delivery.redelivered,
            is_replay: properties::is_replay(&delivery.properties, &self.trust),
            published_at: properties::published_at(&delivery.properties),
            first_attempt_at: properties::first_attempt(&delivery.properties, &self.trust),
            body: delivery.data,
            properties: delivery.properties,
            tag: delivery.delivery_tag,
        });
        Batch {
            deliveries: deliveries.collect(),
            ticket,
            inlet: self.clone(),
            window,
        }
    }

    /// Stops further deliveries; those on their way are still handed out.
    pub(super) async fn cancel(&self) -> Result<(), BrokerError> {
        if self.cancelled.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let options = BasicCancelOptions { nowait: false };
        let cancelling = async {
            let cancelled = self.channel.basic_cancel(self.consumer.clone(), options);
            let cancelled = cancelled.await;
            cancelled.map_err(|error| self.wrong(&error, "cancelling the consumer"))
        };
        within(CONFIRM_TIMEOUT, &self.host, cancelling).await
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Waits until everything handed out is settled.
    pub(super) async fn settled(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.order().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Acknowledges what is settled behind a batch that was given up. To be called once no more is handed out.
    pub(super) async fn settle_the_rest(&self) -> Result<(), BrokerError> {
        let _turn = self.acknowledging.lock().await;
        let tags = self.order().left_behind();
        for tag in tags {
            self.acknowledge(tag, false).await?;
        }
        Ok(())
    }

    /// Closes the channel; what is unacknowledged, or still on its way, goes back to the queue. Where the broker does
    /// not answer, it may stay with the channel for as long as the connection lives.
    pub(super) async fn close(&self) -> Result<(), BrokerError> {
        let closing = async {
            let closed = self.channel.close(200, "done".into()).await;
            closed.map_err(|error| self.wrong(&error, "closing a channel"))
        };
        within(CONNECT_TIMEOUT, &self.host, closing).await
    }

    async fn settle(&self, ticket: Ticket) -> Result<(), BrokerError> {
        let _turn = self.acknowledging.lock().await;
        let up_to = self.order().settle(ticket);
        if let Some(tag) = up_to {
            self.acknowledge(tag, true).await?;
        }
        if self.order().is_empty() {
            self.emptied.notify_waiters();
        }
        Ok(())
    }

    async fn give_back(&self, ticket: Ticket, tag: u64) -> Result<(), BrokerError> {
        // First, so that no acknowledgement of others can take it along.
        let _turn = self.acknowledging.lock().await;
        self.order().give_back(ticket, tag);
        let rejecting = async {
            let options = BasicRejectOptions { requeue: true };
            let rejected = self.channel.basic_reject(tag, options).await;
            rejected.map_err(|error| self.wrong(&error, "returning a message"))
        };
        within(CONFIRM_TIMEOUT, &self.host, rejecting).await
    }

    async fn acknowledge(&self, tag: u64, multiple: bool) -> Result<(), BrokerError> {
        let acknowledging = async {
            let options = BasicAckOptions { multiple };
            let acknowledged = self.channel.basic_ack(tag, options).await;
            acknowledged.map_err(|error| self.wrong(&error, "acknowledging"))
        };
        within(CONFIRM_TIMEOUT, &self.host, acknowledging).await
    }

    fn order(&self) -> std::sync::MutexGuard<'_, Order> {
        // Nothing panics while it holds the lock; if it did, what it counts would still be true.
        self.order
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn wrong(&self, error: &lapin::Error, doing: &str) -> BrokerError {
        BrokerError::classify(error, &self.host, &format!("{doing} ({})", self.queue))
    }
}
