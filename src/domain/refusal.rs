//! The table of refusals and failures: reason, code, message, stored or not, in order of
//! precedence.
//!
//! Pure. Everything that is said of a reason elsewhere is derived from this table or is checked
//! against it by a test: the events, the HTTP statuses, the labels of the metrics, the lists of the
//! SQL statements, the API documents and docs/reference/refusals.md.

use crate::domain::rpc_code::RpcCode;

/// What is the same for every refusal or failure of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Reason of the `ErrorInfo`.
    pub reason: &'static str,
    /// Code of the event's error; the HTTP status follows from it.
    pub code: RpcCode,
    /// Whether its event has the routing key `denied.<org_id>` and repeats only the ids of the
    /// request.
    pub is_denied: bool,
    /// Whether the outcome of a request with a `message_id` is stored.
    pub is_stored: bool,
    /// One sentence for a person. The message of a failure differs from case to case; the column
    /// says what it tells.
    pub message: &'static str,
    /// When it applies, as the documentation says it.
    pub when: &'static str,
}

macro_rules! rows {
    ($(#[$meta:meta])* $name:ident: $($variant:ident { $($column:ident: $value:expr,)* })*) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the column `when` describes each")]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its row of the table.
            #[must_use]
            pub const fn row(self) -> &'static Row {
                match self {
                    $(Self::$variant => &Row { $($column: $value,)* },)*
                }
            }
        }
    };
}

rows! {
    /// Why a request is refused. The first that applies decides.
    RefusalReason:

    ClientUnknown {
        reason: "CLIENT_UNKNOWN",
        code: RpcCode::Unauthenticated,
        is_denied: true,
        is_stored: false,
        message: "user_id is missing; set it to the login of the connection",
        when: "the request has no `user_id` (not in mode `broker`)",
    }
    InvalidField {
        reason: "INVALID_FIELD",
        code: RpcCode::InvalidArgument,
        is_denied: false,
        is_stored: false,
        message: "the request breaks the rules of its fields",
        when: "a field is missing, has the wrong form or is out of range; every violation is \
            listed in a `google.rpc.BadRequest`",
    }
    OrgNotGranted {
        reason: "ORG_NOT_GRANTED",
        code: RpcCode::PermissionDenied,
        is_denied: true,
        is_stored: false,
        // The same whether the org exists or not, so that asking does not reveal it.
        message: "the client has no grant for this organization, project or billing account, if it \
            exists; an operator gives one with: revertd grants add CLIENT ORG",
        when: "the client has no [grant](../topics/authorization.md) for the org; also if the org, \
            project or account does not exist",
    }
    BillingAccountNotFound {
        reason: "BILLING_ACCOUNT_NOT_FOUND",
        code: RpcCode::NotFound,
        is_denied: false,
        is_stored: false,
        message: "no such organization, project or billing account, or they do not belong together",
        when: "the org, project or account does not exist, or they do not belong together. Only a \
            client with a grant for the org that it names, or for every org, gets this answer",
    }
    RequestIdReused {
        reason: "REQUEST_ID_REUSED",
        code: RpcCode::InvalidArgument,
        is_denied: false,
        is_stored: true,
        message: "this message_id was used before for another request",
        when: "the same client used this `message_id` before with other content",
    }
    UsageNotFound {
        reason: "USAGE_NOT_FOUND",
        code: RpcCode::NotFound,
        is_denied: false,
        is_stored: true,
        message: "no such usage in this billing account",
        when: "the account has no such usage; retried first",
    }
    RevertOfRevert {
        reason: "REVERT_OF_REVERT",
        code: RpcCode::FailedPrecondition,
        is_denied: false,
        is_stored: true,
        message: "this is the id of a revert, and a revert can't be reverted",
        when: "the id is that of a revert",
    }
    NotAUsage {
        reason: "NOT_A_USAGE",
        code: RpcCode::FailedPrecondition,
        is_denied: false,
        is_stored: true,
        message: "this is the id of a credit, not of a usage",
        when: "the id is that of another entry, such as a purchase",
    }
    RevertWindowClosed {
        reason: "REVERT_WINDOW_CLOSED",
        code: RpcCode::FailedPrecondition,
        is_denied: false,
        is_stored: true,
        message: "the usage is too old to be reverted",
        when: "the usage is older than `revert.max_age`, by the database's clock and the entry's \
            `created_at`",
    }
    AlreadyReverted {
        reason: "ALREADY_REVERTED",
        code: RpcCode::AlreadyExists,
        is_denied: false,
        is_stored: true,
        message: "the usage was already reverted",
        when: "policy `once`: the usage was already reverted, by any writer; metadata \
            `transaction_id`, `amount`, `time` of the earlier entry",
    }
    AmountExceedsUsage {
        reason: "AMOUNT_EXCEEDS_USAGE",
        code: RpcCode::InvalidArgument,
        is_denied: false,
        is_stored: true,
        message: "the amount is more than what remains of the usage",
        when: "the amount is more than the usage, or more than what remains of it; metadata \
            `usage_amount`, `remaining`",
    }
    GroupRefused {
        reason: "GROUP_REFUSED",
        code: RpcCode::Aborted,
        is_denied: false,
        is_stored: true,
        message: "another request of the atomic group was refused",
        when: "the request is in an [atomic group](../topics/groups.md#atomic-groups) of which \
            another request was refused; metadata `index` and `reason` of the first one",
    }
}

