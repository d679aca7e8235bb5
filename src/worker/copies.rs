//! Copies of events to the queues that requests name in `reply_to`.
//!
//! The event itself is confirmed on the reply exchange, so a lost copy does not hold up the
//! request. Batches do not wait for copies. Copies to a direct reply-to have a connection of their
//! own: a forged address makes the broker close the connection that publishes to it, a moment after
//! the confirm.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::messages::events;
use super::shared::Shared;
use crate::broker::{Broker, BrokerError, Delivery, Message, PublishResult, Publisher, is_direct};
use crate::domain::disposition::Disposition;

/// How long copies that are sent together may take, channel or connection included.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The number of copies of each kind that may wait; further copies are dropped.
const WAITING: usize = 1000;

/// The number of copies that are sent together.
const TOGETHER: usize = 100;

/// The number of windows that are sent at once to queues: a queue that never confirms must not hold
/// up the others.
const WINDOWS: usize = 8;

/// The queues in which the workers leave copies.
#[derive(Clone)]
pub struct CopyQueues {
    shared: Arc<Shared>,
    queued: mpsc::Sender<Message<'static>>,
    direct: mpsc::Sender<Message<'static>>,
}

/// Sends the copies of one kind for all workers of a generation, until the workers end.
pub struct CopySender {
    shared: Arc<Shared>,
    broker: Arc<Broker>,
    waiting: mpsc::Receiver<Message<'static>>,
    is_direct: bool,
}

impl CopyQueues {
    /// The queues, and the tasks that send from them.
    pub fn new(shared: &Arc<Shared>, broker: &Arc<Broker>) -> (Self, [CopySender; 2]) {
        let (queued, to_queues) = mpsc::channel(WAITING);
        let (direct, to_direct) = mpsc::channel(WAITING);
        let sender = |waiting, is_direct| CopySender {
            shared: shared.clone(),
            broker: broker.clone(),
            waiting,
            is_direct,
        };
        let senders = [sender(to_queues, false), sender(to_direct, true)];
        let copies = Self {
            shared: shared.clone(),
            queued,
            direct,
        };
        (copies, senders)
    }

    /// Leaves a copy of each message of events whose request names a permitted queue in `reply_to`.
    pub fn send(&self, batch: &[Delivery], dispositions: &[Disposition]) {
        let wants_copy = |delivery: &Delivery| delivery.envelope.reply_to.is_some();
        if !batch.iter().any(wants_copy) {
            return;
        }
        for outgoing in events("", batch, dispositions) {
            let delivery = &batch[outgoing.indexes[0]];
            let Some(queue) = &delivery.envelope.reply_to else {
                continue;
            };
            if !self.shared.settings.may_reply_to(queue) {
                self.shared.reply_to_refused(delivery, queue);
                continue;
            }
            let copies = if is_direct(queue) {
                &self.direct
            } else {
                &self.queued
            };
            let copy = outgoing.message.copy(queue);
            if copy.is_some_and(|copy| copies.try_send(copy).is_err()) {
                self.shared.copies_failed(1, "too many wait already");
            }
        }
    }
}

impl CopySender {
    pub async fn run(mut self) {
        let windows = if self.is_direct { 1 } else { WINDOWS };
        let mut sending = JoinSet::new();
        let mut idle = Vec::new();
        loop {
            let mut copies = Vec::new();
            tokio::select! {
                count = self.waiting.recv_many(&mut copies, TOGETHER),
                    if sending.len() < windows => {
                    if count == 0 {
                        break;
                    }
                    let window = CopyWindow {
                        shared: self.shared.clone(),
                        broker: self.broker.clone(),
                        is_direct: self.is_direct,
                        publisher: idle.pop(),
                    };
                    sending.spawn(window.send(copies));
                }
                Some(done) = sending.join_next(), if !sending.is_empty() => {
                    idle.extend(done.ok().flatten());
                }
            }
        }
        while sending.join_next().await.is_some() {}
    }
}

/// Copies that are sent together, and the channel that they go over, opened when needed.
struct CopyWindow {
    shared: Arc<Shared>,
    broker: Arc<Broker>,
    is_direct: bool,
    publisher: Option<Publisher>,
}

impl CopyWindow {
    /// Sends them, and returns the channel where it can be used again.
    async fn send(mut self, copies: Vec<Message<'static>>) -> Option<Publisher> {
        let Err(error) = self.send_in_time(&copies).await else {
            return self.publisher;
        };
        if !self.is_direct {
            self.shared.copies_failed(copies.len(), &error);
            return None;
        }
        // A copy of this window or of the one before made the broker close the connection. Each is
        // sent by itself; the second try is for a copy that met the end of another's connection.
        for copy in &copies {
            let copy = std::slice::from_ref(copy);
            if self.send_in_time(copy).await.is_err()
                && let Err(error) = self.send_in_time(copy).await
            {
                self.shared.copies_failed(1, &error);
            }
        }
        self.publisher
    }

    async fn send_in_time(&mut self, copies: &[Message<'_>]) -> Result<(), String> {
        let failed = match timeout(TIMEOUT, self.publish(copies)).await {
            Ok(Ok(failed)) => failed,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("a queue does not confirm".into()),
        };
        if failed > 0 {
            let error = "a queue is full, or is not there";
            self.shared.copies_failed(failed, error);
        }
        Ok(())
    }

    /// The number of copies that did not arrive. A channel that failed, or whose confirms are
    /// outstanding, is not kept.
    async fn publish(&mut self, copies: &[Message<'_>]) -> Result<usize, BrokerError> {
        let publisher = match self.publisher.take() {
            Some(publisher) => publisher,
            None if self.is_direct => self.broker.separate_publisher().await?,
            None => self.broker.publisher().await?,
        };
        let results = publisher.publish(copies).await?;
        self.publisher = Some(publisher);
        let failed = results
            .iter()
            .filter(|result| **result != PublishResult::Confirmed);
        Ok(failed.count())
    }
}
