//! What becomes of a request: applied, refused, or failed; and where its message therefore goes.
//!
//! Pure. All that is the same for every refusal of one reason is in the table of `refusal.rs`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::refusal::{FailureReason, RefusalReason, Row};
use crate::domain::request::Violation;

/// The decision on an admitted request, as stored; the event follows from it and the request alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Identity of the outcome: the request's, or the one of its refusal `REQUEST_ID_REUSED`.
    pub id: Uuid,
    /// The org of the account; `None` where no account was found.
    pub org_id: Option<Uuid>,
    /// The account itself.
    pub account_id: Option<Uuid>,
    /// When it was decided, by the database's clock.
    pub decided_at: Timestamp,
    /// What was decided.
    pub verdict: Verdict,
}

/// The two ways in which a request can be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both legs are in the ledger.
    Applied(Entry),
    /// Nothing was written but, where it is remembered, the refusal.
    Refused(Refusal),
}

/// A reversing entry, and what it left of the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The customer-side leg.
    pub transaction_id: Uuid,
    /// The leg on the platform's account.
    pub platform_transaction_id: Uuid,
    /// The amount that was once debited.
    pub usage_amount: i64,
    /// The part that is reverted, by any writer, including this entry.
    pub reverted_total: i64,
}

/// Key and value pairs of a refusal's `ErrorInfo`, int64 as decimal strings.
pub type Metadata = BTreeMap<String, String>;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// By a row of the table, with the metadata of the `ErrorInfo`.
    Row(RefusalReason, Metadata),
    /// [`RefusalReason::InvalidField`].
    InvalidField {
        /// Every violation.
        violations: Vec<Violation>,
        /// The request's place in its group, counted from 0.
        index: Option<usize>,
    },
    /// One that was stored, by any version, with all that its event tells.
    Stored(Box<StoredRefusal>),
}

/// A refusal as it is stored: this version may not know its reason, or word it otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRefusal {
    /// Reason of the `ErrorInfo`.
    pub reason: String,
    /// Number of the `google.rpc.Code`.
    pub code: i32,
    /// One sentence for a person.
    pub message: String,
    /// Metadata of the `ErrorInfo`.
    pub metadata: Metadata,
}

/// Why a request ends in the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Row 1; the text says what is wrong with the body.
    Malformed(String),
    /// All attempts failed for a cause of the request's own; the text names the last one.
    RetriesExhausted(String),
    /// The same for a cause outside the request, such as contention that did not end.
    Unavailable(String),
}

/// What came of one request in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Decided; the outcome is stored wherever the contract wants it remembered.
    Decided(Outcome),
    /// Decided and stored before: the request came again, and is answered as it was then.
    Repeated(Outcome),
    /// The usage isn't there, and may come yet.
    NotYet,
    /// This request's own statement failed; it may pass.
    Failed(Failure),
    /// It waits, and the wait is no attempt.
    SetAside(Failure, Aside),
}

/// Why a request waits without an attempt being counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Others of its batch took the time; or nothing tells yet whose fault it is.
    Untried,
    /// The server had no room for what it writes, and had for what others write.
    Room,
    /// The server had no room for anything: it is the server's fault, which the text tells.
    Server(String),
}

/// What goes wrong, as `google.rpc.Code` and the contract's reason name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code<'a> {
    /// Number of the `google.rpc.Code`.
    pub number: i32,
    /// Reason of the `ErrorInfo`.
    pub reason: &'a str,
}

/// What is wrong with a request without an id, where the policy needs one.
pub const ID_REQUIRED: &str = "is required with revert.policy = \"cumulative\", so that two \
    partial reverts can be told from one that was sent twice";

impl From<RefusalReason> for Refusal {
    fn from(reason: RefusalReason) -> Self {
        Self::Row(reason, Metadata::new())
    }
}

impl Refusal {
    /// The refusal of a row of the table. With `INVALID_FIELD`, the missing field is the message
    /// id.
    #[must_use]
    pub fn of_row(reason: RefusalReason, metadata: Metadata) -> Self {
        if reason == RefusalReason::InvalidField {
            Self::InvalidField {
                violations: vec![Violation {
                    field: "message_id",
                    description: ID_REQUIRED.into(),
                }],
                index: None,
            }
        } else {
            Self::Row(reason, metadata)
        }
    }

    /// The refusal of an outcome: with the code and message that were stored, or, if it was stored
    /// before these were, with those of the table. `None` if this version does not know it.
    #[must_use]
    pub fn of_stored(
        reason: &str,
        words: Option<(i32, String)>,
        metadata: Metadata,
    ) -> Option<Self> {
        let Some((code, message)) = words else {
            let reason = RefusalReason::of_name(reason)?;
            return Some(Self::of_row(reason, metadata));
        };
        Some(Self::Stored(Box::new(StoredRefusal {
            reason: reason.to_owned(),
            code,
            message,
            metadata,
        })))
    }

    /// Code and reason.
    #[must_use]
    pub fn code(&self) -> Code<'_> {
        match self {
            Self::Row(reason, _) => Code::of_row(reason.row()),
            Self::InvalidField { .. } => Code::of_row(RefusalReason::InvalidField.row()),
            Self::Stored(stored) => Code {
                number: stored.code,
                reason: &stored.reason,
            },
        }
    }

    /// One sentence for a person. Changes nothing between two answers to one request.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Row(reason, _) => reason.row().message,
            Self::InvalidField { .. } => RefusalReason::InvalidField.row().message,
            Self::Stored(stored) => &stored.message,
        }
    }

    /// Metadata of the `ErrorInfo`.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        match self {
            Self::Row(_, metadata) => metadata.clone(),
            Self::InvalidField { index, .. } => {
                let index = index.map(|index| ("index".to_owned(), index.to_string()));
                index.into_iter().collect()
            }
            Self::Stored(stored) => stored.metadata.clone(),
        }
    }

    /// What is wrong with the request's fields.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        match self {
            Self::InvalidField { violations, .. } => violations,
            Self::Row(..) | Self::Stored(_) => &[],
        }
    }

    /// Whether the client is unknown or has no grant, so that its event goes to a queue of its own.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Row(reason, _) => reason.row().is_denied,
            Self::InvalidField { .. } | Self::Stored(_) => false,
        }
    }
}

impl Failure {
    /// Its row of the table.
    #[must_use]
    pub fn row(&self) -> &'static Row {
        match self {
            Self::Malformed(_) => FailureReason::MalformedRequest.row(),
            Self::RetriesExhausted(_) => FailureReason::RetriesExhausted.row(),
            Self::Unavailable(_) => FailureReason::Unavailable.row(),
        }
    }

    /// Code and reason.
    #[must_use]
    pub fn code(&self) -> Code<'static> {
        Code::of_row(self.row())
    }

    /// One sentence for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Malformed(text) | Self::RetriesExhausted(text) | Self::Unavailable(text) => text,
        }
    }
}

impl Code<'static> {
    /// Code and reason of a row of the table.
    #[must_use]
    pub fn of_row(row: &'static Row) -> Self {
        Self {
            number: row.code.number(),
            reason: row.reason,
        }
    }
}
