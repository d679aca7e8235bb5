//! One worker: a batch at a time from delivery to acknowledgement.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::messages::messages;
use super::record::{Began, Record};
use super::replies::{Replies, Reply};
use super::{End, Shared};
use crate::broker::{
    Batch, BatchLimits, Broker, BrokerError, Consumer, Delivery, Fate, Message, Outlet,
};
use crate::disposition::{self, Disposition, Reading};
use crate::patience::Patience;
use crate::seam;

/// How long full queues are waited for with messages in hand: well below the broker's acknowledgement timeout.
const REFUSED_FOR_AT_MOST: Duration = Duration::from_mins(10);

/// A share of the deliveries and of the database, and channels to publish.
pub struct Worker {
    shared: Arc<Shared>,
    broker: Arc<Broker>,
    consumer: Arc<Consumer>,
    outlet: Outlet,
    replies: Replies,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        broker: Arc<Broker>,
        consumer: Arc<Consumer>,
        outlet: Outlet,
        replies: Replies,
    ) -> Self {
        Self {
            shared,
            broker,
            consumer,
            outlet,
            replies,
        }
    }

    /// Works until nothing more is handed out, or until `over`: then only what is in hand is finished.
    pub(super) async fn run(mut self, over: CancellationToken) -> End {
        match self.work(&over).await {
            Ok(()) => End::Stopped,
            Err(end) => end,
        }
    }

    async fn work(&mut self, over: &CancellationToken) -> Result<(), End> {
        let shared = self.shared.clone();
        let limits = BatchLimits {
            first: shared.settings.worker.batch_max.into(),
            again: shared.journal.most_at_once(),
        };
        loop {
            let batch = tokio::select! {
                biased;
                () = over.cancelled() => return Ok(()),
                batch = self.consumer.next_batch(limits) => batch.map_err(End::Broker)?,
            };
            let Some(batch) = batch else {
                return Ok(());
            };
            if batch.deliveries.iter().any(|delivery| delivery.redelivered) {
                self.try_again(batch, over).await?;
            } else {
                let _in_work = shared.journal.begin().await;
                self.handle(batch).await?;
            }
        }
    }

    /// The way of messages that come again, one of which may have crashed a worker: in parts, by the tries behind them.
    async fn try_again(&mut self, mut batch: Batch, over: &CancellationToken) -> Result<(), End> {
        let shared = self.shared.clone();
        let journal = &shared.journal;
        let failed = |wrong| End::Ledger(wrong, Vec::new());
        let messages: Vec<Uuid> = batch.deliveries.iter().map(Delivery::identity).collect();
        let tries = journal.tries(&messages).await.map_err(failed)?;
        for delivery in batch.deliveries.iter_mut().zip(&messages) {
            let (delivery, message) = delivery;
            delivery.crashes = tries.get(message).map_or(0, |tries| tries.alone);
        }
        let mut rest = messages.as_slice();
        while !rest.is_empty() {
            if over.is_cancelled() {
                return Ok(());
            }
            let (part, after) = rest.split_at(journal.part(rest, &tries));
            let next = batch.split_off(part.len());
            let in_work = journal.begin_again(part, &tries).await.map_err(failed)?;
            self.handle(batch).await?;
            journal.settled(part).await.map_err(failed)?;
            drop(in_work);
            (batch, rest) = (next, after);
        }
        // What is left is empty, and must not keep later ones waiting.
        batch.settle().await.map_err(End::Broker)
    }

    /// The way of a batch: decode, apply, publish, confirm, settle. Nothing is acknowledged before everything
    /// that came of the batch is confirmed.
    async fn handle(&mut self, mut batch: Batch) -> Result<(), End> {
        seam::pass(seam::RECEIVED);
        let mut record = Record::begin(&self.shared, &mut batch.deliveries);
        let deliveries = &batch.deliveries;
        let dispositions = self.decide(deliveries, &mut record).await?;
        seam::pass(seam::DECIDED);
        self.publish(deliveries, &dispositions, &mut record).await?;
        self.reply(deliveries, &dispositions).await;
        seam::pass(seam::CONFIRMED);
        if dispositions.iter().any(Disposition::passes_on) {
            seam::pass(seam::PASSED_ON);
        }
        batch.settle().await.map_err(End::Broker)?;
        seam::pass(seam::SETTLED);
        self.shared.settled.fetch_add(1, Ordering::Relaxed);
        record.settled(deliveries, &dispositions);
        Ok(())
    }

    async fn decide(
        &self,
        batch: &[Delivery],
        record: &mut Record,
    ) -> Result<Vec<Disposition>, End> {
        let now = Timestamp::now();
        let mut requests = Vec::with_capacity(batch.len());
        let mut done = Vec::with_capacity(batch.len());
        for delivery in batch {
            done.push(match self.read(delivery, now) {
                Reading::Request(request) => {
                    requests.push(request);
                    None
                }
                Reading::Done(disposition) => Some(disposition),
            });
        }
        seam::pass(seam::DECODED);
        let decisions = if requests.is_empty() {
            Vec::new()
        } else {
            let began = Began::now();
            match self.shared.ledger.apply(&requests).await {
                Ok(decisions) => {
                    record.decided(began, requests.len(), None);
                    record.repeated(&decisions);
                    decisions
                }
                Err(wrong) => {
                    record.decided(began, requests.len(), Some(&wrong.to_string()));
                    return Err(End::Ledger(wrong, requests));
                }
            }
        };
        let mut decided = requests.iter().zip(&decisions);
        let ladder = &self.shared.ladder;
        let dispose = |(delivery, done): (&Delivery, Option<Disposition>)| {
            done.unwrap_or_else(|| {
                let (request, decision) = decided.next().expect("a decision for each request");
                let (envelope, body) = (&delivery.envelope, &delivery.body);
                disposition::dispose(envelope, body, request, decision, ladder, now)
            })
        };
        Ok(batch.iter().zip(done).map(dispose).collect())
    }

    fn read(&self, delivery: &Delivery, now: Timestamp) -> Reading {
        let amqp = &self.shared.settings.amqp;
        let (envelope, body) = (&delivery.envelope, &delivery.body);
        let crashes = delivery.crashes;
        if crashes >= self.shared.settings.worker.max_crashes {
            let identity = delivery.identity();
            return Reading::Done(disposition::unread(envelope, identity, crashes, now));
        }
        seam::pass_with(seam::READING, body);
        let max_bytes = amqp.max_message_bytes.bytes();
        if delivery.cut.is_some() {
            let (identity, bytes) = (delivery.identity(), delivery.body_bytes());
            return disposition::too_large(envelope, identity, bytes, max_bytes, now);
        }
        let needs_client = self.shared.settings.needs_grants();
        let ladder = &self.shared.ladder;
        disposition::read(envelope, body, max_bytes, needs_client, ladder, now)
    }

    /// Publishes what came of the batch.
    async fn publish(
        &mut self,
        batch: &[Delivery],
        dispositions: &[Disposition],
        record: &mut Record,
    ) -> Result<(), End> {
        let shared = self.shared.clone();
        let messages = messages(&shared, batch, dispositions);
        let (began, count) = (Began::now(), messages.len());
        let published = self.publish_all(messages, record).await;
        let error = published.as_ref().err().map(ToString::to_string);
        record.published(began, count, error.as_deref());
        published.map_err(End::Broker)
    }

    /// Messages that a queue refused are published again until it takes them.
    async fn publish_all(
        &mut self,
        mut messages: Vec<Message<'_>>,
        record: &Record,
    ) -> Result<(), BrokerError> {
        let shared = self.shared.clone();
        let mut refusing = None;
        let mut patience = Patience::new(Duration::from_millis(100), Duration::from_secs(5));
        let began = Instant::now();
        loop {
            let fates = match self.outlet.publish(&messages).await {
                Ok(fates) => fates,
                Err(wrong) if wrong.is_lasting() && began.elapsed() < REFUSED_FOR_AT_MOST => {
                    let wait = patience.next_wait();
                    error!(reason = %wrong, retry_in = ?wait, "paused: publishing");
                    refusing.get_or_insert_with(|| shared.sight.status.refused());
                    sleep(wait).await;
                    // Each new generation would have the batch delivered again, and in the end given up.
                    let _ = self.broker.ensure_topology(&shared.settings).await;
                    self.outlet = self.broker.outlet().await?;
                    continue;
                }
                Err(wrong) => return Err(wrong),
            };
            record.fates(&messages, &fates);
            let mut unroutable = Vec::new();
            let mut refused = Vec::new();
            for (message, fate) in messages.into_iter().zip(fates) {
                match fate {
                    Fate::Confirmed => {}
                    Fate::Refused => refused.push(message),
                    Fate::Unroutable if message.is_event() => unroutable.push(message),
                    // It would be lost. The next generation declares what is missing.
                    Fate::Unroutable => return Err(message.undeliverable()),
                }
            }
            if !unroutable.is_empty() {
                let exchange = self.shared.settings.topology.reply_exchange.as_str();
                // Of the first that is traced.
                let trace_id = unroutable.iter().find_map(Message::trace_id);
                warn!(
                    events = unroutable.len(),
                    exchange, trace_id, "no queue is bound for these events"
                );
            }
            if refused.is_empty() {
                return Ok(());
            }
            let wait = patience.next_wait();
            warn!(messages = refused.len(), to = refused[0].target(), retry_in = ?wait,
                "refused: a queue is full, or without a leader; make room in it, or mend its cluster");
            if began.elapsed() > REFUSED_FOR_AT_MOST {
                return Err(refused[0].undeliverable());
            }
            refusing.get_or_insert_with(|| shared.sight.status.refused());
            // A stop waits with it, as long as it may.
            sleep(wait).await;
            // A channel whose first message for a quorum queue met a leader that had just died has every later one
            // refused, too, until that node is back. A new channel learns of the new leader.
            self.outlet = self.broker.outlet().await?;
            messages = refused;
        }
    }

    /// Sends the events to those who asked for a copy, where they may.
    async fn reply(&mut self, batch: &[Delivery], dispositions: &[Disposition]) {
        let mut copies = Vec::new();
        for (delivery, disposition) in batch.iter().zip(dispositions) {
            let (Disposition::Answer(event) | Disposition::DeadLetter { event, .. }) = disposition
            else {
                continue;
            };
            let Some(queue) = &delivery.envelope.reply_to else {
                continue;
            };
            if self.replies.may_name(queue) {
                copies.push(Reply(queue, event, delivery));
            } else {
                debug!(queue, "reply_to does not match amqp.reply_to_pattern");
                self.shared.sight.counts.copy_failed();
            }
        }
        if !copies.is_empty() {
            self.replies.send(&copies).await;
        }
    }
}
