//! One worker: a batch at a time from delivery to acknowledgement.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch_recorder::{BatchRecorder, StepTimer};
use super::copies::CopyQueues;
use super::items::{Items, ParsedBatch};
use super::publish::{Sender, publish};
use super::shared::Shared;
use super::state::Exit;
use crate::broker::{Batch, BatchLimits, Broker, Consumer, Delivery, Publisher};
use crate::common::failpoint;
use crate::domain::disposition::Disposition;
use crate::domain::outcome::{Aside, Decision};
use crate::domain::request::RevertRequest;
use crate::ledger::LedgerError;

/// A worker task: takes batches from the process's consumer, and publishes on its own channel.
pub struct Worker {
    shared: Arc<Shared>,
    consumer: Arc<Consumer>,
    sender: Sender,
    copies: CopyQueues,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        broker: Arc<Broker>,
        consumer: Arc<Consumer>,
        publisher: Publisher,
        copies: CopyQueues,
    ) -> Self {
        Self {
            shared: shared.clone(),
            consumer,
            sender: Sender::new(shared, broker, publisher),
            copies,
        }
    }

    /// Works until the consumer ends. After `over`, it only finishes the batch in flight.
    pub(super) async fn run(mut self, over: CancellationToken) -> Exit {
        match self.work(&over).await {
            Ok(()) => Exit::Stopped,
            Err(end) => end,
        }
    }

    async fn work(&mut self, over: &CancellationToken) -> Result<(), Exit> {
        let shared = self.shared.clone();
        let limits = BatchLimits {
            first: shared.settings.worker.batch_max.into(),
            again: shared.journal.most_at_once(),
        };
        loop {
            let batch = tokio::select! {
                biased;
                () = over.cancelled() => return Ok(()),
                batch = self.consumer.next_batch(limits) => batch.map_err(Exit::Broker)?,
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

    /// Handles redelivered messages, one of which may have crashed a process: in parts, by the
    /// tries that the crash journal has of them.
    async fn try_again(&mut self, mut batch: Batch, over: &CancellationToken) -> Result<(), Exit> {
        let shared = self.shared.clone();
        let journal = &shared.journal;
        let messages: Vec<Uuid> = batch
            .deliveries
            .iter()
            .map(Delivery::message_identity)
            .collect();
        let tries = journal.tries(&messages).await.map_err(Exit::Ledger)?;
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
            let in_work = journal
                .begin_again(part, &tries)
                .await
                .map_err(Exit::Ledger)?;
            self.handle(batch).await?;
            journal.settled(part).await.map_err(Exit::Ledger)?;
            drop(in_work);
            (batch, rest) = (next, after);
        }
        // The rest is empty; unsettled, it would hold up the acknowledgement of later batches.
        batch.settle().await.map_err(Exit::Broker)
    }

    /// Handles a batch: parse, decide, publish, confirm, settle. No delivery is acknowledged before
    /// every message that follows from the batch is confirmed.
    async fn handle(&mut self, mut batch: Batch) -> Result<(), Exit> {
        failpoint::hit(failpoint::RECEIVED);
        let mut recorder = BatchRecorder::begin(&self.shared, &mut batch.deliveries);
        let deliveries = std::mem::take(&mut batch.deliveries);
        let (mut items, short) = self.decide(deliveries, &mut recorder).await?;
        failpoint::hit(failpoint::DECIDED);
        let published = publish(
            &mut self.sender,
            &items.deliveries,
            &mut items.dispositions,
            &mut recorder,
        );
        let full = published.await?;
        self.copies.send(&items.deliveries, &items.dispositions);
        failpoint::hit(failpoint::CONFIRMED);
        if items.dispositions.iter().any(Disposition::passes_on) {
            failpoint::hit(failpoint::PASSED_ON);
        }
        batch.settle().await.map_err(Exit::Broker)?;
        failpoint::hit(failpoint::SETTLED);
        if short.is_none() {
            self.shared.batch_settled();
        }
        recorder.settled(&items);
        match (short, full) {
            (Some(error), _) => Err(Exit::Ledger(error)),
            (None, Some(error)) => Err(Exit::Broker(error)),
            (None, None) => Ok(()),
        }
    }

    /// The items of the batch with their dispositions, and the database's error if it had no room
    /// for any entry.
    async fn decide(
        &self,
        deliveries: Vec<Delivery>,
        recorder: &mut BatchRecorder,
    ) -> Result<(Items, Option<LedgerError>), Exit> {
        let parsed = ParsedBatch::new(&self.shared, deliveries);
        failpoint::hit(failpoint::DECODED);
        let mut decisions = Vec::with_capacity(parsed.requests.len());
        let most = usize::from(self.shared.settings.worker.batch_max);
        for part in parts(&parsed.requests, most) {
            let timer = StepTimer::start();
            let decided = self.shared.ledger.apply(part).await;
            let error = decided.as_ref().err().map(ToString::to_string);
            recorder.decided(timer, part.len(), error.as_deref());
            decisions.extend(decided.map_err(Exit::Ledger)?);
        }
        recorder.repeated(&decisions);
        let short = decisions.iter().find_map(lacking);
        if let Some(error) = &short
            && self.shared.ladder.wait(0).is_none()
        {
            // Without a rung, the requests can only stay in the work queue.
            return Err(Exit::Ledger(error.clone()));
        }
        Ok((parsed.into_items(&self.shared, &decisions), short))
    }
}

/// The requests in parts of at most `most`. A larger atomic group is a part of its own.
fn parts(requests: &[RevertRequest], most: usize) -> Vec<&[RevertRequest]> {
    let (mut parts, mut rest) = (Vec::new(), requests);
    while !rest.is_empty() {
        let mut count = 0;
        for unit in rest.chunk_by(RevertRequest::is_grouped_with) {
            if count > 0 && count + unit.len() > most {
                break;
            }
            count += unit.len();
        }
        let (part, after) = rest.split_at(count);
        parts.push(part);
        rest = after;
    }
    parts
}

/// The database's error, if the request waits for the database.
fn lacking(decision: &Decision) -> Option<LedgerError> {
    match decision {
        Decision::SetAside(_, Aside::Server(text)) => Some(LedgerError::transient(text)),
        Decision::SetAside(_, Aside::Untried | Aside::Room)
        | Decision::Decided(_)
        | Decision::Repeated(_)
        | Decision::NotYet
        | Decision::Failed(_) => None,
    }
}
