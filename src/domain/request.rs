//! A revert request, parsed strictly.
//!
//! It must not know the broker, the database or the configuration. An invalid body is a value
//! ([`Undecodable`]), not an `Err` of the infrastructure.

use std::fmt;

use uuid::Uuid;

mod envelope;
mod fields;
mod identity;
mod trace;

pub use envelope::{Claim, Envelope};
pub use fields::{NotOneText, decode, text_member};
pub(crate) use identity::digest;
pub use identity::{identity, reuse_identity};
pub use trace::is_traceparent;

/// The largest number of characters of `reason` (contract, section Request).
pub const REASON_MAX_CHARS: usize = 512;

/// An amount of usage in the ledger's smallest unit; greater than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i64);

impl Amount {
    /// `None` unless `value` is greater than zero.
    #[must_use]
    pub fn new(value: i64) -> Option<Self> {
        (value > 0).then_some(Self(value))
    }

    /// The amount as the ledger's `bigint`.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The largest number of characters of the name of an org or a project (contract, section Request).
pub const NAME_MAX_CHARS: usize = 255;

/// How a request refers to an org or a project: by its id, or by its name, which is unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A UUID, in any of its spellings.
    Id(Uuid),
    /// Anything else: 1 to [`NAME_MAX_CHARS`] characters, none of them a control character.
    Name(String),
}

impl Reference {
    /// The id, if it is one.
    #[must_use]
    pub fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(id) => Some(*id),
            Self::Name(_) => None,
        }
    }

    /// The name, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Id(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// The six fields of a request's body, each valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The usage to revert.
    pub usage_id: Uuid,
    /// The part of the usage to revert.
    pub amount: Amount,
    /// The account, its org, or a project of that org; at least one, never both of the last two.
    pub billing_id: Option<Uuid>,
    /// See [`Fields::billing_id`].
    pub org_id: Option<Reference>,
    /// See [`Fields::billing_id`].
    pub project_id: Option<Reference>,
    /// The requester's reason; stored with the entry.
    pub reason: Option<String>,
}

/// The valid fields of a refused or failed request, for its event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fragments {
    /// The field of this name, if it was valid; the others likewise. `org_id` is `None` if the
    /// request names its org by name.
    pub usage_id: Option<Uuid>,
    #[allow(missing_docs)]
    pub amount: Option<Amount>,
    #[allow(missing_docs)]
    pub billing_id: Option<Uuid>,
    #[allow(missing_docs)]
    pub org_id: Option<Uuid>,
    #[allow(missing_docs)]
    pub reason: Option<String>,
}

impl From<&Fields> for Fragments {
    fn from(fields: &Fields) -> Self {
        Self {
            usage_id: Some(fields.usage_id),
            amount: Some(fields.amount),
            billing_id: fields.billing_id,
            org_id: fields.org_id.as_ref().and_then(Reference::id),
            reason: fields.reason.clone(),
        }
    }
}

impl Fragments {
    /// The valid fields of any body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        match decode(body) {
            Ok(fields) => Self::from(&fields),
            Err(Undecodable::Invalid { fragments, .. }) => fragments,
            Err(Undecodable::Malformed(_)) => Self::default(),
        }
    }
}

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's `snake_case` name, or the AMQP property's.
    pub field: &'static str,
    /// The rule that the field breaks. It never repeats the value.
    pub description: String,
}

/// The error of a body that is no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// Row 1 of the contract's table: the body is no JSON object.
    Malformed(String),
    /// Row 3: fields of the object break a rule.
    Invalid {
        /// Every violation, in the order of the fields; never empty.
        violations: Vec<Violation>,
        /// The valid fields.
        fragments: Fragments,
    },
}

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
}

impl RevertRequest {
    /// The request of these fields, delivered in this envelope.
    #[must_use]
    pub fn new(envelope: &Envelope, fields: Fields, last_attempt: bool) -> Self {
        let content = identity::content(&fields);
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
