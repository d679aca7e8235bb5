//! The disposition of a delivery: an event, a rung of the retry ladder, or the dead-letter queue.
//!
//! It is decided once. Settling, logs and counters read it.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::domain::event::Event;
use crate::domain::outcome::{Aside, Decision, Failure, Outcome, Refusal, Verdict};
use crate::domain::refusal::RefusalReason;
use crate::domain::request::{
    ClientClaim, Envelope, Fields, Fragments, RevertRequest, Undecodable, decode,
};
use crate::domain::retry::{Ladder, RetryCause};

/// The time for which a message waits until the login that names its client is trusted. It covers a
/// night and a rolling upgrade.
const TRUST_AWAITED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// The place that a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The event is published, and the message is settled.
    Answer(Event),
    /// The message waits on a rung for its next attempt.
    Retry {
        /// Index of the delay.
        rung: usize,
    },
    /// The message waits on a rung until the login that names its client is trusted. This is no
    /// attempt.
    AwaitTrust {
        /// Index of the delay.
        rung: usize,
    },
    /// The message waits on a rung. This is no attempt.
    Wait {
        /// Index of the delay.
        rung: usize,
    },
    /// The message is at the end of the work queue, since no rung took it. This is no attempt.
    Returned,
    /// The message goes to the dead-letter queue with its reason, and the event is published.
    DeadLetter {
        /// The reason.
        failure: Failure,
        /// The event of the failure.
        event: Event,
    },
}

impl Disposition {
    /// The event that answers the request, if it is answered.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Answer(event) | Self::DeadLetter { event, .. } => Some(event),
            Self::Retry { .. } | Self::AwaitTrust { .. } | Self::Wait { .. } | Self::Returned => {
                None
            }
        }
    }

    /// Whether the message itself is published again.
    #[must_use]
    pub fn passes_on(&self) -> bool {
        match self {
            Self::Answer(_) => false,
            Self::Retry { .. }
            | Self::AwaitTrust { .. }
            | Self::Wait { .. }
            | Self::Returned
            | Self::DeadLetter { .. } => true,
        }
    }
}

/// The messages of a delivery that are not confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnconfirmedMessages {
    /// A bound queue refused the event, or did not answer.
    pub event: bool,
    /// The dead-letter queue refused the dead letter, or did not answer.
    pub letter: Option<PublishFault>,
}

/// The reason why a message is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishFault {
    /// A queue refused it.
    Refused,
    /// A queue did not answer. It may have the message.
    Unanswered,
}

/// The way out for a request after one of its messages was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recourse {
    /// The request waits on a rung. This is no attempt.
    Wait,
    /// The message is settled without its dead letter: it is malformed, and its event is confirmed.
    DropLetter,
    /// The event goes to revertd's own queue alone. The request is settled once that is confirmed.
    OwnQueue,
}

impl Disposition {
    /// The way out for `messages`, after so many waits.
    #[must_use]
    pub fn recourse(&self, messages: UnconfirmedMessages, waits: u32, ladder: &Ladder) -> Recourse {
        let own_queue_at_the_end = if ladder.is_climbed(waits) {
            Recourse::OwnQueue
        } else {
            Recourse::Wait
        };
        match (self, messages.event, messages.letter) {
            (Self::Answer(_), ..) => own_queue_at_the_end,
            (Self::DeadLetter { failure, .. }, event, Some(PublishFault::Refused)) => {
                match (failure, event) {
                    (Failure::Malformed(_), false) => Recourse::DropLetter,
                    (Failure::Malformed(_), true) => own_queue_at_the_end,
                    (Failure::RetriesExhausted(_) | Failure::Unavailable(_), _) => Recourse::Wait,
                }
            }
            // The dead-letter queue has the message. From a rung it would get there a second time.
            (Self::DeadLetter { .. }, _, None) => Recourse::OwnQueue,
            (Self::DeadLetter { .. }, _, Some(PublishFault::Unanswered))
            | (
                Self::Retry { .. } | Self::AwaitTrust { .. } | Self::Wait { .. } | Self::Returned,
                ..,
            ) => Recourse::Wait,
        }
    }
}

/// A parsed delivery: a request to decide, or a disposition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The request passed rows 1 and 3 of the contract's table.
    Request(RevertRequest),
    /// The delivery is disposed of without the ledger.
    Done(Disposition),
}

/// Parses a delivery whose body may have at most `max_bytes`. With `needs_client`, an invalid
/// request without a client is refused as such, and its fields are not reported.
#[must_use]
pub fn read(
    envelope: &Envelope,
    body: &[u8],
    max_bytes: u64,
    needs_client: bool,
    ladder: &Ladder,
    now: Timestamp,
) -> Reading {
    if let Some(claim) = &envelope.claim {
        return Reading::Done(untrusted(envelope, body, claim, ladder, now));
    }
    if body.len() as u64 > max_bytes {
        let identity = envelope.raw_identity(body);
        return too_large(envelope, identity, body.len() as u64, max_bytes, now);
    }
    let (violations, fragments) = match (decode(body), envelope.violation()) {
        (Ok(fields), None) => return Reading::Request(request(envelope, fields, ladder)),
        (Ok(fields), Some(violation)) => (vec![violation], Fragments::from(&fields)),
        (Err(Undecodable::Malformed(text)), _) => {
            let identity = envelope.raw_identity(body);
            return Reading::Done(malformed(envelope, identity, text, now));
        }
        (
            Err(Undecodable::Invalid {
                violations,
                fragments,
            }),
            violation,
        ) => (violations.into_iter().chain(violation).collect(), fragments),
    };
    // A valid request without a client goes to the ledger, which may have an outcome of the time
    // when no client was required.
    let refusal = if needs_client && envelope.client.is_empty() {
        RefusalReason::ClientUnknown.into()
    } else {
        Refusal::InvalidField(violations)
    };
    Reading::Done(Disposition::Answer(Event::of_invalid(
        envelope.message_id.as_deref(),
        envelope.raw_identity(body),
        &fragments,
        &refusal,
        now,
    )))
}