rows! {
    /// Why a message is dead-lettered. The first is decided before every refusal.
    FailureReason:

    MalformedRequest {
        reason: "MALFORMED_REQUEST",
        code: RpcCode::InvalidArgument,
        is_denied: false,
        is_stored: false,
        message: "what is wrong with the body, and where",
        when: "the body is not a JSON object, or is too large",
    }
    RetriesExhausted {
        reason: "RETRIES_EXHAUSTED",
        code: RpcCode::Internal,
        is_denied: false,
        is_stored: false,
        message: "the last error",
        when: "every attempt failed for a cause within the request, or the message was \
            dead-lettered unread; the request is in the dead-letter queue",
    }
    Unavailable {
        reason: "RETRIES_EXHAUSTED",
        code: RpcCode::Unavailable,
        is_denied: false,
        is_stored: false,
        message: "the last error",
        when: "every attempt failed for a cause outside the request, such as contention that did \
            not end; the request is in the dead-letter queue",
    }
}

impl RefusalReason {
    /// The reason of that name, if this version knows it.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|reason| reason.row().reason == name)
    }

    /// The names of all refusals, in the order of the table.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|reason| reason.row().reason).collect()
    }
}

impl FailureReason {
    /// The names of all failures, each once.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = Self::ALL.iter().map(|reason| reason.row().reason).collect();
        names.dedup();
        names
    }
}

/// The label of every reason that this version does not know.
pub const OTHER_REASON: &str = "OTHER";

/// A reason as a label, of which there are only so many: itself if this version knows it, otherwise
/// [`OTHER_REASON`]; empty if there is none.
#[must_use]
pub fn reason_label(reason: &str) -> &'static str {
    if reason.is_empty() {
        return "";
    }
    let refusals = RefusalReason::ALL.iter().map(|reason| reason.row());
    let failures = FailureReason::ALL.iter().map(|reason| reason.row());
    let known = refusals.chain(failures).map(|row| row.reason);
    known
        .into_iter()
        .find(|known| *known == reason)
        .unwrap_or(OTHER_REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_spelled_as_its_variant() {
        let shouted = |variant: String| {
            let mut name = String::new();
            for letter in variant.chars() {
                if letter.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            name
        };
        for reason in RefusalReason::ALL {
            assert_eq!(shouted(format!("{reason:?}")), reason.row().reason);
            assert_eq!(RefusalReason::of_name(reason.row().reason), Some(*reason));
        }
        assert_eq!(RefusalReason::of_name("APPLIED"), None);
    }

    #[test]
    fn a_denied_request_is_not_stored() {
        for reason in RefusalReason::ALL {
            let Row {
                is_denied,
                is_stored,
                ..
            } = reason.row();
            assert!(!(*is_denied && *is_stored), "{reason:?}");
        }
        let is_final = |reason: &FailureReason| reason.row().is_stored || reason.row().is_denied;
        assert!(!FailureReason::ALL.iter().any(is_final));
    }

    #[test]
    fn labels_are_bounded() {
        for name in RefusalReason::names()
            .into_iter()
            .chain(FailureReason::names())
        {
            assert_eq!(reason_label(name), name);
        }
        assert_eq!(reason_label("TOO_MANY_REVERTS"), OTHER_REASON);
        assert_eq!(reason_label(""), "");
    }
}
