//! Decides the requests of a batch: the contract's table, applied to facts that were read before.
//!
//! Pure. `src/ledger/apply` reads the facts and writes the rulings.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use batch::Batch;

mod batch;
mod entry_id;
mod facts;
mod group;
mod history;
mod ruling;
#[cfg(test)]
mod tests;

pub use facts::{Account, DecisionPolicy, EntryKind, Facts, Question, UsageFacts};
pub use history::{History, OwnReverts, Reverts, StoredOutcome};
pub use ruling::{NewRevert, Ruling, Write};

/// Decides `questions` in the order of delivery: each counts the ones before it. Adjacent members
/// of one atomic group are decided together.
#[must_use]
pub fn decide(
    questions: &[Question<'_>],
    history: &History,
    policy: DecisionPolicy,
    now: Timestamp,
) -> Vec<Ruling> {
    let mut batch = Batch::new(questions, history, policy, now);
    for unit in questions.chunk_by(|one, next| one.request.is_grouped_with(next.request)) {
        if unit[0].request.member.is_some() {
            batch.rule_group(unit);
        } else {
            batch.rule(&unit[0]);
        }
    }
    batch.rulings
}

/// The requests that can only be decided with their history: every request that is not reverted
/// without it, whose usage another entry names, or that shares its usage or its id with another
/// request of the batch. The outcome of another request may exist nevertheless; then a unique key
/// fails the statement that writes.
#[must_use]
pub fn needs_history(questions: &[Question<'_>], rulings: &[Ruling]) -> Vec<bool> {
    let mut of_usage: HashMap<Uuid, u32> = HashMap::with_capacity(questions.len());
    let mut of_id: HashMap<Uuid, u32> = HashMap::with_capacity(questions.len());
    for Question { request, .. } in questions {
        *of_usage.entry(request.fields.usage_id).or_default() += 1;
        *of_id.entry(request.id).or_default() += 1;
    }
    let needs = |(question, ruling): (&Question<'_>, &Ruling)| {
        let Question { request, facts, .. } = *question;
        !matches!(ruling.write, Write::Revert(_))
            || facts.usage.as_ref().is_none_or(|usage| usage.is_named)
            || of_usage[&request.fields.usage_id] > 1
            || of_id[&request.id] > 1
    };
    questions.iter().zip(rulings).map(needs).collect()
}
