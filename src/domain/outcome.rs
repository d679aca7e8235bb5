//! What becomes of a request: applied, refused, or failed; and where its message therefore goes.
//!
//! Pure. The order of [`Refusal`]'s variants is the order of the contract's table.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

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
    /// What was given back of it, this entry included, whoever wrote it.
    pub reverted_total: i64,
}

/// Key and value pairs of a refusal's `ErrorInfo`, int64 as decimal strings.
pub type Metadata = BTreeMap<String, String>;

/// Why a request is refused; in the order in which the reasons are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Row 2.
    ClientUnknown,
    /// Row 3.
    InvalidField(Vec<Violation>),
    /// Row 4.
    OrgNotGranted,
    /// Row 5.
    BillingAccountNotFound,
    /// Row 6.
    RequestIdReused,
    /// Row 7.
    UsageNotFound,
    /// Row 8.
    RevertOfRevert,
    /// Row 9.
    NotAUsage,
    /// Row 10.
    RevertWindowClosed,
    /// Row 11, with the earlier entry's id, amount and time.
    AlreadyReverted(Metadata),
    /// Row 12, with what remains.
    AmountExceedsUsage(Metadata),
    /// One that was stored, by whichever version, with all that its event tells.
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

/// What stands for every reason that this version does not know, where only so many values are allowed.
pub const OTHER_REASON: &str = "OTHER";

/// A reason as one of those that this version knows, or [`OTHER_REASON`]; empty where there is none.
#[must_use]
pub fn known_reason(reason: &str) -> &'static str {
    let known = Refusal::REASONS
        .iter()
        .chain(&Failure::REASONS)
        .chain(&[""]);
    known
        .copied()
        .find(|known| *known == reason)
        .unwrap_or(OTHER_REASON)
}

/// What is wrong with a request without an id, where the policy needs one.
pub const ID_REQUIRED: &str = "is required with revert.policy = \"cumulative\", so that two partial reverts can be told \
    from one that was sent twice";

/// Row 3's reason, which the statement too can give: under the policy `cumulative`, without a message id.
pub const INVALID_FIELD: &str = "INVALID_FIELD";

impl Refusal {
    /// The reasons of all refusals, in the order in which they are looked at.
    pub const REASONS: [&'static str; 11] = [
        "CLIENT_UNKNOWN",
        INVALID_FIELD,
        "ORG_NOT_GRANTED",
        "BILLING_ACCOUNT_NOT_FOUND",
        "REQUEST_ID_REUSED",
        "USAGE_NOT_FOUND",
        "REVERT_OF_REVERT",
        "NOT_A_USAGE",
        "REVERT_WINDOW_CLOSED",
        "ALREADY_REVERTED",
        "AMOUNT_EXCEEDS_USAGE",
    ];

    /// The refusal of that reason, as the statement and the table of outcomes spell it.
    #[must_use]
    pub fn from_reason(reason: &str, metadata: Metadata) -> Option<Self> {
        Some(match reason {
            "CLIENT_UNKNOWN" => Self::ClientUnknown,
            INVALID_FIELD => Self::InvalidField(vec![Violation {
                field: "message_id",
                description: ID_REQUIRED.into(),
            }]),
            "ORG_NOT_GRANTED" => Self::OrgNotGranted,
            "BILLING_ACCOUNT_NOT_FOUND" => Self::BillingAccountNotFound,
            "REQUEST_ID_REUSED" => Self::RequestIdReused,
            "USAGE_NOT_FOUND" => Self::UsageNotFound,
            "REVERT_OF_REVERT" => Self::RevertOfRevert,
            "NOT_A_USAGE" => Self::NotAUsage,
            "REVERT_WINDOW_CLOSED" => Self::RevertWindowClosed,
            "ALREADY_REVERTED" => Self::AlreadyReverted(metadata),
            "AMOUNT_EXCEEDS_USAGE" => Self::AmountExceedsUsage(metadata),
            _ => return None,
        })
    }

    /// The refusal of an outcome: as it was stored with its code and message, or, from before they were, as this version
    /// has them. `None` where it is not known.
    #[must_use]
    pub fn of_stored(
        reason: &str,
        words: Option<(i32, String)>,
        metadata: Metadata,
    ) -> Option<Self> {
        let Some((code, message)) = words else {
            return Self::from_reason(reason, metadata);
        };
        Some(Self::Stored(Box::new(StoredRefusal {
            reason: reason.to_owned(),
            code,
            message,
            metadata,
        })))
    }