/// The disposition of a delivery whose body has `bytes`, more than `max_bytes`.
#[must_use]
pub fn too_large(
    envelope: &Envelope,
    identity: Uuid,
    bytes: u64,
    max_bytes: u64,
    now: Timestamp,
) -> Reading {
    let error = "amqp.max_message_bytes";
    let text = format!("the body has {bytes} bytes, more than {max_bytes} ({error})");
    Reading::Done(malformed(envelope, identity, text, now))
}

/// The disposition of a message that crashed the worker `crashes` times when it was tried alone. It
/// is not parsed, since parsing may be the cause.
#[must_use]
pub fn unread(envelope: &Envelope, identity: Uuid, crashes: u32, now: Timestamp) -> Disposition {
    let text = format!("the worker crashed {crashes} times while it handled this message alone");
    let failure = Failure::RetriesExhausted(text);
    dead_letter(envelope, identity, &Fragments::default(), failure, now)
}

/// The disposition of a message that names another client than its login, and whose login is not
/// trusted. It has no event, since its client is unknown.
fn untrusted(
    envelope: &Envelope,
    body: &[u8],
    claim: &ClientClaim,
    ladder: &Ladder,
    now: Timestamp,
) -> Disposition {
    let waited = claim.since.map(|since| now.duration_since(since));
    let waits = waited.is_none_or(|waited| waited < TRUST_AWAITED_FOR);
    if let Some(rung) = ladder.longest().filter(|_| waits) {
        return Disposition::AwaitTrust { rung };
    }
    let text = "its client is named by a login that is not trusted to (amqp.trusted_users); once \
        it is, replay the dead letter";
    let failure = Failure::Unavailable(text.into());
    let identity = envelope.raw_identity(body);
    dead_letter(envelope, identity, &Fragments::default(), failure, now)
}

/// The disposition of a decided request.
#[must_use]
pub fn dispose(
    envelope: &Envelope,
    body: &[u8],
    request: &RevertRequest,
    decision: &Decision,
    ladder: &Ladder,
    now: Timestamp,
) -> Disposition {
    let rung = |cause| ladder.rung(cause, attempts(envelope), envelope.max_attempts);
    match decision {
        Decision::Decided(outcome) | Decision::Repeated(outcome) => {
            Disposition::Answer(Event::of_outcome(request, outcome))
        }
        Decision::NotYet => match rung(RetryCause::UsageNotFound) {
            Some(rung) => Disposition::Retry { rung },
            // A copy in the same batch had attempts left; this delivery has none, and is answered.
            None => Disposition::Answer(Event::of_outcome(request, &not_found(request, now))),
        },
        Decision::Failed(failure) => failed(envelope, body, request, failure, ladder, now),
        Decision::SetAside(failure, aside) => {
            let counts_in_the_end = match aside {
                Aside::Untried | Aside::Server(_) => false,
                Aside::Room => ladder.is_climbed(envelope.waits),
            };
            match ladder.wait(envelope.waits) {
                Some(rung) if !counts_in_the_end => Disposition::Wait { rung },
                Some(_) | None => failed(envelope, body, request, failure, ladder, now),
            }
        }
    }
}

fn failed(
    envelope: &Envelope,
    body: &[u8],
    request: &RevertRequest,
    failure: &Failure,
    ladder: &Ladder,
    now: Timestamp,
) -> Disposition {
    let rung = ladder.rung(
        RetryCause::Failed,
        attempts(envelope),
        envelope.max_attempts,
    );
    if let Some(rung) = rung {
        return Disposition::Retry { rung };
    }
    let fragments = Fragments::from(&request.fields);
    let identity = envelope.raw_identity(body);
    dead_letter(envelope, identity, &fragments, failure.clone(), now)
}

/// The number of attempts, including the present one, unless it is a wait for trust.
#[must_use]
pub fn attempts(envelope: &Envelope) -> u32 {
    let present = u32::from(envelope.claim.is_none());
    envelope.attempts.saturating_add(present)
}

fn request(envelope: &Envelope, fields: Fields, ladder: &Ladder) -> RevertRequest {
    let next = ladder.rung(
        RetryCause::UsageNotFound,
        attempts(envelope),
        envelope.max_attempts,
    );
    RevertRequest::new(envelope, fields, next.is_none())
}

fn not_found(request: &RevertRequest, now: Timestamp) -> Outcome {
    Outcome {
        id: request.id,
        org_id: None,
        account_id: None,
        decided_at: now,
        verdict: Verdict::Refused(RefusalReason::UsageNotFound.into()),
    }
}

fn malformed(envelope: &Envelope, identity: Uuid, text: String, now: Timestamp) -> Disposition {
    let failure = Failure::Malformed(text);
    dead_letter(envelope, identity, &Fragments::default(), failure, now)
}

fn dead_letter(
    envelope: &Envelope,
    identity: Uuid,
    fragments: &Fragments,
    failure: Failure,
    now: Timestamp,
) -> Disposition {
    let request_id = envelope.message_id.as_deref();
    let event = Event::of_failure(request_id, identity, fragments, &failure, now);
    Disposition::DeadLetter { failure, event }
}

#[cfg(test)]
mod tests;
