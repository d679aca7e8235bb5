//! The facts on which a decision depends, apart from the history.

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::request::RevertRequest;

/// The settings that a decision depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionPolicy {
    /// Whether partial reverts add up (`revert.policy = "cumulative"`). Otherwise a usage is
    /// reverted once.
    pub is_cumulative: bool,
    /// Whether a client needs a grant for the org.
    pub needs_grants: bool,
}

/// What the database says about a request, apart from its history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether the client has a grant for the org; true if no client needs one.
    pub is_granted: bool,
    /// The account that the request names.
    pub account: Option<Account>,
    /// The entry of that account with the id of the usage.
    pub usage: Option<UsageFacts>,
}

/// An account and its org.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// The org that owns it.
    pub org_id: Uuid,
}

/// An entry that a request names as the usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageFacts {
    /// Whether the entry can be reverted.
    pub kind: EntryKind,
    /// Its amount.
    pub amount: i64,
    /// Whether it is older than `revert.max_age`.
    pub is_closed: bool,
    /// Whether another entry of the account names it.
    pub is_named: bool,
    /// When it was created, if that is later than the decision. `Some(None)` is a time that no
    /// event can contain.
    pub created_later: Option<Option<Timestamp>>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A debit.
    Usage,
    /// A credit that names a usage.
    Revert,
    /// Any other entry, such as a purchase.
    Other,
}

/// A request with its facts.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The request.
    pub request: &'a RevertRequest,
    /// What was read about it.
    pub facts: &'a Facts,
}

impl UsageFacts {
    /// The part of the usage that is not reverted. A usage with a negative amount has none.
    pub(super) fn remaining(&self, reverted: i64) -> i64 {
        self.amount.max(0).saturating_sub(reverted).max(0)
    }
}