    /// Code and reason of the contract's table.
    #[must_use]
    pub fn code(&self) -> Code<'_> {
        let (number, reason) = match self {
            Self::ClientUnknown => (16, "CLIENT_UNKNOWN"),
            Self::InvalidField(_) => (3, INVALID_FIELD),
            Self::OrgNotGranted => (7, "ORG_NOT_GRANTED"),
            Self::BillingAccountNotFound => (5, "BILLING_ACCOUNT_NOT_FOUND"),
            Self::RequestIdReused => (3, "REQUEST_ID_REUSED"),
            Self::UsageNotFound => (5, "USAGE_NOT_FOUND"),
            Self::RevertOfRevert => (9, "REVERT_OF_REVERT"),
            Self::NotAUsage => (9, "NOT_A_USAGE"),
            Self::RevertWindowClosed => (9, "REVERT_WINDOW_CLOSED"),
            Self::AlreadyReverted(_) => (6, "ALREADY_REVERTED"),
            Self::AmountExceedsUsage(_) => (3, "AMOUNT_EXCEEDS_USAGE"),
            Self::Stored(stored) => (stored.code, stored.reason.as_str()),
        };
        Code { number, reason }
    }

    /// One sentence for a person. Changes nothing between two answers to one request.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::ClientUnknown => {
                "nobody is known to ask: publish with the property user_id, the login of the connection"
            }
            Self::InvalidField(_) => "the request breaks the rules of its fields",
            // The same whether or not there is such an org: nobody is to learn that by asking.
            Self::OrgNotGranted => {
                "the client has no grant for this organization, project or billing account, if it exists; an operator \
                 gives one with: revertd grants add CLIENT ORG"
            }
            Self::BillingAccountNotFound => {
                "no such organization, project or billing account, or they do not belong together"
            }
            Self::RequestIdReused => "this message_id was used before for another request",
            Self::UsageNotFound => "no such usage in this billing account",
            Self::RevertOfRevert => "this is the id of a revert, and a revert can't be reverted",
            Self::NotAUsage => "this is the id of a credit, not of a usage",
            Self::RevertWindowClosed => "the usage is too old to be reverted",
            Self::AlreadyReverted(_) => "the usage was already reverted",
            Self::AmountExceedsUsage(_) => "the amount is more than what remains of the usage",
            Self::Stored(stored) => &stored.message,
        }
    }

    /// Metadata of the `ErrorInfo`.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        match self {
            Self::AlreadyReverted(metadata) | Self::AmountExceedsUsage(metadata) => {
                metadata.clone()
            }
            Self::Stored(stored) => stored.metadata.clone(),
            Self::ClientUnknown
            | Self::InvalidField(_)
            | Self::OrgNotGranted
            | Self::BillingAccountNotFound
            | Self::RequestIdReused
            | Self::UsageNotFound
            | Self::RevertOfRevert
            | Self::NotAUsage
            | Self::RevertWindowClosed => Metadata::new(),
        }
    }
}

impl Failure {
    /// The reasons of all failures.
    pub const REASONS: [&'static str; 2] = ["MALFORMED_REQUEST", "RETRIES_EXHAUSTED"];

    /// Code and reason of the contract's table.
    #[must_use]
    pub fn code(&self) -> Code<'static> {
        let (number, reason) = match self {
            Self::Malformed(_) => (3, "MALFORMED_REQUEST"),
            Self::RetriesExhausted(_) => (13, "RETRIES_EXHAUSTED"),
            Self::Unavailable(_) => (14, "RETRIES_EXHAUSTED"),
        };
        Code { number, reason }
    }

    /// One sentence for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Malformed(text) | Self::RetriesExhausted(text) | Self::Unavailable(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_statement_is_known() {
        for reason in Refusal::REASONS {
            let refusal = Refusal::from_reason(reason, Metadata::new()).expect(reason);
            assert_eq!(refusal.code().reason, reason);
        }
        assert_eq!(Refusal::from_reason("APPLIED", Metadata::new()), None);
    }

    #[test]
    fn labels_are_bounded_for_reasons_of_later_versions() {
        let known = Refusal::REASONS.iter().chain(&Failure::REASONS);
        assert!(known.copied().all(|reason| known_reason(reason) == reason));
        assert_eq!(known_reason("TOO_MANY_REVERTS"), OTHER_REASON);
        assert_eq!(known_reason(""), "");
    }
}
