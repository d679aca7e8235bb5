//! The disposition of a delivery: an event, a rung of the retry ladder, or the dead-letter queue.
//!
//! It is decided once. Settling, logs and counters read it.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::domain::event::Event;
use crate::domain::outcome::{Aside, Decision, Failure, Refusal};
use crate::domain::refusal::RefusalReason;
use crate::domain::request::{
    Body, ClientClaim, Envelope, Fields, Fragments, Group, InvalidFields, RequestLimits,
    RevertRequest, Undecodable, parse, too_many_bytes,
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

/// A parsed delivery: requests to decide, or a disposition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<'a> {
    /// The request passed rows 1 and 3 of the contract's table.
    Request(RevertRequest),
    /// The structure of the group is valid. [`read_member`] reads its requests.
    Group(Group<'a>),
    /// The delivery is disposed of without the ledger.
    Done(Disposition),
}

/// A parsed request of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberReading {
    /// The request passed row 3 of the contract's table.
    Request(RevertRequest),
    /// The request is refused for this reason.
    Refused(RefusalReason, Event),
}

/// Parses a delivery. With `needs_client`, an invalid request without a client is refused as such,
/// and its fields are not reported.
#[must_use]
pub fn read<'a>(
    envelope: &Envelope,
    body: &'a [u8],
    limits: &RequestLimits,
    needs_client: bool,
    ladder: &Ladder,
    now: Timestamp,
) -> Reading<'a> {
    if let Some(claim) = &envelope.claim {
        return Reading::Done(untrusted(envelope, body, claim, ladder, now));
    }
    let invalid = match parse(body, envelope.message_id.as_deref(), limits) {
        Ok(Body::Group(group)) => return Reading::Group(group),
        Ok(Body::Request(fields)) => match envelope.violation() {
            None => return Reading::Request(request(envelope, fields, ladder)),
            Some(violation) => InvalidFields {
                violations: vec![violation],
                fragments: Fragments::from(&fields),
            },
        },
        Err(Undecodable::Malformed(text)) => {
            let identity = envelope.raw_identity(body);
            return Reading::Done(malformed(envelope, identity, text, now));
        }
        Err(Undecodable::Invalid {
            mut violations,
            fragments,
        }) => {
            violations.extend(envelope.violation());
            InvalidFields {
                violations,
                fragments,
            }
        }
    };
    let refusal = refusal_of(envelope, &invalid, None, needs_client);
    Reading::Done(Disposition::Answer(Event::of_invalid(
        envelope.message_id.as_deref(),
        envelope.raw_identity(body),
        &invalid.fragments,
        &refusal,
        now,
    )))
}

/// Parses the request of a group at `index`, which has this envelope and body if it is sent alone.
#[must_use]
pub fn read_member(
    envelope: &Envelope,
    body: &[u8],
    fields: Result<Fields, InvalidFields>,
    index: usize,
    needs_client: bool,
    ladder: &Ladder,
    now: Timestamp,
) -> MemberReading {
    let invalid = match fields {
        Ok(fields) => return MemberReading::Request(request(envelope, fields, ladder)),
        Err(invalid) => invalid,
    };
    let refusal = refusal_of(envelope, &invalid, Some(index), needs_client);
    let event = Event::of_invalid(
        envelope.message_id.as_deref(),
        envelope.raw_identity(body),
        &invalid.fragments,
        &refusal,
        now,
    );
    let reason = match refusal {
        Refusal::Row(reason, _) => reason,
        Refusal::InvalidField { .. } | Refusal::Stored(_) => RefusalReason::InvalidField,
    };
    MemberReading::Refused(reason, event)
}

/// The refusal of invalid fields. A valid request without a client goes to the ledger, which may
/// have an outcome of the time when no client was required.
fn refusal_of(
    envelope: &Envelope,
    invalid: &InvalidFields,
    index: Option<usize>,
    needs_client: bool,
) -> Refusal {
    if needs_client && envelope.client.is_empty() {
        return RefusalReason::ClientUnknown.into();
    }
    Refusal::InvalidField {
        violations: invalid.violations.clone(),
        index,
    }
}

/// The disposition of a delivery whose body has `bytes`, more than any message may have.
#[must_use]
pub fn too_large(
    envelope: &Envelope,
    identity: Uuid,
    bytes: u64,
    limits: &RequestLimits,
    now: Timestamp,
) -> Disposition {
    let (max_bytes, key) = limits.largest();
    let text = too_many_bytes(bytes, max_bytes, key);
    malformed(envelope, identity, text, now)
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
    match decision {
        Decision::Decided(outcome) | Decision::Repeated(outcome) => {
            Disposition::Answer(Event::of_outcome(request, outcome))
        }
        Decision::NotYet | Decision::Failed(_) | Decision::SetAside(..) => {
            let fragments = Fragments::from(&request.fields);
            dispose_undecided(envelope, body, &fragments, decision, ladder, now)
        }
    }
}

/// The disposition of a request, or of an atomic group, that has no outcome. `fragments` are the
/// fields that the event of a failure repeats.
#[must_use]
pub fn dispose_undecided(
    envelope: &Envelope,
    body: &[u8],
    fragments: &Fragments,
    decision: &Decision,
    ladder: &Ladder,
    now: Timestamp,
) -> Disposition {
    let rung = |cause| ladder.rung(cause, attempts(envelope), envelope.max_attempts);
    let failed = |failure: &Failure| {
        if let Some(rung) = rung(RetryCause::Failed) {
            return Disposition::Retry { rung };
        }
        let identity = envelope.raw_identity(body);
        dead_letter(envelope, identity, fragments, failure.clone(), now)
    };
    match decision {
        Decision::NotYet | Decision::Decided(_) | Decision::Repeated(_) => {
            match rung(RetryCause::UsageNotFound) {
                Some(rung) => Disposition::Retry { rung },
                // The last attempt of a request is decided.
                None => failed(&Failure::Unavailable("it was not decided".into())),
            }
        }
        Decision::Failed(failure) => failed(failure),
        Decision::SetAside(failure, aside) => {
            let counts_in_the_end = match aside {
                Aside::Untried | Aside::Server(_) => false,
                Aside::Room => ladder.is_climbed(envelope.waits),
            };
            match ladder.wait(envelope.waits) {
                Some(rung) if !counts_in_the_end => Disposition::Wait { rung },
                Some(_) | None => failed(failure),
            }
        }
    }
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
