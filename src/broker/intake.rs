//! Deliveries of the work queue, in batches of what is ready, within a window that grows.
//!
//! One consumer for all workers of a process: when the process dies, the broker takes back what it had in hand at
//! once, and counts one delivery. Of several consumers, each would be given what the one before returned.
//!
//! Everything in hand is charged a delivery when the process, the database or the broker fails. So the window begins with
//! one delivery in the whole process, and grows with what was settled in it: what is in hand is never much more than
//! what was settled since the last failure, and each message is charged a few deliveries however often something fails.
//! It shrinks to one when a message comes that may stop the process, so that nothing else is in hand then.
//! After unreadable messages were sifted out of the queue's head, exactly those that were found readable are taken.
//! Each window has a channel of its own, since a delivery that comes after its consumer was cancelled would
//! otherwise stay unacknowledged for as long as the channel lives.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use super::Broker;
use super::error::BrokerError;
use super::inlet::{Batch, Inlet};

/// Bodies of a batch beyond which no further delivery is added, in bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// By how much the window grows, once as many messages were settled in it.
const GROWTH: u16 = 4;

/// How long nothing comes where nothing is left: the broker does not say so to a consumer.
const GATHER_TIMEOUT: Duration = Duration::from_millis(200);

/// What the workers of a process take their deliveries from.
pub struct Intake {
    broker: Arc<Broker>,
    queue: String,
    /// The largest window.
    prefetch: u16,
    current: Mutex<Current>,
    /// The same inlet, for who must not wait for a delivery.
    inlet: std::sync::Mutex<Arc<Inlet>>,
    pace: std::sync::Mutex<Pace>,
    /// Whether a suspect came, and none yet that was never delivered before: those that were come first.
    suspicious: AtomicBool,
    stopped: AtomicBool,
    /// Told when the window, or whether to stop, changed.
    changed: Notify,
}

/// How many messages may be in hand, and how many were settled under that.
struct Pace {
    window: u16,
    settled: usize,
}

struct Current {
    inlet: Arc<Inlet>,
    consumer: Consumer,
    window: u16,
    /// A stream that ended says so once, and then waits for ever.
    ended: bool,
    /// What was gathered before anything was handed out, where that is all that is to come.
    gathered: Option<VecDeque<lapin::message::Delivery>>,
}

impl Intake {
    pub(super) async fn open(
        broker: Arc<Broker>,
        queue: &str,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let current = Current::open(&broker, queue, 1).await?;
        Ok(Self::new(broker, queue, prefetch, current))
    }

    /// Takes the first `count` messages and no more: nothing is acknowledged, so that nothing else is delivered,
    /// before they are there.
    pub(super) async fn gather(
        broker: Arc<Broker>,
        queue: &str,
        count: u16,
    ) -> Result<Self, BrokerError> {
        let mut current = Current::open(&broker, queue, count).await?;
        let mut gathered = VecDeque::new();
        while gathered.len() < usize::from(count) {
            // Another process may have taken some of them, which nobody says.
            match timeout(GATHER_TIMEOUT, current.consumer.next()).await {
                Ok(Some(next)) => {
                    let next = next.map_err(|error| current.inlet.wrong(&error, "consuming"))?;
                    gathered.push_back(next);
                }
                Ok(None) => return Err(BrokerError::ended(queue)),
                Err(_) => break,
            }
        }
        current.inlet.cancel().await?;
        while let Some(next) = current.consumer.next().await {
            let next = next.map_err(|error| current.inlet.wrong(&error, "consuming"))?;
            gathered.push_back(next);
        }
        current.gathered = Some(gathered);
        Ok(Self::new(broker, queue, count, current))
    }

