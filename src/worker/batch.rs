//! One worker: a batch at a time from delivery to acknowledgement.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::copies::Copies;
use super::record::{Began, Record};
use super::{EXPLAINED_FOR, End, Shared};
use crate::broker::{Batch, Broker, Delivery, Intake, Outlet};
use crate::disposition::{self, Disposition, Reading};
use crate::ledger::LedgerError;
use crate::outcome::{Aside, Decision};
use crate::seam;

/// From this redelivery on, beyond those that failures of the database or the broker explain, a message is
/// suspected of stopping workers.
const SUSPECT_REDELIVERIES: u32 = 2;

/// Bodies larger than this are taken one at a time: such messages are rare, and a prefetch of them is too much
/// to hold in memory.
const HEAVY_BYTES: usize = 1024 * 1024;

/// A share of the deliveries and of the database, and channels to publish.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) broker: Arc<Broker>,
    intake: Arc<Intake>,
    pub(super) outlet: Outlet,
    copies: Copies,
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
        copies: Copies,
        pacing: bool,
    ) -> Self {
        Self {
            shared,
            broker,
            intake,
            outlet,
            copies,
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
        let (mut dispositions, short) = self.decide(deliveries, &mut record).await?;
        seam::pass(seam::DECIDED);
        let published = self.publish(deliveries, &mut dispositions, &mut record);
        let full = published.await?;
        self.copies.send(deliveries, &dispositions);
        seam::pass(seam::CONFIRMED);
        if dispositions.iter().any(Disposition::passes_on) {
            seam::pass(seam::PASSED_ON);
        }
        batch.settle().await.map_err(End::Broker)?;
        seam::pass(seam::SETTLED);
        if short.is_none() {
            // The servers worked: what fails next is tried again soon.
            self.shared.settled.fetch_add(1, Ordering::Relaxed);
        }
        record.settled(deliveries, &dispositions);
        match (short, full) {
            (Some(wrong), _) => Err(End::Ledger(wrong)),
            (None, Some(wrong)) => Err(End::Broker(wrong)),
            (None, None) => Ok(()),
        }
    }

    /// What becomes of each delivery; and what the database lacks, where it had no room for anything.
    async fn decide(
        &self,
        batch: &[Delivery],
        record: &mut Record,
    ) -> Result<(Vec<Disposition>, Option<LedgerError>), End> {
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
                    return Err(End::Ledger(wrong));
                }
            }
        };
        let ladder = &self.shared.ladder;
        let short = decisions.iter().find_map(lacking);
        if let Some(wrong) = &short
            && ladder.wait(0).is_none()
        {
            // Without a rung, there is no other place for them than the work queue.
            return Err(End::Ledger(wrong.clone()));
        }
        let mut decided = requests.iter().zip(&decisions);
        let dispose = |(delivery, done): (&Delivery, Option<Disposition>)| {
            done.unwrap_or_else(|| {
                let (request, decision) = decided.next().expect("a decision for each request");
                let (envelope, body) = (&delivery.envelope, &delivery.body);
                disposition::dispose(envelope, body, request, decision, ladder, now)
            })
        };
        Ok((batch.iter().zip(done).map(dispose).collect(), short))
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
}

/// What the database lacks, where a request waits for that.
fn lacking(decision: &Decision) -> Option<LedgerError> {
    match decision {
        Decision::SetAside(_, Aside::Server(text)) => Some(LedgerError::passing(text)),
        Decision::SetAside(_, Aside::Untried | Aside::Room)
        | Decision::Decided(_)
        | Decision::Repeated(_)
        | Decision::NotYet
        | Decision::Failed(_) => None,
    }
}
