//! Consumes the work queue, and forms batches of the messages that are ready.
//!
//! The workers of a process share one consumer. When the process dies, the broker requeues all its
//! messages at once; with several consumers, it would redeliver them from one to the next.
//!
//! First deliveries and redelivered messages are in separate batches: the worker tries redelivered
//! messages in small parts. A message whose properties can't be parsed is rejected here, and the
//! broker dead-letters it.
//!
//! RabbitMQ can forget a consumer when a queue's leader restarts: the queue has messages and
//! delivers none, without notice. A consumer that has no message in flight and receives none for a
//! while is therefore opened again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Came;
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::channel::{Batch, ConsumerChannel};
use super::delivery::Delivery;
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;
use crate::broker::worker_connections::Broker;

/// The weight of a batch at which no further delivery is added: room for 500 single requests, and
/// for groups of a thousand requests altogether.
const BATCH_WEIGHT: usize = 256 * 1024;

/// The least weight of a JSON object in a body, in bytes. A request of a group takes room for its
/// event and its own message, however short it is.
const OBJECT_WEIGHT: usize = 256;

/// The time without a delivery after which the consumer is opened again.
const IDLE: Duration = Duration::from_secs(5);

/// The least time between two log lines about messages that can't be parsed.
const BETWEEN_WARNINGS: Duration = Duration::from_mins(1);

/// The consumer that the workers of a process share.
pub struct Consumer {
    broker: Arc<Broker>,
    queue: String,
    prefetch: u16,
    current: Mutex<DeliveryStream>,
    /// The channel of `current`, for callers that must not wait for its lock.
    channel: std::sync::Mutex<Arc<ConsumerChannel>>,
    stopped: AtomicBool,
    /// Notified when the consumer is to stop.
    changed: Notify,
}

struct DeliveryStream {
    channel: Arc<ConsumerChannel>,
    deliveries: lapin::Consumer,
    /// A delivery that belongs to the next batch.
    ahead: Option<Came>,
    /// Whether the stream ended. It returns `None` only once.
    ended: bool,
    unreadable: UnreadableCount,
}

/// The number of rejected messages that are not logged yet.
#[derive(Default)]
struct UnreadableCount {
    count: u64,
    told: Option<Instant>,
}

/// The largest number of deliveries in a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Of first deliveries.
    pub first: usize,
    /// Of redelivered messages.
    pub again: usize,
}

impl Broker {
    /// Starts to consume the work queue.
    ///
    /// # Errors
    /// If the broker refuses.
    pub async fn consumer(
        self: &Arc<Self>,
        queue: &str,
        prefetch: u16,
    ) -> Result<Consumer, BrokerError> {
        Consumer::open(self.clone(), queue, prefetch).await
    }
}

