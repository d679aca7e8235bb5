//! Deliveries of the work queue, in batches of what is ready.
//!
//! One consumer for all workers of a process: when the process dies, the broker takes back what it
//! had in flight at once. Of several consumers, each would be given what the one before returned.
//!
//! What comes for the first time and what comes again are in batches of their own: the worker tries
//! the latter in small parts. A message that can't be parsed is rejected here, and the broker
//! dead-letters it.
//!
//! RabbitMQ can forget a consumer when a queue's leader restarts: the queue counts messages, and
//! delivers none. Nobody says so. A consumer that holds nothing, and to which nothing came for a
//! while, is therefore opened anew.

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
use crate::broker::connection::Broker;
use crate::broker::error::BrokerError;
use crate::broker::operation::Operation;

/// Bodies of a batch beyond which no further delivery is added, in bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// How long nothing comes until the consumer is opened anew.
const IDLE: Duration = Duration::from_secs(5);

/// Least time between two lines about messages that can't be parsed.
const BETWEEN_WARNINGS: Duration = Duration::from_mins(1);

/// What the workers of a process take their deliveries from.
pub struct Consumer {
    broker: Arc<Broker>,
    queue: String,
    prefetch: u16,
    current: Mutex<DeliveryStream>,
    /// The same channel, for who must not wait for a delivery.
    channel: std::sync::Mutex<Arc<ConsumerChannel>>,
    stopped: AtomicBool,
    /// Told when it is to stop.
    changed: Notify,
}

struct DeliveryStream {
    channel: Arc<ConsumerChannel>,
    deliveries: lapin::Consumer,
    /// A delivery that did not fit the batch before it.
    ahead: Option<Came>,
    /// A stream that ended says so once, and then waits for ever.
    ended: bool,
    unreadable: UnreadableCount,
}

/// Messages that can't be parsed, until they are told of.
#[derive(Default)]
struct UnreadableCount {
    count: u64,
    told: Option<Instant>,
}

/// How many deliveries a batch holds at most.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Of those that come for the first time.
    pub first: usize,
    /// Of those that come again.
    pub again: usize,
}

impl Consumer {
    pub(crate) async fn open(
        broker: Arc<Broker>,
        queue: &str,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
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

    /// Waits for a delivery and takes with it what is ready. `None` once nothing is left after
    /// [`Consumer::stop`]. Dropped while it waits for the first, it has taken nothing; later, what
    /// it took comes again with the channel's end.
    ///
    /// # Errors
    /// Where the stream fails or ends without being asked to.
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

    /// Stops further deliveries; those on their way are still handed out.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn stop(&self) -> Result<(), BrokerError> {
        self.stopped.store(true, Ordering::Release);
        let stopped = self.channel().cancel().await;
        self.changed.notify_one();
        stopped
    }

    /// Acknowledges what is settled, but waits for a batch that never will be. To be called once
    /// nobody takes batches any more.
    ///
    /// # Errors
    /// Where the channel is gone; then everything unacknowledged is delivered again.
    pub async fn settle_the_rest(&self) -> Result<(), BrokerError> {
        self.channel().settle_the_rest().await
    }

    /// A batch of `first` and what is ready after it. `None` where nothing of it can be read.
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
        let (mut taken, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some(came) = next.take() {
            if came.redelivered != redelivered {
                current.ahead = Some(came);
                break;
            }
            if let Some(delivery) = current.read(came).await? {
                bytes += delivery.body.len();
                taken.push(delivery);
            }
            if taken.len() >= most || bytes >= BATCH_BYTES {
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
                        // What was taken can't be acknowledged any more.
                        return Err(BrokerError::ended(&self.queue));
                    }
                }
            }
        }
        current.unreadable.tell(&self.queue);
        Ok((!taken.is_empty()).then(|| current.channel.register(taken)))
    }

    /// Opens the consumer on a new channel, where the process holds nothing and is not about to
    /// stop.
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

    /// A delivery as far as it can be read. One that can't be is rejected before anything after it
    /// can be acknowledged, since an acknowledgement takes along what comes before it.
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
