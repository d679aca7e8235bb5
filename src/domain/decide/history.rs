//! What is stored about requests and usages: outcomes, and the reverts of a usage.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::outcome::{Decision, Metadata};
use crate::domain::request::RevertRequest;

/// The stored outcomes of requests and the reverts of usages. What was not looked up is not there.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Outcomes by id.
    pub outcomes: HashMap<Uuid, StoredOutcome>,
    /// Reverts by usage.
    pub usages: HashMap<Uuid, Reverts>,
}

/// An outcome that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOutcome {
    /// The digest of the request's fields.
    pub content: Uuid,
    /// The answer to the same request, or the request's failure if the row cannot be read.
    pub decision: Decision,
}

/// The reverts of a usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reverts {
    /// Those by revertd's own record, which is valid even if they were removed from the ledger.
    pub own: Option<OwnReverts>,
    /// The number of reverts in the ledger, by any writer.
    pub count: i64,
    /// Their sum, limited to the largest bigint.
    pub total: i64,
    /// The earliest of them, as metadata of a refusal.
    pub earliest: Option<Metadata>,
    /// Numbers for ids of new entries that no entry has, the smallest first.
    pub free_numbers: Vec<i64>,
}

/// revertd's own reverts of a usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnReverts {
    /// How many there are.
    pub count: u64,
    /// Their sum.
    pub total: i64,
    /// The last one, as metadata of a refusal.
    pub last: Metadata,
}

/// What is stored about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Earlier<'a> {
    /// Nothing under its id.
    New,
    /// The decision on the same request: its own, or the refusal of its content under a used id.
    Same(&'a Decision, Source),
    /// Only other content under its id.
    Reused,
}

/// Where a decision is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It was found in the database.
    History,
    /// This batch stores it.
    Batch,
}

/// A usage without a revert. Its first entry has number 0.
const NONE: &Reverts = &Reverts {
    own: None,
    count: 0,
    total: 0,
    earliest: None,
    free_numbers: Vec::new(),
};

impl History {
    /// What is stored about a request. `in_batch` says which content, and which decision, this
    /// batch stores under an id.
    pub(super) fn earlier<'a>(
        &'a self,
        request: &RevertRequest,
        in_batch: impl Fn(Uuid) -> Option<(Uuid, &'a Decision)>,
    ) -> Earlier<'a> {
        let stored = |id| {
            let stored = self.outcomes.get(&id)?;
            Some((stored.content, &stored.decision, Source::History))
        };
        let in_batch = |id| in_batch(id).map(|(content, ruled)| (content, ruled, Source::Batch));
        let find = |id| stored(id).or_else(|| in_batch(id));
        match find(request.id) {
            None => Earlier::New,
            Some((content, decision, source)) if content == request.content => {
                Earlier::Same(decision, source)
            }
            Some(_) => match find(request.reuse_id) {
                Some((_, decision, source)) => Earlier::Same(decision, source),
                None => Earlier::Reused,
            },
        }
    }

    pub(super) fn reverts(&self, usage: Uuid) -> &Reverts {
        self.usages.get(&usage).unwrap_or(NONE)
    }
}

impl Reverts {
    /// Metadata of the earliest revert, if there is any.
    pub(super) fn earliest(&self) -> Option<Metadata> {
        if self.count == 0 && self.own.is_none() {
            return None;
        }
        let own = || self.own.as_ref().map(|own| own.last.clone());
        self.earliest.clone().or_else(own).or(Some(Metadata::new()))
    }

    /// The amount that is reverted, by any writer.
    pub(super) fn total(&self) -> i64 {
        self.total.max(self.own_total())
    }

    /// The part of it that other writers reverted, unless it is 0.
    pub(super) fn by_others(&self) -> Option<i64> {
        let others = self.total.saturating_sub(self.own_total());
        (others > 0).then_some(others)
    }

    pub(super) fn own_count(&self) -> u64 {
        self.own.as_ref().map_or(0, |own| own.count)
    }

    /// The number for the id of the n-th entry that a batch adds.
    pub(super) fn free_number(&self, n: usize) -> Option<i64> {
        if self == NONE {
            return i64::try_from(n).ok();
        }
        self.free_numbers.get(n).copied()
    }

    fn own_total(&self) -> i64 {
        self.own.as_ref().map_or(0, |own| own.total)
    }
}

/// Metadata of the refusal of a request whose usage this revert reverted.
#[must_use]
pub fn earlier(transaction_id: Uuid, amount: i64, time: Option<Timestamp>) -> Metadata {
    let mut metadata = Metadata::from([
        ("transaction_id".to_owned(), transaction_id.to_string()),
        ("amount".to_owned(), amount.to_string()),
    ]);
    if let Some(time) = time {
        metadata.insert("time".to_owned(), format!("{time:.6}"));
    }
    metadata
}