    fn new(broker: Arc<Broker>, queue: &str, prefetch: u16, current: Current) -> Self {
        Self {
            broker,
            queue: queue.into(),
            prefetch,
            inlet: std::sync::Mutex::new(current.inlet.clone()),
            current: Mutex::new(current),
            pace: std::sync::Mutex::new(Pace {
                window: 1,
                settled: 0,
            }),
            suspicious: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// Waits for a delivery and takes with it what is ready, up to `max`. `None` once nothing is left, after
    /// [`Intake::stop`] or of what was gathered. Cancel-safe: dropped while it waits, it has taken nothing.
    ///
    /// # Errors
    /// Where the stream fails or ends without being asked to.
    pub async fn next_batch(&self, max: usize) -> Result<Option<Batch>, BrokerError> {
        loop {
            let mut current = self.current.lock().await;
            let inlet = current.inlet.clone();
            if let Some(gathered) = &mut current.gathered {
                let batch: Vec<_> = gathered.drain(..max.min(gathered.len())).collect();
                return Ok((!batch.is_empty()).then(|| inlet.hand_out(batch, self.prefetch)));
            }
            if current.window != self.window() {
                current.inlet.cancel().await?;
            }
            let first = if current.ended {
                None
            } else {
                tokio::select! {
                    biased;
                    first = current.consumer.next() => first,
                    () = self.changed.notified() => continue,
                }
            };
            if let Some(first) = first {
                return self.collect(&mut current, first, max).map(Some);
            }
            current.ended = true;
            if !current.inlet.is_cancelled() {
                return Err(BrokerError::ended(&self.queue));
            }
            if self.stopped.load(Ordering::Acquire) {
                return Ok(None);
            }
            self.change_window(&mut current).await?;
        }
    }

    /// Notes that so many messages were settled that came in a window of that size: once they are as many, it
    /// grows. Those of a window that is no more say nothing of this one.
    pub fn settled(&self, window: u16, messages: usize) {
        let mut pace = self.pace();
        if window != pace.window {
            return;
        }
        pace.settled = pace.settled.saturating_add(messages);
        if window < self.prefetch && pace.settled >= usize::from(window) {
            let window = window.saturating_mul(GROWTH).min(self.prefetch);
            self.resize(&mut pace, window);
        }
    }

    /// Lets one message be delivered at a time, once what is in hand is settled, until a fresh one comes.
    pub fn narrow(&self) {
        self.suspicious.store(true, Ordering::Release);
        self.resize(&mut self.pace(), 1);
    }

    /// Whether the window may grow by a message that is no suspect itself.
    pub fn may_grow(&self, fresh: bool) -> bool {
        if fresh {
            self.suspicious.store(false, Ordering::Release);
        }
        !self.suspicious.load(Ordering::Acquire)
    }

    fn resize(&self, pace: &mut Pace, window: u16) {
        *pace = Pace { window, settled: 0 };
        self.changed.notify_one();
    }

    /// Stops further deliveries; those on their way are still handed out.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn stop(&self) -> Result<(), BrokerError> {
        self.stopped.store(true, Ordering::Release);
        let stopped = self.inlet().cancel().await;
        self.changed.notify_one();
        stopped
    }

    /// Acknowledges what is settled, but waits for a batch that never will be. To be called once nobody takes
    /// batches any more.
    ///
    /// # Errors
    /// Where the channel is gone; then everything unacknowledged is delivered again.
    pub async fn settle_the_rest(&self) -> Result<(), BrokerError> {
        self.inlet().settle_the_rest().await
    }

    fn collect(
        &self,
        current: &mut Current,
        first: lapin::Result<lapin::message::Delivery>,
        max: usize,
    ) -> Result<Batch, BrokerError> {
        let mut taken = vec![first.map_err(|error| current.inlet.wrong(&error, "consuming"))?];
        let mut bytes = taken[0].data.len();
        while taken.len() < max && bytes < BATCH_BYTES {
            match current.consumer.next().now_or_never() {
                None => break,
                Some(Some(next)) => {
                    let next = next.map_err(|error| current.inlet.wrong(&error, "consuming"))?;
                    bytes += next.data.len();
                    taken.push(next);
                }
                Some(None) => {
                    current.ended = true;
                    if !current.inlet.is_cancelled() {
                        // What was taken can't be acknowledged any more.
                        return Err(BrokerError::ended(&self.queue));
                    }
                    break;
                }
            }
        }
        Ok(current.inlet.hand_out(taken, current.window))
    }

    async fn change_window(&self, current: &mut Current) -> Result<(), BrokerError> {
        current.inlet.settled().await;
        current.inlet.close().await?;
        *current = Current::open(&self.broker, &self.queue, self.window()).await?;
        *self.inlet.lock().unwrap_or_else(PoisonError::into_inner) = current.inlet.clone();
        if self.stopped.load(Ordering::Acquire) {
            current.inlet.cancel().await?;
        }
        Ok(())
    }

    fn window(&self) -> u16 {
        self.pace().window
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inlet(&self) -> Arc<Inlet> {
        let inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        inlet.clone()
    }
}

impl Current {
    async fn open(broker: &Broker, queue: &str, window: u16) -> Result<Self, BrokerError> {
        let (connection, trust, host) = (&broker.consuming.connection, &broker.trust, &broker.host);
        let opened = Inlet::open(connection, queue, window, trust, host);
        let (inlet, consumer) = opened.await?;
        Ok(Self {
            inlet: Arc::new(inlet),
            consumer,
            window,
            ended: false,
            gathered: None,
        })
    }
}
