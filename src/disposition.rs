//! Where a message goes, decided once: an answer, a rung of the retry ladder, or the dead-letter queue.
//!
//! Pure. Settling, logs and counters read what is decided here.

use jiff::Timestamp;
use uuid::Uuid;

use crate::event::Event;
use crate::outcome::{Decision, Failure, Outcome, Refusal, Verdict};
use crate::request::{Envelope, Fields, Fragments, RevertRequest, Undecodable, decode};
use crate::retry::{Cause, Ladder};

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The event is published, and that is all.
    Answer(Event),
    /// It waits on that rung, and comes back.
    Retry {
        /// Index of the delay.
        rung: usize,
    },
    /// It goes to the dead-letter queue with its reason, and the event is published.
    DeadLetter {
        /// The reason.
        failure: Failure,
        /// The event that tells it.
        event: Event,
    },
}

impl Disposition {
    /// Whether the message itself is published again.
    #[must_use]
    pub fn passes_on(&self) -> bool {
        match self {
            Self::Answer(_) => false,
            Self::Retry { .. } | Self::DeadLetter { .. } => true,
        }
    }
}

/// A delivery as read: a request to be decided, or disposed of already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Rows 1 and 3 are passed.
    Request(RevertRequest),
    /// They are not.
    Done(Disposition),
}

/// Reads a delivery of a body of at most `max_bytes`. With `needs_client`, nobody's request has no fields to look at.
#[must_use]
pub fn read(
    envelope: &Envelope,
    body: &[u8],
    max_bytes: u64,
    needs_client: bool,
    ladder: &Ladder,
    now: Timestamp,
) -> Reading {
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
    // Who could read its fields asks the ledger first, which may have an answer from when no client was required.
    let refusal = if needs_client && envelope.client.is_empty() {
        Refusal::ClientUnknown
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

/// Disposes of a delivery whose body has `bytes`, more than `max_bytes`.
#[must_use]
pub fn too_large(
    envelope: &Envelope,
    identity: Uuid,
    bytes: u64,
    max_bytes: u64,
    now: Timestamp,
) -> Reading {
    let wrong = "amqp.max_message_bytes";
    let text = format!("the body has {bytes} bytes, more than {max_bytes} ({wrong})");
    Reading::Done(malformed(envelope, identity, text, now))
}

/// Disposes of a delivery during which the worker crashed, alone: unread, since reading it may be why.
#[must_use]
pub fn unread(envelope: &Envelope, identity: Uuid, crashes: u32, now: Timestamp) -> Disposition {
    let text = format!(
        "the worker crashed {crashes} times with nothing else in work; something in it stops the worker"
    );
    let failure = Failure::RetriesExhausted(text);
    dead_letter(envelope, identity, &Fragments::default(), failure, now)
}

/// Disposes of a request by what came of it.
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
        Decision::NotYet => match rung(Cause::UsageNotFound) {
            Some(rung) => Disposition::Retry { rung },
            // A copy in the same batch had attempts left; this one has none, and is answered.
            None => Disposition::Answer(Event::of_outcome(request, &not_found(request, now))),
        },
        Decision::Failed(failure) => {
            if let Some(rung) = rung(Cause::Failed) {
                Disposition::Retry { rung }
            } else {
                let fragments = Fragments::from(&request.fields);
                let identity = envelope.raw_identity(body);
                dead_letter(envelope, identity, &fragments, failure.clone(), now)
            }
        }
    }
}

/// Attempts made, the present one included.
#[must_use]
pub fn attempts(envelope: &Envelope) -> u32 {
    envelope.attempts.saturating_add(1)
}

fn request(envelope: &Envelope, fields: Fields, ladder: &Ladder) -> RevertRequest {
    let next = ladder.rung(
        Cause::UsageNotFound,
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
        verdict: Verdict::Refused(Refusal::UsageNotFound),
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
