//! The envelope of a request: the properties of its delivery.

use jiff::Timestamp;
use uuid::Uuid;

use super::body::Violation;
use super::identity::digest;

/// The violation of an id with a NUL.
pub(super) const NUL: &str = "must not contain the character U+0000";

/// Whether an id has a NUL, which the database can't store.
pub(super) fn has_nul(id: &str) -> bool {
    id.contains('\0')
}

/// The properties of a delivery that concern its request, checked and bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The client that the broker authenticated; empty if the message has no `user_id`.
    pub client: String,
    /// The client that an untrusted login names in place of itself.
    pub claim: Option<ClientClaim>,
    /// AMQP `message_id`, unless absent or empty.
    pub message_id: Option<String>,
    /// AMQP `correlation_id`, unless absent.
    pub correlation_id: Option<String>,
    /// AMQP `reply_to`, unless absent or empty.
    pub reply_to: Option<String>,
    /// The W3C `traceparent`, if it is well-formed.
    pub traceparent: Option<String>,
    /// The number of earlier attempts, by revertd's header. An invalid value counts as none.
    pub attempts: u32,
    /// The number of waits on a rung that were no attempt. Only read from messages that the
    /// worker's own login published.
    pub waits: u32,
    /// The publisher's bound on attempts, at least 1.
    pub max_attempts: Option<u32>,
}

/// The statement of an untrusted login that a message is another client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientClaim {
    /// A chain of logins, each of which names the next; the last is the client. Never empty.
    pub names: Vec<String>,
    /// The time since which the message waits for the login to be trusted, if it waited before.
    pub since: Option<Timestamp>,
}

impl Envelope {
    /// The trace id of the `traceparent`.
    #[must_use]
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref()?.get(3..35)
    }

    /// The violation of row 3 by a `message_id` that the database can't store.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        let nul = self.message_id.as_deref().is_some_and(has_nul);
        nul.then(|| Violation {
            field: "message_id",
            description: NUL.into(),
        })
    }

    /// The identity of a message whose body can't be parsed: client, message id and raw body.
    #[must_use]
    pub fn raw_identity(&self, body: &[u8]) -> Uuid {
        self.identity_of(b"raw", body)
    }

    /// The identity of a message whose body is too large, by the body's digest.
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
