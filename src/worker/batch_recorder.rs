//! Records a batch: counters, durations, spans, and log lines of its failures.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::items::{Items, MessageItems};
use super::shared::Shared;
use super::telemetry::WorkerTelemetry;
use crate::broker::{Delivery, Message, PublishResult};
use crate::domain::disposition::Disposition;
use crate::domain::event::EventType;
use crate::domain::outcome::Decision;
use crate::telemetry::{BatchTrace, InFlight, SettledMessage};

/// Records one batch. If it is dropped before [`BatchRecorder::settled`], the batch was given up.
pub struct BatchRecorder {
    shared: Arc<Shared>,
    taken: Instant,
    taken_at: Timestamp,
    in_flight: Option<InFlight>,
    trace: Option<BatchTrace>,
}

/// The start of a step, by the monotonic clock and by the wall clock.
#[derive(Clone, Copy)]
pub struct StepTimer(Instant, SystemTime);

impl StepTimer {
    pub fn start() -> Self {
        Self(Instant::now(), SystemTime::now())
    }
}

impl BatchRecorder {
    /// Begins with a batch that was just received. Traced messages continue under the batch's
    /// spans.
    pub fn begin(shared: &Arc<Shared>, deliveries: &mut [Delivery]) -> Self {
        let telemetry = &shared.telemetry;
        let bytes = deliveries.iter().map(|delivery| delivery.body.len()).sum();
        telemetry.counters.taken(deliveries.len(), bytes);
        telemetry.times.taken(deliveries.len());
        let taken_at = Timestamp::now();
        for delivery in &*deliveries {
            if delivery.redelivered {
                telemetry.counters.redelivered();
                continue;
            }
            if delivery.is_replay {
                telemetry.counters.replayed();
            }
            if delivery.envelope.attempts == 0
                && let Some(time) = since(delivery.published_at, taken_at)
            {
                telemetry.times.waited(time);
            }
        }
        let in_flight = telemetry.status.take(deliveries.len());
        let traceparents = deliveries
            .iter_mut()
            .map(|delivery| &mut delivery.envelope.traceparent);
        Self {
            taken: Instant::now(),
            taken_at,
            in_flight: Some(in_flight),
            trace: telemetry
                .traces
                .as_ref()
                .map(|traces| traces.begin(traceparents)),
            shared: shared.clone(),
        }
    }

    /// The database decided the requests, or failed.
    pub fn decided(&mut self, began: StepTimer, requests: usize, error: Option<&str>) {
        let telemetry = &self.shared.telemetry;
        telemetry.times.decided(began.0.elapsed(), error.is_some());
        if error.is_none() {
            telemetry.status.database(Ok(()));
        }
        if let Some(trace) = &mut self.trace {
            trace.decided(began.1, requests, error);
        }
    }

    /// Counts the decisions that repeat a stored outcome.
    pub fn repeated(&self, decisions: &[Decision]) {
        let from_before = |decision: &&Decision| matches!(decision, Decision::Repeated(_));
        let count = decisions.iter().filter(from_before).count();
        self.shared.telemetry.counters.repeated(count);
    }

    /// The messages of the batch are published, or the broker failed.
    pub fn published(&mut self, began: StepTimer, messages: usize, error: Option<&str>) {
        let telemetry = &self.shared.telemetry;
        telemetry
            .times
            .published(began.0.elapsed(), error.is_some());
        if let Some(trace) = &mut self.trace {
            let exchange = self.shared.settings.topology.reply_exchange.as_str();
            trace.published(exchange, began.1, messages, error);
        }
    }