impl Consumer {
    async fn open(broker: Arc<Broker>, queue: &str, prefetch: u16) -> Result<Self, BrokerError> {
        let current = DeliveryStream::open(&broker, queue, prefetch).await?;
        Ok(Self {
            broker,
            queue: queue.into(),
            prefetch,
            channel: std::sync::Mutex::new(current.channel.clone()),
            current: Mutex::new(current),
            stopped: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    /// Waits for a delivery, and forms a batch of it and of those that are ready. `None` once the
    /// deliveries end after [`Consumer::stop`]. If it is dropped while it waits for the first
    /// delivery, none is lost; later, its deliveries are redelivered once the channel closes.
    ///
    /// # Errors
    /// If the stream fails, or ends without a stop.
    pub async fn next_batch(&self, limits: BatchLimits) -> Result<Option<Batch>, BrokerError> {
        loop {
            let mut current = self.current.lock().await;
            let first = match current.ahead.take() {
                Some(ahead) => Some(Ok(ahead)),
                None if current.ended => None,
                None => tokio::select! {
                    biased;
                    next = timeout(IDLE, current.deliveries.next()) => {
                        let Ok(next) = next else {
                            self.reopen(&mut current).await?;
                            continue;
                        };
                        next
                    }
                    () = self.changed.notified() => continue,
                },
            };
            let Some(first) = first else {
                current.ended = true;
                if !current.channel.is_cancelled() {
                    return Err(BrokerError::ended(&self.queue));
                }
                return Ok(None);
            };
            let first =
                first.map_err(|error| current.channel.classify(&error, Operation::Consuming))?;
            if let Some(batch) = self.collect(&mut current, first, limits).await? {
                return Ok(Some(batch));
            }
        }
    }

    /// Cancels the consumer. Messages that were sent before are still delivered.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn stop(&self) -> Result<(), BrokerError> {
        self.stopped.store(true, Ordering::Release);
        let stopped = self.channel().cancel().await;
        self.changed.notify_one();
        stopped
    }

    /// Acknowledges the settled messages behind a batch that will never be settled. Called once no
    /// worker takes batches any more.
    ///
    /// # Errors
    /// If the channel is closed. Unacknowledged messages are delivered again.
    pub async fn settle_the_rest(&self) -> Result<(), BrokerError> {
        self.channel().settle_the_rest().await
    }

    /// A batch of `first` and the deliveries that are ready. `None` if none of them can be parsed.
    async fn collect(
        &self,
        current: &mut DeliveryStream,
        first: Came,
        limits: BatchLimits,
    ) -> Result<Option<Batch>, BrokerError> {
        let redelivered = first.redelivered;
        let most = if redelivered {
            limits.again
        } else {
            limits.first
        };
        let (mut taken, mut weight, mut next) = (Vec::new(), 0, Some(first));
        while let Some(came) = next.take() {
            if came.redelivered != redelivered {
                current.ahead = Some(came);
                break;
            }
            if let Some(delivery) = current.read(came).await? {
                weight += weight_of(&delivery.body);
                taken.push(delivery);
            }
            if taken.len() >= most || weight >= BATCH_WEIGHT {
                break;
            }
            match current.deliveries.next().now_or_never() {
                None => {}
                Some(Some(came)) => {
                    let classify = |error| current.channel.classify(&error, Operation::Consuming);
                    next = Some(came.map_err(classify)?);
                }
                Some(None) => {
                    current.ended = true;
                    if !current.channel.is_cancelled() {
                        // The deliveries taken so far can't be acknowledged any more.
                        return Err(BrokerError::ended(&self.queue));
                    }
                }
            }
        }
        current.unreadable.tell(&self.queue);
        Ok((!taken.is_empty()).then(|| current.channel.register(taken)))
    }

    /// Opens the consumer on a new channel, unless messages are in flight or the process stops.
    async fn reopen(&self, current: &mut DeliveryStream) -> Result<(), BrokerError> {
        if self.stopped.load(Ordering::Acquire) || !current.channel.is_idle() {
            return Ok(());
        }
        debug!(
            queue = self.queue,
            "no delivery for a while; opening a new consumer"
        );
        current.channel.close().await?;
        *current = DeliveryStream::open(&self.broker, &self.queue, self.prefetch).await?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = current.channel.clone();
        if self.stopped.load(Ordering::Acquire) {
            current.channel.cancel().await?;
        }
        Ok(())
    }

    fn channel(&self) -> Arc<ConsumerChannel> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.clone()
    }
}

impl DeliveryStream {
    async fn open(broker: &Broker, queue: &str, prefetch: u16) -> Result<Self, BrokerError> {
        let (channel, deliveries) = ConsumerChannel::open(broker, queue, prefetch).await?;
        Ok(Self {
            channel: Arc::new(channel),
            deliveries,
            ahead: None,
            ended: false,
            unreadable: UnreadableCount::default(),
        })
    }

    /// Parses a delivery. A message that can't be parsed is rejected before a later one can be
    /// acknowledged, since an acknowledgement covers all tags before it.
    async fn read(&mut self, came: Came) -> Result<Option<Delivery>, BrokerError> {
        match self.channel.read(came) {
            Ok(delivery) => Ok(Some(delivery)),
            Err(tag) => {
                self.unreadable.count += 1;
                self.channel.reject(tag).await?;
                Ok(None)
            }
        }
    }
}

/// The size of a body, but not less than its objects weigh.
fn weight_of(body: &[u8]) -> usize {
    let objects = body.split(|byte| *byte == b'{').count() - 1;
    body.len().max(objects.saturating_mul(OBJECT_WEIGHT))
}

impl UnreadableCount {
    fn tell(&mut self, queue: &str) {
        let recently = |told: Instant| told.elapsed() < BETWEEN_WARNINGS;
        if self.count == 0 || self.told.is_some_and(recently) {
            return;
        }
        warn!(
            event = "unreadable_rejected",
            queue,
            messages = self.count,
            "rejected messages whose properties cannot be parsed; the broker dead-letters them, \
             and `revertd dead-letters list --reason rejected` shows them"
        );
        (self.count, self.told) = (0, Some(Instant::now()));
    }
}
