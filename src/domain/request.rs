//! A revert request, parsed strictly.
//!
//! It must not know the broker, the database or the configuration. An invalid body is a value
//! ([`Undecodable`]), not an `Err` of the infrastructure.

use uuid::Uuid;

mod body;
mod envelope;
mod fields;
mod group;
mod group_request;
mod identity;
mod json;
mod summary;
mod trace;

pub use body::{
    Amount, Fields, Fragments, InvalidFields, NAME_MAX_CHARS, REASON_MAX_CHARS, Reference,
    Undecodable, Violation, too_many_bytes,
};
pub use envelope::{ClientClaim, Envelope};
pub use fields::{NotOneText, decode, text_member};
pub use group::{Body, Group, Replies, RequestLimits, parse};
pub use group_request::{GroupRequest, REQUEST_ID_MAX_BYTES, is_derived};
pub(crate) use identity::digest;
pub use identity::{identity, reuse_identity};
pub use summary::{BodySummary, RequestSummary};
pub use trace::is_traceparent;

/// A request that can be decided: its fields and its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevertRequest {
    /// The identity: client and message id; without a message id, client, usage and content.
    pub id: Uuid,
    /// The identity of the refusal `REQUEST_ID_REUSED` of this content under this id.
    pub reuse_id: Uuid,
    /// The digest of the six fields, regardless of spelling and unknown fields.
    pub content: Uuid,
    /// See [`Envelope::client`].
    pub client: String,
    /// See [`Envelope::message_id`].
    pub message_id: Option<String>,
    /// The fields of the body.
    pub fields: Fields,
    /// Whether a usage that is not found is refused now, instead of retried.
    pub last_attempt: bool,
    /// Its place in an atomic group.
    pub member: Option<Member>,
}

/// The place of a request in an atomic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The identity of the group's message.
    pub group: Uuid,
    /// The index of the request, from 0.
    pub index: usize,
    /// The first request of the group that is refused before all are decided, since its fields
    /// break a rule.
    pub refused: Option<FirstRefusal>,
}

/// A refused request of an atomic group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstRefusal {
    /// Its index in the group, from 0.
    pub index: usize,
    /// The reason.
    pub reason: String,
}

impl RevertRequest {
    /// The request of these fields, delivered in this envelope.
    #[must_use]
    pub fn new(envelope: &Envelope, fields: Fields, last_attempt: bool) -> Self {
        let message_id = envelope.message_id.as_deref();
        Self::under(&envelope.client, message_id, fields, last_attempt)
    }

    /// The request of these fields under a client and, unless it has none, a message id.
    #[must_use]
    pub fn under(
        client: &str,
        message_id: Option<&str>,
        fields: Fields,
        last_attempt: bool,
    ) -> Self {
        let content = identity::content(&fields);
        let id = identity(client, message_id, fields.usage_id, content);
        Self {
            id,
            reuse_id: reuse_identity(id, content),
            content,
            client: client.to_owned(),
            message_id: message_id.map(ToOwned::to_owned),
            fields,
            last_attempt,
            member: None,
        }
    }

    /// Whether `next` is a later member of the same delivered group. A second copy of the group
    /// begins anew.
    #[must_use]
    pub fn is_grouped_with(&self, next: &Self) -> bool {
        let groups = self.member.as_ref().zip(next.member.as_ref());
        groups.is_some_and(|(one, next)| one.group == next.group && one.index < next.index)
    }
}
