//! The event that answers a request: CloudEvents 1.0, structured JSON.
//!
//! An outcome determines its event, to the byte. Values that differ between two deliveries of one
//! request (correlation id, trace context) are AMQP properties of the message, not part of the
//! event.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Serialize;
use uuid::Uuid;

use crate::domain::outcome::{Failure, Metadata, Outcome, Refusal, Verdict};
use crate::domain::refusal::{RefusalReason, reason_label};
use crate::domain::request::{Fragments, Reference, RevertRequest, digest};

mod status;

pub use status::{RpcStatus, SOURCE};

/// Media type of the body.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The capacity for an event without an error, in bytes: it is seldom reallocated while written.
const USUAL_BYTES: usize = 640;

/// The capacity for an event with an error, in bytes: a flood of errors takes little memory.
const USUAL_ERROR_BYTES: usize = 896;

/// RFC 3339 with microseconds, the precision of the database.
const TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

/// A time as it stands in events.
#[must_use]
pub fn text_of(time: Timestamp) -> String {
    TIME.timestamp_to_string(&time)
}

/// The prefix of the routing key of a denied request.
const DENIED: &str = "denied";

/// An event that can be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id, determined by the request and its outcome.
    pub id: Uuid,
    /// The CloudEvent's `type`.
    pub kind: EventType,
    /// The reason of the `ErrorInfo`; empty if there is no error.
    pub reason: &'static str,
    /// `result.<org_id>`, `error.<org_id>` or `denied.<org_id>`.
    pub routing_key: String,
    /// The time of the decision.
    pub time: Timestamp,
    /// The CloudEvent.
    pub body: Vec<u8>,
}

/// The three types of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// The usage is reverted, now or before.
    Reverted,
    /// The request is refused. This is final.
    Rejected,
    /// The message is in the dead-letter queue. This is not final: it can be replayed.
    Failed,
}

impl EventType {
    /// The CloudEvent's `type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reverted => "usage.reverted",
            Self::Rejected => "usage.revert.rejected",
            Self::Failed => "usage.revert.failed",
        }
    }
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: Uuid,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Uuid>,
    time: String,
    datacontenttype: &'static str,
    data: Data<'a>,
}

#[derive(Default, Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billing_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Int64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform_transaction_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_amount: Option<Int64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reverted_total: Option<Int64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining: Option<Int64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RpcStatus<'a>>,
}

impl Data<'_> {
    /// Only the ids of the request.
    fn ids(self) -> Self {
        Self {
            request_id: self.request_id,
            usage_id: self.usage_id,
            org_id: self.org_id,
            billing_id: self.billing_id,
            ..Self::default()
        }
    }
}

/// An int64 as protobuf's JSON writes it: a decimal string.
struct Int64(i64);

impl Serialize for Int64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Event {
    /// The event of a decided request.
    #[must_use]
    pub fn of_outcome(request: &RevertRequest, outcome: &Outcome) -> Self {
        let fields = &request.fields;
        let base = Data {
            request_id: request.message_id.as_deref(),
            usage_id: Some(fields.usage_id),
            org_id: outcome
                .org_id
                .or_else(|| fields.org_id.as_ref().and_then(Reference::id)),
            billing_id: outcome.account_id.or(fields.billing_id),
            amount: Some(Int64(fields.amount.get())),
            reason: fields.reason.as_deref(),
            ..Data::default()
        };
        let identity = [outcome.id, request.content];
        match &outcome.verdict {
            Verdict::Applied(entry) => {
                let data = Data {
                    transaction_id: Some(entry.transaction_id),
                    platform_transaction_id: Some(entry.platform_transaction_id),
                    usage_amount: Some(Int64(entry.usage_amount)),
                    reverted_total: Some(Int64(entry.reverted_total)),
                    remaining: Some(Int64(entry.usage_amount - entry.reverted_total)),
                    ..base
                };
                Self::new(
                    EventType::Reverted,
                    "result",
                    &identity,
                    "",
                    outcome.decided_at,
                    data,
                )
            }
            Verdict::Refused(refusal) => {
                Self::of_refusal(refusal, &identity, outcome.decided_at, base)
            }
        }
    }

