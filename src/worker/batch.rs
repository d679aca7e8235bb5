//! One worker: a batch at a time from delivery to acknowledgement.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::messages::messages;
use super::record::{Began, Record};
use super::replies::{Replies, Reply};
use super::{EXPLAINED_FOR, End, Shared};
use crate::broker::{Batch, Broker, BrokerError, Delivery, Fate, Intake, Message, Outlet};
use crate::disposition::{self, Disposition, Reading};
use crate::patience::Patience;
use crate::seam;

/// From this redelivery on, beyond those that failures of the database or the broker explain, a message is
/// suspected of stopping workers.
const SUSPECT_REDELIVERIES: u32 = 2;

/// Bodies larger than this are taken one at a time: such messages are rare, and a prefetch of them is too much
/// to hold in memory.
const HEAVY_BYTES: usize = 1024 * 1024;

/// How long full queues are waited for with messages in hand: well below the broker's acknowledgement timeout.
const REFUSED_FOR_AT_MOST: Duration = Duration::from_mins(10);

/// A share of the deliveries and of the database, and channels to publish.
pub struct Worker {
    shared: Arc<Shared>,
    broker: Arc<Broker>,
    intake: Arc<Intake>,
    outlet: Outlet,
    replies: Replies,
    /// Whether the pace is this generation's to choose.
    pacing: bool,
    began: Instant,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        broker: Arc<Broker>,
        intake: Arc<Intake>,
        outlet: Outlet,
        replies: Replies,
        pacing: bool,
    ) -> Self {
        Self {
            shared,
            broker,
            intake,
            outlet,
            replies,
            pacing,
            began: Instant::now(),
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
        let batch_max = usize::from(self.shared.settings.worker.batch_max);
        loop {
            let batch = tokio::select! {
                biased;
                () = over.cancelled() => return Ok(()),
                batch = self.intake.next_batch(batch_max) => batch.map_err(End::Broker)?,
            };
            let Some(mut batch) = batch else {
                return Ok(());
            };
            let grows = self.pacing && self.pace(&mut batch).await?;
            let (window, messages) = (batch.window, batch.deliveries.len());
            self.handle(batch).await?;
            if grows {
                self.intake.settled(window, messages);
            }
        }
    }

    /// Has suspects come one at a time, with nothing else in hand that their crash would have delivered once
    /// more. Whether the window may grow by the rest.
    async fn pace(&self, batch: &mut Batch) -> Result<bool, End> {
        let threshold = SUSPECT_REDELIVERIES.saturating_add(self.explained());
        let suspect = |delivery: &Delivery| {
            delivery.redeliveries >= threshold || delivery.body.len() > HEAVY_BYTES
        };
        // Each return is a delivery, and other processes return it too: what has been returned often is dealt with here,
        // or it would be given up without ever having been tried.
        let returned_often = threshold.max(self.shared.settings.amqp.max_deliveries / 2);
        if batch.window == 1 {
            if batch.deliveries.iter().any(suspect) {
                self.intake.narrow();
                return Ok(false);
            }
            let fresh = batch
                .deliveries
                .iter()
                .any(|delivery| delivery.redeliveries == 0);
            return Ok(self.intake.may_grow(fresh));
        }
        let to_return =
            |delivery: &Delivery| suspect(delivery) && delivery.redeliveries < returned_often;
        if !batch.give_back(to_return).await.map_err(End::Broker)? {
            return Ok(!batch.deliveries.iter().any(suspect));
        }
        info!("a message was delivered often, or is large: one at a time until it has passed");
        self.intake.narrow();
        Ok(false)
    }

    /// Redeliveries that failures of late explain.
    fn explained(&self) -> u32 {
        if self.began.elapsed() < EXPLAINED_FOR {
            self.shared.failures.load(Ordering::Relaxed)
        } else {
            0
        }
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
        if delivery.redeliveries >= amqp.max_deliveries.saturating_add(self.explained()) {
            let deliveries = delivery.redeliveries;
            return Reading::Done(disposition::unread(envelope, body, deliveries, now));
        }
        seam::pass_with(seam::READING, body);
        let max_bytes = amqp.max_message_bytes.bytes();
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
