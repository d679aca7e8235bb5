//! Other ways for requests whose messages are not confirmed: settled without them, on a rung, or
//! requeued.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::batch_recorder::BatchRecorder;
use super::super::messages::{MessageRole, Outgoing};
use super::hold::PublishHold;
use super::rerouted::Rerouted;
use super::send::Sender;
use super::unconfirmed::Unconfirmed;
use crate::broker::{BrokerError, Message};
use crate::domain::disposition::{Disposition, PublishFault, Recourse, UnconfirmedMessages};

impl Rerouted<'_> {
    /// Settles the requests that can do without the unconfirmed message, and returns the indexes of
    /// the others, which must wait.
    pub async fn resort(
        &mut self,
        unconfirmed: &Unconfirmed<'_>,
        sender: &mut Sender,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Vec<usize>, BrokerError> {
        let by_delivery = self.by_delivery(unconfirmed);
        let (mut waiting, mut own) = (Vec::new(), Vec::new());
        for (index, messages) in &by_delivery {
            let waits = self.batch[*index].envelope.waits;
            let ladder = &self.shared.ladder;
            match self.dispositions[*index].recourse(*messages, waits, ladder) {
                Recourse::Wait => waiting.push(*index),
                Recourse::DropLetter => recorder.letter_dropped(&self.batch[*index]),
                Recourse::OwnQueue => own.push(*index),
            }
        }
        let to_own = own.iter().filter_map(|index| {
            Some(Outgoing {
                indexes: vec![*index],
                role: MessageRole::OwnEvent,
                message: self.own_event(*index)?,
            })
        });
        let to_own: Vec<_> = to_own.collect();
        let tried = indexes(&to_own);
        let unconfirmed = sender.send(to_own, self, recorder, hold).await?;
        own.retain(|index| !self.elsewhere.contains_key(index));
        for index in own {
            let failed = unconfirmed
                .all()
                .any(|other| other.indexes.contains(&index));
            let taken = tried.contains(&index) && !failed;
            let letter = by_delivery[&index].letter;
            let is_letter = matches!(self.dispositions[index], Disposition::DeadLetter { .. });
            if !taken && (letter.is_some() || !is_letter) {
                waiting.push(index);
                continue;
            }
            recorder.event_undelivered(&self.batch[index]);
            if letter.is_some() {
                recorder.letter_dropped(&self.batch[index]);
            }
        }
        Ok(waiting)
    }

    /// The unconfirmed messages of each delivery, except those whose request waits on a rung.
    fn by_delivery(&self, unconfirmed: &Unconfirmed<'_>) -> BTreeMap<usize, UnconfirmedMessages> {
        let mut all: BTreeMap<usize, UnconfirmedMessages> = BTreeMap::new();
        let refused = unconfirmed.refused.iter();
        let refused = refused.map(|outgoing| (outgoing, PublishFault::Refused));
        let unanswered = unconfirmed.unanswered.iter();
        let unanswered = unanswered.map(|outgoing| (outgoing, PublishFault::Unanswered));
        for (outgoing, fault) in refused.chain(unanswered) {
            for index in &outgoing.indexes {
                if self.elsewhere.contains_key(index) {
                    continue;
                }
                let messages = all.entry(*index).or_default();
                match outgoing.role {
                    MessageRole::Event | MessageRole::OwnEvent => messages.event = true,
                    MessageRole::Letter => messages.letter = Some(fault),
                    MessageRole::Waiting => {}
                }
            }
        }
        all
    }

    /// Puts deliveries on the first rung that takes them, beginning with the next of each. Returns
    /// the indexes of those that no rung took.
    pub async fn wait_on_rungs(
        &mut self,
        mut left: Vec<usize>,
        sender: &mut Sender,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<Vec<usize>, BrokerError> {
        let rungs = self.shared.retry_queues.len();
        for shift in 0..rungs {
            if left.is_empty() {
                break;
            }
            let mut chosen = Vec::with_capacity(left.len());
            let mut outgoing = Vec::with_capacity(left.len());
            for index in left {
                // The rung that did not take a waiting request comes last.
                let tried = match &self.dispositions[index] {
                    Disposition::Retry { .. }
                    | Disposition::AwaitTrust { .. }
                    | Disposition::Wait { .. } => 1,
                    Disposition::Answer(_)
                    | Disposition::Returned
                    | Disposition::DeadLetter { .. } => 0,
                };
                let on_rung = self.on_rung(index, (shift + tried) % rungs);
                let (disposition, message) = on_rung.expect("fewer rungs passed than there are");
                chosen.push((index, disposition));
                self.add_waiting(&mut outgoing, index, message);
            }
            let unconfirmed = sender.send(outgoing, self, recorder, hold).await?;
            left = unconfirmed
                .all()
                .flat_map(|outgoing| &outgoing.indexes)
                .copied()
                .collect();
            chosen.retain(|(index, _)| !left.contains(index));
            left.retain(|index| !self.elsewhere.contains_key(index));
            self.elsewhere.extend(chosen);
        }
        Ok(left)
    }

    /// Puts deliveries at the end of the work queue while all rungs are full. This does not count
    /// as an attempt.
    pub async fn requeue(
        &mut self,
        left: Vec<usize>,
        sender: &mut Sender,
        recorder: &BatchRecorder,
        hold: &mut PublishHold,
    ) -> Result<BrokerError, BrokerError> {
        let queue = self.shared.settings.topology.work_queue.as_str();
        let now = Timestamp::now();
        let mut outgoing = Vec::with_capacity(left.len());
        for index in &left {
            let message = Message::wait(queue, self.carrier(*index), now);
            self.add_waiting(&mut outgoing, *index, message);
        }
        let unconfirmed = sender.send(outgoing, self, recorder, hold).await?;
        if let Some(first) = unconfirmed.first() {
            return Err(first.message.undeliverable());
        }
        let returned = left.into_iter().map(|index| (index, Disposition::Returned));
        self.elsewhere.extend(returned);
        Ok(BrokerError::transient(
            "every queue of topology.retry_queue_prefix is full, or without a leader; what had to \
            wait is back in the work queue",
        ))
    }
}

fn indexes(outgoing: &[Outgoing<'_>]) -> Vec<usize> {
    let indexes = outgoing.iter().flat_map(|outgoing| &outgoing.indexes);
    indexes.copied().collect()
}
