//! A revert request: what a publisher may send, parsed strictly.
//!
//! Pure. It must not know the broker, the database or the configuration; what is wrong with a body is a
//! value ([`Undecodable`]), never an error of ours.

use jiff::Timestamp;
use uuid::Uuid;

mod body;
mod fields;
mod trace;

pub use body::{
    Amount, Fields, Fragments, NAME_MAX_CHARS, REASON_MAX_CHARS, Reference, Undecodable, Violation,
};
pub use fields::{NotOneText, decode, text_member};
pub use trace::is_traceparent;

/// Namespace of the digests that identify requests, contents and events.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_7a52_91c4_4c1e_8e0b_5a3f_2c77_d940);

impl Fragments {
    /// What can be told of a body, request or not.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        match decode(body) {
            Ok(fields) => Self::from(&fields),
            Err(Undecodable::Invalid { fragments, .. }) => fragments,
            Err(Undecodable::Malformed(_)) => Self::default(),
        }
    }
}

/// What a delivery says about a request beside its body, checked and bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The client that the broker authenticated; empty where it authenticated nobody.
    pub client: String,
    /// What that client, not being trusted to, says of whose request it is.
    pub claim: Option<Claim>,
    /// AMQP `message_id`, unless absent or empty.
    pub message_id: Option<String>,
    /// AMQP `correlation_id`, unless absent.
    pub correlation_id: Option<String>,
    /// AMQP `reply_to`, unless absent or empty.
    pub reply_to: Option<String>,
    /// W3C trace context, where well-formed.
    pub traceparent: Option<String>,
    /// Attempts made before this one, by our own header; nonsense is read as none.
    pub attempts: u32,
    /// Waits on a rung that were no attempt, believed only of what the worker's own login published.
    pub waits: u32,
    /// The publisher's own bound on attempts, at least 1.
    pub max_attempts: Option<u32>,
}

/// The word of a login that is not trusted: that a message is another client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Each speaks for the next, and the last is the client. Never empty.
    pub names: Vec<String>,
    /// Since when the message waits for that login to be trusted, if it did before.
    pub since: Option<Timestamp>,
}

impl Envelope {
    /// The trace that the request belongs to, where it has a `traceparent`.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref()?.get(3..35)
    }

    /// A `message_id` that the database can't hold is a violation of row 3.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        let nul = self.message_id.as_ref().is_some_and(|id| id.contains('\0'));
        nul.then(|| Violation {
            field: "message_id",
            description: "must not contain the character U+0000".into(),
        })
    }

    /// Identity of a request whose body gives no content: client, message id and raw body.
    #[must_use]
    pub fn raw_identity(&self, body: &[u8]) -> Uuid {
        self.identity_of(b"raw", body)
    }

    /// The same of a body that is too large for a request, by its digest.
    #[must_use]
    pub fn cut_identity(&self, sha256: &[u8; 32]) -> Uuid {
        self.identity_of(b"cut", sha256)
    }

    fn identity_of(&self, kind: &[u8], content: &[u8]) -> Uuid {
        let message_id = self.message_id.as_deref().unwrap_or_default();
        let (client, message_id) = (self.client.as_bytes(), message_id.as_bytes());
        digest(&[kind, client, message_id, content])
    }
}

/// A request that can be decided: parsed fields, and who identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevertRequest {
    /// Identity: client and message id; without one, client, usage and content.
    pub id: Uuid,
    /// Identity of the refusal `REQUEST_ID_REUSED` for this id and this content.
    pub reuse_id: Uuid,
    /// Digest of the six fields; spelling and unknown fields don't count.
    pub content: Uuid,
    /// See [`Envelope::client`].
    pub client: String,
    /// See [`Envelope::message_id`].
    pub message_id: Option<String>,
    /// The body.
    pub fields: Fields,
    /// Whether a usage that isn't found is refused now, instead of looked for again later.
    pub last_attempt: bool,
}

impl RevertRequest {
    /// Identifies the request of `fields` that came in `envelope`.
    #[must_use]
    pub fn new(envelope: &Envelope, fields: Fields, last_attempt: bool) -> Self {
        let content = content(&fields);
        let message_id = envelope.message_id.as_deref();
        let id = identity(&envelope.client, message_id, fields.usage_id, content);
        Self {
            id,
            reuse_id: reuse_identity(id, content),
            content,
            client: envelope.client.clone(),
            message_id: envelope.message_id.clone(),
            fields,
            last_attempt,
        }
    }
}

/// What identifies a request: client and message id; without one, client, usage and content.
#[must_use]
pub fn identity(client: &str, message_id: Option<&str>, usage: Uuid, content: Uuid) -> Uuid {
    let client = client.as_bytes();
    match message_id {
        Some(message_id) => digest(&[b"message", client, message_id.as_bytes()]),
        None => digest(&[b"content", client, usage.as_bytes(), content.as_bytes()]),
    }
}

