//! The fields of a request's body, and why a body is no request.

use std::fmt;

use serde::{Serialize, Serializer};
use uuid::Uuid;

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

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The six fields of a request's body, each valid. As JSON they are a body of the same request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fields {
    /// The usage to revert.
    pub usage_id: Uuid,
    /// The part of the usage to revert.
    pub amount: Amount,
    /// The account, its org, or a project of that org; at least one, never both of the last two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing_id: Option<Uuid>,
    /// See [`Fields::billing_id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org_id: Option<Reference>,
    /// See [`Fields::billing_id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<Reference>,
    /// The requester's reason; stored with the entry.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// An invalid field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field's `snake_case` name, or the AMQP property's.
    pub field: &'static str,
    /// The rule that the field breaks. It never repeats the value.
    pub description: String,
}

/// The error of an object whose fields break a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidFields {
    /// Every violation, in the order of the fields; never empty.
    pub violations: Vec<Violation>,
    /// The valid fields.
    pub fragments: Fragments,
}

impl From<InvalidFields> for Undecodable {
    fn from(invalid: InvalidFields) -> Self {
        Self::Invalid {
            violations: invalid.violations,
            fragments: invalid.fragments,
        }
    }
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

/// What is wrong with a body of so many bytes, where the setting `key` allows only `max`.
#[must_use]
pub fn too_many_bytes(bytes: u64, max: u64, key: &str) -> String {
    format!("the body has {bytes} bytes, more than {max} ({key})")
}
