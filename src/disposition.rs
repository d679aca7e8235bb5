//! Where a message goes, decided once: an answer, a rung of the retry ladder, or the dead-letter queue.
//!
//! Pure. Settling, logs and counters read what is decided here.

use jiff::{SignedDuration, Timestamp};

use crate::event::Event;
use crate::outcome::{Decision, Failure, Outcome, Refusal, Verdict};
use crate::request::{Claim, Envelope, Fields, Fragments, RevertRequest, Undecodable, decode};
use crate::retry::{Cause, Ladder};

/// How long a message waits for the login that names its client to be trusted: over a night, and a rolling upgrade.
const TRUST_AWAITED_FOR: SignedDuration = SignedDuration::from_hours(24);

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
    /// It waits on that rung until the login that names its client is trusted; no attempt is counted.
    AwaitTrust {
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
            Self::Retry { .. } | Self::AwaitTrust { .. } | Self::DeadLetter { .. } => true,
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
    if let Some(claim) = &envelope.claim {
        return Reading::Done(untrusted(envelope, body, claim, ladder, now));
    }
    if body.len() as u64 > max_bytes {
        let (length, wrong) = (body.len(), "amqp.max_message_bytes");
        let text = format!("the body has {length} bytes, more than {max_bytes} ({wrong})");
        return Reading::Done(malformed(envelope, body, text, now));
    }
    let (violations, fragments) = match (decode(body), envelope.violation()) {
        (Ok(fields), None) => return Reading::Request(request(envelope, fields, ladder)),
        (Ok(fields), Some(violation)) => (vec![violation], Fragments::from(&fields)),
        (Err(Undecodable::Malformed(text)), _) => {
            return Reading::Done(malformed(envelope, body, text, now));
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

/// Disposes of a delivery that came too often: unread, since reading it may be what kills the worker.
#[must_use]
pub fn unread(envelope: &Envelope, body: &[u8], deliveries: u32, now: Timestamp) -> Disposition {
    let text = format!(
        "delivered {deliveries} times without being settled; something in it may stop the worker"
    );
    let failure = Failure::RetriesExhausted(text);
    dead_letter(envelope, body, &Fragments::default(), failure, now)
}

/// Disposes of a message of which it is not known whose request it is: nothing is answered in anybody's name.
fn untrusted(
    envelope: &Envelope,
    body: &[u8],
    claim: &Claim,
    ladder: &Ladder,
    now: Timestamp,
) -> Disposition {
    let waited = claim.since.map(|since| now.duration_since(since));
    let waits = waited.is_none_or(|waited| waited < TRUST_AWAITED_FOR);
    if let Some(rung) = ladder.longest().filter(|_| waits) {
        return Disposition::AwaitTrust { rung };
    }
    let text = "its client is named by a login that is not trusted to (amqp.trusted_users); once it is, replay the \
                dead letter";
    let failure = Failure::Unavailable(text.into());
    dead_letter(envelope, body, &Fragments::default(), failure, now)
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
                dead_letter(envelope, body, &fragments, failure.clone(), now)
            }
        }
    }
}

/// Attempts made, the present one included, if it is one.
#[must_use]
pub fn attempts(envelope: &Envelope) -> u32 {
    let present = u32::from(envelope.claim.is_none());
    envelope.attempts.saturating_add(present)
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

fn malformed(envelope: &Envelope, body: &[u8], text: String, now: Timestamp) -> Disposition {
    let failure = Failure::Malformed(text);
    dead_letter(envelope, body, &Fragments::default(), failure, now)
}

fn dead_letter(
    envelope: &Envelope,
    body: &[u8],
    fragments: &Fragments,
    failure: Failure,
    now: Timestamp,
) -> Disposition {
    let identity = envelope.raw_identity(body);
    let request_id = envelope.message_id.as_deref();
    let event = Event::of_failure(request_id, identity, fragments, &failure, now);
    Disposition::DeadLetter { failure, event }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ladder(seconds: &[u64]) -> Ladder {
        Ladder {
            delays: seconds.iter().copied().map(Duration::from_secs).collect(),
            usage_not_found_attempts: 0,
        }
    }

    fn claimed(since: Option<Timestamp>) -> Envelope {
        Envelope {
            client: "former".into(),
            claim: Some(Claim {
                names: vec!["client".into()],
                since,
            }),
            attempts: 2,
            ..Envelope::default()
        }
    }

    fn done(envelope: &Envelope, ladder: &Ladder, now: Timestamp) -> Disposition {
        match read(envelope, b"rubbish", 5, true, ladder, now) {
            Reading::Done(disposition) => disposition,
            Reading::Request(request) => panic!("{request:?}"),
        }
    }

    #[test]
    fn an_untrusted_claim_waits_on_the_longest_rung() {
        let now = Timestamp::UNIX_EPOCH;
        let (hour, day) = (
            SignedDuration::from_hours(1),
            SignedDuration::from_hours(24),
        );
        let ladder = ladder(&[1, 30, 5]);
        for since in [None, Some(now), Some(now - hour), Some(now + hour)] {
            let waits = done(&claimed(since), &ladder, now);
            assert_eq!(waits, Disposition::AwaitTrust { rung: 1 }, "{since:?}");
        }
        assert_eq!(attempts(&claimed(None)), 2, "none is used up");
        let Disposition::DeadLetter { failure, event } =
            done(&claimed(Some(now - day)), &ladder, now)
        else {
            panic!("it waited for a day");
        };
        assert_eq!(failure.code().number, 14);
        let told = String::from_utf8(event.body).expect("JSON");
        assert!(
            !told.contains("former") && !told.contains("client\""),
            "{told}"
        );
    }

    #[test]
    fn without_a_rung_it_is_dead_lettered_at_once() {
        let gone = done(&claimed(None), &ladder(&[]), Timestamp::UNIX_EPOCH);
        assert!(matches!(gone, Disposition::DeadLetter { .. }), "{gone:?}");
    }
}