/// What identifies the refusal `REQUEST_ID_REUSED` of a content under the id of a request.
#[must_use]
pub fn reuse_identity(id: Uuid, content: Uuid) -> Uuid {
    digest(&[b"reuse", id.as_bytes(), content.as_bytes()])
}

fn content(fields: &Fields) -> Uuid {
    fn id(reference: Option<&Reference>) -> Option<[u8; 16]> {
        reference.and_then(Reference::id).map(Uuid::into_bytes)
    }
    fn name(reference: Option<&Reference>) -> &[u8] {
        let name = reference.and_then(Reference::name);
        name.unwrap_or_default().as_bytes()
    }
    let (org, project) = (fields.org_id.as_ref(), fields.project_id.as_ref());
    let billing = fields.billing_id.map(Uuid::into_bytes);
    let (org_id, project_id) = (id(org), id(project));
    let amount = fields.amount.get().to_be_bytes();
    let mut parts: Vec<&[u8]> = vec![
        fields.usage_id.as_bytes(),
        &amount,
        billing.as_ref().map_or(&[], |id| id.as_slice()),
        org_id.as_ref().map_or(&[], |id| id.as_slice()),
        project_id.as_ref().map_or(&[], |id| id.as_slice()),
        fields.reason.as_deref().unwrap_or_default().as_bytes(),
    ];
    let names = [name(org), name(project)];
    // Parts of their own, so that no name can pass for an id.
    if names.iter().any(|name| !name.is_empty()) {
        parts.extend(names);
    }
    digest(&parts)
}

/// UUID version 5 of the parts, each with its length before it, so that no two lists of parts are one
/// text.
pub(crate) fn digest(parts: &[&[u8]]) -> Uuid {
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        text.extend_from_slice(&length.to_be_bytes());
        text.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            usage_id: Uuid::from_u128(1),
            amount: Amount::new(5).expect("positive"),
            billing_id: Some(Uuid::from_u128(2)),
            org_id: None,
            project_id: None,
            reason: None,
        }
    }

    fn envelope(client: &str, message_id: Option<&str>) -> Envelope {
        Envelope {
            client: client.into(),
            message_id: message_id.map(Into::into),
            ..Envelope::default()
        }
    }

    #[test]
    fn identity_is_client_and_message_id_whatever_the_content() {
        let one = RevertRequest::new(&envelope("a", Some("m")), fields(), false);
        let mut other = fields();
        other.amount = Amount::new(6).expect("positive");
        let two = RevertRequest::new(&envelope("a", Some("m")), other, false);
        assert_eq!(one.id, two.id);
        assert_ne!(one.content, two.content);
        assert_ne!(one.reuse_id, two.reuse_id);
        let three = RevertRequest::new(&envelope("b", Some("m")), fields(), false);
        assert_ne!(one.id, three.id);
    }

    #[test]
    fn identity_without_a_message_id_is_the_content() {
        let one = RevertRequest::new(&envelope("a", None), fields(), false);
        let two = RevertRequest::new(&envelope("a", None), fields(), true);
        let mut other = fields();
        other.reason = Some("x".into());
        let three = RevertRequest::new(&envelope("a", None), other, false);
        assert_eq!(one.id, two.id);
        assert_ne!(one.id, three.id);
    }

    #[test]
    fn every_field_is_content_and_none_can_pass_for_another() {
        let bytes = *b"sixteen letters!";
        let id = Uuid::from_bytes(bytes);
        let name = Reference::Name(String::from_utf8(bytes.into()).expect("ASCII"));
        let mut base = fields();
        base.billing_id = None;
        let variants = [
            Fields {
                billing_id: Some(id),
                ..base.clone()
            },
            Fields {
                org_id: Some(Reference::Id(id)),
                ..base.clone()
            },
            Fields {
                project_id: Some(Reference::Id(id)),
                ..base.clone()
            },
            Fields {
                org_id: Some(name.clone()),
                ..base.clone()
            },
            Fields {
                project_id: Some(name.clone()),
                ..base.clone()
            },
            Fields {
                reason: Some(name.to_string()),
                ..base.clone()
            },
            Fields {
                reason: Some("7".into()),
                ..base.clone()
            },
            Fields {
                amount: Amount::new(7).expect("positive"),
                ..base.clone()
            },
            Fields {
                usage_id: Uuid::from_u128(7),
                ..base.clone()
            },
            base,
        ];
        let mut digests: Vec<_> = variants.iter().map(content).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 10);
    }
}
