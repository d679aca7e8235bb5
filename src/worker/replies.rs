//! Copies of events to the queues that requests name in `reply_to`.
//!
//! Whatever comes of a copy, the request is settled: the event itself is confirmed. A copy to a queue is sent
//! before that, on a channel of its own. A copy to a direct reply-to is sent beside the batches, on a
//! connection of its own: a forged address makes the broker close the connection that publishes to it, a
//! moment after it confirmed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::Shared;
use crate::broker::{Broker, BrokerError, Delivery, Fate, Message, Outlet};
use crate::event::Event;

/// How long a batch waits for its copies.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one copy to a direct reply-to may take, connection included.
const DIRECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Copies to direct reply-tos that wait; further ones are given up.
const DIRECT_WAITING: usize = 1000;

/// What every address of a direct reply-to begins with.
const DIRECT: &str = "amq.rabbitmq.reply-to.";

/// A copy: the queue that a request names, its event, and its delivery.
pub struct Reply<'a>(pub &'a str, pub &'a Event, pub &'a Delivery);

/// A worker's copies.
pub struct Replies {
    shared: Arc<Shared>,
    broker: Arc<Broker>,
    /// Opened when needed.
    outlet: Option<Outlet>,
    direct: mpsc::Sender<Message<'static>>,
}

impl Replies {
    pub fn new(
        shared: Arc<Shared>,
        broker: Arc<Broker>,
        direct: mpsc::Sender<Message<'static>>,
    ) -> Self {
        Self {
            shared,
            broker,
            outlet: None,
            direct,
        }
    }

    /// Whether a request may have its event copied to `queue`.
    pub fn may_name(&self, queue: &str) -> bool {
        let pattern = &self.shared.settings.amqp.reply_to_pattern;
        let allowed = queue.starts_with(DIRECT) || pattern.allows(queue);
        allowed && !self.shared.own_queues.contains(queue)
    }

    /// Sends the copies of a batch, and counts those that do not arrive.
    pub async fn send(&mut self, copies: &[Reply<'_>]) {
        let mut queued = Vec::new();
        for Reply(queue, event, delivery) in copies {
            if !queue.starts_with(DIRECT) {
                queued.push(Message::reply(queue, event, delivery));
                continue;
            }
            let copy = Message::direct_reply(queue, event, delivery);
            if self.direct.try_send(copy).is_err() {
                self.shared.sight.counts.copy_failed();
            }
        }
        if queued.is_empty() {
            return;
        }
        let arrived = match timeout(QUEUE_TIMEOUT, self.send_queued(&queued)).await {
            Ok(Ok(arrived)) => arrived,
            Ok(Err(reason)) => {
                debug!(%reason, "no copies to reply_to");
                0
            }
            Err(_) => 0,
        };
        (arrived..queued.len()).for_each(|_| self.shared.sight.counts.copy_failed());
    }

    /// A channel that failed, or whose confirms are still to come, is not kept.
    async fn send_queued(&mut self, copies: &[Message<'_>]) -> Result<usize, BrokerError> {
        let outlet = match self.outlet.take() {
            Some(outlet) => outlet,
            None => self.broker.outlet().await?,
        };
        let fates = outlet.publish(copies).await?;
        self.outlet = Some(outlet);
        Ok(fates
            .iter()
            .filter(|fate| **fate == Fate::Confirmed)
            .count())
    }
}

/// Sends copies to direct reply-tos for all workers of a generation, until they are gone.
pub struct DirectReplies {
    shared: Arc<Shared>,
    broker: Arc<Broker>,
    waiting: mpsc::Receiver<Message<'static>>,
    outlet: Option<Outlet>,
}

impl DirectReplies {
    /// The sender's end, and the receiver's.
    pub fn new(shared: Arc<Shared>, broker: Arc<Broker>) -> (mpsc::Sender<Message<'static>>, Self) {
        let (sender, waiting) = mpsc::channel(DIRECT_WAITING);
        let outlet = None;
        let receiver = Self {
            shared,
            broker,
            waiting,
            outlet,
        };
        (sender, receiver)
    }

    pub async fn run(mut self) {
        let mut copies = Vec::new();
        while self.waiting.recv_many(&mut copies, 100).await > 0 {
            if self.send_in_time(&copies).await.is_err() {
                // One of them, or one before, broke the connection: each by itself. The second try is for
                // one that met the end of another's connection.
                for copy in &copies {
                    let copy = std::slice::from_ref(copy);
                    if self.send_in_time(copy).await.is_err()
                        && self.send_in_time(copy).await.is_err()
                    {
                        self.shared.sight.counts.copy_failed();
                    }
                }
            }
            copies.clear();
        }
    }

    async fn send_in_time(&mut self, copies: &[Message<'_>]) -> Result<(), ()> {
        let sent = timeout(DIRECT_TIMEOUT, self.send(copies)).await;
        match sent {
            Ok(Ok(failed)) => {
                (0..failed).for_each(|_| self.shared.sight.counts.copy_failed());
                Ok(())
            }
            Ok(Err(reason)) => {
                debug!(%reason, "a copy to a direct reply-to broke its connection");
                Err(())
            }
            Err(_) => Err(()),
        }
    }

    /// How many did not arrive.
    async fn send(&mut self, copies: &[Message<'_>]) -> Result<usize, BrokerError> {
        let outlet = match self.outlet.take() {
            Some(outlet) => outlet,
            None => self.broker.separate_outlet().await?,
        };
        let fates = outlet.publish(copies).await?;
        self.outlet = Some(outlet);
        Ok(fates
            .iter()
            .filter(|fate| **fate != Fate::Confirmed)
            .count())
    }
}