    /// Counts the broker's answers by target.
    pub fn publish_results(&self, messages: &[Message<'_>], results: &[Option<PublishResult>]) {
        let mut counters: Vec<(&str, Option<PublishResult>, u64)> = Vec::new();
        for (message, result) in messages.iter().zip(results) {
            let target = message.target();
            let same = |count: &&mut (&str, Option<PublishResult>, u64)| {
                count.0 == target && count.1 == *result
            };
            match counters.iter_mut().find(same) {
                Some((_, _, count)) => *count += 1,
                None => counters.push((target, *result, 1)),
            }
        }
        for (target, result, count) in counters {
            let error = match result {
                Some(PublishResult::Confirmed) => "",
                Some(PublishResult::Unroutable) => "unroutable",
                Some(PublishResult::Refused) => "refused",
                None => "unconfirmed",
            };
            self.shared.telemetry.counters.sent(target, error, count);
        }
    }

    /// A malformed request is settled, and its dead letter was refused.
    pub fn letter_dropped(&self, delivery: &Delivery) {
        self.shared.telemetry.counters.letter_dropped();
        self.shared.logs.letter_dropped(delivery);
    }

    /// An event is only in revertd's own queue: another queue refused it until the last retry.
    pub fn event_undelivered(&self, delivery: &Delivery) {
        self.shared.telemetry.counters.event_undelivered();
        self.shared.logs.undelivered(delivery);
    }

    /// The batch is acknowledged.
    pub fn settled(mut self, items: &Items) {
        let WorkerTelemetry {
            counters, times, ..
        } = &self.shared.telemetry;
        let now = Timestamp::now();
        times.processed(self.taken.elapsed(), false);
        counters.groups(items.groups, items.group_requests);
        for (delivery, disposition) in items.deliveries.iter().zip(&items.dispositions) {
            match disposition {
                Disposition::Retry { rung } => {
                    counters.retried(*rung);
                    continue;
                }
                Disposition::AwaitTrust { .. } => {
                    self.shared.telemetry.counters.untrusted();
                    self.shared.logs.untrusted(&delivery.envelope);
                    continue;
                }
                Disposition::Wait { .. } | Disposition::Returned => {
                    counters.waited();
                    continue;
                }
                Disposition::DeadLetter { failure, event } => {
                    counters.dead_lettered(event.reason);
                    self.shared.logs.dead_lettered(delivery, event, failure);
                }
                Disposition::Answer(event) => match event.kind {
                    EventType::Reverted => counters.reverted(),
                    EventType::Rejected | EventType::Failed => {
                        counters.rejected(event.reason);
                        if event.is_denied() {
                            self.shared.logs.denied(delivery, event);
                        }
                    }
                },
            }
            let first = delivery.first_attempt_at.unwrap_or(self.taken_at);
            if let Some(time) = since(Some(first), now) {
                times.settled(time);
            }
            if let Some(time) = since(delivery.published_at, now) {
                times.answered(time);
            }
        }
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.settled();
        }
        if let Some(trace) = self.trace.take() {
            trace.settled(settled_messages(items).into_iter());
        }
    }
}

impl Drop for BatchRecorder {
    fn drop(&mut self) {
        if self.in_flight.is_some() {
            let times = &self.shared.telemetry.times;
            times.processed(self.taken.elapsed(), true);
        }
    }
}

/// Each message for its span. A group has the outcome of its requests, if they have the same one.
fn settled_messages(items: &Items) -> Vec<SettledMessage> {
    let mut rest = items.dispositions.as_slice();
    let mut messages = Vec::with_capacity(items.of_message.len());
    for MessageItems { count, group_size } in &items.of_message {
        let (of_message, after) = rest.split_at(*count);
        let mut outcomes = of_message.iter().map(outcome);
        let first = outcomes.next();
        let same = first.filter(|first| outcomes.all(|other| other == *first));
        let (outcome, reason) = same.unwrap_or(("mixed", ""));
        messages.push(SettledMessage {
            outcome,
            reason,
            group_size: *group_size,
        });
        rest = after;
    }
    messages
}

fn outcome(disposition: &Disposition) -> (&'static str, &'static str) {
    match disposition {
        Disposition::Retry { .. } => ("retried", ""),
        Disposition::AwaitTrust { .. } => ("untrusted", ""),
        Disposition::Wait { .. } | Disposition::Returned => ("waiting", ""),
        Disposition::DeadLetter { event, .. } => ("dead_lettered", event.reason),
        Disposition::Answer(event) => match event.kind {
            EventType::Reverted => ("reverted", ""),
            EventType::Rejected | EventType::Failed => ("rejected", event.reason),
        },
    }
}

/// The time since then; `None` if a publisher's clock puts it in the future.
fn since(then: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    Duration::try_from(now.duration_since(then?)).ok()
}