    /// Type and id of the event that [`Event::of_outcome`] makes of an outcome and the content of
    /// its request.
    #[must_use]
    pub fn identity(outcome: &Outcome, content: Uuid) -> (EventType, Uuid) {
        let (kind, reason) = match &outcome.verdict {
            Verdict::Applied(_) => (EventType::Reverted, ""),
            Verdict::Refused(refusal) => (EventType::Rejected, refusal.code().reason),
        };
        (kind, event_id(kind, reason, &[outcome.id, content]))
    }

    /// The event of a request with invalid fields.
    #[must_use]
    pub fn of_invalid(
        request_id: Option<&str>,
        raw_identity: Uuid,
        fragments: &Fragments,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Self {
        let data = fragments_data(request_id, fragments);
        Self::of_refusal(refusal, &[raw_identity], now, data)
    }

    /// The event of a message that goes to the dead-letter queue.
    #[must_use]
    pub fn of_failure(
        request_id: Option<&str>,
        raw_identity: Uuid,
        fragments: &Fragments,
        failure: &Failure,
        now: Timestamp,
    ) -> Self {
        let code = failure.code();
        let data = Data {
            error: Some(RpcStatus::new(
                code,
                failure.message(),
                Metadata::new(),
                &[],
            )),
            ..fragments_data(request_id, fragments)
        };
        Self::new(
            EventType::Failed,
            "error",
            &[raw_identity],
            code.reason,
            now,
            data,
        )
    }

    /// Whether the database stores the outcome that the event tells, if its request has a message
    /// id.
    #[must_use]
    pub fn is_of_stored_outcome(&self) -> bool {
        match self.kind {
            EventType::Reverted => true,
            EventType::Rejected => {
                // A reason that this version does not know was read from the database.
                RefusalReason::of_name(self.reason).is_none_or(|reason| reason.row().is_stored)
            }
            EventType::Failed => false,
        }
    }

    /// Whether the request was refused because its client is unknown or has no grant. Such events
    /// have a queue of their own, so that unknown clients cannot fill the queue of the others.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        let prefix = self.routing_key.split('.').next();
        prefix == Some(DENIED)
    }

    fn of_refusal(refusal: &Refusal, identity: &[Uuid], time: Timestamp, data: Data<'_>) -> Self {
        let code = refusal.code();
        let (prefix, data) = if refusal.is_denied() {
            (DENIED, data.ids())
        } else {
            ("error", data)
        };
        let (message, metadata) = (refusal.message(), refusal.metadata());
        let error = RpcStatus::new(code, message, metadata, refusal.violations());
        let data = Data {
            error: Some(error),
            ..data
        };
        Self::new(
            EventType::Rejected,
            prefix,
            identity,
            code.reason,
            time,
            data,
        )
    }

    fn new(
        kind: EventType,
        prefix: &str,
        identity: &[Uuid],
        reason: &str,
        time: Timestamp,
        data: Data<'_>,
    ) -> Self {
        let id = event_id(kind, reason, identity);
        let routing_key = match data.org_id {
            Some(org_id) => format!("{prefix}.{org_id}"),
            None => format!("{prefix}.unknown"),
        };
        let event = CloudEvent {
            specversion: "1.0",
            id,
            source: SOURCE,
            kind: kind.name(),
            subject: data.usage_id,
            time: text_of(time),
            datacontenttype: "application/json",
            data,
        };
        let mut body = Vec::with_capacity(match kind {
            EventType::Reverted => USUAL_BYTES,
            EventType::Rejected | EventType::Failed => USUAL_ERROR_BYTES,
        });
        serde_json::to_writer(&mut body, &event)
            .expect("text, numbers and maps keyed by text are JSON, and memory takes them");
        Self {
            id,
            kind,
            reason: reason_label(reason),
            routing_key,
            time,
            body,
        }
    }
}

fn event_id(kind: EventType, reason: &str, identity: &[Uuid]) -> Uuid {
    let mut parts: Vec<&[u8]> = vec![kind.name().as_bytes(), reason.as_bytes()];
    parts.extend(identity.iter().map(|id| id.as_bytes().as_slice()));
    digest(&parts)
}

fn fragments_data<'a>(request_id: Option<&'a str>, fragments: &'a Fragments) -> Data<'a> {
    Data {
        request_id,
        usage_id: fragments.usage_id,
        org_id: fragments.org_id,
        billing_id: fragments.billing_id,
        amount: fragments.amount.map(|amount| Int64(amount.get())),
        reason: fragments.reason.as_deref(),
        ..Data::default()
    }
}

#[cfg(test)]
mod tests;
